"""Column statistics over observed cells, and soft values to hard ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import DataError


def means_and_modes(metadata: Metadata, features: NDArray[Any], missing_mask: NDArray[Any]) -> NDArray[Any]:
    """Return one value per column, (num_features,), of the cells that are observed (mask 0 and not NaN).

    numerical: mean, NaN if none is observed; binary: 1 if ones >= zeros, else 0; categorical: one-hot of the category
    observed most, the first of several. The dtype is that of the features. Raises DataError if the shapes differ.
    """
    if features.shape != missing_mask.shape or features.shape[1:] != (metadata.num_features,):
        rule = f"features {features.shape} and missing_mask must have the same shape (rows, {metadata.num_features})"
        raise DataError("means_and_modes", rule, missing_mask.shape)
    return Counted.of(metadata, features, missing_mask).means_and_modes(metadata).astype(features.dtype)


@dataclass(frozen=True, eq=False)
class Counted:
    """What means and modes are made of, (num_features,) each; those of parts of a table add up to those of the table.

    count: of the observed cells, in binary columns of those that are 0 or 1. total: their sum in numerical columns, how
    many are 1 in others.
    """

    count: NDArray[np.float64]
    total: NDArray[np.float64]

    @classmethod
    def of(cls, metadata: Metadata, features: NDArray[Any], missing_mask: NDArray[Any]) -> "Counted":
        """Count features (rows, num_features); a cell is observed where the mask is 0 and it is not NaN."""
        count, total = np.zeros(metadata.num_features), np.zeros(metadata.num_features)
        for block in metadata.blocks:
            columns = slice(block.start, block.stop)
            cells = features[:, columns]  # (rows, block)
            observed = (missing_mask[:, columns] == 0) & ~np.isnan(cells)
            if block.kind == "binary":
                observed &= (cells == 0) | (cells == 1)
            count[columns] = np.count_nonzero(observed, axis=0)
            if block.kind == "numerical":
                total[columns] = np.sum(cells, axis=0, where=observed, dtype=np.float64)
            else:
                total[columns] = np.count_nonzero(observed & (cells == 1), axis=0)
        return cls(count, total)

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.count + other.count, self.total + other.total)

    def means_and_modes(self, metadata: Metadata) -> NDArray[np.float64]:
        """Return one value per column, (num_features,), as the function of this name."""
        result = np.zeros(metadata.num_features)
        for block in metadata.blocks:
            columns = slice(block.start, block.stop)
            count, total = self.count[columns], self.total[columns]
            if block.kind == "categorical":
                result[block.start + int(total.argmax())] = 1
            elif block.kind == "binary":
                result[columns] = total >= count - total
            else:
                result[columns] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return result


def discretize(metadata: Metadata, features: NDArray[Any]) -> NDArray[Any]:
    """Return new features (..., num_features) whose binary cells are 0 or 1 and whose categorical cells are one-hot.

    binary: 1 if above 0.5; categorical: the largest column, the first of several; numerical: untouched. A missing
    (NaN) cell stays missing: no value is made up for it.
    """
    result = np.array(features)
    for block in metadata.blocks:
        cells = result[..., block.start : block.stop]  # (..., block), a view of the result
        missing = np.isnan(cells)
        if block.kind == "binary":
            cells[...] = np.where(missing, np.nan, cells > 0.5)
        elif block.kind == "categorical":
            largest = cells.argmax(axis=-1, keepdims=True)
            one_hot = largest == np.arange(cells.shape[-1])
            cells[...] = np.where(missing.any(axis=-1, keepdims=True), np.nan, one_hot)
    return result
