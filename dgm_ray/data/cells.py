"""Hide cells of a table whose rows are all trained on: the protocol of most papers on imputation."""

from dataclasses import dataclass

import numpy as np

from dgm_ray.data.holdout import Source, labels_of, statistics_of
from dgm_ray.data.missing import MCAR, Mechanism
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.splits import Prepared, Scored, Split
from dgm_ray.errors import DataError
from dgm_ray.registry import Fraction, NonNegativeInt, register


@register
@dataclass(frozen=True)
class CellHoldout:
    """No rows are held out, only cells: validation and test cells of the rows that are trained on, never both.

    A cell is naturally missing, a test cell, a validation cell or seen: functions of (row, variable, seed) alone. The
    scaler is fitted on what is seen. Test cells' values are never in what trials get.

    test_probability: share of the cells to hide for the test, in [0, 1); null: as many as the mechanism Learned has
        seen.
    validation_probability: share of the others to hide for validation, in [0, 1), or null as above; 0: nothing is
        measured while training, so keep_checkpoint_by_metric is null.
    missing: which cells are hidden; it is fitted on the table before anything is hidden.
    validation_seed: draws other validation cells, while the test cells stay; null: the seed.
    """

    source: Source
    test_probability: Fraction | None = 0.2
    validation_probability: Fraction | None = 0.1
    seed: NonNegativeInt = 0
    missing: Mechanism = MCAR()
    validation_seed: NonNegativeInt | None = None

    def prepare(self) -> Prepared:
        """Read, hide and scale. Raises DataError if no test cell is hidden, or all of a column is."""
        table = self.source.read()
        ids = np.arange(table.rows)
        known = ~np.isnan(table.features)
        missing = self.missing.fit(table, self.seed)
        test = missing.mask(table.features, ids, self.test_probability, "mcar") & known
        left = known & ~test
        draw = "validation" if self.validation_seed in (None, self.seed) else f"validation {self.validation_seed}"
        validation = missing.among(left).mask(table.features, ids, self.validation_probability, draw) & left
        if self.test_probability != 0 and not test.any():
            raise DataError("data.test_probability", "must hide a cell at least", self.test_probability)
        unseen = test | validation
        features = np.where(unseen, np.float32(np.nan), table.features)  # (rows, num_features), a copy
        scaler = None if table.scaled else MinMaxScaler.fit(table.metadata, features)
        truth = table.features if scaler is None else scaler.transform(table.features)
        features[:] = np.where(unseen, np.float32(np.nan), truth)
        labels = labels_of(table, ids)
        train = Split(ids, features, labels)
        without_test = np.where(test, np.float32(np.nan), truth)
        return Prepared(
            table.metadata,
            scaler,
            train,
            Scored(ids, features, labels, validation, without_test),
            Scored(ids, features, labels, test, truth),
            statistics_of(table.metadata, train),
            table.encoder,
        )
