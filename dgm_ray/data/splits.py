"""What a study trains on and is measured on: train, validation and test rows, and which of their cells are hidden."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.frames import FrameEncoder
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.scaling import MinMaxScaler


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a table, as a model sees them.

    row_ids: (rows,), positions in the table.
    features: float32, (rows, num_features), scaled; NaN where missing to the model (naturally, or hidden from it).
    labels: (rows,) or None.
    """

    row_ids: NDArray[np.int64]
    features: NDArray[np.float32]
    labels: NDArray[Any] | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.row_ids)

    @property
    def missing_mask(self) -> NDArray[np.bool_]:
        """True where missing to the model, (rows, num_features)."""
        return np.isnan(self.features)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return some of the rows, by their places."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if array is not None})

    @cached_property
    def incomplete(self) -> NDArray[np.bool_]:
        """True for a column with a missing cell, (num_features,). It is looked for once, whoever asks."""
        incomplete: NDArray[np.bool_] = np.logical_or.reduce(self.missing_mask, axis=0)
        return incomplete


@dataclass(frozen=True, eq=False)
class Scored(Split):
    """Rows whose hidden cells are known to the judge.

    hidden_mask: (rows, num_features), True where hidden from the model, never where naturally missing.
    truth: float32, (rows, num_features), the features before hiding; NaN where naturally missing.
    """

    hidden_mask: NDArray[np.bool_]
    truth: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Streamed(Split):
    """Training rows that stay in their file: the arrays have no row. labels: None where the table has none.

    count: how many there are. gaps: what ``incomplete`` returns. digest: of all cells and labels, in hexadecimal.
    open: returns what a training takes its batches from, on a device, with labels of so many classes if the model
        takes them.
    """

    count: int
    gaps: NDArray[np.bool_]
    digest: str
    open: Callable[[Any, int | None], Any]

    @property
    def rows(self) -> int:
        return self.count

    @cached_property
    def incomplete(self) -> NDArray[np.bool_]:
        return self.gaps


@dataclass(frozen=True, eq=False)
class Prepared:
    """A table, split, scaled and with cells hidden.

    train: Streamed where the table is too large for the memory.
    scaler: None if the table came scaled.
    test: None where test rows must not be seen.
    means_and_modes: (num_features,), of the cells of train that the model sees; NaN for a numerical column with none.
    encoder: turns features in the user's units into the columns of the user's own table, where there is one.
    """

    metadata: Metadata
    scaler: MinMaxScaler | None
    train: Split
    validation: Scored
    test: Scored | None
    means_and_modes: NDArray[np.float32]
    encoder: FrameEncoder | None = None

    def sample(self, rows: int) -> "Prepared":
        """Return so many rows of each part at most, to try something out: those to judge by have hidden cells first."""
        hidden = self.validation.hidden_mask.any(axis=1)
        judged = np.argsort(~hidden, kind="stable")[:rows]
        train = self.train.take(np.arange(min(rows, self.train.rows)))
        return replace(self, train=train, validation=self.validation.take(judged), test=None)

    def content_hash(self) -> str:
        """Return the SHA-256 of all of this, in hexadecimal: equal hashes, equal data, splits and masks."""
        description = {"metadata": self.metadata.to_dict(), "scaler": self.scaler and self.scaler.to_dict()}
        if self.encoder is not None:
            description["encoder"] = self.encoder.to_dict()
        digest = sha256(json.dumps(description, sort_keys=True).encode())
        if isinstance(self.train, Streamed):
            digest.update(f"{self.train.rows} {self.train.digest}".encode())
        for name, array in self._arrays():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield "means_and_modes", self.means_and_modes
        for part in ("train", "validation", "test"):
            split = getattr(self, part)
            for field in fields(split) if split is not None else ():
                if isinstance(value := getattr(split, field.name), np.ndarray):
                    yield f"{part}.{field.name}", value
