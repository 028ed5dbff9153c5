"""What tests of studies need: a space that is small enough to run in a test, and the command that runs it."""

import copy
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from typer.testing import CliRunner

from dgm_ray.data import Prepared
from dgm_ray.tune.cluster import start_ray
from dgm_ray.tune.settings import Resources
from dgm_ray.tune.study import Study
from dgm_ray.tune.tracking.sender import sender_of

SMALL: dict[str, Any] = {
    "tune": {"samples": 4, "scheduler": {"factory": "ASHA", "arguments": {"grace_period": 2, "reduction_factor": 2}}},
    "trial": {
        "task": "TrainAutoEncoder",
        "arguments": {
            "data": {"source": {"factory": "Wine"}},
            "batch_size": {"choice": [16, 32]},
            "epochs": 4,
            "architecture": {
                "arguments": {"code_size": {"randint": [2, 4]}},
                "components": {
                    "autoencoder": {
                        "factory": "SingleVariableAutoEncoder",
                        "arguments": {
                            "encoder": {"hidden_layers": {"sizes": {"choice": [[], [8]]}}},
                            "decoder": {"output_layer": {"activation": {"factory": "Sigmoid"}}},
                        },
                    },
                    "reconstruction_loss": {
                        "factory": "AutoEncoderLoss",
                        "arguments": {"reconstruction_loss": {"factory": "MSE"}},
                    },
                    "autoencoder_optimizer": {
                        "factory": "Adam",
                        "arguments": {"parameters": ["autoencoder"], "lr": {"loguniform": [1e-3, 1e-1]}},
                    },
                },
            },
        },
    },
}

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# Between processes of one machine; a token would be written into the home folder.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
} | {"RAY_AUTH_MODE": "disabled"}

# Of the object store of test_storage.py, which trials on the tests' Ray write to.
KEYS = {"AWS_ACCESS_KEY_ID": "of a test", "AWS_SECRET_ACCESS_KEY": "nobody's", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def small() -> dict[str, Any]:
    """The content of a small search space; a test may change it."""
    return copy.deepcopy(SMALL)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a space as JSON and return its path."""

    def write(node: dict[str, Any]) -> Path:
        path = tmp_path / "small.json"
        path.write_text(json.dumps(node))
        return path

    return write


@pytest.fixture
def study(small: dict[str, Any], write: Callable[[dict[str, Any]], Path]) -> Study:
    return Study.read(write(small))


@pytest.fixture
def data(study: Study) -> Prepared:
    return study.prepare()


class Head(NamedTuple):
    """A Ray cluster of one node; its processes are those of its session."""

    address: str
    session: int


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Ray, started once for all tests of this process and ended by its own process group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray")  # short: Ray's sockets lie in it
    line = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--include-dashboard=false"]
    line += [f"--port={port}", "--num-cpus=2", "--num-gpus=0", f"--temp-dir={folder}", "--disable-usage-stats"]
    line += ["--min-worker-port=0", "--max-worker-port=0"]  # any that is free: another process may have its own Ray
    log = tmp_path_factory.mktemp("ray") / "log"
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}  # Ray sets it
    environment |= KEYS
    with log.open("w") as file:
        head = subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True, env=environment)
        try:
            deadline = time.monotonic() + 180
            while "Ray runtime started" not in log.read_text():
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield Head(f"127.0.0.1:{port}", head.pid)
        finally:
            ray.shutdown()
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(head: Head) -> str:
    return head.address


@pytest.fixture
def joined(head: Head) -> None:
    """Ray, in this process, on the cluster of the tests; it stays there for the next test."""
    start_ray(Resources(), head.address)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow that all tests of this process share, which makes it once and has one process to send."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'm.db'}"
    yield uri
    sender_of(uri).end()


@pytest.fixture
def inside(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run what ``command`` runs, but in this process, which has imported everything; with MLflow at ``database``.

    Where a study of the folder has an MLflow of its own, that is taken. Ray stays joined to what ``--address`` says.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # this process does not end
    own = tmp_path / "mlflow.db"

    def run(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        there = import_module(module)
        app = there.app if hasattr(there, "app") else import_module(f"{module}.__main__").app
        before = dict(os.environ)
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{own}" if own.exists() else database
        line = [*map(str, arguments)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # as in a process of its own
                done = CliRunner().invoke(app, line, catch_exceptions=False)
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
        return subprocess.CompletedProcess(line, done.exit_code, done.stdout, done.stderr)

    yield run
    if own.exists():
        sender_of(f"sqlite:///{own}").end()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run ``python -m MODULE ARGUMENTS`` in an empty folder, as a user would; five minutes at most."""

    def run(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False, env=ENVIRONMENT
        )

    return run


def stopped(
    folder: Path,
    *arguments: object,
    until: str = " 00",
    wait: float = 0.0,
    stop: signal.Signals = signal.SIGINT,
    environment: dict[str, str] = ENVIRONMENT,
) -> tuple[int, str]:
    """Run a study in a folder and stop it; return its exit code and what it said.

    until: it says so; by default until a trial has ended. wait: seconds after that.
    """
    line = [sys.executable, "-u", "-m", "dgm_ray.tune", *map(str, arguments)]
    with subprocess.Popen(
        line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        said, deadline = "", time.monotonic() + 180
        while until not in said and running.poll() is None and time.monotonic() < deadline:
            said += running.stdout.readline()
        time.sleep(wait)
        running.send_signal(stop)
        said += running.communicate(timeout=180)[0]
    return running.returncode, said
