"""Every network of every search space as lanes: 20 steps of four against the same four alone."""

from dataclasses import replace
from functools import partial

import pytest

from dgm_ray.tasks.train import TrainTask
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training.lanes.verify import differences

from .test_spaces import STUDIES

NETWORKS = {name: study for name, study in STUDIES.items() if study.plan.template["task"] != "TrainImputer"}
STEPS = 20


def test_there_are_networks() -> None:
    assert len(NETWORKS) >= 12


@pytest.mark.parametrize("name", NETWORKS)
def test_lanes_are_what_they_are_alone(name: str) -> None:
    study = NETWORKS[name]
    data = study.prepare()
    by_shape: dict[str, list[TrainingTask]] = {}
    for task in study.corners:
        shape = task.shape(data)
        assert shape.reason == ""
        by_shape.setdefault(shape.key, []).append(task)
    most = max(by_shape.values(), key=len)
    assert any(len(tasks) > 1 for tasks in by_shape.values()), "learning rates are no shape"
    tasks = [replace(most[number % len(most)], seed=number) for number in range(4)]
    assert all(isinstance(task, TrainTask) for task in tasks)
    steps = list(differences([partial(task.start, data) for task in tasks], STEPS))
    assert len(steps) == STEPS
    assert max(step.loss for step in steps) <= 1e-5
    assert max(step.parameters for step in steps) <= 1e-5
