"""What imputers have in common: which cells are missing, how much they changed, and what a saved imputer must hold."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, Variable
from dgm_ray.errors import DataError
from dgm_ray.imputers.imputer import Arrays, Change, Floats, Mask

Shapes = Mapping[str, tuple[int | None, ...]]  # by name; None is a length that may be any


def missing_cells(metadata: Metadata, features: Floats, missing_mask: Mask) -> Mask:
    """Return True in every column of a variable that is missing, (rows, num_features).

    A variable is one cell, however many columns it has: if one of them is masked or NaN, it is missing.
    """
    mask: Mask = missing_mask | np.isnan(features)
    for columns in metadata.slices:
        if columns.stop - columns.start > 1:
            mask[:, columns] = mask[:, columns].any(axis=1, keepdims=True)
    return mask


def check_observed(metadata: Metadata, mask: Mask) -> None:
    """Raise DataError for a variable without an observed cell."""
    for variable, columns in zip(metadata.variables, metadata.slices, strict=True):
        if mask[:, columns.start].all():
            raise DataError(f"variable {variable.name!r}", "has no observed cell to learn from")


def change_of(metadata: Metadata, old: Floats, new: Floats, mask: Mask) -> Change:
    """Return how much the missing cells changed from ``old`` to ``new``, both (rows, num_features)."""
    squares, total, changed, cells = 0.0, 0.0, 0, 0
    for block in metadata.blocks:
        own = slice(block.start, block.stop)
        hidden, after, before = mask[:, own], new[:, own], old[:, own]
        if block.kind == "numerical":
            kept = after[hidden].astype(np.float64)
            squares += float(np.square(kept - before[hidden]).sum())
            total += float(np.square(kept).sum())
        elif block.kind == "binary":
            changed += int((after[hidden] != before[hidden]).sum())
            cells += int(hidden.sum())
        else:
            changed += int((after != before).any(axis=1)[hidden[:, 0]].sum())
            cells += int(hidden[:, 0].sum())
    return Change(squares / total if total else np.nan, changed / cells if cells else np.nan)


def described(metadata: Metadata) -> NDArray[np.str_]:
    """Return kind, size and name of each variable, (variables,): what a saved imputer is told apart by."""
    return np.array([_described(variable) for variable in metadata.variables])


def check_arrays(
    arrays: Arrays,
    kind: str,
    version: int,
    metadata: Metadata,
    shapes: Shapes,
    place: str,
) -> None:
    """Raise DataError unless these are the arrays of an imputer ``kind``, of this table, and whole.

    shapes: what must be there beside "format" and "names".
    """
    if not {"format", "names"} <= arrays.keys() or arrays["format"].shape or int(arrays["format"]) != version:
        raise DataError(place, f"is no {kind} model of this library's format {version}")
    names = described(metadata).tolist()
    if arrays["names"].tolist() != names:
        raise DataError(place, "was trained on a table with other variables", arrays["names"].tolist()[:3])
    for name, shape in shapes.items():
        if name not in arrays or not _fits(arrays[name].shape, shape):
            raise DataError(place, f"is damaged: {name!r} is not whole")


def _fits(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(want in (None, has) for has, want in zip(found, wanted, strict=True))


def _described(variable: Variable) -> str:
    return f"{variable.kind} {variable.size} {variable.name}"
