"""What ``--plan`` says: structures, their costs, how many trials fit and how long a study takes."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.errors import StudyError
from dgm_ray.tune import forecast
from dgm_ray.tune.forecast import Cost, Forecast, Room, Structure, duration, room, structures
from dgm_ray.tune.settings import FIFO, Resources
from dgm_ray.tune.study import Study

from .conftest import Command

Write = Callable[[dict[str, Any]], Path]
MIB = 2**20


def test_structures_are_what_changes_shapes_or_batches(study: Study, data: Prepared) -> None:
    """Two batch sizes, two code sizes and two lists of layers; the learning rate changes no shape."""
    found, count = structures(study, data, 8)
    assert count == 8
    assert len({str(one.values) for one in found}) == 8
    assert found[0].values == {"batch_size": 16, "code_size": 2, "sizes": []}
    assert found[-1].values == {"batch_size": 32, "code_size": 4, "sizes": [8]}
    assert [found[0].task.batch_size, found[-1].task.batch_size] == [16, 32]  # type: ignore[attr-defined]


def test_of_many_structures_the_smallest_and_the_largest_are_tried(study: Study, data: Prepared) -> None:
    whole, _ = structures(study, data, 8)
    for most in (2, 3, 5):
        some, count = structures(study, data, most)
        assert (len(some), count) == (most, 8)
        assert (some[0], some[-1]) == (whole[0], whole[-1])
        assert len({str(one.values) for one in some}) == most


def test_every_draw_of_an_imputer_is_a_structure(small: dict[str, Any], write: Write) -> None:
    imputer = {"factory": "KNearest", "arguments": {"neighbours": {"randint": [9, 10]}}}
    small["trial"] = {
        "task": "TrainImputer",
        "arguments": {"data": {"source": {"factory": "Wine"}}, "imputer": imputer},
    }
    study = Study.read(write(small))
    found, count = structures(study, study.prepare(), 8)
    assert ([one.values for one in found], count) == ([{"neighbours": 9}, {"neighbours": 10}], 2)


def test_costs_of_a_study(study: Study, data: Prepared) -> None:
    """82 and 252 parameters; Adam has two numbers for each and a count for each tensor, of 4 bytes all."""
    found = forecast.forecast(study, data, most=2)
    assert [cost.parameters for cost in found.costs] == [252 * 4, 82 * 4]
    assert [cost.optimizer for cost in found.costs] == [(2 * 252 + 6) * 4, (2 * 82 + 4) * 4]
    rows = len(data.train.features)
    assert [cost.steps for cost in found.costs] == [-(-rows // 32), -(-rows // 16)]
    assert all(cost.seconds > 0 and cost.epochs == 4 and cost.gpu is None for cost in found.costs)


def cost(seconds: float, epochs: int, study: Study) -> Cost:
    task = study.corners[0]
    return Cost(Structure({}, task), seconds, 5, epochs, parameters=0, optimizer=0, grown=MIB, gpu=None)


def test_workers_share_each_batch(study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two sees half of the rows of each batch; a trial has two processes and the CPUs of both."""
    together = replace(study, settings=replace(study.settings, resources=Resources(workers=2)))
    sizes: list[int] = []
    forward = torch.nn.Linear.forward

    def seen(layer: torch.nn.Linear, features: torch.Tensor) -> torch.Tensor:
        sizes.extend([] if features.is_meta else [len(features)])
        return forward(layer, features)

    with monkeypatch.context() as watched:
        watched.setattr(torch.nn.Linear, "forward", seen)
        watched.setattr("dgm_ray.training.training.Training.evaluate", lambda training: {})
        found = forecast.forecast(together, data, most=2)
    assert set(sizes) >= {8, 16}
    assert max(sizes) == 16, "half of 32"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(forecast, "available_memory", lambda: 7000 * MIB)
    monkeypatch.setattr(forecast, "peak_memory", lambda: 1000 * MIB)
    space = room(together.settings, data)
    assert space.by == {"CPUs": 4, "memory": 3}
    said = forecast.lines(found, space)
    assert said[-3].startswith("memory of a trial: 2 processes, each of about ")
    assert ", and the averaging of gradients (" in said[-1]


def test_the_time_of_a_study(study: Study) -> None:
    """Four trials, of 10 s and 30 s an epoch by turns, two epochs each: a mean of 40 s."""
    made = Forecast(study, [cost(10, 2, study), cost(30, 2, study)], 2)
    assert [made.seconds(count) for count in (1, 2, 3, 4, 9)] == [160, 80, 80, 40, 40]
    assert made.saving == "at most: ASHA ends trials sooner"
    short = replace(study, settings=replace(study.settings, time_budget=100.0, scheduler=FIFO()))
    made = replace(made, study=short)
    assert [made.seconds(count) for count in (1, 2)] == [100, 80]
    assert made.saving == "every trial runs all its epochs"
    assert "tune.time_budget ends it then" in forecast.time_line(made, Room(1, {"CPUs": 1}, None))


def test_a_comparison_adds_up_searches_and_repeats(study: Study) -> None:
    """Searches of 80 s each; then each best three times, 40 s each, two at a time."""
    made = Forecast(study, [cost(10, 2, study), cost(30, 2, study)], 2)
    lines = forecast.comparison_lines({"one": made, "two": made}, 3, Room(MIB, {"CPUs": 2}, None))
    assert [line.split(":")[0] for line in lines[:2]] == ["one", "two"]
    assert lines[-1].startswith(f"expected time: {duration(80 + 80 + 120)}, {duration(120)} of it")


def test_how_many_trials_fit(study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(forecast, "available_memory", lambda: 1000 * MIB)
    monkeypatch.setattr(forecast, "peak_memory", lambda: 300 * MIB)
    assert room(study.settings, data).by == {"CPUs": 8, "memory": 3}
    wanted = replace(study.settings, resources=Resources(cpu=3, memory="500MiB"))
    assert room(wanted, data).by == {"CPUs": 2, "memory": 2}
    assert room(replace(wanted, concurrent=1), data).side_by_side == 1
    for resources, what in ((Resources(cpu=9), "CPUs"), (Resources(memory="2GiB"), "memory")):
        with pytest.raises(StudyError, match=f"tune.resources: no trial fits this machine's {what}, not"):
            room(replace(study.settings, resources=resources), data)


@pytest.mark.parametrize(("gpu", "count"), [({"gpu": 0.3}, 6), ({"gpu": 2}, 1), ({"gpu_memory": "3GiB"}, 4)])
def test_how_many_trials_fit_the_gpus(
    study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch, gpu: dict[str, Any], count: int
) -> None:
    """Two GPUs of 8 and 6 GiB."""

    class Properties:
        def __init__(self, index: int) -> None:
            self.total_memory = [8, 6][index] * 1024 * MIB

    monkeypatch.setattr(forecast, "gpu_here", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", Properties)
    assert room(replace(study.settings, resources=Resources(**gpu)), data).by["GPUs"] == count


def test_memory_is_that_of_this_machine() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert MIB < forecast.available_memory() <= whole
    before = forecast.peak_memory()
    held = bytearray(before + 200 * MIB)  # zeros, so they are not there until written
    held[::4096] = b"x" * len(held[::4096])
    assert forecast.peak_memory() - before >= 200 * MIB


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "0.012 s"), (9.96, "10 s"), (59.4, "59 s"), (61, "1 min"), (3600, "60 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.slow
def test_the_command_says_what_a_study_takes_and_writes_nothing(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path
) -> None:
    path = write(small)
    done = inside("dgm_ray.tune", path, "--plan")
    assert done.returncode == 0, done.stderr
    for said in (
        "plan: 4 trials of at most 4 epochs; probed 8 of 8 structures",
        "batch_size=16, code_size=2, sizes=[]: ",
        "328B of parameters, 672B of optimizer",
        "memory of a trial: a process of about ",
        "side by side on this machine: ",
        "expected time: ",
    ):
        assert said in done.stdout
    assert list(tmp_path.iterdir()) == [path]
    refused = inside("dgm_ray.tune", path, "--plan", "--set", "tune.resources.memory=900TiB")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: tune.resources: no trial fits this machine's memory, not ")


@pytest.mark.slow
def test_the_command_says_what_a_comparison_takes(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path
) -> None:
    imputers = {"k_nearest": {"imputer.arguments.neighbours": {"randint": [2, 9]}}, "autoencoder": {"epochs": 3}}
    node = {"tune": {"samples": 2}, "data": {"source": {"factory": "Wine"}}, "repeats": 2, "imputers": imputers}
    path = write(node)
    done = inside("dgm_ray.tune", path, "--plan")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for name in (
        "means_and_modes: 1 trial of at most 1 epoch, ",
        "k_nearest: 2 trials of ",
        "autoencoder: 1 trial of ",
    ):
        assert any(line.startswith(name) for line in lines), done.stdout
    assert any(line.startswith("expected time: ") and "to train each best again" in line for line in lines)
    assert list(tmp_path.iterdir()) == [path]
