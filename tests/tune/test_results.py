"""The configuration that repeats a trial, and what it should reach."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dgm_ray.tasks.configuration import NOT_REPEATED
from dgm_ray.tune.outcomes import Outcome
from dgm_ray.tune.results import repeating
from dgm_ray.tune.study import Study, task_of

METRIC = "val_imputation_rmse"


@pytest.fixture
def ended(study: Study) -> Outcome:
    """A trial that ASHA has stopped after the third of four epochs."""
    values: dict[str, Any] = {}
    for label, (_, draw) in study.plan.draws.items():
        first = draw.arguments[0]
        values[label] = json.dumps(first) if isinstance(first, list) else first
    return Outcome("a", 1, values, "stopped", "stopped by ASHA", 0.2, {METRIC: 0.2}, best_epoch=2, epochs=3)


def test_it_trains_as_long_as_the_trial_and_expects_its_figures(study: Study, ended: Outcome) -> None:
    found = repeating(study, ended)
    assert found["expected"] == {"best_epoch": 2, METRIC: 0.2}
    task: Any = task_of({name: found[name] for name in ("task", "arguments")})
    assert (task.epochs, task.batch_size, task.seed) == (3, ended.values["batch_size"], 0)
    assert study.plan.configuration(ended.values)["arguments"]["epochs"] == 4, "the study's own stays as it is"


def test_of_several_seeds_it_has_the_best(study: Study, ended: Outcome) -> None:
    seeds = [
        {"seed": seed, "epochs": seed, "best_epoch": 2, "score": score, "measures": {METRIC: score}}
        for seed, score in ((3, 0.25), (4, 0.15))
    ]
    found = repeating(study, replace(ended, seeds=seeds))
    assert (found["arguments"]["seed"], found["arguments"]["epochs"]) == (4, 4)
    assert found["expected"] == {"best_epoch": 2, METRIC: 0.15}


def test_what_is_not_repeated_says_why(study: Study, ended: Outcome) -> None:
    (streamed,) = repeating(study, ended, streamed=True)["expected"].values()
    assert streamed.startswith(f"{METRIC} 0.2 in epoch 2 was found with streamed rows; this configuration has them in")
    schedule = [{"epoch": 1, "values": {"lr": 0.1}}, {"epoch": 2, "values": {"lr": 0.2}}]
    changed = repeating(study, replace(ended, schedule=schedule))["expected"]
    assert changed.keys() == {NOT_REPEATED}
    assert changed[NOT_REPEATED].endswith("from the beginning: lr 0.1, 0.2 from epoch 2")


@pytest.mark.parametrize(("epochs", "trained"), [(0, 4), (2, 2)])
def test_one_that_failed_expects_nothing(study: Study, ended: Outcome, epochs: int, trained: int) -> None:
    found = repeating(study, replace(ended, status="diverged", epochs=epochs))
    assert (found["expected"], found["arguments"]["epochs"]) == ({}, trained)
