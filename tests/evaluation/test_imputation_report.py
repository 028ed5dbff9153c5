from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import wasserstein_distance
from sklearn.metrics import accuracy_score, mean_absolute_error, root_mean_squared_error

from dgm_ray.data import BreastCancer, Holdout, Metadata, Scored, Variable, discretize, mcar_mask
from dgm_ray.evaluation import complete, score_imputation
from dgm_ray.evaluation.imputation_report import by_variable, crps, downstream, of_draws, overall, sliced_wasserstein


@pytest.fixture(scope="module")
def judged(md7: Metadata) -> tuple[Any, Scored]:
    """Completed rows of md7 and what is known of them; a tenth of the variables' cells has no truth."""
    random = np.random.default_rng(0)
    truth, proposed = (discretize(md7, random.random((300, 13), dtype=np.float32)) for _ in range(2))
    natural = mcar_mask(md7, np.arange(300), 0.1, 1)
    hidden = mcar_mask(md7, np.arange(300), 0.3, 0) & ~natural
    truth[natural] = np.nan
    features = np.where(hidden, np.float32(np.nan), truth)
    return complete(md7, proposed, features), Scored(np.arange(300), features, None, hidden, truth)


def test_variables_are_judged_as_scikit_learn_does(judged: tuple[Any, Scored], md7: Metadata) -> None:
    completed, scored = judged
    found = {one.name: one for one in by_variable(md7, completed, scored, None)}
    assert list(found) == [variable.name for variable in md7.variables]
    for variable, columns in zip(md7.variables, md7.slices, strict=True):
        hidden, one = scored.hidden_mask[:, columns.start], found[variable.name]
        truth, made = scored.truth[hidden, columns], completed[hidden, columns]
        assert one.cells == hidden.sum()
        assert one.rmse == pytest.approx(root_mean_squared_error(truth.ravel(), made.ravel()))
        assert one.mae == pytest.approx(mean_absolute_error(truth.ravel(), made.ravel()))
        if variable.kind == "numerical":
            assert one.nrmse == pytest.approx(one.rmse / np.std(truth.astype(np.float64)))
            assert (one.user_rmse, np.isnan(one.accuracy)) == (one.rmse, True)
        else:
            right = (truth.argmax(axis=1), made.argmax(axis=1)) if variable.size > 1 else (truth[:, 0], made[:, 0])
            assert one.accuracy == pytest.approx(accuracy_score(*right))
            assert np.isnan(one.nrmse)


def test_the_users_units() -> None:
    data = Holdout(BreastCancer()).prepare()
    scored, scaler = data.validation, data.scaler
    assert scaler is not None
    completed = complete(data.metadata, np.broadcast_to(data.means_and_modes, scored.truth.shape), scored.features)
    one = by_variable(data.metadata, completed, scored, scaler)[3]
    hidden = scored.hidden_mask[:, 3]
    truth, made = (scaler.inverse_transform(rows)[hidden, 3] for rows in (scored.truth, completed))
    assert one.user_rmse == pytest.approx(root_mean_squared_error(truth, made), rel=1e-4)
    assert one.user_mae == pytest.approx(mean_absolute_error(truth, made), rel=1e-4)


def test_the_whole_table(judged: tuple[Any, Scored], md7: Metadata) -> None:
    completed, scored = judged
    found = overall(md7, completed, scored)
    for name, value in score_imputation(completed, scored).items():
        assert found[name.removeprefix("imputation_")] == pytest.approx(value)
    known = ~np.isnan(scored.truth)
    errors = (completed - scored.truth)[known]
    assert found["rmse_all_cells"] == pytest.approx(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))
    assert found["rmse_all_cells"] == pytest.approx(found["rmse"] * np.sqrt(scored.hidden_mask.sum() / known.sum()))
    categories = [one for one in by_variable(md7, completed, scored, None) if one.kind != "numerical"]
    mean = sum(one.accuracy * one.cells for one in categories) / sum(one.cells for one in categories)
    assert found["accuracy"] == pytest.approx(mean)
    right = overall(md7, np.where(known, scored.truth, 0), scored)
    assert (right["rmse"], right["nrmse"], right["accuracy"], right["sliced_wasserstein"]) == (0, 0, 1, 0)


def test_figures_that_mean_nothing_are_left_out() -> None:
    metadata = Metadata((Variable("b", "binary"),))
    truth = np.array([[0], [1], [1]], dtype=np.float32)
    scored = Scored(np.arange(3), np.full((3, 1), np.nan, np.float32), None, np.ones((3, 1), bool), truth)
    assert "nrmse" not in overall(metadata, truth, scored)
    assert "accuracy" not in overall(Metadata((Variable("n", "numerical"),)), truth, scored)
    assert of_draws(metadata, truth[np.newaxis], scored) == {}


def test_sliced_wasserstein_is_scipys_on_each_direction() -> None:
    random = np.random.default_rng(3)
    one, other = random.normal(size=(50, 4)), random.normal(1, 2, size=(50, 4))
    directions = np.random.default_rng(0).normal(size=(4, 20))
    directions /= np.sqrt((directions**2).sum(axis=0))
    expected = [wasserstein_distance(one @ way, other @ way) for way in directions.T]
    found = sliced_wasserstein(one.astype(np.float32), other.astype(np.float32), projections=20)
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_crps_is_the_integral_over_the_distribution_functions() -> None:
    random = np.random.default_rng(1)
    draws, truth = random.normal(size=(9, 4)), random.normal(size=4)

    def squared(value: float, cell: int) -> float:
        return float((np.mean(draws[:, cell] <= value) - (truth[cell] <= value)) ** 2)

    for cell in range(4):
        points = [*draws[:, cell], truth[cell]]
        expected, _ = quad(squared, min(points), max(points), args=(cell,), points=points, limit=200)
        assert crps(draws, truth)[cell] == pytest.approx(expected, abs=1e-6)


def test_draws_of_the_truths_distribution_cover_it() -> None:
    random = np.random.default_rng(2)
    metadata = Metadata((Variable("n", "numerical"),))
    truth = random.normal(size=(2000, 1)).astype(np.float32)
    scored = Scored(np.arange(2000), np.full_like(truth, np.nan), None, np.ones((2000, 1), bool), truth)
    few, good = (of_draws(metadata, random.normal(size=(count, 2000, 1)), scored) for count in (20, 200))
    assert good["coverage"] == pytest.approx(0.9, abs=0.025), "three standard errors and a half"
    assert few["coverage"] == pytest.approx(0.9, abs=0.025), "as nominal, however few draws"
    assert good["crps"] == pytest.approx(1 / np.sqrt(np.pi), rel=0.05), "of a standard normal, in expectation"
    narrow = of_draws(metadata, random.normal(size=(200, 2000, 1)) / 9, scored)
    assert narrow["coverage"] < 0.4
    assert narrow["crps"] > good["crps"]


def test_what_a_classifier_makes_of_it() -> None:
    table = BreastCancer().read()
    rows, labels = table.features, table.labels
    assert labels is not None
    same = downstream(rows, rows, labels, folds=3)
    assert same["downstream_accuracy"] == same["downstream_accuracy_of_truth"] > 0.9
    noise = np.random.default_rng(0).permuted(rows, axis=0)
    assert downstream(noise, rows, labels, folds=3)["downstream_accuracy"] < 0.75
