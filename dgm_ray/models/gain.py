"""GAIN: a generator that imputes cells, and a discriminator that says of each cell whether it was imputed.

Source: Yoon et al. 2018, "GAIN: Missing Data Imputation using Generative Adversarial Nets", arXiv:1806.02920.

A mask holds 1 where a cell is missing (the paper: where it is observed). Cells that are missing are never looked at:
their places hold what the trial's imputation layer puts there (the paper: noise, NormalNoiseImputation).
"""

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models.phase import Batch, Phase
from dgm_ray.nn import Optimizer, expectations
from dgm_ray.nn.masks import column_variables, draw_mask, hide
from dgm_ray.registry import NonNegativeInt, Probability, Shared


class GAIN(nn.Module):
    """Train a generator to impute missing cells so that a discriminator cannot tell them from observed ones.

    discriminator_steps, generator_steps: steps per cycle, each with its own batch. hint_probability: how much of the
    mask the discriminator is shown, per variable, in [0, 1]. hint_unrevealed: what stands in the hint where nothing
    is shown: 0.5 as in the paper (equation 7); 0, which looks like "observed", as in the original library (defect 21);
    1, which looks like "missing", as in the authors' code.
    hide_probability: how many of the observed variables of a row are hidden from the generator in training as well, and
    have to be told, as a masked autoencoder learns (Du et al. 2023, arXiv:2309.13793); in [0, 1]. The paper has 0,
    where the generator is never told what belongs into a missing cell.
    """

    columns: Tensor
    hint_probability: Tensor
    hint_unrevealed: Tensor
    hide_probability: Tensor

    def __init__(
        self,
        metadata: Shared[Metadata],
        generator: Shared[nn.Module],
        discriminator: Shared[nn.Module],
        generator_optimizer: Shared[Optimizer],
        discriminator_optimizer: Shared[Optimizer],
        generator_loss: Shared[nn.Module],
        discriminator_loss: Shared[nn.Module],
        *,
        discriminator_steps: NonNegativeInt = 1,
        generator_steps: NonNegativeInt = 1,
        hint_probability: Probability = 0.9,
        hint_unrevealed: Probability = 0.5,
        hide_probability: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.generator_loss, self.discriminator_loss = generator_loss, discriminator_loss
        self._generator_optimizer, self._discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self._generator_steps, self._discriminator_steps = generator_steps, discriminator_steps
        self._num_variables = len(metadata.variables)
        self.register_buffer("columns", column_variables(metadata), persistent=False)
        self._hides = hide_probability > 0
        probabilities = {"hint_probability": hint_probability, "hide_probability": hide_probability}
        for name, value in (probabilities | {"hint_unrevealed": hint_unrevealed}).items():
            self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def phases(self) -> list[Phase]:
        judge, maker = self._discriminator_optimizer, self._generator_optimizer
        return [
            Phase("discriminator", judge, self.loss_of_discriminator, self._discriminator_steps),
            Phase("generator", maker, self.loss_of_generator, self._generator_steps),
        ]

    def loss_of_discriminator(self, batch: Batch) -> Tensor:
        """Return how badly imputed cells are told from observed ones, a scalar."""
        features, mask = self._hidden(batch.features, _mask_of(batch))
        with torch.no_grad():
            imputed = torch.where(mask != 0, self.generator(features, mask), features)
        loss: Tensor = self.discriminator_loss(self.discriminator(imputed, self.hint(mask)), mask)
        return loss

    def loss_of_generator(self, batch: Batch) -> Tensor:
        """Return how well imputed cells are told, and how far observed ones are from what is generated, a scalar."""
        features, mask = self._hidden(batch.features, _mask_of(batch))
        generated = self.generator(features, mask)  # (rows, num_features)
        imputed = torch.where(mask != 0, generated, features)
        missing = self.discriminator(imputed, self.hint(mask))
        # Cells that are hidden here alone are known: they count as observed, and the generator is told what they were.
        loss: Tensor = self.generator_loss(missing, generated, batch.features, _mask_of(batch))
        return loss

    def _hidden(self, features: Tensor, missing_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and missing mask with ``hide_probability`` of the variables missing as well, as zeros."""
        if not self._hides:
            return features, missing_mask
        return hide(self.columns, self._num_variables, features, missing_mask, self.hide_probability)

    def hint(self, missing_mask: Tensor) -> Tensor:
        """Return the mask where it is shown, ``hint_unrevealed`` elsewhere: (rows, num_features)."""
        shown = draw_mask(self.columns, self._num_variables, missing_mask.shape[0], self.hint_probability)
        return torch.where(shown != 0, missing_mask, self.hint_unrevealed)

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        with expectations(self):
            generated: Tensor = self.generator(features, missing_mask)
        return generated

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruct(features, missing_mask)


def _mask_of(batch: Batch) -> Tensor:
    if batch.missing_mask is None:
        rule = "GAIN learns from missing cells: give rows that have some, or hide some, and an `imputation` layer"
        raise ConfigurationError("data", rule)
    return batch.missing_mask
