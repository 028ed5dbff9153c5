"""Where tables come from: the original library's files, and the data sets bundled with scikit-learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata
from dgm_ray.data.table import Table, checked, read_npy
from dgm_ray.data.variable import Variable
from dgm_ray.errors import DataError
from dgm_ray.registry import register

_PIXEL_LEVELS = 17  # load_digits counts dark pixels of 4 x 4 squares: 0 to 16


@register
@dataclass(frozen=True)
class Npy:
    """A table in the original's files: scaled, one-hot features in ``.npy`` and their ``metadata.json``.

    features: (rows, num_features), numbers; NaN is a missing cell. float32 without a mask stays a memory map.
    labels: (rows,). missing_mask: (rows, num_features), 1 = missing, 0 = observed.
    """

    features: Path
    metadata: Path
    labels: Path | None = None
    missing_mask: Path | None = None

    def read(self) -> Table:
        """Return the table. Raises DataError if a file cannot be read, does not fit or holds an impossible cell."""
        metadata, features = Metadata.read(self.metadata), read_floats(self.features)
        if self.missing_mask is not None:
            mask = read_mask(self.missing_mask, features.shape)
            features[mask] = np.nan  # the map is copy-on-write: the file, and who else reads it, do not see this
        labels = None if self.labels is None else read_npy(self.labels)
        return checked(Table(metadata, features, labels), str(self.features))


@dataclass(frozen=True)
class InMemory:
    """A source that holds its table; None where rows are prepared already and nothing is read."""

    table: Table | None = None

    def read(self) -> Table:
        """Return the table."""
        assert self.table is not None
        return self.table


@register
@dataclass(frozen=True)
class BreastCancer:
    """Breast Cancer Wisconsin (Diagnostic): 569 rows, 30 numerical variables, 2 classes as labels."""

    def read(self) -> Table:
        """Return the table, in the data set's own units."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        variables = tuple(Variable(str(name), "numerical") for name in bunch.feature_names)
        metadata = _labelled(variables, bunch.target_names, len(bunch.data))
        return checked(Table(metadata, bunch.data.astype(np.float32), bunch.target, scaled=False), "BreastCancer")


@register
@dataclass(frozen=True)
class Wine:
    """Wine recognition: 178 rows, 13 numerical variables and the cultivar as the categorical variable "class"."""

    def read(self) -> Table:
        """Return the table, in the data set's own units; it has no labels."""
        from sklearn.datasets import load_wine

        bunch = load_wine()
        names = tuple(str(name) for name in bunch.target_names)
        numerical = tuple(Variable(str(name), "numerical") for name in bunch.feature_names)
        metadata = Metadata((*numerical, Variable("class", "categorical", len(names), names)), len(bunch.data))
        one_hot = bunch.target[:, np.newaxis] == np.arange(len(names))
        features = np.hstack([bunch.data, one_hot]).astype(np.float32)
        return checked(Table(metadata, features, scaled=False), "Wine")


@register
@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8 x 8: 1797 rows, 64 binary variables pixel_ROW_COLUMN, 10 classes as labels.

    A pixel's darkness goes from 0 to 16; it is 1 from the middle of that range on, that is, above 7.
    """

    def read(self) -> Table:
        """Return the table."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        side = bunch.images.shape[1]
        variables = tuple(Variable(f"pixel_{row}_{column}", "binary") for row in range(side) for column in range(side))
        metadata = _labelled(variables, bunch.target_names, len(bunch.data))
        return checked(Table(metadata, (bunch.data >= _PIXEL_LEVELS // 2).astype(np.float32), bunch.target), "Digits")


def _labelled(variables: tuple[Variable, ...], classes: Any, rows: int) -> Metadata:
    names = tuple(str(name) for name in classes)
    return Metadata(variables, rows, names, len(names))


def read_floats(path: Path) -> NDArray[np.float32]:
    """Return an array of numbers as float32; a float32 one stays a copy-on-write memory map."""
    return floats_of(read_npy(path), path)


def floats_of(array: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Return numbers of a file as float32, the array itself where they are. Raises DataError for what is no number."""
    if array.dtype.kind not in "fiub":
        raise DataError(str(path), "must hold numbers", str(array.dtype))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is then refused with its place
        return np.asarray(array, dtype=np.float32)


def read_mask(path: Path, shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
    """Return a missing mask of any dtype, True where 1. Raises DataError unless it is 0 or 1 and of this shape.

    start, stop: the rows that are read.
    """
    mask = read_npy(path)
    if mask.shape != shape:
        raise DataError(str(path), f"must have the shape of the features {shape}", mask.shape)
    mask = mask[start:stop]
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        where = np.unravel_index(int(wrong.argmax()), mask.shape)
        found = (start + where[0], *where[1:])
        cell = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), found, strict=False))
        raise DataError(f"{path}: {cell}", "must be 0 or 1", mask[where].item())
    return np.asarray(mask == 1)
