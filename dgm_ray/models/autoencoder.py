"""The autoencoder and the denoising one: components with an encoder and a decoder, and the model that trains them.

Sources: Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders"; MIDA: Gondara and
Wang 2018, "MIDA: Multiple Imputation using Denoising Autoencoders", arXiv:1705.02737.
"""

from functools import partial
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models.networks import MultiInputEncoder, MultiOutputDecoder, SingleInputEncoder, SingleOutputDecoder
from dgm_ray.models.phase import Batch, Phase
from dgm_ray.nn import Dropout, FeedForward, HiddenLayers, Optimizer, Outputs, Sigmoid, SingleOutputLayer, expectations
from dgm_ray.registry import Lazy, PositiveInt, Shared, register

SingleEncoder = Lazy[SingleInputEncoder]  # type: ignore[valid-type]
SingleDecoder = Lazy[SingleOutputDecoder]  # type: ignore[valid-type]
MultiEncoder = Lazy[MultiInputEncoder]  # type: ignore[valid-type]
MultiDecoder = Lazy[MultiOutputDecoder]  # type: ignore[valid-type]


@runtime_checkable
class EncodesAndDecodes(Protocol):
    """What a model needs of its ``autoencoder``. ``condition``: the labels if the architecture is conditional."""

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor: ...

    def decode(self, code: Tensor, *condition: Tensor) -> Tensor: ...

    def __call__(self, features: Tensor, *condition: Tensor) -> Outputs: ...


class EncoderDecoder(nn.Module):
    """An encoder and a decoder, trained together."""

    def __init__(self, encoder: FeedForward, decoder: FeedForward) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        code: Tensor = self.encoder(features, *condition)  # (rows, code_size)
        return code

    def decode(self, code: Tensor, *condition: Tensor) -> Tensor:
        features: Tensor = self.decoder(code, *condition)  # (rows, num_features)
        return features

    def forward(self, features: Tensor, *condition: Tensor) -> Outputs:
        code = self.encode(features, *condition)
        return Outputs(code, self.decode(code, *condition))


class DeNoising(nn.Module):
    """An autoencoder whose input a noise layer disturbs while it trains; the target is the undisturbed row."""

    def __init__(self, autoencoder: EncoderDecoder, noise_layer: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.noise_layer = noise_layer

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self.autoencoder.encode(self.noise_layer(features), *condition)

    def decode(self, code: Tensor, *condition: Tensor) -> Tensor:
        return self.autoencoder.decode(code, *condition)

    def forward(self, features: Tensor, *condition: Tensor) -> Outputs:
        outputs: Outputs = self.autoencoder(self.noise_layer(features), *condition)
        return outputs


@register
def SingleVariableAutoEncoder(encoder: SingleEncoder, decoder: SingleDecoder) -> EncoderDecoder:
    """An autoencoder that ignores the variables' types."""
    return EncoderDecoder(encoder(), decoder())


@register
def MultiVariableAutoEncoder(encoder: MultiEncoder, decoder: MultiDecoder) -> EncoderDecoder:
    """An autoencoder with embeddings for categorical inputs and a head per block of variables."""
    return EncoderDecoder(encoder(), decoder())


@register
def SingleVariableDeNoisingAutoencoder(
    encoder: SingleEncoder, decoder: SingleDecoder, noise_layer: nn.Module | None = None
) -> DeNoising:
    """A denoising autoencoder that ignores the variables' types.

    noise_layer: what disturbs the input, such as Dropout or AdditiveNormalNoise; without one nothing does.
    """
    return DeNoising(EncoderDecoder(encoder(), decoder()), noise_layer or nn.Identity())


@register
def MultiVariableDeNoisingAutoencoder(
    encoder: MultiEncoder, decoder: MultiDecoder, noise_layer: nn.Module | None = None
) -> DeNoising:
    """A denoising autoencoder with embeddings and a head per block of variables. See the Single variant."""
    return DeNoising(EncoderDecoder(encoder(), decoder()), noise_layer or nn.Identity())


@register
def SingleVariableMIDA(
    metadata: Shared[Metadata],
    encoder: SingleEncoder | None = None,
    decoder: SingleDecoder | None = None,
    noise_layer: nn.Module | None = None,
    theta: PositiveInt | None = None,
) -> DeNoising:
    """MIDA's autoencoder, ignoring the variables' types: over-complete layers behind a corrupted input.

    encoder, decoder: as the original library gives them. theta: the paper's form instead of them: n features grow by
    theta units a layer, n + theta, n + 2 theta, n + 3 theta (the code), and shrink back in the same steps, with tanh;
    the paper has 7. noise_layer: what corrupts the input; dropout of half of the cells, the paper's, by default.

    Differs from the paper: cells lie in [0, 1], so the output is a sigmoid, where the paper standardises cells.
    """
    if theta is not None:
        if encoder or decoder:
            raise ConfigurationError("theta", "takes the place of encoder and decoder: give one of both", theta)
        sizes = tuple(metadata.num_features + step * theta for step in (1, 2, 3))
        wider, narrower = (partial(HiddenLayers, sizes=some) for some in (sizes[:2], sizes[1::-1]))
        output = partial(SingleOutputLayer, activation=Sigmoid())
        inner = SingleInputEncoder(metadata, sizes[2], wider, nn.Tanh())
        return DeNoising(
            EncoderDecoder(inner, SingleOutputDecoder(metadata, sizes[2], narrower, output)),
            noise_layer or Dropout(0.5),
        )
    if encoder is None or decoder is None:
        raise ConfigurationError("theta", "is needed where there is no encoder and decoder")
    return DeNoising(EncoderDecoder(encoder(), decoder()), noise_layer or Dropout(0.5))


@register
def MultiVariableMIDA(encoder: MultiEncoder, decoder: MultiDecoder, noise_layer: nn.Module | None = None) -> DeNoising:
    """MIDA's autoencoder with embeddings and a head per block of variables.

    noise_layer: what corrupts the input; dropout of half of the cells, the paper's, by default.
    """
    return DeNoising(EncoderDecoder(encoder(), decoder()), noise_layer or Dropout(0.5))


class AutoEncoder(nn.Module):
    """Train an autoencoder of any kind to reconstruct its input; impute by reconstruction."""

    def __init__(
        self,
        autoencoder: Shared[EncodesAndDecodes],
        autoencoder_optimizer: Shared[Optimizer],
        reconstruction_loss: Shared[nn.Module],
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.reconstruction_loss = reconstruction_loss
        self._optimizer = autoencoder_optimizer

    def phases(self) -> list[Phase]:
        return [Phase("autoencoder", self._optimizer, self.loss)]

    def loss(self, batch: Batch) -> Tensor:
        """Return the reconstruction loss of a batch, a scalar."""
        outputs = self.autoencoder(batch.features, *batch.condition)
        loss: Tensor = self.reconstruction_loss(outputs, batch.features, batch.missing_mask)
        return loss

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self.autoencoder.encode(features, *condition)

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        with expectations(self):
            return self.autoencoder(features, *condition).reconstructed

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruct(features, missing_mask, *condition)
