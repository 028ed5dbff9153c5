"""What a model is worth on rows that it was not trained on: imputing and generating, whatever of both it can do."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata, Scored
from dgm_ray.evaluation.generation import Floats, score_generation
from dgm_ray.evaluation.imputation import complete, score_imputation
from dgm_ray.models import Imputes, Samples

IMPUTATION = ("imputation_rmse", "imputation_mae")
GENERATION = ("marginal_distance", "dimension_wise_rmse")
CHUNK = 4096  # rows at a time: memory stays bounded, whatever the table


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one set of rows, each named ``{prefix}_{measure}``.

    scored: rows with hidden cells. fill: what stands in a missing cell when a model first sees it: the trial's
    imputation layer, called with (features, missing_mask).
    """

    metadata: Metadata
    scored: Scored
    fill: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    prefix: str = "val"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        scores: dict[str, float] = {}
        with torch.no_grad():
            if isinstance(model, Imputes):
                scores |= score_imputation(self._impute(model), self.scored)
            if isinstance(model, Samples):
                scores |= score_generation(self.metadata, self.scored.truth, self._sample(model))
        return {f"{self.prefix}_{name}": value for name, value in scores.items()}

    def _impute(self, model: Imputes) -> Floats:
        proposed = np.empty_like(self.scored.features)
        for start in range(0, len(proposed), CHUNK):
            features = torch.as_tensor(self.scored.features[start : start + CHUNK].copy(), device=self.device)
            mask = features.isnan().to(features.dtype)
            filled = self.fill(features.nan_to_num(), mask)
            proposed[start : start + CHUNK] = model.impute(filled, mask).cpu().numpy()
        return complete(self.metadata, proposed, self.scored.features)

    def _sample(self, model: Samples) -> Floats:
        rows = len(self.scored.truth)
        parts = [model.sample(min(CHUNK, rows - start), self.device) for start in range(0, rows, CHUNK)]
        sampled: Floats = torch.cat(parts).cpu().numpy()
        return sampled


def measures_of(model: nn.Module, prefix: str = "val") -> list[str]:
    """Return the names of the scores that an Evaluation of this model reports."""
    names = (IMPUTATION if isinstance(model, Imputes) else ()) + (GENERATION if isinstance(model, Samples) else ())
    return [f"{prefix}_{name}" for name in names]
