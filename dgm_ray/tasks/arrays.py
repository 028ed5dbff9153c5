"""The arrays and scalers that tasks read, checked, and the arrays that they write."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, MinMaxScaler, class_numbers, read_floats, read_mask, read_npy
from dgm_ray.errors import DataError
from dgm_ray.training import atomic

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read_features(path: Path, metadata: Metadata | None) -> Floats:
    """Return (rows, num_features) numbers as float32; NaN is a missing cell. Raises DataError for another shape.

    metadata: says how many columns there are; None takes any number.
    """
    features = read_floats(path)
    wanted = "columns" if metadata is None else metadata.num_features
    if features.ndim != 2 or (metadata and features.shape[1] != wanted) or not len(features):
        raise DataError(str(path), f"must have the shape (rows, {wanted}), with a row at least", features.shape)
    if np.isinf(features).any():
        row, column = (int(i) for i in np.argwhere(np.isinf(features))[0])
        name = metadata.features[column] if metadata else column
        raise DataError(f"{path}: row {row}, column {name!r}", "must be finite, or NaN where missing", "infinite")
    return features


def read_missing_mask(path: Path, features: Floats) -> Mask:
    """Return a missing mask of any dtype, True where missing; a cell of ``features`` that is NaN is missing as well."""
    return read_mask(path, features.shape) | np.isnan(features)


def read_labels(path: Path, rows: int, metadata: Metadata) -> NDArray[np.int64]:
    """Return the class numbers (rows,). Raises DataError for one that is no class, or if there are not so many."""
    labels = class_numbers(read_npy(path), metadata.num_classes, str(path))
    if len(labels) != rows:
        raise DataError(str(path), f"must have one item per row ({rows})", len(labels))
    return labels


def read_scaler(path: Path, metadata: Metadata) -> MinMaxScaler:
    """Return a scaler from its JSON file. A pickle is refused: reading one runs code from the file (defect 45)."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from None
    except ValueError:  # also of bytes that are no text
        rule = "is no JSON scaler; convert an old pickle, if you trust it, with: dgm-ray convert"
        raise DataError(str(path), f"{rule} {path} {path.with_suffix('.json')} --trust") from None
    scaler = MinMaxScaler.from_dict(content, str(path))
    if len(scaler.minimum) != metadata.num_features:
        raise DataError(str(path), f"must have {metadata.num_features} columns", len(scaler.minimum))
    return scaler


def write_npy(path: Path, array: NDArray[Any]) -> Path:
    """Write an array whole or not at all; return its path, which ends in .npy as numpy's own would."""
    path = path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return path


def read_vector(path: Path, metadata: Metadata) -> Floats:
    """Return one finite number per column, (num_features,)."""
    values = read_floats(path)
    if values.shape != (metadata.num_features,):
        raise DataError(str(path), f"must have the shape ({metadata.num_features},)", values.shape)
    if unknown := metadata.names_of(~np.isfinite(values)):
        raise DataError(f"{path}: {unknown[0]}", "must be finite")
    return values


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name. Raises DataError for anything else, such as a pickle."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                rule = "is no model of this library (a pickle of the original cannot be read safely): train it again"
                raise DataError(str(path), rule)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, BadZipFile, KeyError) as error:
        raise DataError(str(path), f"is damaged ({type(error).__name__})") from None


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as an .npz file, whatever its name, whole or not at all."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
