"""The command as a user runs it, in an empty folder, with its results, its database and its winner read back."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dgm_ray

from .conftest import ENVIRONMENT, Command, Head, stopped

pytestmark = pytest.mark.slow
Write = Callable[[dict[str, Any]], Path]


def runs_of(folder: Path, database: str = "") -> tuple[Any, list[Any], Any]:
    """Return the run of the one study in a folder, those of its trials, and MLflow's client."""
    from mlflow import MlflowClient

    client = MlflowClient(database or f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dgm_ray")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if str(folder) in run.data.tags.get("study", "")]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert database or len(runs) == 1 + len(trials)
    return parent, trials, client


def test_a_study_from_file_to_repeated_winner(
    small: dict[str, Any], write: Write, command: Command, inside: Command, tmp_path: Path
) -> None:
    path = write(small)
    done = command("dgm_ray.tune", path, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if re.match(r"[* ] \d{3}  val_imputation_rmse", line)]
    assert len(lines) == 4, done.stdout
    folder = tmp_path / "results" / "small"
    for said in ("means and modes", "why trials ended:", f"best: {folder / 'best.json'}", "mlflow ui --backend-store"):
        assert said in done.stdout.replace(str(Path(sys.executable).with_name("mlflow")), "mlflow")

    table = pd.read_parquet(folder / "results.parquet")
    assert len(table) == 4
    assert table["val_imputation_rmse"].iloc[0] == table["val_imputation_rmse"].min()
    assert set(table["status"]) <= {"completed", "stopped"}
    best = json.loads((folder / "best.json").read_text())
    assert best["expected"]["val_imputation_rmse"] == table["val_imputation_rmse"].iloc[0]
    assert best["arguments"]["epochs"] == table["epochs"].iloc[0]

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"The best of 4 trials is {table['trial'].iloc[0]:03d}" in page
    assert "True against imputed cells" in page
    assert json.loads((folder / "environment.json").read_text())["version.dgm_ray"]

    parent, trials, client = runs_of(tmp_path)
    assert len(trials) == 4
    assert {run.info.status for run in [parent, *trials]} == {"FINISHED"}
    assert parent.data.metrics["best_val_imputation_rmse"] == table["val_imputation_rmse"].iloc[0]
    assert parent.data.metrics["baseline_val_imputation_rmse"] > 0
    assert "test_imputation_rmse" in parent.data.metrics
    assert re.fullmatch(r"[0-9a-f]{64}", parent.data.tags["data_hash"])
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    written = {"best.json", "history.parquet", "imputation.csv", "missing.csv", "report.html"}
    written |= {"results.csv", "results.parquet"}
    assert names == written | {"small.json", "study.json", "table.json"}
    assert parent.data.metrics["test_gap_imputation_rmse"] == pytest.approx(
        parent.data.metrics["test_imputation_rmse"] - parent.data.metrics["best_val_imputation_rmse"]
    )
    assert parent.data.metrics["test_baseline_imputation_rmse"] > 0
    assert f"trial {table['trial'].iloc[0]:03d} on the test cells, scored once" in done.stdout
    assert len(pd.read_csv(folder / "imputation.csv")) == 14
    assert parent.data.tags["mechanism"] == "MCAR"
    shares = pd.read_csv(folder / "missing.csv", index_col="variable")
    assert parent.data.metrics["test_missing_rate_mean"] == pytest.approx(shares["test_missing_rate"].mean())
    assert parent.data.metrics["val_missing_rate_max"] == pytest.approx(shares["val_missing_rate"].max())
    rows = {row.trial_id: row for row in table.itertuples()}
    for run in trials:
        row = rows[run.data.tags["trial_id"]]
        assert run.data.params.keys() == {"batch_size", "code_size", "sizes", "lr"}
        assert (run.data.tags["status"], run.data.tags["reason"]) == (row.status, row.reason)
        assert not [name for name in run.data.metrics if name.startswith("test_")], "no trial has a test figure"
        for name in ("autoencoder_loss", "val_imputation_rmse"):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert steps == list(range(1, row.epochs + 1))
    kept = [run for run in trials if client.list_artifacts(run.info.run_id, "checkpoint")]
    assert len(kept) == 3, "the checkpoints of the best three"
    assert all(len(run.outputs.model_outputs) == 1 for run in kept), "and their models"
    winner = dgm_ray.load(folder / "models" / f"trial_{table['trial'].iloc[0]:04d}")
    assert {"best_epoch": winner.epoch, **winner.scores} == best["expected"]

    repeated = command("dgm_ray.tasks.runner", folder / "best.json")
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert repeated.stdout.count("reproduced: ") == len(best["expected"])

    refused = inside("dgm_ray.tune", path)
    assert refused.returncode == 2
    assert "--resume it, --overwrite it, or give another --name" in refused.stderr


def test_a_quiet_study_says_what_is_best_and_where(
    small: dict[str, Any], write: Write, command: Command, inside: Command, tmp_path: Path, cluster: str
) -> None:
    done = command("dgm_ray.tune", write(small), "--quiet", "--samples", 1, "--address", cluster)
    folder = tmp_path / "results" / "small"
    best, file, page = done.stdout.splitlines()
    assert re.fullmatch(r"best trial: 000, val_imputation_rmse 0\.\d+", best)
    assert (file, page) == (f"best: {folder / 'best.json'}", f"report: {folder / 'report.html'}")
    wrong = inside("dgm_ray.tune", tmp_path / "none.yaml", "--quiet")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_trials_that_diverge_do_not_end_the_study(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, database: str
) -> None:
    components = small["trial"]["arguments"]["architecture"]["components"]
    components["autoencoder"]["arguments"]["decoder"] = {}  # without bounds
    components["autoencoder_optimizer"]["arguments"]["lr"] = {"grid_search": [1e30, 0.01]}
    small["tune"] = {"samples": 1, "concurrent": 1}
    done = inside("dgm_ray.tune", write(small), "--name", "two", "--address", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_parquet(tmp_path / "results" / "two" / "results.parquet")
    assert list(table["status"]) == ["completed", "diverged"]
    _, trials, _ = runs_of(tmp_path, database)
    assert sorted(run.info.status for run in trials) == ["FAILED", "FINISHED"]


def test_a_check_starts_and_writes_nothing(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(small)
    for name in ("dgm_ray.tune.cluster.start_ray", "dgm_ray.tune.tracking.sender.sender_of"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("a check starts something"))
    done = inside("dgm_ray.tune", path, "--check", "--set", "trial.arguments.architecture.arguments.noise_size=3")
    assert done.returncode == 0, done.stderr
    assert "TrainAutoEncoder, 4 draws, 4 trials of at most 4 epochs, 82 to 252 parameters" in done.stdout
    assert "has no effect: trial.arguments.architecture.arguments.noise_size" in done.stdout
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "tune.resources.gpu=1"], "error: tune.resources.gpu: "),
        (
            ["--set", "tune.resources.cpu=1000"],
            "error: tune.resources.cpu: a trial runs on one node, and none has more than ",
        ),
        (["--set", "trial.arguments.epoch=1"], "error: trial.arguments.epoch: "),
        (["--resume"], "there is no study here to resume"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, options: list[str], said: str
) -> None:
    check_refused(inside, write(small), said, "--address", cluster, *options)


def test_no_cluster_is_one_line_and_nothing_is_written(small: dict[str, Any], write: Write, command: Command) -> None:
    check_refused(command, write(small), "error: --address: no Ray cluster answers", "--address", "127.0.0.1:1")


def check_refused(command: Command, path: Path, said: str, *options: str) -> None:
    done = command("dgm_ray.tune", path, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_is_summarised_and_goes_on(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, stop: signal.Signals
) -> None:
    small["tune"] = {"samples": 6}
    small["trial"]["arguments"] |= {"epochs": 400, "evaluate_every": 20}
    path = write(small)
    code, said = stopped(tmp_path, path, "--address", cluster, stop=stop)
    assert code == 128 + stop, said
    assert "the study was stopped first" in said
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    finished = set(table[table["status"] == "completed"]["trial"])
    assert 1 <= len(finished) < 6

    resumed = inside("dgm_ray.tune", path, "--resume", "--address", cluster)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    again = {int(number) for number in re.findall(r"^[* ] (\d{3})  val", resumed.stdout, re.MULTILINE)}
    assert again | finished == set(range(6))
    assert not again & finished, "what was finished is not run again"
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert list(table["status"]) == ["completed"] * 6
    parent, trials, _ = runs_of(tmp_path)
    assert {run.info.status for run in [parent, *trials]} == {"FINISHED"}
    assert len(trials) == 6


def test_optuna_searches(small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str) -> None:
    small["tune"] |= {"concurrent": 1, "search": {"factory": "OptunaSearch", "arguments": {"startup_trials": 2}}}
    done = inside(
        "dgm_ray.tune", write(small), "--samples", 5, "--set", "trial.arguments.epochs=3", "--address", cluster
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert len(table) == 5
    assert table["draw:lr"].between(1e-3, 1e-1).all()


def test_a_trial_whose_process_is_killed_does_not_end_the_study(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, head: Head
) -> None:
    small["tune"] = {"samples": 2, "max_failures": 0, "concurrent": 1}
    small["trial"]["arguments"] |= {"epochs": 1500, "evaluate_every": 20}
    given = [str(write(small)), "--address", head.address]
    line = [sys.executable, "-u", "-m", "dgm_ray.tune", *given]
    with subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as running:
        deadline = time.monotonic() + 240
        while not (victims := trial_processes(head.session)) and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(3)  # until it trains
        os.kill(victims[0], signal.SIGKILL)
        said = running.communicate(timeout=180)[0]
    assert running.returncode == 0, said
    assert "failed: its process died" in said
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert list(table["status"]) == ["completed", "failed"]
    done = inside("dgm_ray.tune", *given, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    again = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    pd.testing.assert_frame_equal(again, table)


def trial_processes(session: int) -> list[int]:
    """Return the processes of a session that run a trial."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if "Trainable" in (folder / "cmdline").read_text() and os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except OSError:  # it ended
            continue
    return found


def test_optuna_searches_for_two_metrics(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    arguments = {"other": "val_imputation_mae", "startup_trials": 2}
    small["tune"] = {"samples": 5, "concurrent": 1}
    small["tune"] |= {"search": {"factory": "OptunaMultiObjective", "arguments": arguments}}
    lr = small["trial"]["arguments"]["architecture"]["components"]["autoencoder_optimizer"]["arguments"]
    lr["lr"] = {"choice": [1e-2, 1e30]}  # one diverges without any measure
    small["trial"]["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]["decoder"] = {}
    done = inside("dgm_ray.tune", write(small), "--address", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no trial is better in both val_imputation_rmse and val_imputation_mae than:" in done.stdout
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert len(table) == 5
    front, rest = table[table["pareto"]], table[~table["pareto"]].dropna(subset="val_imputation_mae")
    assert len(front) >= 1
    for row in rest.itertuples():
        better = front["val_imputation_rmse"].le(row.val_imputation_rmse)
        assert (better & front["val_imputation_mae"].le(row.val_imputation_mae)).any()
