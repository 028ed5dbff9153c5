"""What tests of studies need: a space that is small enough to run in a test, and the command that runs it."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgm_ray.data import Prepared
from dgm_ray.tune.study import Study

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


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run ``python -m MODULE ARGUMENTS`` in an empty folder, as a user would; two minutes at most."""

    def run(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", module, *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False, env=environment
        )

    return run
