"""MedGAN: a generator of codes behind the decoder of an autoencoder.

Source: Choi et al. 2017, "Generating Multi-label Discrete Patient Records using Generative Adversarial Networks",
arXiv 1703.06490.

Differs from the paper: the autoencoder trains in the same epochs as the adversaries (``autoencoder_steps`` per cycle)
instead of before them, as in the original library. The decoder follows the generator's loss if the generator's
optimizer names the autoencoder (``parameters: [generator, autoencoder]``), as in the paper.
"""

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.models.autoencoder import AutoEncoder, EncodesAndDecodes
from dgm_ray.models.gan import GAN
from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import Phase
from dgm_ray.nn import Conditional, Optimizer
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared


class Decoded(nn.Module):
    """A generator of codes and the decoder behind it: noise (rows, noise_size) -> features (rows, num_features)."""

    def __init__(self, generator: nn.Module, autoencoder: EncodesAndDecodes) -> None:
        super().__init__()
        self.generator, self.autoencoder = generator, autoencoder

    def forward(self, noise: Tensor, *condition: Tensor) -> Tensor:
        return self.autoencoder.decode(self.generator(noise, *condition), *condition)


class MedGAN(nn.Module):
    """Train an autoencoder, and a GAN whose fake rows are ``decode(generator(noise))``.

    autoencoder_steps, discriminator_steps, generator_steps: steps per cycle. noise_search: how rows are imputed.
    mask_generated: hide from the discriminator what is missing in the batch in generated rows as well, see GAN.
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
        mask_generated: bool = False,
    ) -> None:
        super().__init__()
        self.reconstruction = AutoEncoder(autoencoder, autoencoder_optimizer, reconstruction_loss)
        self.adversaries = GAN(
            metadata,
            noise_size,
            Decoded(generator, autoencoder),
            discriminator,
            generator_optimizer,
            discriminator_optimizer,
            generator_loss,
            discriminator_loss,
            conditional,
            discriminator_steps=discriminator_steps,
            generator_steps=generator_steps,
            noise_search=noise_search,
            mask_generated=mask_generated,
        )
        self._autoencoder_steps = autoencoder_steps

    def phases(self) -> list[Phase]:
        (reconstruction,) = self.reconstruction.phases()
        return [reconstruction._replace(steps=self._autoencoder_steps), *self.adversaries.phases()]

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.encode(features, *condition)

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruction.reconstruct(features, missing_mask, *condition)

    def sample(self, rows: int, device: torch.device, *condition: Tensor) -> Tensor:
        return self.adversaries.sample(rows, device, *condition)

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.adversaries.impute(features, missing_mask, *condition)
