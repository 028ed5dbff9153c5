"""The pages about tasks and factories are what would be made now: ``make docs`` makes them."""

from pathlib import Path

import pytest

from dgm_ray.data import MinMaxScaler
from dgm_ray.documentation import kind, pages, undescribed
from dgm_ray.registry import FACTORIES, TASKS, parameters

ROOT = Path(__file__).parents[1]
MADE = pages(ROOT)


@pytest.mark.parametrize("file", MADE)
def test_pages_are_current(file: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == MADE[file], "make docs"


def test_every_task_and_factory_has_a_section() -> None:
    assert [name for name in TASKS if f"\n## {name}\n" not in MADE["docs/tasks.md"]] == []
    own = [name for name, entry in FACTORIES.items() if not entry.__module__.startswith("dgm_ray.tune")]
    assert [name for name in own if f"\n### {name}\n" not in MADE["docs/architecture.md"]] == []


def test_every_task_has_an_example() -> None:
    sections = {part.split("\n")[0]: part for part in MADE["docs/tasks.md"].split("\n## ")[1:]}
    assert [name for name in TASKS if "Example: `" not in sections[name]] == []


def test_every_argument_of_a_task_is_described() -> None:
    assert undescribed() == []


@pytest.mark.parametrize(
    ("task", "argument", "expected"),
    [
        ("TrainGAN", "batch_size", "integer >= 1"),
        ("TrainGAN", "data", "`Holdout` or `CellHoldout` or `Files`"),
        ("TrainGAN", "architecture", "architecture, or the path of its file"),
        ("SampleGAN", "seed", "integer >= 0 or null"),
        ("GenerateMissingMask", "missing_probability", "number >= 0 <= 1"),
        ("MultiProcessTaskRunner", "workers", "integer >= 1 or list of `Worker`"),
        ("SerialTaskRunner", "tasks", "list of path"),
        ("TrainMissForest", "max_features", "number > 0 <= 1 or null"),
    ],
)
def test_kinds_are_for_people(task: str, argument: str, expected: str) -> None:
    assert kind(parameters(TASKS.get(task, ""))[argument]) == expected


def test_shared_objects_are_named() -> None:
    parameter = parameters(FACTORIES.get("ValidationReconstructionLoss", ""))["scaler"]
    assert MinMaxScaler.__name__ in kind(parameter)
