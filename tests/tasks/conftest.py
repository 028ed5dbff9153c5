import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dgm_ray.models import MODELS
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.train import TrainTask


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def arguments(node_of: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a small training's arguments: ``arguments("TrainGAN", epochs=3)``."""

    def make(task: str, **more: Any) -> dict[str, Any]:
        (model,) = [one for one in MODELS if f"Train{one.__name__}" == task]
        node: dict[str, Any] = {"source": {"factory": "BreastCancer"}, "train_missing_probability": 0.1}
        common = {
            "data": node,
            "imputation": {"factory": "MeanAndModesImputation"},
            "architecture": node_of(model),
            "batch_size": 64,
            "epochs": 2,
            "device": "cpu",
        }
        return copy.deepcopy(common | more)

    return make


@pytest.fixture
def task(arguments: Callable[..., dict[str, Any]]) -> Callable[..., TrainTask]:
    """Return the task as the runner makes it from a file: ``task("TrainGAN", epochs=3)``."""

    def make(name: str, **more: Any) -> TrainTask:
        made: TrainTask = call(TASKS.get(name, ""), json.loads(json.dumps(arguments(name, **more))), path="arguments")
        return made

    return make


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    """What makes a training write its files below tmp_path."""
    return {"checkpoints": {"output": str(tmp_path / "new" / "it.pt")}, "logs": str(tmp_path / "logs" / "it.csv")}
