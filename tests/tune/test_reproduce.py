"""A run of every model is repeated from what MLflow has of it, wherever the command is called."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.tune.study import task_of
from dgm_ray.tune.tracking.environment import environment

from .conftest import ENVIRONMENT, SMALL, Head
from .every_model import names

METRIC = "val_imputation_rmse"
Logged = Callable[..., str]
TABLE = "table.csv"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, head: Head) -> Path:
    """A folder with the studies of every_model.py."""
    folder = tmp_path_factory.mktemp("studies")
    random = np.random.default_rng(0)
    one = random.normal(size=90)
    columns = {"one": one, "two": 2 * one + random.normal(size=90), "three": random.choice(["p", "q", "r"], 90)}
    pd.DataFrame(columns).to_csv(folder / TABLE, index=False)
    script = Path(__file__).with_name("every_model.py")
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    line = [sys.executable, str(script), str(folder), head.address]
    with subprocess.Popen(line, env=environment, start_new_session=True, **pipes) as running:
        try:
            said = running.communicate(timeout=900)[0]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    return folder


@pytest.fixture
def call(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call ``dgm-ray reproduce`` from a folder that is not the one in which the studies ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{studies / 'mlflow.db'}")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["reproduce", *arguments])

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", [*names(), "seeds"])
def test_a_run_of_each_model_is_reproduced(name: str, call: Any) -> None:
    """The best trial of each study, and its last trial, which may have no checkpoint."""
    for given in (name, f"{name} 000"):
        result = call(given)
        assert result.exit_code == 0, result.output
        assert "reproduced: run " in result.output
        assert "val_imputation_rmse" in result.output
        assert "to the bit" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["medgan", "miss_forest", "seeds"])
def test_the_first_epochs_alone(name: str, call: Any) -> None:
    result = call(name, "--epochs", "1")
    assert result.exit_code == 0, result.output
    assert "to the bit" in result.output
    assert ("val_imputation_rmse_std" in result.output) == (name == "seeds"), "of seeds the logged figures are means"


@pytest.mark.slow
def test_more_epochs_than_there_are(call: Any) -> None:
    result = call("gain", "--epochs", "9")
    assert result.exit_code == 2
    assert "--epochs: should be at most the 2 epochs of run " in result.output


@pytest.mark.slow
def test_a_changed_table_is_named_and_one_that_is_gone(studies: Path, call: Any) -> None:
    """The first column of some rows is another: of one row its cell may be hidden from all."""
    path = studies / TABLE
    before = path.read_text()
    try:
        head, *rows = before.splitlines()
        path.write_text("\n".join([head, *("0.125" + row[row.index(",") :] for row in rows[:20]), *rows[20:], ""]))
        result = call("seeds")
        assert result.exit_code == 1, result.output
        assert "likely cause: the data changed: the table, its split or its hidden cells" in result.output
        path.unlink()
        result = call("seeds")
        assert result.exit_code == 2
        assert f"error: {path}: cannot be read" in result.output
    finally:
        path.write_text(before)
    assert call("seeds").exit_code == 0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an empty database."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder / 'm.db'}").create_experiment("e", (folder / "artifacts").as_uri())
    return folder


@pytest.fixture
def logged(database: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """Train an autoencoder for three epochs and write its run as studies do; return the run's id.

    epochs: figures that are not what was found, by name and epoch. expected: likewise, of the best epoch. tags: of the
    study. arguments: of the configuration that is written.
    """
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database / 'm.db'}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database / 'm.db'}")
    arguments = json.loads(json.dumps(SMALL["trial"]["arguments"])) | {"batch_size": 16, "epochs": 3, "device": "cpu"}
    arguments["architecture"]["arguments"]["code_size"] = 2
    components = arguments["architecture"]["components"]
    components["autoencoder"]["arguments"]["encoder"]["hidden_layers"]["sizes"] = [8]
    components["autoencoder_optimizer"]["arguments"]["lr"] = 0.01

    def write(
        epochs: dict[tuple[str, int], float], expected: dict[str, float], tags: dict[str, str], **changed: Any
    ) -> str:
        task = task_of({"task": "TrainAutoEncoder", "arguments": arguments})
        data = task.prepare()
        training = task.start(data)
        found = {(name, epoch): value for epoch in (1, 2, 3) for name, value in training.advance().items()} | epochs
        assert training.best
        experiment = client.get_experiment_by_name("e").experiment_id
        own = environment() | {"study": "/s", "data_hash": data.content_hash(), "task": "TrainAutoEncoder"} | tags
        parent = client.create_run(experiment, run_name="s", tags=own).info.run_id
        for name, value in {"metric": METRIC, "seeds": 1, "resources": {"workers": 1}}.items():
            client.log_param(parent, name, json.dumps(value))
        of_trial = {"mlflow.parentRunId": parent, "trial_id": "0", "status": "completed"}
        run: str = client.create_run(experiment, run_name="s 000", tags=of_trial).info.run_id
        for (name, epoch), value in found.items():
            client.log_metric(run, name, value, step=epoch)
        best = {"best_epoch": training.best.epoch, **training.best.measures} | expected
        node = {"task": "TrainAutoEncoder", "arguments": arguments | changed, "expected": best}
        client.log_text(run, json.dumps(node), "configuration.json")
        return run

    return write


def reproduced(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *arguments])


def last(result: Result) -> str:
    return result.output.splitlines()[-1]


def test_what_is_the_same_is_reproduced_to_the_bit(logged: Logged) -> None:
    run = logged({}, {}, {"version.ray": "1.0"})
    result = reproduced(run)
    assert result.exit_code == 0, result.output
    assert last(result) == f"reproduced: run {run[:8]} (s 000), 3 metrics to the bit"
    assert "warning: ray was 1.0, is " in result.output
    result = reproduced(run, "--epochs", "3")
    assert last(result) == f"reproduced: run {run[:8]} (s 000), 3 metrics to the bit"


def test_a_difference_within_the_tolerance_is_said(logged: Logged) -> None:
    run = logged({}, {"best_epoch": 3.0000002}, {})
    result = reproduced(run)
    assert result.exit_code == 0
    assert last(result) == f"reproduced: run {run[:8]} (s 000), 3 metrics to 2e-07"


def test_figures_that_differ_name_the_likely_cause(logged: Logged) -> None:
    run = logged({}, {METRIC: 0.9}, {})
    result = reproduced(run)
    assert result.exit_code == 1
    assert last(result).startswith(f"DIFFERS: run {run[:8]} (s 000), 1 of 3 metrics; likely cause: none is known")
    assert ["!", METRIC, "0.9"] in [line.split()[:3] for line in result.output.splitlines()]
    result = reproduced(logged({}, {METRIC: 0.9}, {"version.torch": "1.0", "cpu": "Z80"}))
    assert f"likely cause: torch was 1.0, is {torch.__version__}" in last(result)


def test_other_data_is_not_the_same_whatever_the_figures(logged: Logged) -> None:
    result = reproduced(logged({}, {}, {"data_hash": "0123456789"}))
    assert result.exit_code == 1
    assert "no metric, but what they are of; likely cause: the data changed: " in last(result)
    assert "(hash 01234567 then, " in last(result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_run_of_a_gpu_is_repeated_without_one(logged: Logged) -> None:
    result = reproduced(logged({}, {METRIC: 0.9}, {}, device="cuda"))
    assert result.exit_code == 1
    assert last(result).endswith("likely cause: it was trained on cuda, and is on cpu")


def test_epochs_are_compared_each(logged: Logged) -> None:
    """A difference is found in the epoch in which it is; one after the last that is asked for is none."""
    run = logged({(METRIC, 2): 0.9, (METRIC, 3): math.inf}, {}, {})
    assert reproduced(run, "--epochs", "1").exit_code == 0
    result = reproduced(run, "--epochs", "2")
    assert result.exit_code == 1
    assert ["!", METRIC, "2", "0.9"] in [line.split()[:4] for line in result.output.splitlines()]
    assert "1 of 3 metrics" in last(result)
    result = reproduced(run, "--epochs", "3")
    assert [line.split()[:3] for line in result.output.splitlines() if "!" in line] == [["!", METRIC, "3"]]


def test_one_that_ends_sooner_now_differs(logged: Logged) -> None:
    run = logged({(METRIC, 4): 0.9}, {}, {}, patience=1, keep_checkpoint_by_metric=METRIC, evaluate_every=2)
    result = reproduced(run, "--epochs", "4")
    assert result.exit_code == 1, result.output
    assert "nothing" in result.output
