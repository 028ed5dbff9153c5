import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import BayesianRidge, Ridge

from dgm_ray.data import BreastCancer, CellHoldout, Metadata, Variable
from dgm_ray.imputers import IterativeRidge
from dgm_ray.imputers.iterative_ridge import regress


def regressed(rows: Any, targets: Any, ridge: float | None) -> Any:
    x, y = rows - rows.mean(axis=0), targets - targets.mean(axis=0)
    return regress(x.T @ x, x.T @ y, np.square(y).sum(axis=0), len(rows), ridge)


@pytest.fixture
def rows() -> Any:
    random = np.random.default_rng(0)
    return random.normal(size=(60, 5)) @ random.normal(size=(5, 5))


def test_a_regression_is_scikit_learns_ridge(rows: Any) -> None:
    targets = rows[:, :2] + np.random.default_rng(1).normal(size=(60, 2))
    found = regressed(rows, targets, 0.1)
    np.testing.assert_allclose(found.slopes.T, Ridge(0.1 * 60).fit(rows, targets).coef_, rtol=1e-8)


def test_a_regression_without_a_penalty_is_scikit_learns_bayesian_ridge(rows: Any) -> None:
    targets = rows[:, :2] + np.random.default_rng(1).normal(size=(60, 2))
    found = regressed(rows, targets, None)
    for output in (0, 1):
        theirs = BayesianRidge(tol=1e-8).fit(rows, targets[:, output])
        np.testing.assert_allclose(found.slopes[:, output], theirs.coef_, rtol=0.01, atol=1e-3)
        assert found.noise[output] == pytest.approx(1 / theirs.alpha_, rel=0.01)
        if output == 0:
            np.testing.assert_allclose(found.uncertainty, theirs.sigma_, rtol=0.03, atol=1e-4)


def test_columns_that_tell_the_same_are_no_obstacle(rows: Any) -> None:
    twice = np.concatenate([rows, rows], axis=1)
    for ridge in (None, 1e-6):
        found = regressed(twice, rows[:, :1], ridge)
        assert np.isfinite(found.slopes).all()
        np.testing.assert_allclose(twice @ found.slopes, rows[:, :1], atol=1e-2)


def fitted(imputer: IterativeRidge, features: Any) -> IterativeRidge:
    list(imputer.iterations(features, np.isnan(features)))
    return imputer


def test_it_is_as_good_as_scikit_learns_on_numbers() -> None:
    data = CellHoldout(BreastCancer(), 0.2, 0.0).prepare()
    assert data.test is not None
    rows, truth, hidden = data.train.features[:, :30], data.test.truth[:, :30], data.test.hidden_mask[:, :30]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        theirs = IterativeImputer(BayesianRidge(), max_iter=10, min_value=low, max_value=high).fit_transform(rows)
    metadata = Metadata(data.metadata.variables[:30])
    ours = fitted(IterativeRidge(metadata), rows).transform(rows, np.isnan(rows))
    errors = [float(np.sqrt(np.mean((one - truth)[hidden] ** 2))) for one in (ours, theirs)]
    assert errors[0] < 1.03 * errors[1]
    assert errors[0] < 0.057


def test_draws_spread_as_the_noise() -> None:
    """y = 2x + noise of 0.5: draws of y have that mean and that deviation."""
    random = np.random.default_rng(3)
    x = random.normal(size=4000)
    rows = np.stack([x, 2 * x + random.normal(0, 0.5, 4000)], axis=1).astype(np.float32)
    metadata = Metadata((Variable("x", "numerical"), Variable("y", "numerical")))
    imputer = fitted(IterativeRidge(metadata), rows)
    asked = np.full((5000, 2), np.nan, np.float32)
    asked[:, 0] = 0.5
    drawn = imputer.draw(asked, np.isnan(asked), random)[:, 1]
    assert drawn.mean() == pytest.approx(1, abs=0.05)
    assert drawn.std() == pytest.approx(0.5, rel=0.1)


def test_draws_of_categories_are_as_often_as_they_were() -> None:
    """Among many rows where x is 1, category 2 is there three times of four, category 0 never."""
    metadata = Metadata((Variable("x", "binary"), Variable("c", "categorical", 3)))
    ones, zeros = [[1, 0, 0, 1]] * 300 + [[1, 0, 1, 0]] * 100, [[0, 1, 0, 0]] * 400
    imputer = fitted(IterativeRidge(metadata), np.array(ones + zeros, np.float32))
    asked = np.full((2000, 4), np.nan, np.float32)
    asked[:, 0] = 1
    drawn = imputer.draw(asked, np.isnan(asked), np.random.default_rng(0))
    np.testing.assert_allclose(drawn[:, 1:].mean(axis=0), [0, 0.25, 0.75], atol=0.04)
