"""Numerical columns to [0, 1] and back to the user's units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import DataError


@dataclass(frozen=True, eq=False)
class MinMaxScaler:
    """Scales each numerical column by the range that it had when fitted; other columns stay as they are.

    minimum, maximum: float64, (num_features,), in the user's units; 0 and 1 for binary and categorical columns.

    A constant column becomes 0. Values outside the fitted range land outside [0, 1]: they are not clipped.
    Differs from scikit-learn's: a constant column's other values keep their distance, and nothing else is scaled.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def fit(cls, metadata: Metadata, features: NDArray[Any]) -> "MinMaxScaler":
        """Fit on features (rows, num_features); NaN is left out. Raises DataError if all of a column is missing."""
        minimum, maximum = np.zeros(metadata.num_features), np.ones(metadata.num_features)
        for block in metadata.blocks:
            if block.kind == "numerical":
                columns = slice(block.start, block.stop)
                # fmin and fmax take the other value where one is NaN, without a warning.
                minimum[columns] = np.fmin.reduce(features[:, columns], axis=0, initial=np.nan)
                maximum[columns] = np.fmax.reduce(features[:, columns], axis=0, initial=np.nan)
        if np.isnan(minimum).any():
            name = metadata.features[int(np.isnan(minimum).argmax())]
            raise DataError(f"column {name!r}", "cannot be scaled, all its cells are missing in the training rows")
        return cls(minimum, maximum)

    def transform(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return new features in scaled units, (rows, num_features); NaN stays NaN."""
        scaled = np.array(features, dtype=np.float32)
        for column, low, width in self._scaled_columns():
            scaled[:, column] = (features[:, column].astype(np.float64) - low) / width
        return scaled

    def transform_sums(self, totals: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
        """Return sums of scaled cells, (num_features,), of sums of cells in the user's units and their numbers."""
        scaled = totals.copy()
        for column, low, width in self._scaled_columns():
            scaled[column] = (totals[column] - counts[column] * low) / width
        return scaled

    def inverse_transform(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return new features in the user's units, (rows, num_features); NaN stays NaN."""
        original = np.array(features, dtype=np.float32)
        for column, low, width in self._scaled_columns():
            original[:, column] = features[:, column].astype(np.float64) * width + low
        return original

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists, ``min`` and ``max``."""
        return {"min": self.minimum.tolist(), "max": self.maximum.tolist()}

    @classmethod
    def from_dict(cls, content: Any, place: str = "scaler") -> "MinMaxScaler":
        """Read what ``to_dict`` returns. Raises DataError if it is anything else; other keys are left alone."""
        if not isinstance(content, Mapping):
            raise DataError(place, "must be an object with the lists min and max", content)
        minimum, maximum = (_numbers(content.get(key), f"{place}: {key}") for key in ("min", "max"))
        if len(minimum) != len(maximum) or (minimum > maximum).any():
            raise DataError(f"{place}: max", "must have one item per item of min, none below it")
        if content.get("feature_range", [0, 1]) != [0, 1]:
            raise DataError(f"{place}: feature_range", "must be [0, 1]", content["feature_range"])
        return cls(minimum, maximum)

    def _scaled_columns(self) -> list[tuple[int, float, float]]:
        """Return (column, minimum, width) of the columns that change. A column's pass in float64 rounds once."""
        width = self.maximum - self.minimum
        width[width == 0] = 1.0
        changed = np.flatnonzero((self.minimum != 0) | (width != 1))
        return [(int(i), float(self.minimum[i]), float(width[i])) for i in changed]


def _numbers(values: Any, place: str) -> NDArray[np.float64]:
    plain = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not plain or not np.isfinite(values).all():
        raise DataError(place, "must be a list of finite numbers", values)
    return np.array(values, dtype=np.float64)
