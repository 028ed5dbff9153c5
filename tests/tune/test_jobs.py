"""``ray job submit`` on a cluster of two nodes that ``cluster/local.py`` starts and stops: no other Ray is touched."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .conftest import ENVIRONMENT

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


def ended(line: list[Any], **options: Any) -> "subprocess.CompletedProcess[str]":
    given = {"env": ENVIRONMENT, "cwd": ROOT, "timeout": 200} | options
    return subprocess.run([*map(str, line)], capture_output=True, text=True, check=False, **given)


@pytest.fixture(scope="module")
def local() -> Iterator[Run]:
    """Run a command of ``cluster/local.py``, for a cluster that is there until the last test has ended."""
    pytest.importorskip("aiohttp_cors", reason="needs ray[default]: pip install 'dgm-ray[cluster]'")
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return ended([sys.executable, "cluster/local.py", *arguments, "--folder", folder])

    try:
        started = run("start", "--nodes", 2, "--cpus", 1)
        assert started.returncode == 0, started.stdout + started.stderr
        yield run
    finally:
        stopped = run("stop")
        shutil.rmtree(folder, ignore_errors=True)
        assert stopped.stdout == "2 nodes stopped\n", stopped.stderr


@pytest.fixture(scope="module")
def environment(local: Run) -> dict[str, str]:
    """What ``env`` tells a shell, beside what is there."""
    lines = local("env").stdout.splitlines()
    return ENVIRONMENT | dict(line.removeprefix("export ").split("=", 1) for line in lines)


def test_the_nodes_are_there(local: Run) -> None:
    deadline = time.monotonic() + 120
    while (said := local("status")).stdout.count(" 1 node_") < 2:  # Ray's own view of them is some seconds late
        assert time.monotonic() < deadline, said.stdout + said.stderr
    assert said.returncode == 0
    assert said.stdout.count(" runs, log ") == 2
    again = local("start")
    assert again.returncode == 2
    assert again.stderr.endswith("a cluster was started here: stop it first, or give another --folder\n")


def test_a_job_tunes_on_the_cluster_it_runs_on(environment: dict[str, str], tmp_path: Path) -> None:
    """No address is given: the job is told. Nothing is installed: the nodes get the checkout."""
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sent = json.dumps({"env_vars": {"MLFLOW_TRACKING_URI": database}})
    line = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env-json", sent, "--"]
    line += ["python", "-m", "dgm_ray.tune", "search_spaces/medgan.yaml", "--samples", 2]
    line += ["--set", "trial.arguments.epochs=2", "--set", "tune.scheduler={factory: FIFO}", "--storage", tmp_path]
    done = ended(line, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Uploading package" in done.stderr + done.stdout
    table = pd.read_parquet(tmp_path / "medgan" / "results.parquet")
    assert len(table) == 2
    assert set(table["epochs"]) <= {1, 2}
    best = json.loads((tmp_path / "medgan" / "best.json").read_text())
    assert best["expected"]["val_imputation_rmse"] == table["val_imputation_rmse"].min()
    from mlflow import MlflowClient

    client = MlflowClient(database)
    runs = client.search_runs([client.get_experiment_by_name("dgm_ray").experiment_id])
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_job_that_is_stopped_sums_up(environment: dict[str, str], small: dict[str, Any], tmp_path: Path) -> None:
    small["tune"] = {"samples": 6, "concurrent": 1}
    small["trial"]["arguments"] |= {"epochs": 3000, "evaluate_every": 100}
    path = tmp_path / "job" / "small.json"
    path.parent.mkdir()
    path.write_text(json.dumps(small))

    def ray_job(*arguments: object) -> str:
        done = ended([RAY, "job", *arguments], env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    # Three seconds are what Ray gives a job to end by itself; the package is the checkout's, by its path.
    sent = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60", "PYTHONPATH": str(ROOT)}})
    line = ["python", "-m", "dgm_ray.tune", "small.json", "--storage", tmp_path / "results"]
    line += ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    name = ["--submission-id", "stopped", "--runtime-env-json", sent]
    ray_job("submit", "--no-wait", *name, "--working-dir", path.parent, "--", *line)
    deadline = time.monotonic() + 240
    while " 000  val" not in (said := ray_job("logs", "stopped")):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
    ray_job("stop", "stopped")
    assert "was stopped" in ray_job("status", "stopped")
    said = ray_job("logs", "stopped")
    assert "stopping; once more stops at once" in said
    assert "the study was stopped first" in said
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert "completed" in set(table["status"])
    assert set(table["status"]) != {"completed"}


def test_without_the_token_nobody_joins(environment: dict[str, str], small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(small))
    refused = environment | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)}
    done = ended([sys.executable, "-m", "dgm_ray.tune", path], env=refused, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: RAY_ADDRESS: Ray answers, but not to this process: if it wants a token, set RAY_AU")
    assert list(tmp_path.iterdir()) == [path]
