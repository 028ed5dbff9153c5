"""The original library's training data: arrays that were split, scaled and masked beforehand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.sources import read_floats, read_mask
from dgm_ray.data.splits import Prepared, Scored, Split
from dgm_ray.data.statistics import means_and_modes
from dgm_ray.data.table import Table, checked, read_npy
from dgm_ray.registry import register

Floats = NDArray[np.float32]


@register
@dataclass(frozen=True)
class Files:
    """Train and validation rows in ``.npy`` files, as the original library has them.

    train_features, val_features: (rows, num_features), numbers; NaN is a missing cell.
    train_labels, val_labels: (rows,), class numbers, for conditional architectures.
    train_missing_mask, val_missing_mask: (rows, num_features), 1 = missing. A model never sees what stands there;
        in val_features it is the truth that ValidationImputationLoss compares with.
    """

    train_features: Path
    val_features: Path | None = None
    train_labels: Path | None = None
    val_labels: Path | None = None
    train_missing_mask: Path | None = None
    val_missing_mask: Path | None = None

    def prepare(self, metadata: Metadata, scaler: MinMaxScaler | None = None) -> Prepared:
        """Read it all; without val_features there are 0 validation rows. Raises DataError for what does not fit."""
        truth, mask, labels = _read(metadata, self.train_features, self.train_missing_mask, self.train_labels)
        train = Split(np.arange(len(truth)), _hidden(truth, mask), labels)
        if self.val_features is None:
            truth, mask, labels = truth[:0], mask[:0], None
        else:
            truth, mask, labels = _read(metadata, self.val_features, self.val_missing_mask, self.val_labels)
        hidden_mask = mask & ~np.isnan(truth)
        validation = Scored(np.arange(len(truth)), _hidden(truth, mask), labels, hidden_mask, truth)
        statistics = means_and_modes(metadata, train.features, train.missing_mask)
        return Prepared(metadata, scaler, train, validation, None, statistics)


def _read(
    metadata: Metadata, features: Path, mask: Path | None, labels: Path | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[Any] | None]:
    cells = read_floats(features)
    numbers = None if labels is None else read_npy(labels)
    hidden = np.zeros(cells.shape, np.bool_) if mask is None else read_mask(mask, cells.shape)
    checked(Table(metadata, _hidden(cells, hidden), numbers, scaled=False), str(features))
    return cells, hidden, numbers


def _hidden(truth: Floats, mask: NDArray[np.bool_]) -> Floats:
    return np.where(mask, np.float32(np.nan), truth) if mask.any() else truth
