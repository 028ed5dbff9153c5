"""Split a table into train, validation and test rows, and hide cells of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.masks import uniforms
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.missing import MCAR, FittedMechanism, Mechanism
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.splits import Prepared, Scored, Split
from dgm_ray.data.statistics import means_and_modes
from dgm_ray.data.table import Table
from dgm_ray.errors import DataError
from dgm_ray.registry import Fraction, NonNegativeInt, register


@runtime_checkable
class Source(Protocol):
    """Something that a table can be read from."""

    def read(self) -> Table:
        """Return the table, checked."""
        ...


@register
@dataclass(frozen=True)
class Holdout:
    """Random rows are held out, and cells hidden: functions of (row, variable, seed) alone.

    validation_fraction, test_fraction: shares of the rows, in [0, 1), their sum below 1. The test rows do not depend
        on validation_fraction.
    missing_probability: share of the cells of validation and test rows to hide, in [0, 1); null: as many as the
        mechanism Learned has seen.
    train_missing_probability: share of the cells of train rows to hide, in [0, 1), or null as above.
    missing: which cells are hidden; it is fitted on the whole table, before anything is hidden.
    """

    source: Source
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    missing_probability: Fraction | None = 0.2
    train_missing_probability: Fraction | None = 0.0
    seed: NonNegativeInt = 0
    missing: Mechanism = MCAR()

    def prepare(self) -> Prepared:
        """Read, split, hide and scale.

        The scaler is fitted on what the model sees of the train rows, and only if the table is not scaled yet.
        Raises DataError if train or validation has no rows, or validation has no hidden cell to be scored on.
        """
        self.check()
        table = self.source.read()
        train_ids, validation_ids, test_ids = self._row_ids(table.rows)
        missing = self.missing.fit(table, self.seed)
        features = table.features[train_ids]  # (train rows, num_features), a copy
        if self.train_missing_probability != 0:
            features[missing.mask(features, train_ids, self.train_missing_probability, "mcar")] = np.nan
        scaler = None if table.scaled else MinMaxScaler.fit(table.metadata, features)
        train = Split(train_ids, scaler.transform(features) if scaler else features, labels_of(table, train_ids))
        validation, test = (
            self.scored(missing, ids, table.features[ids], labels_of(table, ids), scaler)
            for ids in (validation_ids, test_ids)
        )
        self.check_scored(validation)
        statistics = statistics_of(table.metadata, train)
        return Prepared(table.metadata, scaler, train, validation, test, statistics, table.encoder)

    def check(self) -> None:
        """Raise DataError unless the fractions leave rows to train on."""
        if self.validation_fraction + self.test_fraction >= 1:
            rule = "validation_fraction and test_fraction must have a sum below 1"
            raise DataError("data.test_fraction", rule, self.validation_fraction + self.test_fraction)

    def draws(self, row_ids: NDArray[Any]) -> NDArray[np.float64]:
        """Return what decides for each row which part it belongs to, (rows,): the lowest are the test's."""
        return uniforms(row_ids, 0, self.seed, "split")

    def parts(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
        """Return True for the rows of train, validation and test."""
        held_out = self.test_fraction + self.validation_fraction
        test, train = draws < self.test_fraction, draws >= held_out
        return {"train": train, "validation": ~(test | train), "test": test}

    def check_parts(self, counts: Mapping[str, int]) -> None:
        """Raise DataError if train or validation has no row. counts: of the rows of each part."""
        for name in ("train", "validation"):
            if not counts[name]:
                rule = f"leaves no row of {sum(counts.values())} for {name}"
                raise DataError("data.validation_fraction", rule, self.validation_fraction)

    def check_scored(self, validation: Scored) -> None:
        """Raise DataError if nothing can be scored."""
        if not validation.hidden_mask.any():
            rule = "must hide a cell of the validation rows at least, or nothing can be scored"
            raise DataError("data.missing_probability", rule, self.missing_probability)

    def _row_ids(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the row ids of train, validation and test, each in ascending order."""
        parts = self.parts(self.draws(np.arange(rows)))
        train_ids, validation_ids, test_ids = (np.flatnonzero(part) for part in parts.values())
        self.check_parts({name: int(part.sum()) for name, part in parts.items()})
        return train_ids, validation_ids, test_ids

    def scored(
        self,
        missing: FittedMechanism,
        row_ids: NDArray[np.int64],
        truth: NDArray[np.float32],
        labels: NDArray[Any] | None,
        scaler: MinMaxScaler | None,
    ) -> Scored:
        """Return rows with cells hidden. truth: (rows, num_features), in the table's units."""
        hidden_mask = missing.mask(truth, row_ids, self.missing_probability, "mcar") & ~np.isnan(truth)
        truth = scaler.transform(truth) if scaler else truth
        features = np.where(hidden_mask, np.float32(np.nan), truth)
        return Scored(row_ids, features, labels, hidden_mask, truth)


def statistics_of(metadata: Metadata, train: Split) -> NDArray[np.float32]:
    """Return the means and modes of what is seen, (num_features,). Raises DataError for a column that is not seen."""
    return checked_statistics(metadata, means_and_modes(metadata, train.features, train.missing_mask))


def checked_statistics(metadata: Metadata, statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means and modes. Raises DataError for a column that is not seen."""
    if unknown := metadata.names_of(np.isnan(statistics)):
        raise DataError(f"data: {unknown[0]}", "has no observed cell in the training rows")
    return statistics


def labels_of(table: Table, row_ids: NDArray[np.int64]) -> NDArray[np.generic] | None:
    """Return the labels of some rows, if the table has labels."""
    return None if table.labels is None else table.labels[row_ids]
