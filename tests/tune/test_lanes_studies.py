"""Studies with lanes: what is found is what is found without them, whoever dies or is stopped on the way."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dgm_ray.tune.journal import Decisions

from .conftest import ENVIRONMENT, Command, stopped

Write = Callable[[dict[str, Any]], Path]
LR = [0.001, 0.003, 0.01, 0.03, 0.1]
METRIC = "val_imputation_rmse"


@pytest.fixture
def grid(small: dict[str, Any]) -> dict[str, Any]:
    """A grid of learning rates and two sizes: ten trials of two shapes."""
    small["tune"] = {"samples": 1, "lanes": 4}
    arguments = small["trial"]["arguments"]
    arguments |= {"batch_size": 16, "epochs": 12}
    architecture = arguments["architecture"]
    architecture["arguments"]["code_size"] = {"grid_search": [2, 4]}
    components = architecture["components"]
    components["autoencoder"]["arguments"]["encoder"] = {}
    components["autoencoder_optimizer"]["arguments"]["lr"] = {"grid_search": LR}
    return small


@pytest.fixture
def study(inside: Command, cluster: str, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Run a study and return what became of each trial."""

    def study(path: Path, name: str, *options: object) -> pd.DataFrame:
        done = inside("dgm_ray.tune", path, "--address", cluster, "--name", name, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return found(tmp_path, name)

    return study


def found(folder: Path, name: str) -> pd.DataFrame:
    table = pd.read_parquet(folder / "results" / name / "results.parquet").sort_values("trial", ignore_index=True)
    return table.drop(columns="seconds")


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare what became of trials, figures up to rounding."""
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_study_finds_the_same_with_and_without_lanes_and_its_best_is_repeated(
    grid: dict[str, Any], write: Write, study: Any, command: Command, tmp_path: Path
) -> None:
    path = write(grid)
    lanes, without = study(path, "lanes"), study(path, "without", "--set", "tune.lanes=1")
    same(lanes, without)
    assert lanes[METRIC].idxmin() == without[METRIC].idxmin()
    best = tmp_path / "results" / "lanes" / "best.json"
    assert json.loads(best.read_text())["arguments"]["lanes"][0][1] > 1
    again = command("dgm_ray.tasks.runner", best)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"reproduced: {METRIC}" in again.stdout


@pytest.mark.slow
def test_asha_stops_the_same_trials_whether_they_are_lanes(
    grid: dict[str, Any], write: Write, study: Any, tmp_path: Path
) -> None:
    """One trial at a time, so that the order in which they reach a rung is the same."""
    asha = {"factory": "ASHA", "arguments": {"grace_period": 2, "reduction_factor": 2}}
    grid["tune"] |= {"scheduler": asha, "concurrent": 1}
    path = write(grid)
    lanes, without = study(path, "lanes"), study(path, "without", "--set", "tune.lanes=1")
    same(lanes, without)
    assert {"stopped", "completed"} == set(lanes["status"])
    events = [
        [{**one, "value": 0, "result": 0} for one in Decisions(tmp_path / "results" / name / "journal.jsonl")]
        for name in ("lanes", "without")
    ]
    assert [one for one in events[0] if "decision" in one] == [one for one in events[1] if "decision" in one]


@pytest.mark.slow
def test_a_study_of_lanes_that_is_stopped_goes_on_with_and_without_them(
    grid: dict[str, Any], write: Write, study: Any, cluster: str, tmp_path: Path
) -> None:
    grid["tune"] |= {"lanes": 2, "resources": {"cpu": 2}}
    grid["trial"]["arguments"] |= {"epochs": 120, "evaluate_every": 10}
    path = write(grid)
    code, said = stopped(tmp_path, path, "--address", cluster, "--name", "cut", until="  val_imputation_rmse")
    assert code == 130, said
    before = re.findall(r"^[* ] (\d{3})  val", said, re.MULTILINE)
    assert 0 < len(before) < 10
    assert "the study was stopped first" in said
    same(study(path, "cut", "--resume", "--set", "tune.lanes=1"), study(path, "whole"))


@pytest.mark.slow
def test_lanes_whose_process_dies_go_on_from_their_last_checkpoints(
    grid: dict[str, Any], write: Write, study: Any, cluster: str, tmp_path: Path
) -> None:
    grid["tune"] |= {"resources": {"cpu": 2}}
    grid["trial"]["arguments"]["epochs"] = 40
    path = write(grid)
    script = Path(__file__).with_name("lanes_dying.py")
    line = [sys.executable, str(script), str(path), str(tmp_path), cluster, "died"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    again = [one for one in Decisions(tmp_path / "results" / "died" / "journal.jsonl") if "again" in one]
    assert len(again) == 4, "each lane of the pack"
    trained = [json.loads(text) for text in (tmp_path / "died.epochs").read_text().splitlines()]
    assert len({process for process, _, _ in trained}) == 2
    of_four = sum(lanes == 4 for _, _, lanes in trained)
    assert 80 <= of_four < 90, "two packs of 40 epochs, of which one lost little"
    same(found(tmp_path, "died"), study(path, "whole"))


@pytest.mark.slow
def test_optuna_proposes_for_rows_that_are_free(
    small: dict[str, Any], write: Write, study: Any, tmp_path: Path
) -> None:
    search = {"factory": "OptunaSearch", "arguments": {"startup_trials": 4}}
    small["tune"] |= {"samples": 12, "lanes": 2, "resources": {"cpu": 2}, "search": search}
    small["trial"]["arguments"]["batch_size"] = 16
    table = study(write(small), "optuna")
    assert len(table) == 12
    running = most = 0
    for one in Decisions(tmp_path / "results" / "optuna" / "journal.jsonl"):
        running += ("values" in one) - ("end" in one)
        most = max(most, running)
    assert most <= 4, "two that run, and two that wait for a pack of their shape"


@pytest.mark.slow
def test_seeds_of_trials_are_lanes_of_one_pack(grid: dict[str, Any], write: Write, study: Any, tmp_path: Path) -> None:
    grid["tune"] |= {"seeds": 2, "lanes": 8}
    path = write(grid)
    lanes = study(path, "lanes")
    without = study(path, "without", "--set", "tune.lanes=1")
    same(lanes.drop(columns="seeds"), without.drop(columns="seeds"))
    rows = {one["lanes"][0][1] for text in lanes["seeds"] for one in json.loads(text)}
    assert max(rows) == 8, "four trials with two seeds each"
