import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dgm_ray.errors import DGMError
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.configuration import load_tasks

load_tasks()
Original = Callable[..., dict[str, Any]]


@pytest.fixture
def files(original: Original, tmp_path: Path) -> dict[str, Any]:
    """A training, an imputation, and the arguments of the task that repeats them."""
    train = original("TrainMIDA", masked=True, epochs=2)
    (tmp_path / "train.json").write_text(json.dumps({"task": "TrainMIDA", "arguments": train}))
    impute = {name: train[name] for name in ("metadata", "architecture")} | {
        "features": str(tmp_path / "val.npy"),
        "missing_mask": str(tmp_path / "val_mask.npy"),
        "checkpoint": train["checkpoints"]["output"],
        "imputation": {"factory": "ZeroImputation"},
        "output": str(tmp_path / "imputed.npy"),
    }
    (tmp_path / "impute.json").write_text(json.dumps({"task": "ImputeWithMIDA", "arguments": impute}))
    paths = {name: str(tmp_path / f"{name}.json") for name in ("train", "impute")}
    return paths | {"output": str(tmp_path / "all.npy"), "runs": 3}


def run(**arguments: Any) -> dict[str, Any]:
    made = call(TASKS.get("MultipleImputation", ""), arguments, path="arguments")
    found: dict[str, Any] = made.run(Console(quiet=True))
    return found


def test_each_run_has_its_own_seed(files: dict[str, Any], tmp_path: Path) -> None:
    found = run(**files)
    runs = np.load(files["output"])
    assert runs.shape == (3, 20, 13)
    mask = np.load(tmp_path / "val_mask.npy") == 1
    assert (runs[:, ~mask] == runs[0, ~mask]).all()
    assert found["standard_deviation"] > 0
    for number in (1, 2, 3):
        np.testing.assert_array_equal(np.load(tmp_path / f"imputed-{number}.npy"), runs[number - 1])
        assert (tmp_path / "new" / f"it-{number}.pickle").exists()
        assert (tmp_path / f"it-{number}.csv").exists()
    run(**files)
    np.testing.assert_array_equal(np.load(files["output"]), runs)
    run(**(files | {"seed": 1, "runs": 2}))
    np.testing.assert_array_equal(np.load(files["output"]), runs[1:])


def test_mistakes_are_found_before_the_first_run(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DGMError, match=r"train\.json: task: should be a task that begins with 'Impute'"):
        run(**(files | {"impute": files["train"]}))
    node = json.loads(Path(files["impute"]).read_text())
    node["arguments"]["sed"] = 1
    Path(files["impute"]).write_text(json.dumps(node))
    with pytest.raises(DGMError, match=r"impute\.json: arguments\.sed: .*did you mean 'seed'"):
        run(**files)
    assert not (tmp_path / "new").exists()
