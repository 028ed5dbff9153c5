"""The autoencoder: a component with an encoder and a decoder, and the model that trains it alone."""

from typing import NamedTuple

from torch import Tensor, nn

from dgm_ray.models.networks import MultiInputEncoder, MultiOutputDecoder, SingleInputEncoder, SingleOutputDecoder
from dgm_ray.models.phase import Batch, Phase
from dgm_ray.nn import AutoEncoderLoss, FeedForward, Optimizer, expectations
from dgm_ray.registry import Lazy, Shared, register


class Outputs(NamedTuple):
    """What an autoencoder makes of a batch."""

    code: Tensor  # (rows, code_size)
    reconstructed: Tensor  # (rows, num_features)


class EncoderDecoder(nn.Module):
    """An encoder and a decoder, trained together."""

    def __init__(self, encoder: FeedForward, decoder: FeedForward) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, features: Tensor) -> Tensor:
        code: Tensor = self.encoder(features)  # (rows, code_size)
        return code

    def decode(self, code: Tensor) -> Tensor:
        features: Tensor = self.decoder(code)  # (rows, num_features)
        return features

    def forward(self, features: Tensor) -> Outputs:
        code = self.encode(features)
        return Outputs(code, self.decode(code))


@register
def SingleVariableAutoEncoder(
    encoder: Lazy[SingleInputEncoder],  # type: ignore[valid-type]
    decoder: Lazy[SingleOutputDecoder],  # type: ignore[valid-type]
) -> EncoderDecoder:
    """An autoencoder that ignores the variables' types."""
    return EncoderDecoder(encoder(), decoder())


@register
def MultiVariableAutoEncoder(
    encoder: Lazy[MultiInputEncoder],  # type: ignore[valid-type]
    decoder: Lazy[MultiOutputDecoder],  # type: ignore[valid-type]
) -> EncoderDecoder:
    """An autoencoder with embeddings for categorical inputs and a head per block of variables."""
    return EncoderDecoder(encoder(), decoder())


class AutoEncoder(nn.Module):
    """Train an autoencoder to reconstruct its input; impute by reconstruction."""

    def __init__(
        self,
        autoencoder: Shared[EncoderDecoder],
        autoencoder_optimizer: Shared[Optimizer],
        reconstruction_loss: Shared[AutoEncoderLoss],
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.reconstruction_loss = reconstruction_loss
        self._optimizer = autoencoder_optimizer

    def phases(self) -> list[Phase]:
        return [Phase("autoencoder", self._optimizer, self.loss)]

    def loss(self, batch: Batch) -> Tensor:
        """Return the reconstruction loss of a batch, a scalar."""
        outputs = self.autoencoder(batch.features)
        loss: Tensor = self.reconstruction_loss(outputs.reconstructed, batch.features, batch.missing_mask)
        return loss

    def encode(self, features: Tensor) -> Tensor:
        return self.autoencoder.encode(features)

    def impute(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        with expectations(self.autoencoder):
            outputs: Outputs = self.autoencoder(features)
        return outputs.reconstructed
