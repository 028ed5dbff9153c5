"""A run of every model is repeated from what MLflow has of it, wherever the command is called."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray.cli import app

from .conftest import ENVIRONMENT, Head
from .every_model import names

pytestmark = pytest.mark.slow
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


@pytest.mark.parametrize("name", [*names(), "seeds"])
def test_a_run_of_each_model_is_reproduced(name: str, call: Any) -> None:
    """The best trial of each study, and its last trial, which may have no checkpoint."""
    for given in (name, f"{name} 000"):
        result = call(given)
        assert result.exit_code == 0, result.output
        assert "reproduced: run " in result.output
        assert "val_imputation_rmse" in result.output
        assert "to the bit" in result.output


@pytest.mark.parametrize("name", ["medgan", "miss_forest", "seeds"])
def test_the_first_epochs_alone(name: str, call: Any) -> None:
    result = call(name, "--epochs", "1")
    assert result.exit_code == 0, result.output
    assert "to the bit" in result.output
    assert ("val_imputation_rmse_std" in result.output) == (name == "seeds"), "of seeds the logged figures are means"


def test_more_epochs_than_there_are(call: Any) -> None:
    result = call("gain", "--epochs", "9")
    assert result.exit_code == 2
    assert "--epochs: should be at most the 2 epochs of run " in result.output


def test_a_changed_table_is_named_and_one_that_is_gone(studies: Path, call: Any) -> None:
    """One training cell is another."""
    path = studies / TABLE
    before = path.read_text()
    try:
        lines = before.splitlines()
        lines[5] = "0.125" + lines[5][lines[5].index(",") :]
        path.write_text("\n".join(lines) + "\n")
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
