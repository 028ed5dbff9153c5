"""Every search space that comes with the project: it checks, it trains, and none of its knobs is dead.

A knob is alive if it changes what an epoch has learnt, or what is imputed and sampled with it.

Spaces are found by their files; a new one is tested without being named here.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.space import Draw, fill
from dgm_ray.tasks.imputers import imputer_names
from dgm_ray.training import modules_of
from dgm_ray.training.checkpoints import copy_states
from dgm_ray.tune.comparison import Comparison, is_comparison
from dgm_ray.tune.study import Study, task_of

FILES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
SPACES = [path for path in FILES if not is_comparison(path)]
COMPARISONS = {path.stem: Comparison.read(path) for path in FILES if is_comparison(path)}
STUDIES = {path.stem: Study.read(path) for path in SPACES}
for _stem, _comparison in COMPARISONS.items():  # each imputer is searched as a space of its own
    STUDIES |= {f"{_stem} {name}": study for name, study in _comparison.studies(_comparison.prepare()).items()}
KNOBS = [(name, label) for name, study in STUDIES.items() for label in study.plan.draws]

# Draws that cannot change what one epoch leaves, each with its reason.
QUIET = {
    ("masked_autoencoder", "decay"): "the window of the average grows from one step: 0.9 is reached after 81 of them",
}


def test_there_are_spaces() -> None:
    assert len(SPACES) >= 4


def test_no_imputer_is_forgotten() -> None:
    assert set(COMPARISONS["imputers"].node["imputers"]) == set(imputer_names())


@pytest.fixture(scope="module", params=STUDIES)
def prepared(request: pytest.FixtureRequest) -> tuple[Study, Prepared]:
    study = STUDIES[request.param]
    return study, study.prepare()


def test_every_corner_builds_and_everything_is_used(prepared: tuple[Study, Prepared]) -> None:
    study, data = prepared
    rehearsal = study.rehearse(data)
    assert rehearsal.dead == []
    networks = study.plan.template["task"] != "TrainImputer"
    assert networks == (0 < rehearsal.fewest_parameters <= rehearsal.most_parameters)


def test_it_is_commented(prepared: tuple[Study, Prepared]) -> None:
    """What, how to run, and why: a comment above, and beside at least every third draw."""
    study, _ = prepared
    text = study.path.read_text()
    assert text.startswith("# ")
    assert f"python -m dgm_ray.tune search_spaces/{study.path.name}" in text
    beside = [line for line in text.splitlines() if " # " in line]
    assert 3 * len(beside) >= len(study.plan.draws)


def after_one_epoch(study: Study, data: Prepared, high: str | None = None) -> str:
    """Return a digest of an epoch's weights and measures with every draw at its low end, but one at its high end."""
    values = {place: draw.ends[label == high] for label, (place, draw) in study.plan.draws.items()}
    training = task_of(fill(study.plan.template, values)).start(data)
    torch.manual_seed(1)  # what a draw does to the initial weights alone is not enough for a knob of the training
    training.advance()
    digest = hashlib.sha256(repr(sorted(training.evaluate().items())).encode())
    for place_of, value in leaves(copy_states(modules_of(training.architecture.components))):
        array = np.asarray(value)
        digest.update(f"{place_of}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what nested states hold, with its place."""
    if isinstance(node, dict):
        for key in sorted(node):
            yield from leaves(node[key], f"{place}.{key}")
    else:
        yield place, node


@pytest.fixture(scope="module")
def tables() -> dict[str, Prepared]:
    return {name: study.prepare() for name, study in STUDIES.items()}


@pytest.fixture(scope="module")
def low(tables: dict[str, Prepared]) -> Callable[[str], str]:
    """What an epoch leaves with every draw of a space low, trained once for all its knobs."""
    return cache(lambda name: after_one_epoch(STUDIES[name], tables[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in KNOBS}))
def test_the_same_seed_gives_the_same_result(name: str, tables: dict[str, Prepared], low: Callable[[str], str]) -> None:
    assert low(name) == after_one_epoch(STUDIES[name], tables[name])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), KNOBS)
def test_the_knob_is_alive(name: str, label: str, tables: dict[str, Prepared], low: Callable[[str], str]) -> None:
    high = after_one_epoch(STUDIES[name], tables[name], label)
    assert (low(name) != high) == ((name, label) not in QUIET)


def test_quiet_knobs_exist_and_have_a_reason() -> None:
    assert set(QUIET) <= set(KNOBS)
    assert all(QUIET.values())


def test_the_test_of_dead_knobs_finds_one(tables: dict[str, Prepared]) -> None:
    """Patience does not act in the first epoch: drawn, it is a dead knob."""
    study = Study.read(SPACES[0])
    arguments: dict[str, Any] = study.plan.template["arguments"]
    arguments["patience"] = Draw("randint", (5, 50))
    data = tables[SPACES[0].stem]
    assert "patience" in study.plan.draws
    assert after_one_epoch(study, data) == after_one_epoch(study, data, "patience")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_trial_of_one_epoch_beats_nothing_but_runs(name: str, tables: dict[str, Prepared]) -> None:
    study, data = STUDIES[name], tables[name]
    values = {place: draw.ends[0] for place, draw in study.plan.draws.values()}
    configuration = fill(study.plan.template, values)
    configuration["arguments"] |= {"epochs": 1}
    training = task_of(configuration).start(data)
    metrics = training.advance()
    assert training.reason == "epochs"
    assert study.plan.metric in metrics
    assert training.best is not None
    assert training.best.metric == metrics[study.plan.metric]
