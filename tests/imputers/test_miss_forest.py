from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from dgm_ray.data import Metadata, Variable, discretize, mcar_mask, means_and_modes
from dgm_ray.errors import DataError
from dgm_ray.imputers import MissForest
from dgm_ray.imputers.forest import Forest, grow
from dgm_ray.imputers.miss_forest import Change


@pytest.mark.parametrize("classes", [0, 2, 4])
@pytest.mark.parametrize("depth", [None, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_forest_is_scikit_learns(classes: int, depth: int | None, workers: int) -> None:
    """Seed by seed, whether the trees are at hand or were loaded from arrays."""
    random = np.random.default_rng(0)
    rows, other = (random.random((count, 5), dtype=np.float32) for count in (80, 300))
    numbers = rows[:, 0] + random.random(80)
    targets = 3 * np.digitize(rows[:, 0], np.linspace(0, 1, classes + 1)[1:-1]) if classes else numbers
    options: dict[str, Any] = {"n_estimators": 12, "max_depth": depth, "max_features": "sqrt"}
    grown = grow(rows, targets, other, classes=classes > 0, seed=3, workers=workers, **options)
    loaded = Forest.from_arrays(grown.forest.to_arrays(), 5, "it")
    kind = RandomForestClassifier if classes else RandomForestRegressor
    expected = kind(random_state=3, **options).fit(rows, targets).predict(other)
    for found in (grown.predicted, grown.forest.predict(other), loaded.predict(other)):
        np.testing.assert_allclose(found, expected, rtol=0 if classes else 1e-12)


def test_the_out_of_bag_error_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    rows = random.random((200, 4), dtype=np.float32)
    numbers, labels = rows[:, 0] + 0.1 * random.random(200), (rows[:, 1] > 0.3).astype(int)

    def error(targets: Any, classes: bool, n_estimators: int = 60) -> float:
        grown = grow(rows, targets, rows[:0], classes=classes, n_estimators=n_estimators, seed=5, max_features=1.0)
        return grown.forest.oob_error

    options = {"n_estimators": 60, "random_state": 5, "oob_score": True, "max_features": 1.0}
    assert error(labels, True) == pytest.approx(1 - RandomForestClassifier(**options).fit(rows, labels).oob_score_)
    regressor = RandomForestRegressor(**options).fit(rows, numbers)
    assert error(numbers, False) ** 2 == pytest.approx(1 - regressor.oob_score_, rel=1e-6)  # R2 = 1 - error / variance
    assert np.isnan(error(numbers, False, 1)), "some rows are unseen"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", np.zeros(7, np.int64)),  # a child before its parent: a walk without end
        ("right", np.full(7, 9)),
        ("column", np.full(7, 4)),
        ("threshold", np.zeros(2)),
        ("starts", np.array([0, 2])),
        ("classes", np.arange(2)),
        ("oob", np.zeros(2)),
    ],
)
def test_nodes_that_are_no_trees_are_refused(name: str, value: Any) -> None:
    rows = np.eye(4, dtype=np.float32)
    arrays = grow(rows, np.arange(4), rows[:0], classes=False, n_estimators=1, seed=4).forest.to_arrays()
    nodes = len(arrays["left"])
    assert nodes > 1
    damaged = arrays | {name: value[:1].repeat(nodes) if len(value) == 7 else value}
    with pytest.raises(DataError, match=r"it: is damaged: the nodes of a forest"):
        Forest.from_arrays(damaged, 4, "it")


def test_a_draw_is_a_value_that_was_observed() -> None:
    random = np.random.default_rng(1)
    rows = random.random((100, 3), dtype=np.float32)
    numbers = rows[:, 0].astype(np.float64)
    forest = grow(rows, numbers, rows[:0], classes=False, n_estimators=20, seed=0).forest
    for one in (forest, Forest.from_arrays(forest.to_arrays(), 3, "it")):
        drawn = one.draw(rows, np.random.default_rng(0))
        assert np.isin(drawn, numbers).all()
        np.testing.assert_allclose(drawn, numbers, atol=0.2)
        np.testing.assert_array_equal(drawn, forest.draw(rows, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("now", "before", "grew"),
    [
        ((0.2, 0.2), (0.1, 0.1), True),
        ((0.2, 0.1), (0.1, 0.2), False),
        ((0.1, 0.1), (0.2, 0.2), False),
        ((0.2, np.nan), (0.1, np.nan), True),
        ((np.nan, 0.1), (np.nan, 0.2), False),
    ],
)
def test_the_stopping_rule(now: Any, before: Any, grew: bool) -> None:
    assert Change(*now).grew(Change(*before)) == grew


@pytest.fixture(scope="module")
def table(md7: Metadata) -> tuple[Any, Any]:
    """Rows of md7 in which a variable tells of others: (300, 13) and their mask."""
    random = np.random.default_rng(2)
    level, rows = random.random(300), np.zeros((300, 13), np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2] = level, level > 0.5, level > 0.3
    rows[np.arange(300), 3 + (level * 2.99).astype(int)] = 1
    rows[:, 6] = 1 - level
    rows[np.arange(300), 7 + (level * 4.99).astype(int)] = 1
    rows[:, 12] = level < 0.5
    return rows, mcar_mask(md7, np.arange(300), 0.3, 0)


def test_it_beats_means_and_modes_by_far(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    changes: list[Any] = []
    forest = MissForest(md7, n_estimators=20).fit(rows, mask, lambda *given: changes.append(given))
    completed = forest.transform(rows, mask)
    np.testing.assert_array_equal(completed[~mask], rows[~mask])
    np.testing.assert_array_equal(completed, discretize(md7, completed))
    means = np.where(mask, means_and_modes(md7, rows, mask), rows)
    errors = [np.sqrt(np.mean((one - rows)[mask] ** 2)) for one in (completed, means)]
    assert errors[0] < 0.5 * errors[1]
    assert [number for number, _ in changes] == list(range(1, len(changes) + 1))
    assert 1 < len(changes) <= 10
    assert set(forest.oob_error_) == {variable.name for variable in md7.variables}
    assert all(error < 0.7 for error in forest.oob_error_.values())
    assert forest.figures().keys() == {"oob_nrmse", "oob_pfc"}
    numerical = [forest.oob_error_[name] for name in ("n1", "n2")]
    assert forest.figures()["oob_nrmse"] == pytest.approx(np.mean(numerical))


def test_variables_are_visited_from_the_fewest_missing(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    forest = MissForest(md7, n_estimators=2, max_iterations=1).fit(rows, mask)
    counts = [mask[:, md7.slices[number].start].sum() for number in forest.order_]
    assert counts == sorted(counts)


def test_rows_that_were_not_there_are_imputed_without_growing(
    md7: Metadata, table: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, mask = table
    complete = np.zeros((200, 13), np.bool_)
    complete[:, :3] = mask[:200, :3]  # c1 and the others have no missing cell here
    forest = MissForest(md7, n_estimators=5).fit(rows[:200], complete)
    monkeypatch.setattr("dgm_ray.imputers.miss_forest.grow", None)
    completed = forest.transform(rows[200:], mask[200:])
    np.testing.assert_array_equal(completed[~mask[200:]], rows[200:][~mask[200:]])
    np.testing.assert_array_equal(completed, forest.transform(rows[200:], mask[200:]))
    alone = forest.transform(rows[250:251], mask[250:251])
    np.testing.assert_array_equal(alone[0], completed[50], "rows do not depend on each other")


def test_the_seed_decides(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    first, again, other = (
        MissForest(md7, n_estimators=3, max_iterations=2, seed=seed).fit(rows, mask).transform(rows, mask)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_stands_under_the_mask_has_no_influence(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    results = [
        MissForest(md7, n_estimators=3, max_iterations=2).fit(one, mask).transform(one, mask)
        for one in (rows, np.where(mask, np.float32(np.nan), rows), np.where(mask, np.float32(1e30), rows))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_arrays_hold_all_of_it(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    forest = MissForest(md7, n_estimators=3, max_iterations=2).fit(rows, mask)
    arrays = forest.to_arrays()
    assert all(array.dtype != object for array in arrays.values())
    again = MissForest.from_arrays(md7, arrays, "it")
    np.testing.assert_array_equal(again.transform(rows, mask), forest.transform(rows, mask))
    assert again.oob_error_ == pytest.approx(forest.oob_error_, nan_ok=True)
    renamed = Metadata(tuple(Variable(f"{one.name}x", one.kind, one.size) for one in md7.variables))
    with pytest.raises(DataError, match="it: was trained on a table with other variables"):
        MissForest.from_arrays(renamed, arrays, "it")
    with pytest.raises(DataError, match="it: is no MissForest model"):
        MissForest.from_arrays(md7, {"format": np.array(1)}, "it")
    with pytest.raises(DataError, match="it: is no MissForest model of this library's format 2"):
        MissForest.from_arrays(md7, arrays | {"format": np.array(1)}, "it")
    with pytest.raises(DataError, match=r"it: is damaged: '99\.left' belongs to no variable"):
        MissForest.from_arrays(md7, arrays | {"99.left": np.array(1)}, "it")


def test_a_variable_without_an_observed_cell_is_named(md7: Metadata, table: tuple[Any, Any]) -> None:
    rows, mask = table
    mask = mask.copy()
    mask[:, 3:6] = True
    with pytest.raises(DataError, match="variable 'c1': has no observed cell"):
        MissForest(md7).fit(rows, mask)


KINDS = st.lists(st.sampled_from("nbc"), min_size=2, max_size=4)


@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.9), kinds=KINDS)
@settings(max_examples=15)
def test_whatever_the_table(seed: int, share: float, kinds: list[str]) -> None:
    names = {"n": ("numerical", 1), "b": ("binary", 1), "c": ("categorical", 3)}
    metadata = Metadata(tuple(Variable(f"{kind}{i}", *names[kind]) for i, kind in enumerate(kinds)))  # type: ignore[arg-type]
    random = np.random.default_rng(seed)
    rows = discretize(metadata, random.random((12, metadata.num_features), dtype=np.float32))
    mask = mcar_mask(metadata, np.arange(12), share, seed)
    mask[0] = False
    completed = MissForest(metadata, n_estimators=2, max_iterations=2).fit(rows, mask).transform(rows, mask)
    np.testing.assert_array_equal(completed[~mask], rows[~mask])
    np.testing.assert_array_equal(completed, discretize(metadata, completed))
    assert np.isfinite(completed).all()
