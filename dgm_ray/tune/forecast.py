"""What a study would take: a few steps of its structures in this process, on the real table; nothing is started."""

import json
import math
import os
import random
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from pydantic import ByteSize

from dgm_ray.data import Prepared
from dgm_ray.errors import StudyError
from dgm_ray.space import Place, draws_of
from dgm_ray.tasks.progress import some
from dgm_ray.tasks.train import TrainTask
from dgm_ray.tasks.train_imputer import TrainImputer
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import Part
from dgm_ray.tune.cluster import placed
from dgm_ray.tune.data import available_memory
from dgm_ray.tune.lanes.check import of_a_pack
from dgm_ray.tune.schedulers import FIFO
from dgm_ray.tune.settings import Settings, bytes_of
from dgm_ray.tune.study import Study

STRUCTURES = 8  # that are probed at most
CYCLES = 10  # of a model's phases that are timed


@dataclass(frozen=True)
class Structure:
    """Draws that decide what a trial computes, by label, and its task."""

    values: dict[str, Any]
    task: TrainingTask


@dataclass(frozen=True)
class Cost:
    """What a structure takes.

    seconds: of an epoch, measures and all. steps: of an epoch. epochs: at most. parameters, optimizer: bytes. gpu: the
    most bytes of a GPU at once, None without one. grown: by how many bytes the process grew.
    """

    structure: Structure
    seconds: float
    steps: int
    epochs: int
    parameters: int
    optimizer: int
    grown: int
    gpu: int | None

    @property
    def trial(self) -> float:
        """Seconds of a trial with one seed, that nothing ends before its last epoch."""
        return self.seconds * self.epochs


@dataclass(frozen=True)
class Room:
    """How many trials fit side by side here, by what they share. process: bytes of one."""

    process: int
    by: dict[str, int]
    concurrent: int | None

    @property
    def side_by_side(self) -> int:
        return max(1, min([*self.by.values(), *([self.concurrent] if self.concurrent else [])]))


@dataclass(frozen=True)
class Forecast:
    """costs: of the structures that were probed, the largest first. structures: how many there are.

    packs: of how many trials each process has one, if it has; packs were not tried.
    """

    study: Study
    costs: list[Cost]
    structures: int
    packs: str = ""

    @property
    def trial(self) -> float:
        """Seconds of a trial with one seed, the mean over structures."""
        return sum(cost.trial for cost in self.costs) / len(self.costs)

    def seconds(self, side_by_side: int) -> float:
        """Return the seconds of the study if nothing ends a trial early, or its time budget."""
        seconds = self.trial * self.study.plan.seeds * -(-self.study.trials // side_by_side)
        return min(seconds, self.study.settings.time_budget or seconds)

    @property
    def saving(self) -> str:
        """Who ends trials sooner, so that the time is the most."""
        by = [] if isinstance(self.study.settings.scheduler, FIFO) else [type(self.study.settings.scheduler).__name__]
        by += ["patience"] if any(cost.structure.task.patience for cost in self.costs) else []
        end = "ends" if len(by) == 1 else "end"
        sooner = [f"{' and '.join(by)} {end} trials sooner"] if by else []
        sooner += ["lanes, which were not tried, take less"] if self.packs else []
        return f"at most: {'; '.join(sooner)}" if sooner else "every trial runs all its epochs"


def forecast(study: Study, data: Prepared, most: int = STRUCTURES) -> Forecast:
    """Probe ``most`` structures of a study, the smallest and the largest always; the largest first."""
    found, count = structures(study, data, most)
    seeds, workers = study.plan.seeds, study.settings.resources.workers
    lanes = study.settings.lanes != 1 and not any(one.task.shape(data).reason for one in found)
    packs = of_a_pack(study.settings) if lanes else ""
    return Forecast(study, [probe(one, data, study.epochs, seeds, workers) for one in reversed(found)], count, packs)


def structures(study: Study, data: Prepared, most: int) -> tuple[list[Structure], int]:
    """Return structures of a space, the smallest first, the largest last, and how many there are.

    A draw belongs to them if trying its values, all others at their first, changes a shape, a batch size or the steps
    of a phase; of an imputer, which has no shapes, every draw does. Of more than ``most`` the others are drawn.
    """
    labels = {place: label for label, (place, _) in study.plan.draws.items()}
    tried = {place: list(draw.tried) for place, draw in draws_of(study.plan.template)}
    first = {place: values[0] for place, values in tried.items()}

    def kind(values: Mapping[Place, Any]) -> Any:
        return _kind(study.task({**first, **values}), data)

    options: dict[Place, list[Any]] = {}
    for place, values in tried.items():
        kinds = {kind({place: value}): value for value in reversed(values)}
        if len(kinds) > 1:
            options[place] = [kinds[one] for one in sorted(kinds)]
    count = math.prod(map(len, options.values()))
    if count <= most:
        chosen = [dict(zip(options, values, strict=True)) for values in product(*options.values())]
    else:
        draw = random.Random(study.settings.seed)  # noqa: S311 (no secret)
        chosen = [{place: values[end] for place, values in options.items()} for end in (0, -1)]
        while len(chosen) < most:
            one = {place: draw.choice(values) for place, values in options.items()}
            chosen += [] if one in chosen else [one]
    ordered = sorted(chosen, key=kind)
    named = [{labels[place]: value for place, value in values.items()} for values in ordered]
    tasks = [study.task({**first, **values}) for values in ordered]
    return [Structure(*one) for one in zip(named, tasks, strict=True)], count


def probe(structure: Structure, data: Prepared, epochs: int, seeds: int = 1, workers: int = 1) -> Cost:
    """Train a few steps in this process, and forget them. The device is the processor where there is no GPU.

    epochs: of a trial at most. seeds: of a trial; all of them are held at once, as the trial does, and one is trained.
    workers: that train a trial together; one of them is tried, without the others.
    """
    task = structure.task
    on_gpu = task.device == "cuda" and gpu_here()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before = peak_memory()
    tried, part = replace(task, device="cuda" if on_gpu else "cpu"), Part(0, workers, alone=True)
    training, *_others = [tried.start(data, part=part if workers > 1 else None) for _ in range(seeds)]
    probed = training.probe(CYCLES)
    return Cost(
        structure,
        probed.seconds,
        probed.steps,
        epochs if probed.epochs is None else min(epochs, probed.epochs),
        sum(one.nbytes for one in training.architecture.model.parameters()),
        probed.optimizer,
        peak_memory() - before,
        torch.cuda.max_memory_allocated() if on_gpu else None,
    )


def room(settings: Settings, data: Prepared) -> Room:
    """Return how many trials fit side by side here. A process is taken to be as large as this one was, but for the
    table, which trials share; so probe first.

    Raises StudyError if this machine's GPUs are smaller than what a trial asks for.
    """
    process = max(peak_memory() - _table_bytes(data), bytes_of(settings.resources.memory, "tune.resources.memory"))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by = {"CPUs": int(cpus / settings.resources.cpu), "memory": int(available_memory() / process)}
    if settings.resources.on_gpu and gpu_here():
        gpus = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
        share = placed(settings.resources, lambda: min(gpus)).gpu
        by["GPUs"] = int(len(gpus) / share) if share > 1 else len(gpus) * int(1 / share)
    by = {name: count // settings.resources.workers for name, count in by.items()}
    for name, count in by.items():
        if not count:
            raise StudyError("tune.resources", f"no trial fits this machine's {name}", _asked(settings))
    return Room(process, by, settings.concurrent)


def lines(found: Forecast, space: Room) -> list[str]:
    """Return what ``--plan`` says of a study."""
    study = found.study
    said = f"{some(study.trials, 'trial')} of at most {some(study.epochs, 'epoch')}{study.plan.of_seeds}; probed "
    said += f"{len(found.costs)} of {some(found.structures, 'structure')}, for a few steps each"
    return [f"plan: {said}", *map(_cost_line, found.costs), *room_lines(found, space), time_line(found, space)]


def room_lines(found: Forecast, space: Room) -> list[str]:
    """Return how large a trial's process is, and how many there are at a time."""
    grown = max(cost.grown for cost in found.costs)
    by = [f"{count} by {name}" for name, count in space.by.items()]
    by += [f"{space.concurrent} by tune.concurrent"] if space.concurrent else []
    workers = found.study.settings.resources.workers
    of_lanes = f" packs of {found.packs} of one shape" if found.packs else ""
    processes = f"{workers} processes, each of" if workers > 1 else "a process of"
    return [
        f"memory of a trial: {processes} about {_bytes(space.process)}, of which training takes {_bytes(grown)}; "
        "the table is shared",
        f"side by side on this machine: {space.side_by_side}{of_lanes} ({', '.join(by)})",
    ]


def time_line(found: Forecast, space: Room) -> str:
    """Return how long the study takes."""
    seconds = found.seconds(space.side_by_side)
    budget = "; tune.time_budget ends it then" if seconds == found.study.settings.time_budget else ""
    beside = "the start of Ray and its processes"
    beside += ", and the averaging of gradients" if found.study.settings.resources.workers > 1 else ""
    return f"expected time: {duration(seconds)}, beside {beside} ({found.saving}{budget})"


def comparison_lines(found: Mapping[str, Forecast], repeats: int, space: Room) -> list[str]:
    """Return what ``--plan`` says of a comparison: a line for each imputer, and what all take."""
    again = sum(one.trial for one in found.values()) * repeats / space.side_by_side
    searches = sum(one.seconds(space.side_by_side) for one in found.values())
    largest = max(found.values(), key=lambda one: max(cost.grown for cost in one.costs))
    said = f"expected time: {duration(searches + again)}, {duration(again)} of it to train each best again"
    named = [comparison_line(name, one, space) for name, one in found.items()]
    return [*named, *room_lines(largest, space), f"{said}; it is less where trials end sooner"]


def comparison_line(name: str, found: Forecast, space: Room) -> str:
    """Return what ``--plan`` says of an imputer."""
    seconds = [cost.seconds for cost in found.costs]
    largest = found.costs[0]
    epoch = " to ".join(dict.fromkeys(map(duration, (min(seconds), max(seconds)))))
    return (
        f"{name}: {some(found.study.trials, 'trial')} of at most {some(largest.epochs, 'epoch')}, {epoch} an epoch"
        f"{found.study.plan.of_seeds}{_held(largest)}; {duration(found.seconds(space.side_by_side))} ({found.saving})"
    )


def duration(seconds: float) -> str:
    """Return seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def gpu_here() -> bool:
    """Tell whether this process has a GPU to try."""
    return torch.cuda.is_available()


def peak_memory() -> int:
    """Return the most bytes of memory that this process had at a time."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cost_line(cost: Cost) -> str:
    values = ", ".join(f"{label}={json.dumps(value)}" for label, value in cost.structure.values.items())
    steps = f"{some(cost.steps, 'step')} and " if cost.parameters else ""
    said = f"  {values or 'one structure'}: {steps}{duration(cost.seconds)} an epoch{_held(cost)}"
    return said + ("" if cost.gpu is None else f", {_bytes(cost.gpu)} of the GPU at most")


def _held(cost: Cost) -> str:
    """Say what a network holds; an imputer has no parameters."""
    if not cost.parameters:
        return ""
    return f", {_bytes(cost.parameters)} of parameters, {_bytes(cost.optimizer)} of optimizer"


def _kind(task: TrainingTask, data: Prepared) -> tuple[Any, ...]:
    """Return what tells structures apart; the larger one is that of the larger."""
    if isinstance(task, TrainTask):
        shapes = tuple(tuple(one.shape) for one in task.rehearse(data.metadata).model.parameters())
        steps = tuple(value for name, value in sorted(task.model_arguments.items()) if name.endswith("_steps"))
        return sum(map(math.prod, shapes)), task.batch_size, steps, shapes
    assert isinstance(task, TrainImputer)
    return tuple(_leaves(task.imputer))


def _leaves(node: Any) -> Iterator[tuple[float, str]]:
    """Yield the values of an imputer's arguments, so that numbers are compared as such."""
    if isinstance(node, Mapping):
        for key in sorted(node):
            yield from _leaves(node[key])
    elif isinstance(node, int | float):
        yield float(node), ""
    else:
        yield 0.0, json.dumps(node)


def _table_bytes(data: Prepared) -> int:
    parts: Sequence[Any] = [data.train, data.validation, data.test]
    return sum(one.nbytes for part in parts if part for one in vars(part).values() if hasattr(one, "nbytes"))


def _asked(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings.resources).items() if value}


def _bytes(count: int) -> str:
    return ByteSize(count).human_readable()
