from typing import Any

import numpy as np
import pytest
from sklearn.impute import KNNImputer

from dgm_ray.data import BreastCancer, CellHoldout, Metadata, Variable
from dgm_ray.imputers import KNearest
from dgm_ray.imputers import k_nearest as module

NAN = float("nan")
MIXED = Metadata((Variable("n", "numerical"), Variable("c", "categorical", 3), Variable("b", "binary")))


def fitted(imputer: KNearest, rows: Any) -> KNearest:
    list(imputer.iterations(rows, np.isnan(rows)))
    return imputer


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("cells", [1, module.CELLS])  # one row at a time, or all
def test_a_table_of_numbers_is_as_scikit_learns(weights: Any, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", cells)
    data = CellHoldout(BreastCancer(), 0.2, 0.0).prepare()
    rows = data.train.features[:, :30] * np.float32(3)
    metadata = Metadata(data.metadata.variables[:30])
    low, spread = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    theirs = (
        KNNImputer(n_neighbors=7, weights=weights).fit_transform((rows.astype(float) - low) / spread) * spread + low
    )
    ours = fitted(KNearest(metadata, 7, weights), rows).transform(rows, np.isnan(rows))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_cells_without_enough_near_rows_ask_all() -> None:
    """The first column is known in three rows alone, far from the others."""
    random = np.random.default_rng(0)
    rows = random.random((300, 3), dtype=np.float32)
    rows[3:, 0] = np.nan
    rows[:3, 1:] += 2
    metadata = Metadata(tuple(Variable(name, "numerical") for name in "abc"))
    completed = fitted(KNearest(metadata, 5), rows).transform(rows, np.isnan(rows))
    np.testing.assert_allclose(completed[3:, 0], rows[:3, 0].mean(), rtol=1e-6)


def test_a_categorical_variable_differs_once() -> None:
    """Another category is as far as the whole range of a number, or as another bit: not as two columns."""
    rows = np.array([[0, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 1, 0, 0, 1]], np.float32)
    distances = KNearest(MIXED)
    fitted(distances, rows)
    known = np.ones(rows.shape, np.bool_)
    placed = distances._placed(rows, known)
    found = distances._distances(placed[:1], known[:1], placed, known)
    np.testing.assert_allclose(found[0] ** 2, [0, 2, 2, 1])  # variables that differ


def test_votes() -> None:
    rows = np.array([[0.0, 1, 0, 0, 1], [0.1, 0, 1, 0, 0], [0.2, 0, 1, 0, 0], [1, 0, 0, 1, 1]], np.float32)
    asked = np.array([[0.0, NAN, NAN, NAN, NAN]], np.float32)
    uniform = fitted(KNearest(MIXED, 3), rows).transform(asked, np.isnan(asked))
    np.testing.assert_array_equal(uniform, [[0, 0, 1, 0, 0]])
    nearest = fitted(KNearest(MIXED, 3, "distance"), rows).transform(asked, np.isnan(asked))
    np.testing.assert_array_equal(nearest, [[0, 1, 0, 0, 1]])  # a row at distance 0 decides alone


def test_draws_are_neighbours_values() -> None:
    rows = np.array([[0.0, 1, 0, 0, 1], [0.1, 0, 1, 0, 0], [0.9, 0, 0, 1, 1], [1, 0, 0, 1, 0]], np.float32)
    asked = np.tile(np.array([[0.04, NAN, NAN, NAN, NAN]], np.float32), (200, 1))
    drawn = fitted(KNearest(MIXED, 2), rows).draw(asked, np.isnan(asked), np.random.default_rng(0))
    assert 60 < drawn[:, 1].sum() < 140
    assert drawn[:, 3].sum() == 0
    assert (drawn[:, 1:4].sum(axis=1) == 1).all()


def test_the_order_of_rows_does_not_count_unless_they_are_as_near() -> None:
    rows = np.random.default_rng(0).random((80, 4), dtype=np.float32)
    rows[np.random.default_rng(1).random(rows.shape) < 0.2] = np.nan
    metadata = Metadata(tuple(Variable(name, "numerical") for name in "abcd"))
    one, other = (fitted(KNearest(metadata), these).transform(rows, np.isnan(rows)) for these in (rows, rows[::-1]))
    np.testing.assert_allclose(one, other, rtol=1e-5)
