"""``dgm-ray verify-lanes``: some configurations of a space alone and as lanes, and how far they are from each other."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training.lanes.verify import Difference, differences
from dgm_ray.tune.study import Study

CLOSE = 1e-4  # what rounding leaves after some steps; another computation leaves far more


def verify_lanes(space: Path, assignments: Sequence[str], lanes: int, steps: int, console: Console) -> bool:
    """Print the largest difference after each step; tell whether all are no more than rounding.

    The configurations are ends of the draws that leave the shape as it is, each with another seed. Raises
    ConfigurationError for a space whose trainings cannot be lanes, and what reading a space raises.
    """
    study = Study.read(space, assignments)
    data = study.prepare()
    study.rehearse(data)
    tasks = _of_one_shape(study, data)[:lanes]
    chosen = [replace(tasks[number % len(tasks)], seed=number, device="auto") for number in range(lanes)]
    console.print(f"{study.path}: {lanes} lanes of {len(tasks)} configurations, {steps} steps", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("step", "phase", "largest difference of a loss", "of a weight"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    found: list[Difference] = []
    for one in differences([partial(task.start, data) for task in chosen], steps):
        found.append(one)
        table.add_row(str(one.step), one.phase, f"{one.loss:.1e}", f"{one.parameters:.1e}")
    console.print(table)
    worst = max(max(one.loss, one.parameters) for one in found)
    same = worst <= CLOSE
    said = "the same but for rounding" if same else "NOT the same"
    console.print(f"{said}: they differ by {worst:.1e} at most, relative", highlight=False)
    return same


def _of_one_shape(study: Study, data: Prepared) -> list[TrainingTask]:
    """Return the tasks at the corners of the space that have the shape which most of them have."""
    by_shape: dict[str, list[TrainingTask]] = {}
    for task in study.corners:
        shape = task.shape(data)
        if shape.reason:
            raise ConfigurationError("trial", f"its trainings cannot be lanes: {shape.reason}")
        by_shape.setdefault(shape.key, []).append(task)
    return max(by_shape.values(), key=len)
