"""What a model is worth on rows that it was not trained on: imputing and generating, whatever of both it can do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata, Scored, class_numbers
from dgm_ray.evaluation.generation import Floats, Scores, score_generation
from dgm_ray.evaluation.imputation import complete, score_imputation
from dgm_ray.imputers import BaseImputer, ImputerModel
from dgm_ray.models import Architecture, Draws, Imputes, Reconstructs, Samples

IMPUTATION = ("imputation_rmse", "imputation_mae")
GENERATION = ("marginal_distance", "dimension_wise_rmse")
CHUNK = 4096  # rows at a time: memory stays bounded, whatever the table


@dataclass(frozen=True)
class Seen:
    """The scored rows as a model sees them, in chunks.

    fill: what stands in a missing cell when a model first sees it: the trial's imputation layer, called with
    (features, missing_mask). conditional: the model takes the rows' labels.
    """

    metadata: Metadata
    scored: Scored
    fill: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    conditional: bool = False

    @cached_property
    def labels(self) -> Tensor | None:
        """The labels (rows,), if the model takes them."""
        if not self.conditional:
            return None
        numbers = class_numbers(self.scored.labels, self.metadata.num_classes, "labels")
        return torch.as_tensor(numbers, dtype=torch.float32, device=self.device)

    def condition(self, start: int) -> tuple[Tensor, ...]:
        """Return the labels of the chunk that starts there, if the model takes them."""
        return () if self.labels is None else (self.labels[start : start + CHUNK],)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
        """Yield features with zeros where missing, to be filled; missing mask; condition."""
        for start in range(0, len(self.scored.features), CHUNK):
            features = torch.as_tensor(self.scored.features[start : start + CHUNK].copy(), device=self.device)
            mask = features.isnan().to(features.dtype)
            yield features.nan_to_num(), mask, self.condition(start)

    def imputed(self, model: Imputes, features: Tensor, mask: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Return what a model proposes for a chunk."""
        return model.impute(self.fill(features, mask), mask, *condition)


def imputed(model: Imputes, seen: Seen) -> Floats:
    """Return the rows, (rows, num_features), with the model's values in missing cells; observed ones as they were."""
    if isinstance(model, nn.Module):
        model.eval()
    with torch.no_grad():
        parts = [seen.imputed(model, *chunk) for chunk in seen.chunks()]
    return complete(seen.metadata, torch.cat(parts).cpu().numpy(), seen.scored.features)


def impute_rows(
    architecture: Architecture, metadata: Metadata, features: Floats, device: torch.device, labels: Any = None
) -> Floats:
    """Return scaled rows (rows, num_features) whose missing (NaN) cells a trained model has filled.

    labels: (rows,), of a conditional model.
    """
    assert isinstance(architecture.model, Imputes)
    assert architecture.fill is not None
    rows = Scored(np.arange(len(features)), features, labels, np.isnan(features), features)
    return imputed(architecture.model, Seen(metadata, rows, architecture.fill, device, architecture.conditional))


class _Drawing(nn.Module):
    """A model whose imputation is one of several."""

    def __init__(self, model: Draws) -> None:
        super().__init__()
        self.model = model

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.model.draw(features, missing_mask, *condition)


def can_draw(model: nn.Module) -> bool:
    """Tell whether a model says of itself that it knows several ways to complete rows."""
    if isinstance(model, ImputerModel):
        return isinstance(model.imputer, BaseImputer) and type(model.imputer).draw is not BaseImputer.draw
    return isinstance(model, Draws)


def draw_rows(
    architecture: Architecture,
    metadata: Metadata,
    features: Floats,
    device: torch.device,
    random: np.random.Generator,
    labels: Any = None,
) -> Floats:
    """Return scaled rows (rows, num_features) whose missing (NaN) cells are one of several imputations.

    random: of imputers that are no networks; networks take torch's. labels: (rows,), of a conditional model.
    """
    model = architecture.model
    if isinstance(model, ImputerModel) and isinstance(model.imputer, BaseImputer):
        drawn = model.imputer.draw(np.nan_to_num(features), np.isnan(features), random)
        return complete(metadata, drawn, features)
    if isinstance(model, Draws):
        architecture = replace(architecture, model=_Drawing(model))
    return impute_rows(architecture, metadata, features, device, labels)


def sampled(model: Samples, seen: Seen) -> Floats:
    """Return as many new rows as there are scored ones, (rows, num_features)."""
    return sample_rows(model, len(seen.scored.truth), seen.device, seen.labels)


def sample_rows(model: Samples, rows: int, device: torch.device, labels: Tensor | None = None) -> Floats:
    """Return new rows, (rows, num_features), scaled. labels: (rows,), of a conditional model."""
    with torch.no_grad():
        made: Floats = torch.cat([part() for _, part in sample_parts(model, rows, device, labels)]).cpu().numpy()
    return made


def sample_parts(
    model: Samples, rows: int, device: torch.device, labels: Tensor | None = None
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yield what makes new rows, part by part, each with a name of what it is. See ``sample_rows``."""
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        condition = () if labels is None else (labels[start : start + CHUNK],)
        yield f"sample {count}", partial(model.sample, count, device, *condition)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one set of rows, each named ``{prefix}_{measure}``."""

    seen: Seen
    prefix: str = "val"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        completed = imputed(model, self.seen) if isinstance(model, Imputes) else None
        made = sampled(model, self.seen) if isinstance(model, Samples) else None
        return {name: float(value) for name, value in self._scores(completed, made).items()}

    def of_lanes(
        self, model: nn.Module, run: Callable[[str, Callable[[], Tensor]], Tensor], rows: Sequence[int]
    ) -> list[dict[str, float]]:
        """Return the scores of several models of one shape, of which ``model`` is one.

        run: returns what a function of ``model`` gives of each of them, (rows, ...); its name is given first.
        """

        def found(parts: Iterable[tuple[str, Callable[[], Tensor]]]) -> Floats:
            made: Floats = torch.cat([run(*part)[[*rows]] for part in parts], dim=1).cpu().numpy()
            return made

        seen, completed, made = self.seen, None, None
        if isinstance(model, Imputes):
            chunks = ((f"impute {len(chunk[0])}", partial(seen.imputed, model, *chunk)) for chunk in seen.chunks())
            completed = complete(seen.metadata, found(chunks), seen.scored.features)
        if isinstance(model, Samples):
            made = found(sample_parts(model, len(seen.scored.truth), seen.device, seen.labels))
        scores = self._scores(completed, made)
        return [{name: float(values[index]) for name, values in scores.items()} for index in range(len(rows))]

    def _scores(self, completed: Floats | None, made: Floats | None) -> Scores:
        """Return scores, of one model or of several. completed, made: rows, (..., rows, num_features), if there are."""
        scored, scores = self.seen.scored, Scores()
        if completed is not None:
            scores |= score_imputation(completed, scored)
        if made is not None:
            scores |= score_generation(self.seen.metadata, scored.truth, made)
        return {f"{self.prefix}_{name}": value for name, value in scores.items()}


@dataclass(frozen=True)
class ValidationLoss:
    """The original library's validation: ``loss`` (its component ``val_loss``) over all rows at once, as ``name``.

    # Differs from the original: a mean over batches, in train order, is neither a mean over rows nor a root of one
    # (defect 9).
    """

    seen: Seen
    loss: nn.Module
    name: str

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not isinstance(model, Reconstructs) or not len(self.seen.scored.truth):
            return {}
        model.eval()
        with torch.no_grad():
            filled, mask, made = [], [], []
            for cells, missing, condition in self.seen.chunks():
                features = self.seen.fill(cells, missing)
                filled.append(features)
                mask.append(missing)
                made.append(model.reconstruct(features, missing, *condition))
            truth = torch.as_tensor(np.array(self.seen.scored.truth), device=self.seen.device)
            value = self.loss(torch.cat(made), torch.cat(filled), truth, torch.cat(mask))
        return {self.name: float(value)}


def measures_of(model: nn.Module, prefix: str = "val") -> list[str]:
    """Return the names of the scores that an Evaluation of this model reports."""
    names = (IMPUTATION if isinstance(model, Imputes) else ()) + (GENERATION if isinstance(model, Samples) else ())
    return [f"{prefix}_{name}" for name in names]
