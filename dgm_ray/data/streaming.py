"""What a holdout prepares of a table that does not fit in memory: the same rows, cells and statistics, in one pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.holdout import Holdout, checked_statistics
from dgm_ray.data.missing import MCAR, Blocks, FittedMechanism, Patterns
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.shards import Part, Shard, Shards
from dgm_ray.data.splits import Prepared, Scored, Streamed
from dgm_ray.data.statistics import Counted
from dgm_ray.data.table import Table

HELD_ROWS = 50_000  # of validation, and of test, are in memory at most
STREAMED = (MCAR, Blocks, Patterns)  # mechanisms that do not look at the table

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainParts:
    """The training rows of a table in shards, as a model sees them. scaler: None until it is known, or never."""

    shards: Shards
    holdout: Holdout
    missing: FittedMechanism
    scaler: MinMaxScaler | None = None

    def read(self, shard: Shard) -> Iterator[tuple[Floats, NDArray[Any] | None]]:
        """Yield features (rows, num_features), NaN where missing, and labels (rows,) if there are some."""
        for part in self.shards.read(shard):
            features, labels = self.of(part)
            yield (self.scaler.transform(features) if self.scaler else features), labels

    def of(self, part: Part) -> tuple[Floats, NDArray[Any] | None]:
        """Return the training rows of a part in the table's units."""
        ids = part.row_ids
        train = self.holdout.parts(self.holdout.draws(ids))["train"]
        features = part.features[train]
        if self.holdout.train_missing_probability != 0:
            features[self.missing.mask(features, ids[train], self.holdout.train_missing_probability, "mcar")] = np.nan
        return features, None if part.labels is None else part.labels[train]


class _Held:
    """The rows of validation, or of test, that have the lowest draws."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._waiting = 0

    def add(self, draws: NDArray[np.float64], part: Part, chosen: NDArray[np.bool_]) -> None:
        labels = np.zeros(len(chosen)) if part.labels is None else part.labels
        self._rows.append((draws[chosen], part.row_ids[chosen], part.features[chosen], labels[chosen]))
        self.count += int(chosen.sum())
        self._waiting += int(chosen.sum())
        if self._waiting > 2 * HELD_ROWS:
            self._rows = [self._lowest()]
            self._waiting = HELD_ROWS

    def rows(self) -> tuple[NDArray[Any], ...]:
        """Return row ids, features and labels, by row id."""
        return self._lowest()[1:]

    def _lowest(self) -> tuple[NDArray[Any], ...]:
        columns = tuple(np.concatenate(column) for column in zip(*self._rows, strict=True))
        if len(columns[0]) <= HELD_ROWS:
            return columns
        chosen = np.sort(np.argpartition(columns[0], HELD_ROWS)[:HELD_ROWS])
        return tuple(column[chosen] for column in columns)


class _Pass:
    """What one pass over the table finds out."""

    def __init__(self, parts: TrainParts) -> None:
        self._parts, self._metadata = parts, parts.shards.metadata
        self.held = {"validation": _Held(), "test": _Held()}
        self.count, self.labelled = 0, False
        width = self._metadata.num_features
        self.counted = Counted(np.zeros(width), np.zeros(width))
        self.range = np.full((2, width), np.nan, np.float32)  # smallest and largest
        self.gaps = np.zeros(width, np.bool_)
        self._digests = blake2b(digest_size=16), blake2b(digest_size=16)  # of cells, and of labels

    def add(self, part: Part) -> None:
        cells, labels = self._digests
        cells.update(part.features.data)
        self.labelled = part.labels is not None
        if part.labels is not None:
            labels.update(np.ascontiguousarray(part.labels).data)
        draws = self._parts.holdout.draws(part.row_ids)
        chosen = self._parts.holdout.parts(draws)
        for name, held in self.held.items():
            held.add(draws, part, chosen[name])
        features, _ = self._parts.of(part)
        missing = np.isnan(features)
        self.count += len(features)
        self.counted += Counted.of(self._metadata, features, missing)
        self.gaps |= missing.any(axis=0)
        if not self._parts.shards.scaled:
            self.range[0] = np.fmin(self.range[0], np.fmin.reduce(features, axis=0, initial=np.nan))
            self.range[1] = np.fmax(self.range[1], np.fmax.reduce(features, axis=0, initial=np.nan))

    @property
    def digest(self) -> str:
        """Of all cells and labels, however they are sharded."""
        return " ".join(one.hexdigest() for one in self._digests)


def prepare_streamed(
    holdout: Holdout, shards: Shards, rows_of: Callable[[TrainParts, int], Callable[[Any, int | None], Any]]
) -> Prepared:
    """Return what ``holdout.prepare`` returns, but the training rows, which stay where they are.

    Validation and test rows are in memory: all, or the HELD_ROWS of each whose draws are the lowest; the others are
    not used. rows_of: given the training rows and how many they are, returns what ``Streamed.open`` calls.

    Raises DataError as ``holdout.prepare`` does, and for a mechanism that would have to look at all rows.
    """
    holdout.check()
    metadata = shards.metadata
    assert isinstance(holdout.missing, STREAMED)
    empty = Table(metadata, np.empty((0, metadata.num_features), np.float32))
    missing = holdout.missing.fit(empty, holdout.seed)
    parts = TrainParts(shards, holdout, missing)
    found = _Pass(parts)
    for shard in shards.shards:
        for part in shards.read(shard):
            found.add(part)
    holdout.check_parts({"train": found.count, **{name: held.count for name, held in found.held.items()}})
    scaler = None if shards.scaled else MinMaxScaler.fit(metadata, found.range)
    scored: list[Scored] = []
    for held in found.held.values():
        ids, truth, labels = held.rows()
        scored.append(holdout.scored(missing, ids, truth, labels if found.labelled else None, scaler))
    holdout.check_scored(scored[0])
    parts = TrainParts(shards, holdout, missing, scaler)
    nothing = np.empty(0, np.int64)
    train = Streamed(
        nothing,
        empty.features,
        nothing if found.labelled else None,
        found.count,
        found.gaps,
        found.digest,
        rows_of(parts, found.count),
    )
    statistics = checked_statistics(
        metadata, _scaled(found.counted, scaler).means_and_modes(metadata).astype(np.float32)
    )
    return Prepared(metadata, scaler, train, scored[0], scored[1], statistics, shards.encoder)


def _scaled(counted: Counted, scaler: MinMaxScaler | None) -> Counted:
    """Return what would have been counted of scaled features."""
    if scaler is None:
        return counted
    return Counted(counted.count, scaler.transform_sums(counted.total, counted.count))
