"""The variational autoencoder.

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114.
"""

import torch
from torch import Tensor, nn

from dgm_ray.models.autoencoder import (
    AutoEncoder,
    EncoderDecoder,
    MultiDecoder,
    MultiEncoder,
    SingleDecoder,
    SingleEncoder,
)
from dgm_ray.models.phase import Batch, Phase, draw_noise
from dgm_ray.nn import Optimizer, Outputs
from dgm_ray.registry import PositiveInt, Shared, register


class Variational(nn.Module):
    """An autoencoder whose code is drawn: mu + noise * exp(log_var / 2), both linear in what the encoder gives.

    In evaluation the code is mu (the original's is drawn there as well: defect 17).
    """

    def __init__(self, autoencoder: EncoderDecoder, code_size: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.mu_layer = nn.Linear(code_size, code_size)
        self.log_var_layer = nn.Linear(code_size, code_size)

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self._codes(features, *condition)[0]

    def decode(self, code: Tensor, *condition: Tensor) -> Tensor:
        return self.autoencoder.decode(code, *condition)

    def forward(self, features: Tensor, *condition: Tensor) -> Outputs:
        code, mu, log_var = self._codes(features, *condition)
        return Outputs(code, self.decode(code, *condition), mu, log_var)

    def _codes(self, features: Tensor, *condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.autoencoder.encode(features, *condition)
        mu, log_var = self.mu_layer(hidden), self.log_var_layer(hidden)  # (rows, code_size)
        code = drawn_code(mu, log_var) if self.training else mu
        return code, mu, log_var

    def draw(self, features: Tensor, *condition: Tensor) -> Tensor:
        """Return rows decoded from codes that are drawn, in evaluation too: (rows, num_features)."""
        _, mu, log_var = self._codes(features, *condition)
        return self.decode(drawn_code(mu, log_var), *condition)


def drawn_code(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return mu + noise * exp(log_var / 2), of their shape (rows, code_size)."""
    return mu + torch.randn_like(mu) * torch.exp(log_var / 2)


@register
def SingleVariableVAE(code_size: Shared[PositiveInt], encoder: SingleEncoder, decoder: SingleDecoder) -> Variational:
    """A variational autoencoder that ignores the variables' types."""
    return Variational(EncoderDecoder(encoder(), decoder()), code_size)


@register
def MultiVariableVAE(code_size: Shared[PositiveInt], encoder: MultiEncoder, decoder: MultiDecoder) -> Variational:
    """A variational autoencoder with embeddings for categorical inputs and a head per block of variables."""
    return Variational(EncoderDecoder(encoder(), decoder()), code_size)


_CHAIN = 10  # steps of a pseudo-Gibbs chain at least


class VAE(nn.Module):
    """Train a variational autoencoder; sample by decoding noise, impute by reconstruction.

    imputation_passes: how often the imputed cells go in again, after their first values: 1 imputes in one pass. Several
    imputations (``draw``) are the last states of pseudo-Gibbs chains of so many steps, at least 10: draw a code, decode
    it, put the observed cells back (Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082, section F).
    Differs from it: the decoder gives expected values, so that a draw lacks the noise of single cells.
    """

    def __init__(
        self,
        code_size: Shared[PositiveInt],
        autoencoder: Shared[Variational],
        autoencoder_optimizer: Shared[Optimizer],
        reconstruction_loss: Shared[nn.Module],
        *,
        imputation_passes: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self._passes = imputation_passes
        self.reconstruction = AutoEncoder(autoencoder, autoencoder_optimizer, reconstruction_loss)
        self._code_size = code_size

    def phases(self) -> list[Phase]:
        return self.reconstruction.phases()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return self.reconstruction.loss(batch)

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.encode(features, *condition)

    def sample(self, rows: int, device: torch.device, *condition: Tensor) -> Tensor:
        return self.reconstruction.autoencoder.decode(draw_noise(rows, self._code_size, device), *condition)

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.reconstruct(features, missing_mask, *condition)

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        for _ in range(self._passes):
            features = torch.where(missing_mask != 0, self.reconstruct(features, missing_mask, *condition), features)
        return features

    def draw(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        """Return one of several imputations, (rows, num_features)."""
        autoencoder = self.reconstruction.autoencoder
        assert isinstance(autoencoder, Variational)
        for _ in range(max(self._passes, _CHAIN)):
            drawn = autoencoder.draw(features, *condition)
            features = torch.where(missing_mask != 0, drawn, features)
        return features
