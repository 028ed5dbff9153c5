"""The examples are the original's, and run as it says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import dgm_ray.tune.tasks  # noqa: F401 (registers the tasks that run on Ray)
from dgm_ray import fetch
from dgm_ray.registry import TASKS as TASK_NAMES
from dgm_ray.tasks.configuration import read_task
from dgm_ray.tasks.runner import run

ROOT = Path(__file__).parents[1]
CREDIT = ROOT.parent / "shared" / "data" / "credit"
EXAMPLE_1 = Path("examples/tasks/default_of_credit_card_clients/single_variable_gan")
TASKS = sorted(path for path in (ROOT / "examples").rglob("*.json") if path.stem.startswith("task-"))
# What running the examples leaves beside them.
MADE = shutil.ignore_patterns("data", "*.csv", "*.npy", "*.npz", "*.pickle")


def test_there_are_examples() -> None:
    assert len(TASKS) >= 36


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_an_example_is_a_configuration(path: Path) -> None:
    assert read_task(path).ignored == []


@pytest.mark.slow
def test_example_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CREDIT.exists():
        pytest.skip(f"the credit table is not here: {CREDIT}")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=MADE)
    monkeypatch.chdir(tmp_path)
    fetch.fetch("default_of_credit_card_clients", Path("examples/data/default_of_credit_card_clients"), CREDIT, 0)
    run(EXAMPLE_1 / "task-train-then-sample.json")
    lines = (EXAMPLE_1 / "train.csv").read_text().splitlines()
    assert len(lines) == 1 + 10 * 2
    rows = np.load(EXAMPLE_1 / "sample.npy")
    arguments = json.loads((EXAMPLE_1 / "task-sample.json").read_text())["arguments"]
    assert rows.shape == (arguments["sample_size"], 89)
    assert (EXAMPLE_1 / "checkpoint.pickle").exists()


@pytest.mark.slow
def test_every_task_runs_on_a_mixed_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All examples of the Wine data, in their order; what runs on Ray has its own tests."""
    shutil.copytree(ROOT / "examples" / "tasks" / "wine", tmp_path / "examples/tasks/wine", ignore=MADE)
    monkeypatch.chdir(tmp_path)
    fetch.fetch("wine", Path("examples/data/wine"), None, 0)
    whole = Path("examples/tasks/wine/task-all.json")
    run(whole)
    ran = {json.loads(Path(path).read_text())["task"] for path in json.loads(whole.read_text())["arguments"]["tasks"]}
    assert set(TASK_NAMES) - ran == {"SerialTaskRunner", "MultiProcessTaskRunner", "Augmentation"}
    errors = [row.split(",")[3] for row in Path("examples/tasks/wine/imputations.csv").read_text().splitlines()[1:]]
    zero, _, means, forest = map(float, errors)
    assert forest < means < zero
