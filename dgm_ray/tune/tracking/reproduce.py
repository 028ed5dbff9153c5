"""Run a trial again from what MLflow has of it, and say whether the figures agree."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError, StudyError, TrainingError
from dgm_ray.tasks.configuration import NOT_REPEATED, agrees, checked
from dgm_ray.tasks.progress import some, steps_shown
from dgm_ray.tasks.trained import device_of
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.tune.tracking.environment import environment
from dgm_ray.tune.tracking.reading import (
    CONFIGURATION,
    SHORT,
    answered,
    client_of,
    configuration_of,
    find_run,
    history,
    parent_of,
    text_of,
    winner_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOMENTARY = ("seconds", "rows_per_second", "gpu_memory_mb")  # what no run has again
MACHINE = ("cpu", "gpu", "os")  # tags of the environment beside the versions that figures may depend on
LARGEST = sys.float_info.max  # what MLflow's databases have for infinity


@dataclass(frozen=True)
class Compared:
    """A figure that was logged beside the one found now, None for one that was not found. epoch: of a history's."""

    name: str
    logged: float
    now: float | None
    epoch: int | None = None

    @property
    def same(self) -> bool:
        return self.now is not None and agrees(self.logged, self.now)

    @property
    def difference(self) -> float:
        if self.now is None:
            return math.inf
        return 0.0 if self.logged == self.now or (self.same and math.isnan(self.now)) else abs(self.now - self.logged)


@dataclass(frozen=True)
class Logged:
    """What MLflow has of a trial.

    task, node: what repeats it. expected: its figures. tags, settings: of its study. epochs: figures by name and epoch.
    """

    title: str
    task: TrainingTask
    node: dict[str, Any]
    expected: dict[str, Any]
    tags: Mapping[str, str]
    settings: Mapping[str, Any]
    epochs: Mapping[str, Mapping[int, float]]
    first_seed: int


def reproduce(given: str, epochs: int | None, uri: str, console: Console) -> bool:
    """Run a trial again in this process and print its figures beside those that were logged; tell whether they agree.

    given: a run's name, or the beginning of its id; of a study's run it is the best trial. epochs: compare the first
    epochs, and not the figures of the best one. uri: of MLflow.

    Raises StudyError for a run that is not there or that nothing can repeat, ConfigurationError or DataError for data
    that is not there any more.
    """
    client = client_of(uri)
    with answered(uri):
        logged = _logged(client, winner_of(client, find_run(client, given)), epochs)
    console.print(f"{logged.title}: {logged.node['task']}", highlight=False, soft_wrap=True, markup=False)
    data = logged.task.prepare()
    other = _other_data(logged, data)
    changes = ([other] if other else []) + _changes(logged)
    for change in changes:
        console.print(f"warning: {change}", highlight=False, soft_wrap=True, markup=False)
    try:
        rows = _epochs(logged, data, epochs, console) if epochs else _figures(logged, data, console)
    except TrainingError as error:
        console.print(f"now: {error}", highlight=False, soft_wrap=True, markup=False)
        rows = [Compared(name, value, None) for name, value in logged.expected.items()]
    console.print(_table(rows))
    return _verdict(logged, rows, changes, bool(other), console)


def _logged(client: "MlflowClient", run: "Run", epochs: int | None) -> Logged:
    """Read what there is of a trial. Raises StudyError if nothing can repeat it, or to compare it with."""
    parent, title = parent_of(client, run), f"run {run.info.run_id[:SHORT]} ({run.info.run_name})"
    node = configuration_of(client, run)
    ready = checked(node, Path(CONFIGURATION))
    if not isinstance(ready.task, TrainingTask):
        raise StudyError(title, "is of no training", ready.name)
    if NOT_REPEATED in ready.expected:
        raise StudyError(title, f"cannot be repeated: {ready.expected[NOT_REPEATED]}")
    known = history(client, run) if epochs else {}
    last = max((step for steps in known.values() for step in steps), default=0)
    if epochs and not last:
        raise StudyError(title, "has no figures of epochs; without --epochs those of its best are compared")
    if epochs and epochs > last:
        raise ConfigurationError("--epochs", f"should be at most the {last} epochs of {title}", epochs)
    if not epochs and not ready.expected:
        reason = run.data.tags["reason"] if "reason" in run.data.tags else run.info.status.lower()
        raise StudyError(title, f"has no figures to compare with ({reason}); --epochs N compares those of its epochs")
    settings = {name: json.loads(value) for name, value in parent.data.params.items() if name in ("seeds", "resources")}
    first = _first_seed(client, parent) if epochs and settings["seeds"] > 1 else 0
    return Logged(title, _here(ready.task), node, ready.expected, parent.data.tags, settings, known, first)


def _first_seed(client: "MlflowClient", parent: "Run") -> int:
    arguments = json.loads(text_of(client, parent, "study.json"))["space"]["trial"]["arguments"]
    return int(arguments["seed"] if "seed" in arguments else TrainingTask.seed or 0)


def _here(task: TrainingTask) -> TrainingTask:
    """Return a task that runs on this machine, which may lack the GPU that a study had, and that writes no file."""
    task = replace(task, checkpoints=None, logs=None)  # a study's has none; who knows who wrote this one
    try:
        device_of(task.device)
    except ConfigurationError:
        return replace(task, device="cpu")
    return task


def _figures(logged: Logged, data: Prepared, console: Console) -> list[Compared]:
    """Train to the end and compare the best epoch."""
    found = logged.task.run_on(data, console, logged.node)
    return [Compared(name, value, found.get(name)) for name, value in logged.expected.items()]


def _epochs(logged: Logged, data: Prepared, epochs: int, console: Console) -> list[Compared]:
    """Train the first epochs and compare each; return of each figure the epoch in which it differs most."""
    last = max(step for steps in logged.epochs.values() for step in steps)
    task, seeds = replace(logged.task, epochs=last), logged.settings["seeds"]
    if seeds > 1:
        first, together = replace(task, seed=logged.first_seed), "lanes" in logged.node["arguments"]
        training: Any = first.repeats(seeds, data, logged.node, together=together)
    else:
        training = task.start(data, logged.node)
    now: dict[str, dict[int, float]] = {}
    with steps_shown(epochs, console) as report:
        while training.epoch < epochs and not training.done:
            metrics = training.advance()
            report(training.epoch, metrics)
            for name in (name for name in metrics if name not in MOMENTARY and name in logged.epochs):
                now.setdefault(name, {})[training.epoch] = metrics[name]
    if training.epoch < epochs:
        console.print(f"now it ended after epoch {training.epoch}: {training.reason}", highlight=False, markup=False)
    return [
        max(
            (_compared(name, then, found, epoch) for epoch, then in logged.epochs[name].items() if epoch <= epochs),
            key=lambda row: (not row.same, row.difference, row.epoch),
        )
        for name, found in now.items()
    ]


def _compared(name: str, then: float, found: Mapping[int, float], epoch: int) -> Compared:
    value = found[epoch] if epoch in found else None
    if value is not None and math.isinf(value):
        value = math.copysign(LARGEST, value)
    return Compared(name, then, value, epoch)


def _table(rows: list[Compared]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("metric", overflow="fold")
    of_epochs = any(row.epoch is not None for row in rows)
    for name in (*(["epoch"] if of_epochs else []), "logged", "now", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        epoch = [str(row.epoch)] if of_epochs else []
        now = "nothing" if row.now is None else f"{row.now:.6g}"
        difference = "" if row.now is None else f"{row.difference:.2g}"
        table.add_row("" if row.same else "!", row.name, *epoch, f"{row.logged:.6g}", now, difference)
    return table


def _verdict(logged: Logged, rows: list[Compared], changes: list[str], other_data: bool, console: Console) -> bool:
    """Print what came out of it; tell whether it is the same, which it is not with other data."""
    differing = [row.name for row in rows if not row.same]
    reproduced = bool(rows) and not differing and not other_data
    if reproduced:
        largest = max(row.difference for row in rows)
        how = "to the bit" if largest == 0 else f"to {largest:.1g}"
        line = f"reproduced: {logged.title}, {some(len(rows), 'metric')} {how}"
    else:
        what = f"{len(differing)} of {some(len(rows), 'metric')}" if differing else "no metric, but what they are of"
        cause = "; ".join(changes) or "none is known: data, versions and device are those of the run"
        line = f"DIFFERS: {logged.title}, {what}; likely cause: {cause}"
    console.print(line, highlight=False, soft_wrap=True, markup=False)
    return reproduced


def _other_data(logged: Logged, data: Prepared) -> str:
    """Return how the data is not what the run had, or nothing; the trials of a comparison have no test cells."""
    if "data_hash" not in logged.tags:
        return ""
    then, now = logged.tags["data_hash"], data.content_hash()
    if then in (now, replace(data, test=None).content_hash()):
        return ""
    rule = "the table, its split or its hidden cells are not what they were"
    return f"the data changed: {rule} (hash {then[:SHORT]} then, {now[:SHORT]} now)"


def _changes(logged: Logged) -> list[str]:
    """Return what else is not as it was, most likely cause first."""
    found: list[str] = []
    tags = logged.tags
    now = environment()
    for name in (name for name in now if name in tags and tags[name] != now[name]):
        if name.startswith("version.") or name in MACHINE:
            found.append(f"{name.removeprefix('version.')} was {tags[name]}, is {now[name]}")
    wanted = logged.node["arguments"]["device"] if "device" in logged.node["arguments"] else "auto"
    if wanted not in ("auto", logged.task.device):
        found.append(f"it was trained on {wanted}, and is on {logged.task.device}")
    if "resources" in logged.settings and (workers := logged.settings["resources"]["workers"]) > 1:
        found.append(f"it was trained by {workers} workers, which add in another order")
    return found
