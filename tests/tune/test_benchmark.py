"""``dgm-ray benchmark imputation``: a grid of imputers, tables, mechanisms, rates and seeds."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.data import Wine
from dgm_ray.tasks.imputers import imputer_configuration
from dgm_ray.training import append_line
from dgm_ray.tune.imputation_grid import Case, Grid, Run
from dgm_ray.tune.report.scores import Found, benchmark_scores
from dgm_ray.tune.report.standings import Standings
from dgm_ray.tune.runs import task_for


def test_a_failure_is_last_and_is_counted(tmp_path: Path) -> None:
    rows = [("a", 0, 0.3), ("b", 0, 0.2), ("c", 0, 0.1), ("a", 1, 0.1), ("b", 1, 0.2), ("c", 1, np.nan)]
    columns = {"dataset": "wine", "mechanism": "mcar", "rate": 0.2}
    table = pd.DataFrame([{**columns, "imputer": name, "seed": seed, "rmse": rmse} for name, seed, rmse in rows])
    table["error"] = table["rmse"].isna().map({True: "the process died", False: None})
    standings = Standings(Found(benchmark_scores(table, tmp_path))).rows.set_index("method")
    assert standings["rank"].to_dict() == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert standings["failed"].to_dict() == {"a": 0, "b": 0, "c": 1}
    assert standings["mean"]["c"] == 0.1
    assert (
        "c on wine, mcar 0.2: the process died" in Standings(Found(benchmark_scores(table, tmp_path))).page().markdown()
    )


def test_what_is_in_the_journal_is_not_done_again(tmp_path: Path) -> None:
    runs = [Run(Case("wine", "mcar", 0.2, seed), "means_and_modes") for seed in (0, 1, 2)]
    done = json.dumps({"run": runs[1].key, "rmse": 0.5})
    journal = tmp_path / "runs.jsonl"
    journal.write_text(f"{done}\n{done[:20]}", encoding="utf-8")  # the last line was cut short
    assert Grid({"wine": Wine()}, runs, tmp_path).waiting == [runs[0], runs[2]]
    append_line(journal, json.dumps({"run": runs[2].key, "rmse": 0.5}))
    assert Grid({"wine": Wine()}, runs, tmp_path).waiting == [runs[0]]


def test_a_batch_is_no_larger_than_the_table() -> None:
    assert task_for(imputer_configuration("dae"), 40).batch_size == 40


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--imputers", "knearest", "--imputers: no imputer is called 'knearest'; did you mean 'k_nearest'?"),
        ("--mechanisms", "mcr", "did you mean 'mcar'?, not 'mcr'"),
        ("--datasets", "wime", "did you mean 'wine'?, not 'wime'"),
        ("--rates", "2", "--rates: should be above 0 and below 1, not 2.0"),
        ("--rates", "x", "--rates: should be numbers with commas between, not 'x'"),
        ("--datasets", ",", "--datasets: should name one at least"),
    ],
)
def test_bad_input_is_one_line(option: str, value: str, message: str, tmp_path: Path) -> None:
    given = ["benchmark", "imputation", "--output", str(tmp_path / "grid"), option, value]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert not (tmp_path / "grid").exists()


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was_stopped(joined: None, cluster: str, tmp_path: Path) -> None:
    pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) ** 2, "c": ["x", "y"] * 20}).to_csv(
        tmp_path / "my.csv", index=False
    )
    given = ["benchmark", "imputation", "--datasets", f"wine,{tmp_path / 'my.csv'}", "--output", str(tmp_path / "grid")]
    given += [
        "--imputers",
        "k_nearest,gaussian_em",
        "--workers",
        "2",
        "--mechanisms",
        "mcar,mnar",
        "--address",
        cluster,
    ]
    assert CliRunner().invoke(app, [*given, "--seeds", "1"]).exit_code == 0
    first = pd.read_parquet(tmp_path / "grid" / "results.parquet")
    assert len(first) == 2 * 2 * 3
    done = CliRunner().invoke(app, [*given, "--seeds", "2"])
    assert "24 runs, 12 are in" in done.output
    both = pd.read_parquet(tmp_path / "grid" / "results.parquet")
    again = both[both["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, first)
    wine = Standings(Found(benchmark_scores(both[both["dataset"] == "wine"], tmp_path / "grid"))).rows
    assert wine["method"].iloc[-1] == "means_and_modes"
    ranked = CliRunner().invoke(app, ["leaderboard", str(tmp_path / "grid"), "--output", str(tmp_path / "board")])
    assert ranked.exit_code == 0, ranked.output
    assert len(pd.read_parquet(tmp_path / "board" / "leaderboard.parquet")) == 2 * 2 * 3
    assert "mean rank" in (tmp_path / "grid" / "results.md").read_text(encoding="utf-8")
    assert "<table" in (tmp_path / "grid" / "results.html").read_text(encoding="utf-8")
