"""Generative adversarial networks: GAN, WGAN and WGAN-GP differ in their losses and optimizers, not in their phases.

Sources: Goodfellow et al. 2014, arXiv 1406.2661; Arjovsky et al. 2017, arXiv 1701.07875; Gulrajani et al. 2017,
arXiv 1704.00028.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.models.noise_search import NoiseSearch
from dgm_ray.models.phase import Batch, Phase, draw_labels, draw_noise
from dgm_ray.nn import Conditional, Optimizer
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared


class GAN(nn.Module):
    """Train a generator against a discriminator, or against a critic that is called ``discriminator`` as well.

    discriminator_steps, generator_steps: steps per cycle. noise_search: how rows are imputed.
    mask_generated: hide from the discriminator what is missing in the batch in generated rows as well, so that the
    generator is judged by observed cells alone (Bora et al. 2018, "AmbientGAN"; Li et al. 2019, MisGAN,
    arXiv:1902.09599). Without it what fills the missing cells of real rows is learnt as if it were data.
    # Differs from MisGAN: the masks are those of the rows, not generated ones.

    A conditional generator learns from labels drawn evenly from all classes. # Differs from the original, which draws
    numbers between the classes (defect 4).
    """

    def __init__(
        self,
        metadata: Shared[Metadata],
        noise_size: Shared[PositiveInt],
        generator: Shared[nn.Module],
        discriminator: Shared[nn.Module],
        generator_optimizer: Shared[Optimizer],
        discriminator_optimizer: Shared[Optimizer],
        generator_loss: Shared[nn.Module],
        discriminator_loss: Shared[nn.Module],
        conditional: Shared[Conditional] | None = None,
        *,
        discriminator_steps: NonNegativeInt = 1,
        generator_steps: NonNegativeInt = 1,
        noise_search: NoiseSearch = NoiseSearch(),
        mask_generated: bool = False,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.generator_loss, self.discriminator_loss = generator_loss, discriminator_loss
        self._num_classes = metadata.num_classes if conditional else 0
        self._noise_size, self._noise_search = noise_size, deepcopy(noise_search)  # the default is everyone's
        self._generator_optimizer, self._discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self._generator_steps, self._discriminator_steps = generator_steps, discriminator_steps
        self._mask_generated = mask_generated

    def phases(self) -> list[Phase]:
        return [
            Phase(
                "discriminator", self._discriminator_optimizer, self.loss_of_discriminator, self._discriminator_steps
            ),
            Phase(
                "generator",
                self._generator_optimizer,
                self.loss_of_generator,
                self._generator_steps,
                takes_data=self._mask_generated,
            ),
        ]

    def loss_of_discriminator(self, batch: Batch) -> Tensor:
        """Return how badly real rows are told from generated ones, a scalar."""
        with torch.no_grad():
            fake = self._masked(self.sample(batch.rows, batch.device, *batch.condition), batch)
        loss: Tensor = self.discriminator_loss(self.discriminator, batch.features, fake, *batch.condition)
        return loss

    def loss_of_generator(self, batch: Batch) -> Tensor:
        """Return how well generated rows are told from real ones, a scalar."""
        labels = (draw_labels(batch.rows, self._num_classes, batch.device),) if self._num_classes else ()
        fake = self._masked(self.sample(batch.rows, batch.device, *labels), batch)
        loss: Tensor = self.generator_loss(self.discriminator, fake, *labels)
        return loss

    def _masked(self, fake: Tensor, batch: Batch) -> Tensor:
        """Return generated rows with the batch's missing cells missing, and filled as they are: (rows, columns)."""
        if not self._mask_generated or batch.missing_mask is None:
            return fake
        return torch.where(batch.missing_mask != 0, batch.features, fake)

    def sample(self, rows: int, device: torch.device, *condition: Tensor) -> Tensor:
        features: Tensor = self.generator(draw_noise(rows, self._noise_size, device), *condition)
        return features

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        noise = draw_noise(len(features), self._noise_size, features.device)
        found: Tensor = self._noise_search(self.generator, noise, features, missing_mask, *condition)
        return found
