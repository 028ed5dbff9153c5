from typing import Any

import numpy as np
import pytest

from dgm_ray.data import BreastCancer, CellHoldout, Metadata, Variable
from dgm_ray.imputers import GaussianEM
from dgm_ray.imputers import gaussian_em as module
from dgm_ray.imputers.gaussian_em import Normal

NAN = np.float32(np.nan)


def numbers(count: int) -> Metadata:
    return Metadata(tuple(Variable(f"n{i}", "numerical") for i in range(count)))


def correlated(rows: int, columns: int, rate: float, seed: int = 0) -> tuple[Any, Any]:
    """Rows of a normal distribution, and the same with missing cells."""
    random = np.random.default_rng(seed)
    whole = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns)) + 3
    whole = whole.astype(np.float32)
    return whole, np.where(random.random(whole.shape) < rate, NAN, whole)


def conditional(normal: Normal, row: Any, mask: Any) -> tuple[Any, Any]:
    """The textbook's: by the inverse of the observed cells' covariance."""
    if not mask.any():
        return row, np.zeros((0, 0))
    if mask.all():
        return normal.mean, normal.covariance
    covariance, known = normal.covariance, ~mask
    slope = covariance[np.ix_(mask, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    completed = row.copy()
    completed[mask] = normal.mean[mask] + slope @ (row - normal.mean)[known]
    return completed, covariance[np.ix_(mask, mask)] - slope @ covariance[np.ix_(known, mask)]


def log_likelihood(normal: Normal, rows: Any) -> float:
    """Of the observed cells alone."""
    total = 0.0
    for row in rows:
        known = ~np.isnan(row)
        away, covariance = (row - normal.mean)[known], normal.covariance[np.ix_(known, known)]
        total -= 0.5 * (np.linalg.slogdet(2 * np.pi * covariance)[1] + away @ np.linalg.solve(covariance, away))
    return total


@pytest.fixture
def normal() -> Normal:
    random = np.random.default_rng(5)
    root = random.normal(size=(6, 6))
    return Normal(random.normal(size=6), root @ root.T + 0.1 * np.eye(6))


@pytest.mark.parametrize("cells", [1, 100, module.CELLS])  # a row at a time, some, or all
def test_the_expectation_is_the_textbooks(normal: Normal, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", cells)
    random = np.random.default_rng(6)
    rows, mask = random.normal(size=(40, 6)), random.random((40, 6)) < 0.5
    mask[0], mask[1], mask[2] = True, False, mask[3]
    completed, spread = normal.expect(np.where(mask, np.nan, rows), mask)
    total = np.zeros((6, 6))
    for row, hidden, found in zip(rows, mask, completed, strict=True):
        expected, covariance = conditional(normal, row, hidden)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        total[np.ix_(hidden, hidden)] += covariance
    np.testing.assert_allclose(spread, total, rtol=1e-9, atol=1e-12)


def test_draws_have_the_mean_and_the_covariance_of_what_is_expected(normal: Normal) -> None:
    row, mask = np.arange(6.0), np.array([True, False, True, True, False, False])
    drawn = normal.draw(np.tile(row, (40_000, 1)), np.tile(mask, (40_000, 1)), np.random.default_rng(0))
    expected, covariance = conditional(normal, row, mask)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(drawn.mean(axis=0)[mask] / scale, expected[mask] / scale, atol=0.03)
    np.testing.assert_allclose(
        np.cov(drawn[:, mask].T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.03
    )
    np.testing.assert_array_equal(drawn[:, ~mask], np.tile(row[~mask], (40_000, 1)))


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_likelihood_never_falls(ridge: float) -> None:
    """That of the observed cells; with a ridge, less half its rows times the trace of the precision."""
    _, rows = correlated(80, 4, 0.3)
    imputer, found = GaussianEM(numbers(4), ridge=ridge, max_iterations=25, tolerance=0), []
    for _ in imputer.iterations(rows, np.isnan(rows)):
        assert imputer.normal_ is not None
        scaled = (rows.astype(float) - imputer.center_) / imputer.scale_
        penalty = 0.5 * ridge * len(rows) * np.trace(np.linalg.inv(imputer.normal_.covariance))
        found.append(log_likelihood(imputer.normal_, scaled) - penalty)
    assert len(found) == 25
    assert np.diff(found).min() > -1e-4
    assert found[-1] > found[0]


def test_complete_rows_have_their_own_mean_and_covariance() -> None:
    whole, _ = correlated(50, 4, 0.0)
    imputer = GaussianEM(numbers(4), ridge=0)
    assert len(list(imputer.iterations(whole, np.isnan(whole)))) == 1
    np.testing.assert_allclose(imputer.mean_, whole.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(imputer.covariance_, np.cov(whole.T, ddof=0), rtol=1e-5)


def test_it_ends_when_nothing_moves() -> None:
    _, rows = correlated(200, 3, 0.2)
    imputer = GaussianEM(numbers(3), max_iterations=500, tolerance=1e-4)
    changes = list(imputer.iterations(rows, np.isnan(rows)))
    assert 3 < len(changes) < 100
    assert changes[-1].numerical < 1e-6 < changes[0].numerical


def test_a_categorical_variable_is_one(md7: Metadata, rows7: Any) -> None:
    """Its columns are missing together, and the last, which the others tell, is not among the normal's."""
    mask = np.zeros(rows7.shape, np.bool_)
    mask[:40, 4] = True  # one column of c1
    imputer = GaussianEM(md7)
    list(imputer.iterations(rows7, mask))
    assert len(imputer.mean_) == 13 - 2
    mask[:, 3:6] |= mask[:, 4:5]
    again = GaussianEM(md7)
    list(again.iterations(np.where(mask, NAN, rows7), mask))
    np.testing.assert_array_equal(imputer.mean_, again.mean_)
    completed = again.transform(rows7, mask)
    assert (completed[:, 3:6].sum(axis=1) == 1).all()


def test_it_is_near_the_truth_on_breast() -> None:
    data = CellHoldout(BreastCancer(), 0.2, 0.0).prepare()
    rows, test = data.train.features, data.test
    assert test is not None
    imputer = GaussianEM(data.metadata)
    list(imputer.iterations(rows, np.isnan(rows)))
    errors = (imputer.transform(rows, np.isnan(rows)) - test.truth)[:, :30][test.hidden_mask[:, :30]]
    assert np.sqrt(np.mean(errors**2)) < 0.054  # scikit-learn's IterativeImputer: 0.052; means: 0.14
