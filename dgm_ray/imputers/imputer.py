"""What an imputer is, and how it is trained, measured and saved like any model."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgm_ray.models import Probed
from dgm_ray.nn import ImputationLayer

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]


class Change(NamedTuple):
    """How much an iteration changed the imputed cells; NaN where there are none of the kind.

    numerical: the sum of squared changes over the sum of squares. categorical: the share of binary and categorical
    cells that changed. Source: Stekhoven and Buehlmann 2012, section 2.
    """

    numerical: float
    categorical: float

    def grew(self, before: "Change") -> bool:
        """Tell whether every kind that there is changed more than before: the paper's stopping rule."""
        pairs = [(now, then) for now, then in zip(self, before, strict=True) if not np.isnan(now)]
        return all(now > then for now, then in pairs)


class BaseImputer(ABC):
    """Learns from rows with missing cells; completes these and others, and learns nothing from those."""

    @abstractmethod
    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Fit on (rows, num_features), yielding after each iteration; what stands under the mask is not looked at."""

    def fit_transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Fit on (rows, num_features) to the end, and return these very rows, completed."""
        for _ in self.iterations(features, missing_mask):
            pass
        return self.transform(features, missing_mask)

    @abstractmethod
    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features) with values in missing cells; observed cells are as they were."""

    def draw(self, features: Floats, missing_mask: Mask, random: np.random.Generator) -> Floats:
        """Return one of several imputations, (rows, num_features): missing cells are drawn from what is likely there.

        An imputer that cannot tell what is likely returns the same as ``transform``.
        """
        return self.transform(features, missing_mask)

    def figures(self) -> dict[str, float]:
        """Return what the imputer itself knows of its errors, by name; NaN where it does not know."""
        return {}

    @abstractmethod
    def to_arrays(self) -> Arrays:
        """Return what was learnt, as plain arrays of numbers and of text."""

    @abstractmethod
    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""


class ImputerModel(nn.Module):
    """An imputer, or a layer that fills cells and learns nothing, as a model that imputes. It has no phases."""

    def __init__(self, imputer: BaseImputer | nn.Module) -> None:
        super().__init__()
        self.imputer = imputer
        self._fitted = False

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another result."""
        if isinstance(self.imputer, ImputationLayer):
            return self.imputer.random
        return hasattr(self.imputer, "seed")

    def fitted(self) -> None:
        """Say that there is something to save."""
        self._fitted = True

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        if isinstance(self.imputer, nn.Module):
            filled: Tensor = self.imputer(features, missing_mask)
            return filled
        completed = self.imputer.transform(features.cpu().numpy(), missing_mask.cpu().numpy() != 0)
        return torch.from_numpy(completed).to(features.device)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what was learnt as tensors and lists of text, which load without unpickling anything else."""
        if isinstance(self.imputer, nn.Module) or not self._fitted:
            return {}
        arrays = self.imputer.to_arrays().items()
        return {key: one.tolist() if one.dtype.kind == "U" else torch.from_numpy(one.copy()) for key, one in arrays}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take what ``get_extra_state`` returned."""
        if isinstance(self.imputer, nn.Module) or not state:
            return
        self.imputer.load_arrays({key: np.asarray(one) for key, one in state.items()}, "imputer")
        self.fitted()


class Iterations:
    """Fits an imputer, an iteration an epoch, on (rows, num_features) in which NaN is a missing cell.

    An epoch whose predecessors were not run here, after a resume, runs them first: nothing but the seed decides them.
    """

    def __init__(self, model: ImputerModel, features: Floats) -> None:
        self._model, self._done, self.finished = model, 0, False
        imputer = model.imputer
        fitted = imputer.iterations(features, np.isnan(features)) if isinstance(imputer, BaseImputer) else iter(())
        self._iterations: Iterator[Change] = fitted

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return how much the imputed cells changed, by kind, and what the imputer knows of its errors."""
        change: Change | None = None
        while self._done < epoch and not self.finished:
            change = next(self._iterations, None)
            self._done, self.finished = self._done + 1, change is None
        self._model.fitted()
        changes = {} if change is None else {f"{kind}_change": value for kind, value in change._asdict().items()}
        known = self._model.imputer.figures() if isinstance(self._model.imputer, BaseImputer) else {}
        return {name: float(value) for name, value in (changes | known).items() if not np.isnan(value)}

    def probe(self, cycles: int) -> Probed:
        """Run two iterations at most, on all rows: fewer rows would say little of the time that all take."""
        started = time.perf_counter()
        for epoch in (1, 2):
            if not self.finished:
                self(epoch)
        return Probed((time.perf_counter() - started) / self._done, 1, epochs=self._done if self.finished else None)
