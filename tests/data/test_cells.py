"""Cells are hidden, rows are not; what a trial gets does not hold a test cell."""

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler

from dgm_ray.data import MAR, MCAR, BreastCancer, CellHoldout, Mechanism, Metadata, Table, Variable, Wine
from dgm_ray.errors import DataError


class Fixed:
    """A source of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def read(self) -> Table:
        return self.table


@pytest.mark.parametrize("source", [BreastCancer(), Wine()])
def test_three_disjoint_sets(source: BreastCancer | Wine) -> None:
    data = CellHoldout(source, 0.2, 0.1, seed=3).prepare()
    validation, test = data.validation, data.test
    assert test is not None
    assert len(data.train.features) == source.read().rows
    hidden = np.isnan(data.train.features)
    np.testing.assert_array_equal(hidden, validation.hidden_mask | test.hidden_mask)
    assert not (validation.hidden_mask & test.hidden_mask).any()
    assert test.hidden_mask.mean() == pytest.approx(0.2, abs=0.02)
    assert validation.hidden_mask.mean() == pytest.approx(0.1 * 0.8, abs=0.02)
    for part in (validation, test):
        np.testing.assert_array_equal(part.features, data.train.features)
        for columns in data.metadata.slices:
            cells = part.hidden_mask[:, columns]
            assert (cells == cells[:, :1]).all(), "all columns of a variable together"
    known = ~np.isnan(validation.truth)
    np.testing.assert_array_equal(known, ~test.hidden_mask)
    np.testing.assert_array_equal(validation.truth[known], test.truth[known])


def test_the_scaler_sees_what_is_seen() -> None:
    table = BreastCancer().read()
    data = CellHoldout(Fixed(table), 0.3, 0.2).prepare()
    assert data.test is not None
    unseen = np.isnan(data.train.features)
    expected = MinMaxScaler().fit(np.where(unseen, np.nan, table.features.astype(np.float64)))
    np.testing.assert_allclose(data.test.truth, expected.transform(table.features), atol=1e-5)
    assert not np.isnan(table.features).any(), "the source's table is not written"


def test_test_cells_change_nothing_that_a_trial_gets() -> None:
    """Whatever stands in them: the same features, statistics, scaler and truth."""
    table = Wine().read()
    data = CellHoldout(Fixed(table), 0.2, 0.1).prepare()
    assert data.test is not None
    numbers = np.array(
        [block.kind == "numerical" for block in data.metadata.blocks for _ in range(block.start, block.stop)]
    )
    other = np.where(data.test.hidden_mask & numbers, np.float32(77), table.features)
    again = CellHoldout(Fixed(Table(table.metadata, other, scaled=False)), 0.2, 0.1).prepare()
    for one, two in ((data, again),):
        np.testing.assert_array_equal(one.train.features, two.train.features)
        np.testing.assert_array_equal(one.validation.truth, two.validation.truth)
        np.testing.assert_array_equal(one.means_and_modes, two.means_and_modes)


@pytest.mark.parametrize("missing", [MCAR(), MAR()])
def test_a_validation_seed_moves_validation_cells_alone(missing: Mechanism) -> None:
    own, same, other = (CellHoldout(Wine(), 0.2, 0.2, 3, missing, seed).prepare() for seed in (None, 3, 4))
    assert own.test is not None
    assert other.test is not None
    assert own.content_hash() == same.content_hash()
    np.testing.assert_array_equal(own.test.hidden_mask, other.test.hidden_mask)
    left = ~own.test.hidden_mask & (own.validation.hidden_mask | other.validation.hidden_mask).any(axis=0)
    both = (own.validation.hidden_mask & other.validation.hidden_mask)[left].mean()
    assert both < 0.75 * own.validation.hidden_mask[left].mean()


def test_nothing_to_test_on() -> None:
    table = Table(Metadata((Variable("n", "numerical"), Variable("m", "numerical"))), np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"data\.test_probability: must hide a cell at least, not 0\.001"):
        CellHoldout(Fixed(table), 0.001).prepare()
