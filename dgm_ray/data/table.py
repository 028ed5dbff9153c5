"""A table in memory, and the rules that its cells follow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.frames import FrameEncoder
from dgm_ray.data.metadata import Block, Metadata
from dgm_ray.errors import DataError

_NPY_MAGIC = b"\x93NUMPY"
# A scaler that works in float32 leaves values such as 1.0000001: no error of the user's.
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of cells, one column per feature.

    features: float32, (rows, num_features); NaN is a missing cell, in all the columns of its variable.
    labels: (rows,) or None.
    scaled: numerical columns are within [0, 1]; False: they are in the user's units.
    encoder: turns features back into the columns of the user's own table, where there is one.
    """

    metadata: Metadata
    features: NDArray[np.float32]
    labels: NDArray[Any] | None = None
    scaled: bool = True
    encoder: FrameEncoder | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.features)

    @property
    def missing_mask(self) -> NDArray[np.bool_]:
        """True where missing, (rows, num_features)."""
        return np.isnan(self.features)


def checked(table: Table, place: str, first_row: int = 0) -> Table:
    """Return the table itself if it follows the rules above. Raises DataError for the first cell that does not.

    first_row: where the rows begin in the table that they are a part of.
    """
    features, metadata = table.features, table.metadata
    if features.dtype != np.float32:
        raise DataError(place, "must be float32", str(features.dtype))
    if features.ndim != 2 or features.shape[1] != metadata.num_features or not len(features):
        rule = f"must have the shape (rows, {metadata.num_features}), with a row at least"
        raise DataError(place, rule, features.shape)
    if table.labels is not None and table.labels.shape[:1] != (table.rows,):
        raise DataError(f"{place}: labels", f"must have one item per row ({table.rows})", table.labels.shape)
    _refuse(np.isinf(features), table, 0, place, "must be finite, or NaN where missing", first_row)
    for block in metadata.blocks:
        _check_block(table, block, place, first_row)
    return table


def _check_block(table: Table, block: Block, place: str, first_row: int) -> None:
    cells = table.features[:, block.start : block.stop]  # (rows, block), a view
    if block.kind == "numerical":
        if table.scaled:
            outside = (cells < -_TOLERANCE) | (cells > 1 + _TOLERANCE)
            _refuse(outside, table, block.start, place, "a numerical cell must be scaled to [0, 1]", first_row)
        return
    missing = np.isnan(cells)
    rule = f"a {block.kind} cell must be 0 or 1"
    _refuse(~(missing | (cells == 0) | (cells == 1)), table, block.start, place, rule, first_row)
    if block.kind == "categorical":
        all_missing = missing.all(axis=1)
        rule = "a categorical cell must be missing in all its columns or in none"
        _refuse_row(np.asarray(missing.any(axis=1) & ~all_missing), table, block, place, rule, first_row)
        one_hot = np.count_nonzero(cells == 1, axis=1) == 1
        rule = "a categorical cell must be one-hot"
        _refuse_row(~(one_hot | all_missing), table, block, place, rule, first_row)


def _refuse(bad: NDArray[np.bool_], table: Table, start: int, place: str, rule: str, first_row: int) -> None:
    """Raise for the first True of ``bad``, (rows, columns from ``start`` on)."""
    if bad.any():
        row, column = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        name = table.metadata.features[start + column]
        where = f"{place}: row {first_row + row}, column {name!r}"
        raise DataError(where, rule, float(table.features[row, start + column]))


def _refuse_row(bad: NDArray[np.bool_], table: Table, block: Block, place: str, rule: str, first_row: int) -> None:
    """Raise for the first True of ``bad``, (rows,), in a block of one categorical variable."""
    if bad.any():
        row = int(bad.argmax())
        name = next(
            variable.name
            for variable, columns in zip(table.metadata.variables, table.metadata.slices, strict=True)
            if columns.start == block.start
        )
        cells = table.features[row, block.start : block.stop].tolist()
        raise DataError(f"{place}: row {first_row + row}, column {name!r}", rule, cells)


def class_numbers(labels: NDArray[Any] | None, num_classes: int, place: str) -> NDArray[np.int64]:
    """Return labels as class numbers, (rows,). Raises DataError for one that is none of 0 ... num_classes - 1."""
    if labels is None:
        raise DataError(place, "a conditional architecture needs labels")
    if labels.ndim != 1 or labels.dtype.kind not in "fiub":
        raise DataError(place, "must be one number per row", f"{labels.dtype} {labels.shape}")
    wrong = ~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels)))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{place}: row {row}", f"must be a class, 0 to {num_classes - 1}", labels[row].item())
    return np.asarray(labels, dtype=np.int64)


def read_npy(path: Path | str) -> NDArray[Any]:
    """Return the array of a ``.npy`` file as a copy-on-write memory map: the processes of a node share its memory.

    Raises DataError if the file is missing, cut short, no ``.npy`` file, or holds pickled objects.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_NPY_MAGIC))
        if magic != _NPY_MAGIC:
            raise DataError(str(path), "must be a .npy file")
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError) as error:
        if "Python objects" in str(error):
            raise DataError(str(path), "pickled object arrays are refused") from None
        first_line = str(error).partition("\n")[0]
        raise DataError(str(path), f"is cut short or damaged ({first_line})") from None
    return array
