"""ARAE: a GAN over the codes of an autoencoder.

Source: Zhao et al. 2018, "Adversarially Regularized Autoencoders", arXiv:1706.04223.

Differs from the paper: the encoder does not follow the critic's loss (as in the original library, whose optimizer
cleared those gradients before they were used), so the codes are shaped by reconstruction alone.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.models.autoencoder import AutoEncoder, EncodesAndDecodes
from dgm_ray.models.gan import GAN
from dgm_ray.models.medgan import Decoded
from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import Batch, Phase, draw_noise
from dgm_ray.nn import Conditional, Optimizer
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared


class ARAE(nn.Module):
    """Train an autoencoder, and a generator of codes against a discriminator (or critic) of codes.

    generator: gives codes (CodeGenerator). discriminator: takes codes (CodeDiscriminator, CodeCritic).
    autoencoder_steps, discriminator_steps, generator_steps: steps per cycle. noise_search: how rows are imputed.
    """

    def __init__(
        self,
        metadata: Shared[Metadata],
        noise_size: Shared[PositiveInt],
        autoencoder: Shared[EncodesAndDecodes],
        generator: Shared[nn.Module],
        discriminator: Shared[nn.Module],
        autoencoder_optimizer: Shared[Optimizer],
        generator_optimizer: Shared[Optimizer],
        discriminator_optimizer: Shared[Optimizer],
        reconstruction_loss: Shared[nn.Module],
        generator_loss: Shared[nn.Module],
        discriminator_loss: Shared[nn.Module],
        conditional: Shared[Conditional] | None = None,
        *,
        autoencoder_steps: NonNegativeInt = 1,
        discriminator_steps: NonNegativeInt = 1,
        generator_steps: NonNegativeInt = 1,
        noise_search: NoiseSearch = NoiseSearch(),
    ) -> None:
        super().__init__()
        self.reconstruction = AutoEncoder(autoencoder, autoencoder_optimizer, reconstruction_loss)
        self.adversaries = GAN(  # its rows are codes
            metadata,
            noise_size,
            generator,
            discriminator,
            generator_optimizer,
            discriminator_optimizer,
            generator_loss,
            discriminator_loss,
            conditional,
            discriminator_steps=discriminator_steps,
            generator_steps=generator_steps,
        )
        self._decoded = Decoded(generator, autoencoder)
        self._autoencoder_steps, self._noise_size = autoencoder_steps, noise_size
        self._noise_search = deepcopy(noise_search)  # the default is everyone's

    def phases(self) -> list[Phase]:
        (reconstruction,) = self.reconstruction.phases()
        discriminator, generator = self.adversaries.phases()
        return [
            reconstruction._replace(steps=self._autoencoder_steps),
            discriminator._replace(loss=self.loss_of_discriminator),
            generator,
        ]

    def loss_of_discriminator(self, batch: Batch) -> Tensor:
        """Return how badly codes of real rows are told from generated ones, a scalar."""
        with torch.no_grad():
            codes = self.encode(batch.features, *batch.condition)  # (rows, code_size)
        return self.adversaries.loss_of_discriminator(batch._replace(features=codes))

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.encode(features, *condition)

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.reconstruct(features, missing_mask, *condition)

    def sample(self, rows: int, device: torch.device, *condition: Tensor) -> Tensor:
        features: Tensor = self._decoded(draw_noise(rows, self._noise_size, device), *condition)
        return features

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        noise = draw_noise(len(features), self._noise_size, features.device)
        found: Tensor = self._noise_search(self._decoded, noise, features, missing_mask, *condition)
        return found
