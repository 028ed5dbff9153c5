"""Generative adversarial networks: GAN, WGAN and WGAN-GP differ in their losses and optimizers, not in their phases.

Sources: Goodfellow et al. 2014, arXiv 1406.2661; Arjovsky et al. 2017, arXiv 1701.07875; Gulrajani et al. 2017,
arXiv 1704.00028.
"""

import torch
from torch import Tensor, nn

from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import Batch, Phase, draw_noise
from dgm_ray.nn import Optimizer
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared


class GAN(nn.Module):
    """Train a generator against a discriminator, or against a critic that is called ``discriminator`` as well.

    discriminator_steps, generator_steps: steps per cycle. noise_search: how rows are imputed.
    """

    def __init__(
        self,
        noise_size: Shared[PositiveInt],
        generator: Shared[nn.Module],
        discriminator: Shared[nn.Module],
        generator_optimizer: Shared[Optimizer],
        discriminator_optimizer: Shared[Optimizer],
        generator_loss: Shared[nn.Module],
        discriminator_loss: Shared[nn.Module],
        *,
        discriminator_steps: NonNegativeInt = 1,
        generator_steps: NonNegativeInt = 1,
        noise_search: NoiseSearch = NoiseSearch(),
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.generator_loss, self.discriminator_loss = generator_loss, discriminator_loss
        self._noise_size, self._noise_search = noise_size, noise_search
        self._generator_optimizer, self._discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self._generator_steps, self._discriminator_steps = generator_steps, discriminator_steps

    def phases(self) -> list[Phase]:
        return [
            Phase(
                "discriminator", self._discriminator_optimizer, self.loss_of_discriminator, self._discriminator_steps
            ),
            Phase(
                "generator", self._generator_optimizer, self.loss_of_generator, self._generator_steps, takes_data=False
            ),
        ]

    def loss_of_discriminator(self, batch: Batch) -> Tensor:
        """Return how badly real rows are told from generated ones, a scalar."""
        with torch.no_grad():
            fake = self.sample(batch.rows, batch.device)
        loss: Tensor = self.discriminator_loss(self.discriminator, batch.features, fake)
        return loss

    def loss_of_generator(self, batch: Batch) -> Tensor:
        """Return how well generated rows are told from real ones, a scalar."""
        loss: Tensor = self.generator_loss(self.discriminator, self.sample(batch.rows, batch.device))
        return loss

    def generate(self, noise: Tensor) -> Tensor:
        """Return the (rows, num_features) features of (rows, noise_size) noise."""
        features: Tensor = self.generator(noise)
        return features

    def sample(self, rows: int, device: torch.device) -> Tensor:
        return self.generate(draw_noise(rows, self._noise_size, device))

    def impute(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        noise = draw_noise(len(features), self._noise_size, features.device)
        return self._noise_search(self, self.generate, noise, features, missing_mask)
