"""Trainings of imputers on tables with hidden cells: many of them, in processes, going on where they were stopped.

Test cells stay on the driver: a process gets the table without them, and gives back a completed one.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from dgm_ray.data import CellHoldout, InMemory, Prepared
from dgm_ray.errors import TrainingError
from dgm_ray.evaluation import Floats, complete
from dgm_ray.tasks.imputers import fitting
from dgm_ray.training import append_line, read_lines
from dgm_ray.tune.parallel import Pool, Worker

Row = dict[str, Any]
Scores = Callable[[Prepared, Floats], Row]


class Run(Protocol):
    """A training.

    label: for people. key: what tells it from all others, also from one with another configuration. case: names its
    data. configuration: of its task, whose data is not read.
    """

    @property
    def label(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def case(self) -> Any: ...
    @property
    def configuration(self) -> Mapping[str, Any]: ...


class Journal:
    """What has ended: a line of JSON each, ``{"run": key, ...}``. A line that was cut short counts as not done.

    written: called after each line.
    """

    def __init__(self, path: Path, written: Callable[[], None] = lambda: None) -> None:
        self._path, self._written = path, written
        self.done: dict[str, Row] = {}
        for row in read_lines(path):
            self.done[row.pop("run")] = row

    def add(self, key: str, row: Row) -> None:
        """Write what a run gave."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps({"run": key, **row}))
        self._written()
        self.done[key] = row


class Runs:
    """The runs that are not done yet; one that failed is tried again.

    prepare: the data of a case, with its test cells. scores: of completed rows (rows, num_features), valid values.
    """

    def __init__(
        self, runs: Sequence[Run], journal: Journal, prepare: Callable[[Any], Prepared], scores: Scores
    ) -> None:
        self._runs, self._journal, self._prepare, self._scores = runs, journal, prepare, scores
        self._truth: dict[str, Prepared] = {}
        self.waiting = [run for run in runs if run.key not in journal.done]

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, item: object) -> bool:
        return item in self.waiting

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield a label and what a process needs; a case is put into Ray's memory once for all its runs."""
        import ray

        case, data, reference = None, None, None
        for run in self.waiting:
            if data is None or run.case != case:
                case = run.case
                data = self._prepare(case)
                reference = ray.put(replace(data, test=None))
            self._truth[run.label] = data
            yield run.label, (reference, run.configuration)

    def rows(
        self, console: Console, workers: Sequence[Worker], timeout: float | None = None, log_every: float = 5.0
    ) -> list[Row]:
        """Run what is waiting, and return a row for each run, in order: its scores and seconds, or its ``error``."""
        by_label = {run.label: run for run in self.waiting}
        failed: dict[str, str] = {}
        pool = Pool(workers, console, timeout=timeout, log_every=log_every)
        for outcome in pool.run(_complete, self):
            run, data = by_label[outcome.label], self._truth.pop(outcome.label)
            if outcome.error:
                failed[run.key] = outcome.error
                line = f"failed: {outcome.label}: {outcome.error}"
                console.print(line, highlight=False, soft_wrap=True, markup=False)
                continue
            rows, seconds = outcome.result
            scores = self._scores(data, complete(data.metadata, rows, data.train.features))
            self._journal.add(run.key, scores | {"seconds": seconds})
        done = self._journal.done
        return [done[run.key] if run.key in done else {"error": failed[run.key]} for run in self._runs]


def _complete(item: tuple[Any, Mapping[str, Any]]) -> tuple[Floats, float]:
    """Train an imputer and return the completed rows and the seconds it took. Done in a process."""
    import ray

    from dgm_ray.evaluation import impute_rows
    from dgm_ray.tasks.configuration import load_tasks
    from dgm_ray.tasks.trained import device_of
    from dgm_ray.tune.runs import task_for

    load_tasks()
    reference, configuration = item
    data = ray.get(reference)
    started = time.monotonic()
    task = task_for(configuration, len(data.train.features))
    training = task.start(data)
    while not training.done:
        training.advance()
    if task.metric is not None and training.best is None:
        raise TrainingError("training", training.reason)
    training.use_best()
    with training.aside():
        device, labels = device_of(task.device), data.train.labels
        rows = impute_rows(training.architecture, data.metadata, data.train.features, device, labels)
    return rows, time.monotonic() - started


def task_for(configuration: Mapping[str, Any], rows: int) -> Any:
    """Return the task of a configuration, to train on a table of so many rows that is already prepared."""
    from dgm_ray.registry import TASKS, call

    given = fitting(configuration["arguments"], rows) | {"data": CellHoldout(InMemory())}
    return call(TASKS.get(configuration["task"], "task"), given, path="arguments")
