"""What a study says of its winner, each figure against what scikit-learn or a second way makes of the same rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from dgm_ray.data import Prepared
from dgm_ray.evaluation import can_draw, complete, draw_rows, final_report, impute_rows
from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks import train, train_imputer  # noqa: F401 (registers them)
from dgm_ray.training import Training

CPU = torch.device("cpu")
WINE: dict[str, Any] = {"source": {"factory": "Wine"}, "train_missing_probability": 0.2}
BREAST: dict[str, Any] = {"factory": "CellHoldout", "arguments": {"source": {"factory": "BreastCancer"}}}


def trained(imputer: str, data: dict[str, Any]) -> tuple[Training, Prepared]:
    arguments = {"data": data, "imputer": {"factory": imputer}, "epochs": 3}
    task = call(TASKS.get("TrainImputer", "task"), arguments)
    prepared = task.prepare()
    training = task.start(prepared)
    while not training.done:
        training.advance()
    training.use_best()
    return training, prepared


@pytest.fixture(scope="module")
def winner() -> tuple[Training, Prepared]:
    return trained("KNearest", BREAST)


@pytest.fixture(scope="module")
def report(winner: tuple[Training, Prepared]) -> FinalReport:
    return final_report.final_report(*winner, CPU)


def test_means_and_modes_are_judged_on_the_same_cells(report: FinalReport, winner: tuple[Training, Prepared]) -> None:
    data = winner[1]
    assert data.test is not None
    for scored, found in ((data.validation, report.baseline_validation), (data.test, report.baseline_test)):
        means = SimpleImputer().fit(data.train.features).transform(scored.features)
        truth, made = scored.truth[scored.hidden_mask], means[scored.hidden_mask]
        assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, made), rel=1e-5)
        assert found["mae"] == pytest.approx(mean_absolute_error(truth, made), rel=1e-5)
    assert report.test["rmse"] < 0.8 * report.baseline_test["rmse"]


def test_validation_test_and_gap(report: FinalReport, winner: tuple[Training, Prepared]) -> None:
    training, data = winner
    assert training.best is not None
    assert data.test is not None
    assert report.validation["rmse"] == training.best.measures["val_imputation_rmse"]
    assert report.gap == {name: report.test[name] - report.validation[name] for name in ("rmse", "mae")}
    rows = impute_rows(training.architecture, data.metadata, data.test.features, CPU)
    all_cells = root_mean_squared_error(data.test.truth.ravel(), rows.ravel())
    assert report.test["rmse_all_cells"] == pytest.approx(all_cells, rel=1e-5)
    assert all_cells < 0.6 * report.test["rmse"], "most cells are seen"
    names = report.metrics()
    assert names["test_gap_imputation_rmse"] == report.gap["rmse"]
    assert names["test_all_cells_rmse"] == report.test["rmse_all_cells"]
    assert names["test_baseline_imputation_mae"] == report.baseline_test["mae"]
    assert all(name.startswith(("test_", "best_val_", "baseline_val_")) for name in names)


def test_variables_come_worst_first(report: FinalReport, winner: tuple[Training, Prepared]) -> None:
    data = winner[1]
    assert data.test is not None
    errors = [one.rmse for one in report.variables]
    assert errors == sorted(errors, reverse=True)
    assert sorted(one.name for one in report.variables) == sorted(one.name for one in data.metadata.variables)
    assert [one.name for one in report.baseline_variables] == [one.name for one in report.variables]
    squares = sum(one.rmse**2 * one.cells for one in report.baseline_variables) / data.test.hidden_mask.sum()
    assert np.sqrt(squares) == pytest.approx(report.baseline_test["rmse"])


def test_labels_and_draws_add_figures(report: FinalReport) -> None:
    assert report.more["downstream_accuracy"] == pytest.approx(report.more["downstream_accuracy_of_truth"], abs=0.04)
    assert 0 < report.more["crps"] < report.test["mae"], "draws say more than one guess"
    assert 0.6 < report.more["coverage_of_90"] <= 1


def test_what_cannot_draw_and_has_no_labels_has_none_of_them() -> None:
    training, data = trained("MeanAndModesImputation", WINE)
    assert not can_draw(training.architecture.model)
    report = final_report.final_report(training, data, CPU)
    assert report.more == {}
    assert report.test == report.baseline_test
    assert report.validation["accuracy"] == report.baseline_validation["accuracy"]


def test_without_a_validation_cell_there_is_no_gap(winner: tuple[Training, Prepared]) -> None:
    training, data = winner
    hidden = np.zeros_like(data.validation.hidden_mask)
    report = final_report.final_report(
        training, replace(data, validation=replace(data.validation, hidden_mask=hidden)), CPU
    )
    assert (report.validation, report.gap) == ({}, {})
    assert report.test["rmse"] > 0


def test_draws_differ_and_leave_what_is_seen(winner: tuple[Training, Prepared]) -> None:
    training, data = winner
    assert data.test is not None
    rows = data.test.features[:40]
    one, same, other = (
        draw_rows(training.architecture, data.metadata, rows, CPU, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other)[np.isnan(rows)].any()
    np.testing.assert_array_equal(one, complete(data.metadata, one, rows))


def test_the_cost_is_bounded(winner: tuple[Training, Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the bound are neither drawn for nor learned by a classifier."""
    seen = []
    training, data = winner
    monkeypatch.setattr(final_report, "ROWS", 50)
    monkeypatch.setattr(final_report, "downstream", lambda made, *rest, **more: seen.append(len(made)) or {})
    monkeypatch.setattr(final_report, "of_draws", lambda metadata, draws, some: seen.append(draws.shape[:2]) or {})
    final_report.final_report(training, data, CPU)
    assert seen == [50, (final_report.DRAWS, 50)]
    monkeypatch.setattr(final_report, "CELLS", 90)
    final_report.final_report(training, data, CPU)
    assert data.test is not None
    assert 5 < seen[-1][1] < 20, "about six of 30 cells are hidden in a row"


def test_labels_that_are_no_classes_have_no_classifier(winner: tuple[Training, Prepared]) -> None:
    training, data = winner
    assert data.test is not None
    gaps = np.where(np.arange(len(data.test.features)) % 9, 1.0, np.nan)
    few = np.arange(len(gaps)) % 200  # three rows of each
    for labels in (None, gaps, few):
        changed = replace(data, test=replace(data.test, labels=labels))
        assert "downstream_accuracy" not in final_report.final_report(training, changed, CPU).more


def test_a_table_without_a_hidden_test_cell_has_no_test() -> None:
    holdout = {"source": {"factory": "BreastCancer"}, "test_probability": 0.0}
    training, data = trained("MeanAndModesImputation", {"factory": "CellHoldout", "arguments": holdout})
    assert final_report.final_report(training, data, CPU) == FinalReport()


def test_rows_to_look_at_are_some_of_the_tests(
    winner: tuple[Training, Prepared], report: FinalReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, data = winner
    assert data.test is not None
    assert report.rows is not None
    assert report.rows.completed is not None
    assert report.rows.generated is None, "an imputer generates nothing"
    monkeypatch.setattr(final_report, "ROWS", 50)
    some = final_report.final_report(training, data, CPU).rows
    assert some is not None
    places = np.searchsorted(data.test.row_ids, some.row_ids)
    assert len(set(places)) == 50
    np.testing.assert_array_equal(some.truth, data.test.truth[places])
    assert (some.hidden_mask | ~data.test.hidden_mask[places]).all()
    np.testing.assert_array_equal(some.hidden_mask, data.test.features[places] != data.test.truth[places])
    made = impute_rows(training.architecture, data.metadata, data.test.features, CPU)
    np.testing.assert_allclose(some.completed, made[places], rtol=1e-6)
