"""Imputations without a network: by zeros, noise, means and modes, and MissForest."""

import csv
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from dgm_ray.data import Metadata, MinMaxScaler, discretize
from dgm_ray.errors import DataError
from dgm_ray.evaluation import Floats
from dgm_ray.imputers import Change, MissForest
from dgm_ray.imputers.miss_forest import Share, numerical_columns
from dgm_ray.nn import MSE, RMSE, MultiReconstructionLoss
from dgm_ray.registry import TASKS, NonNegativeFloat, NonNegativeInt, PositiveInt, register
from dgm_ray.tasks.arrays import (
    Mask,
    read_arrays,
    read_features,
    read_missing_mask,
    read_scaler,
    read_vector,
    write_arrays,
    write_npy,
)
from dgm_ray.training import atomic

COLUMNS = ("inputs", "missing_mask", "scaled_mse", "scaled_rmse", "scaled_mr", "mse", "rmse", "mr")


@register
@dataclass(frozen=True)
class ImputationLog:
    """Where the errors of an imputation are noted. path: a CSV file; a row is added to what it holds."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class ImputationTask(ABC):
    """What the imputations of this file have in common; its arguments are described in ZeroImputation.

    The proposed values become valid (0 or 1, one-hot) unless ``discretize`` is off; with a scaler, what is saved is in
    the user's units. Observed cells are saved as they are.
    """

    metadata: Path
    inputs: Path
    missing_mask: Path
    scaler: Path | None = None
    outputs: Path | None = None
    logs: ImputationLog | None = None
    discretize: bool = True

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Impute, save and log."""
        metadata = Metadata.read(self.metadata)
        features = read_features(self.inputs, metadata)
        mask = read_missing_mask(self.missing_mask, features)
        return self.finish(metadata, features, mask, self.propose(metadata, features, mask), console)

    @abstractmethod
    def propose(self, metadata: Metadata, features: Floats, mask: Mask) -> NDArray[Any]:
        """Return (rows, num_features) values; those of missing cells are used."""

    def finish(
        self, metadata: Metadata, features: Floats, mask: Mask, proposed: NDArray[Any], console: Console
    ) -> dict[str, Any]:
        """Save what is asked for, and return the errors of the missing cells if there is a log for them."""
        if self.logs and np.isnan(features).any():
            raise DataError(str(self.inputs), "has NaN cells, so there is no truth to log the error of (logs)")
        scaler = None if self.scaler is None else read_scaler(self.scaler, metadata)
        cells = discretize(metadata, proposed) if self.discretize else proposed
        completed: Floats = np.where(mask, cells, features).astype(np.float32)
        original = scaler.inverse_transform(completed) if scaler else completed
        if self.outputs:
            saved = write_npy(self.outputs, original)
            console.print(f"imputed {int(mask.sum())} cells of {len(mask)} rows: {saved}", soft_wrap=True)
        errors = self._errors(metadata, completed, features, mask, scaler) if self.logs else {}
        if self.logs:
            self._log(self.logs.path, errors)
        return {"rows": len(mask), "imputed_cells": int(mask.sum()), **errors}

    def _errors(
        self, metadata: Metadata, completed: Floats, truth: Floats, mask: Mask, scaler: MinMaxScaler | None
    ) -> dict[str, float]:
        """Return the errors of the missing cells. Differs from the original: observed ones do not count (defect 19)."""
        errors = _losses(metadata, completed, truth, mask, "scaled_")
        if scaler:
            errors |= _losses(metadata, scaler.inverse_transform(completed), scaler.inverse_transform(truth), mask, "")
        return errors

    def _log(self, path: Path, errors: Mapping[str, float]) -> None:
        """Add a row to the file, with a header if it is new; written whole, so a reader never sees half a row."""
        old = path.read_bytes() if path.exists() else b""
        values = [errors[name] if name in errors else "" for name in COLUMNS[2:]]
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            file.write(old.decode())
            rows = [[self.inputs, self.missing_mask, *values]]
            csv.writer(file).writerows(rows if old else [COLUMNS, *rows])


def _losses(metadata: Metadata, completed: Floats, truth: Floats, mask: Mask, prefix: str) -> dict[str, float]:
    arrays = (torch.as_tensor(np.array(array, dtype=np.float32)) for array in (completed, truth, mask))
    made, real, keep = arrays
    losses = {"mse": MSE(), "rmse": RMSE(), "mr": MultiReconstructionLoss(metadata)}
    return {f"{prefix}{name}": float(loss(made, real, keep)) for name, loss in losses.items()}


@dataclass(frozen=True, kw_only=True)
class ZeroImputation(ImputationTask):
    """Fill missing cells with 0.

    A missing categorical variable becomes its first category, because a one-hot has a 1 somewhere; with
    ``discretize: false`` it becomes all zeros, which is no category.

    metadata: the metadata.json of the table.
    inputs: the rows, a .npy file (rows, num_features).
    missing_mask: a .npy file of the same shape, 1 where missing; NaN cells of the rows are missing as well.
    scaler: the scaler (JSON) of the table; rows are saved in the user's units then.
    outputs: the .npy file; null saves nothing.
    logs: ``{"path": ...}``, a CSV file to which the errors of the missing cells are added; the rows must hold their
        true values then.
    discretize: make valid values of binary and categorical cells.
    """

    def propose(self, metadata: Metadata, features: Floats, mask: Mask) -> NDArray[Any]:
        return np.zeros_like(features)


@dataclass(frozen=True, kw_only=True)
class NormalNoiseImputation(ImputationTask):
    """Fill missing cells with draws from a normal distribution.

    metadata, inputs, missing_mask, scaler, outputs, logs, discretize: as in ZeroImputation.
    noise_mean, noise_std: of the distribution; noise_std >= 0.
    seed: of the draws; null leaves them to chance.
    """

    noise_mean: float = 0.0
    noise_std: NonNegativeFloat = 1.0
    seed: NonNegativeInt | None = 0

    def propose(self, metadata: Metadata, features: Floats, mask: Mask) -> NDArray[Any]:
        noise = np.random.default_rng(self.seed).normal(self.noise_mean, self.noise_std, features.shape)
        return noise.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class MeansAndModesImputation(ImputationTask):
    """Fill missing cells with their column's mean or mode.

    metadata, inputs, missing_mask, scaler, outputs, logs, discretize: as in ZeroImputation.
    means_and_modes: the .npy file (num_features,) that ComputeMeansAndModes writes.
    """

    means_and_modes: Path

    def propose(self, metadata: Metadata, features: Floats, mask: Mask) -> NDArray[Any]:
        return np.broadcast_to(read_vector(self.means_and_modes, metadata), features.shape)


@dataclass(frozen=True, kw_only=True)
class MissForestImputation(ImputationTask):
    """Fill missing cells with a MissForest that TrainMissForest has grown; nothing is grown here.

    metadata, inputs, missing_mask, scaler, outputs, logs, discretize: as in ZeroImputation.
    model: the file that TrainMissForest writes.
    """

    model: Path

    def propose(self, metadata: Metadata, features: Floats, mask: Mask) -> NDArray[Any]:
        return MissForest.from_arrays(metadata, read_arrays(self.model), str(self.model)).transform(features, mask)


@dataclass(frozen=True)
class TrainMissForest:
    """Grow a MissForest (Stekhoven and Buehlmann 2012) on rows with missing cells, and save it.

    The file holds plain arrays (.npz): reading it runs no code, whoever it comes from.

    inputs: the rows, a .npy file (rows, num_features).
    missing_mask: a .npy file of the same shape, 1 where missing; NaN cells of the rows are missing as well.
    outputs: the file of the model.
    metadata: the metadata.json of the table: binary and categorical variables are classified then. Without it every
        column is a number of its own, as in the original library.
    seed: of the forests.
    n_estimators: trees of a forest. max_depth: of a tree; null grows it out. min_samples_leaf: rows of a leaf at least.
    max_features: share of the other columns that a split looks at, in (0, 1]; null: the square root of their number.
    max_iterations: rounds over all variables at most; it ends sooner when the imputed cells change more than before.
    workers: processors that grow a forest.
    """

    inputs: Path
    missing_mask: Path
    outputs: Path
    metadata: Path | None = None
    seed: NonNegativeInt = 0
    n_estimators: PositiveInt = 100
    max_depth: PositiveInt | None = None
    min_samples_leaf: PositiveInt = 1
    max_features: Share | None = None
    max_iterations: PositiveInt = 10
    workers: PositiveInt = 1

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Grow and save; return the mean of the forests' own errors."""
        if self.metadata:
            metadata = Metadata.read(self.metadata)
            features = read_features(self.inputs, metadata)
        else:
            features = read_features(self.inputs, None)
            metadata = numerical_columns(features.shape[1])
        names = ("seed", "n_estimators", "max_depth", "min_samples_leaf", "max_features", "max_iterations", "workers")
        forest = MissForest(metadata, **{name: getattr(self, name) for name in names})
        started = time.monotonic()

        def report(iteration: int, change: Change) -> None:
            kinds = zip(("numerical", "categorical"), change, strict=True)
            changes = "  ".join(f"{kind} {value:.4g}" for kind, value in kinds if not np.isnan(value))
            seconds = f"{time.monotonic() - started:.1f} s"
            console.print(f"iteration {iteration}: changed {changes or 'nothing'}  {seconds}", highlight=False)

        forest.fit(features, read_missing_mask(self.missing_mask, features), report)
        write_arrays(self.outputs, forest.to_arrays())
        errors = forest.oob_error_
        error = float(np.nanmean(list(errors.values()))) if not np.isnan(list(errors.values())).all() else np.nan
        console.print(f"out-of-bag error {error:.4g}: {self.outputs}", highlight=False, soft_wrap=True)
        return {"rows": len(features), "oob_error": error}


for _task in (ZeroImputation, NormalNoiseImputation, MeansAndModesImputation, MissForestImputation, TrainMissForest):
    TASKS.register(_task)
