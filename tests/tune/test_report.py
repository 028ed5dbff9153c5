"""What a person sees of the winner's test figures, and the file with every variable."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.evaluation.imputation_report import VariableErrors
from dgm_ray.tune.console import print_report, print_summary
from dgm_ray.tune.outcomes import COMPLETED, Outcome
from dgm_ray.tune.place import Place
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.results import write_imputation

RMSE = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
REPORT = FinalReport(
    validation={"rmse": 0.25, "mae": 0.125},
    test={"rmse": 0.5, "mae": 0.0625, "rmse_all_cells": 0.2222},
    baseline_validation={"rmse": 0.31, "mae": 0.32},
    baseline_test={"rmse": 0.33, "mae": 0.34, "rmse_all_cells": 0.35},
    more={"crps": 0.0123, "marginal_distance": 0.4},
    variables=[
        VariableErrors(f"v[{i}]", "numerical", 9, rmse, 0.1, user_rmse=70 * rmse) for i, rmse in enumerate(RMSE)
    ],
    baseline_variables=[VariableErrors(f"v[{i}]", "numerical", 9, 1.0, 1.0) for i in range(len(RMSE))],
)


def shown(report: FinalReport) -> list[str]:
    console = Console(record=True, width=120)
    print_report(console, report, 7, "imputation.csv")
    return [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]


def test_validation_test_gap_and_baseline_stand_side_by_side() -> None:
    lines = shown(REPORT)
    assert lines[0].startswith("trial 007")
    assert "RMSE of hidden cells 0.25 0.5 +0.25 0.31 0.33" in lines
    assert "MAE of hidden cells 0.125 0.0625 -0.0625 0.32 0.34" in lines
    assert "RMSE of all cells, seen or hidden 0.222 0.35" in lines
    assert "on test rows: CRPS of 20 draws, in scaled units: 0.0123" in lines
    assert "on test rows: marginal_distance 0.4" in lines
    assert not any("accuracy of hidden" in line for line in lines), "there is no category"


def test_the_worst_variables_are_printed() -> None:
    lines = shown(REPORT)
    assert "v[0] numerical 9 0.9 1 63" in lines
    assert [line[:4] for line in lines if line.startswith("v[")] == ["v[0]", "v[1]", "v[2]", "v[3]", "v[4]"]
    assert any(line.startswith("the 5 of 6") and line.endswith("imputation.csv") for line in lines)


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert shown(FinalReport()) == []


def test_a_study_that_hides_no_validation_cell_has_no_baseline() -> None:
    console = Console(record=True, width=120)
    measures = {"val_marginal_distance": 0.25}
    outcome = Outcome("a", 0, {}, COMPLETED, "all epochs done", 0.25, measures)
    print_summary(console, Plan({}, "val_marginal_distance"), [outcome], {})
    text = console.export_text()
    assert "fidelity" in text
    assert "imputation" not in text


def test_all_variables_are_in_a_file(tmp_path: Path) -> None:
    place = Place(tmp_path, "sqlite://")
    write_imputation(place, REPORT)
    table = pd.read_csv(place.imputation, index_col="variable")
    assert list(table.index) == [f"v[{i}]" for i in range(6)]
    assert table["rmse"].tolist() == RMSE
    assert table["user_rmse"].tolist() == pytest.approx([70 * one for one in RMSE])
    assert (table["means_and_modes_rmse"] == 1).all()
    assert np.isnan(table["accuracy"]).all()
    write_imputation(place, FinalReport())
    assert not place.imputation.exists(), "a resumed study leaves no figures of another winner"


def test_trackers_get_plain_numbers() -> None:
    names = REPORT.metrics()
    json.dumps(names, allow_nan=False)
    assert {name for name, value in names.items() if value == 0.5} == {"test_imputation_rmse"}
    assert {name for name, value in names.items() if value == 0.2222} == {"test_all_cells_rmse"}
