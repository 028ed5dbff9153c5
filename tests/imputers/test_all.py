"""What every imputer must do beside the checks of dgm_ray.testing (tests/test_testing.py), on features and masks.

They are found by the registry: a new one is tested without being named here.
"""

import hashlib
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from dgm_ray.data import Metadata, Variable, discretize, mcar_mask, means_and_modes
from dgm_ray.errors import DataError
from dgm_ray.imputers import BaseImputer
from dgm_ray.registry import FACTORIES, Scope, build, parameters

NAN = np.float32(np.nan)
FOUND = [name for name, one in FACTORIES.items() if inspect.isclass(one) and issubclass(one, BaseImputer)]
SMALL = {"n_estimators": 8, "max_iterations": 4}  # what keeps the tests short, for those that have it
NEEDS = {"MissingpyMissForest": "missingpy"}  # optional packages
# Those for which the order of rows counts, each with the reason.
ORDER_COUNTS = {
    "KNearest": "of rows at the same distance the first are nearest; test_k_nearest has a table without",
    "MissForest": "its trees draw rows at random",
    "MissingpyMissForest": "its trees draw rows at random",
}
# Those that learn anew from the rows they complete, as the package they stand for.
LEARN_AGAIN = {"MissingpyMissForest"}
IMPUTERS = pytest.mark.parametrize("name", FOUND)
Fitted = Callable[..., BaseImputer]


def make(name: str, metadata: Metadata, seed: int = 0, **more: Any) -> BaseImputer:
    if name in NEEDS and find_spec(NEEDS[name]) is None:  # found, not imported: missingpy itself does not import
        pytest.skip(f"{NEEDS[name]} is not installed")
    known = parameters(FACTORIES.get(name, ""))
    small = {key: value for key, value in SMALL.items() if key in known}
    scope = Scope({"metadata": metadata, "seed": seed, "workers": 1})
    made: BaseImputer = build({"factory": name, "arguments": small | more}, BaseImputer, scope)
    return made


def fitted(name: str, metadata: Metadata, rows: Any, mask: Any, **more: Any) -> BaseImputer:
    imputer = make(name, metadata, **more)
    for _ in imputer.iterations(rows, mask):
        pass
    return imputer


def state(imputer: BaseImputer) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(imputer.to_arrays().items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def table(md7: Metadata) -> tuple[Any, Any]:
    """Rows of md7 in which a variable tells of others: (240, 13) and their mask."""
    random = np.random.default_rng(2)
    level, rows = random.random(240), np.zeros((240, 13), np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2] = 5 + 3 * level + 0.1 * random.random(240), level > 0.5, level > 0.3
    rows[np.arange(240), 3 + (level * 2.99).astype(int)] = 1
    rows[:, 6] = 1 - level**2
    rows[np.arange(240), 7 + (level * 4.99).astype(int)] = 1
    rows[:, 12] = level < 0.5
    return rows, mcar_mask(md7, np.arange(240), 0.25, 0)


def test_there_are_imputers() -> None:
    assert len(FOUND) >= 4
    assert {"GaussianEM", "IterativeRidge", "KNearest", "MissForest"} <= set(FOUND)


@IMPUTERS
def test_what_is_imputed_is_valid_and_what_is_observed_stays(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    imputer = fitted(name, md7, rows, mask)
    for completed in (imputer.transform(rows, mask), imputer.draw(rows, mask, np.random.default_rng(0))):
        assert completed.dtype == np.float32
        assert completed[~mask].tobytes() == rows[~mask].tobytes()
        assert np.isfinite(completed).all()
        np.testing.assert_array_equal(completed, discretize(md7, completed))


@IMPUTERS
def test_it_beats_means_and_modes(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    completed = fitted(name, md7, rows, mask).transform(rows, mask)
    means = np.where(mask, means_and_modes(md7, rows, mask), rows)
    for block in md7.blocks:
        own = slice(block.start, block.stop)
        errors = [np.mean(np.square((one - rows)[:, own][mask[:, own]])) for one in (completed, means)]
        assert errors[0] < 0.7 * errors[1], block


@IMPUTERS
def test_arrays_hold_all_of_it(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    imputer = fitted(name, md7, rows, mask)
    arrays = imputer.to_arrays()
    assert all(array.dtype.kind in "biufU" for array in arrays.values())
    again = make(name, md7, seed=5)
    again.load_arrays({key: array.copy() for key, array in arrays.items()}, "it")
    np.testing.assert_array_equal(again.transform(rows, mask), imputer.transform(rows, mask))
    assert state(again) == state(imputer)


@IMPUTERS
def test_what_is_damaged_is_refused(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    arrays = fitted(name, md7, rows, mask).to_arrays()
    for key, array in arrays.items():
        with pytest.raises(DataError, match=r"^it: "):
            make(name, md7).load_arrays({other: one for other, one in arrays.items() if other != key}, "it")
        with pytest.raises(DataError, match=r"^it: "):
            make(name, md7).load_arrays(arrays | {key: array[np.newaxis]}, "it")
    renamed = Metadata(tuple(Variable(f"{one.name}x", one.kind, one.size) for one in md7.variables))
    with pytest.raises(DataError, match="it: was trained on a table with other variables"):
        make(name, renamed).load_arrays(arrays, "it")
    with pytest.raises(DataError, match=f"it: is no {name} model"):
        make(name, md7).load_arrays(arrays | {"format": np.array(99)}, "it")


@IMPUTERS
def test_what_stands_under_the_mask_is_not_looked_at(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    garbage = [np.where(mask, value, rows) for value in (NAN, np.float32(1e30), np.float32(-7))]
    expected = fitted(name, md7, rows, mask)
    for one in garbage:
        found = fitted(name, md7, one, mask)
        assert state(found) == state(expected)
        np.testing.assert_array_equal(found.transform(one, mask), expected.transform(rows, mask))
    unmasked = fitted(name, md7, garbage[0], np.zeros_like(mask))
    assert state(unmasked) == state(expected), "NaN is missing, whatever the mask says"


@IMPUTERS
def test_the_order_of_the_rows_that_it_learns_from(name: str, md7: Metadata, table: Any) -> None:
    if name in ORDER_COUNTS:
        pytest.skip(ORDER_COUNTS[name])
    rows, mask = table
    shuffled = np.random.default_rng(0).permutation(240)
    one, other = fitted(name, md7, rows, mask), fitted(name, md7, rows[shuffled], mask[shuffled])
    np.testing.assert_allclose(one.transform(rows, mask), other.transform(rows, mask), rtol=1e-4)


@IMPUTERS
@pytest.mark.parametrize("count", [1, 3])
def test_few_rows(name: str, count: int, md7: Metadata, table: Any) -> None:
    """Fewer than neighbours, fewer than columns: what is known completes what is not."""
    rows, mask = table[0][:count], np.zeros((count, 13), np.bool_)
    mask[1:, :3] = True
    imputer = fitted(name, md7, rows, mask)
    completed = imputer.transform(rows, mask)
    np.testing.assert_array_equal(completed[~mask], rows[~mask])
    np.testing.assert_allclose(completed[:, 0][mask[:, 0]], rows[0, 0], rtol=1e-4)
    if name not in LEARN_AGAIN:
        assert np.isfinite(imputer.transform(np.full((2, 13), NAN), np.ones((2, 13), np.bool_))).all()


@IMPUTERS
@pytest.mark.parametrize(("kind", "size"), [("numerical", 1), ("binary", 1), ("categorical", 3)])
def test_one_variable_alone(name: str, kind: Any, size: int) -> None:
    """There is nothing to tell it from: the mean, or the mode."""
    metadata = Metadata((Variable("it", kind, size),))
    rows = (
        np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2, 1]]
        if size == 3
        else np.array([[0], [1], [1], [1], [0], [1]], np.float32)
    )
    mask = np.zeros(rows.shape, np.bool_)
    mask[-1] = True
    completed = fitted(name, metadata, rows, mask, **({"n_estimators": 400} if "Forest" in name else {})).transform(
        rows, mask
    )
    np.testing.assert_allclose(completed[-1], means_and_modes(metadata, rows, mask), atol=0.05)


@IMPUTERS
def test_columns_that_do_not_vary(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table[0].copy(), table[1]
    rows[:, 0], rows[:, 1], rows[:, 3:6] = 7, 1, [0, 0, 1]
    imputer = fitted(name, md7, rows, mask)
    completed = imputer.transform(rows, mask)
    np.testing.assert_allclose(completed[:, :2], rows[:, :2], rtol=1e-6)
    np.testing.assert_array_equal(completed[:, 3:6], rows[:, 3:6])
    np.testing.assert_allclose(imputer.draw(rows, mask, np.random.default_rng(0))[:, 0], 7, rtol=1e-3)


@IMPUTERS
def test_a_variable_without_an_observed_cell_is_named(name: str, md7: Metadata, table: Any) -> None:
    rows, mask = table
    mask = mask.copy()
    mask[:, 3:6] = True
    with pytest.raises(DataError, match="variable 'c1': has no observed cell"):
        fitted(name, md7, rows, mask)


@IMPUTERS
def test_draws(name: str, md7: Metadata, table: Any) -> None:
    """Another generator draws others; an imputer that cannot draw returns what it always returns."""
    rows, mask = table
    imputer = fitted(name, md7, rows, mask)
    first, again, other = (imputer.draw(rows, mask, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    draws = type(imputer).draw is not BaseImputer.draw
    assert draws == (not np.array_equal(first, other))
    assert np.array_equal(first, imputer.transform(rows, mask)) == (not draws)


@IMPUTERS
def test_rows_that_it_learns_from_are_completed_at_once(name: str, md7: Metadata, table: Any) -> None:
    """As by transform, or nearly: MissForest returns what its paper does."""
    rows, mask = table
    imputer = make(name, md7)
    completed = imputer.fit_transform(rows, mask)
    assert completed[~mask].tobytes() == rows[~mask].tobytes()
    np.testing.assert_array_equal(completed, discretize(md7, completed))
    means = np.where(mask, means_and_modes(md7, rows, mask), rows)
    again = imputer.transform(rows, mask)
    errors = [np.mean(np.square((one - rows)[mask])) for one in (completed, again, means)]
    assert errors[0] < 0.7 * errors[2]
    assert errors[0] < 1.2 * errors[1]
