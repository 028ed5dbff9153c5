"""Many pieces of work on the processes of Ray: one that fails, hangs or dies is a row, and the others go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from dgm_ray.errors import ConfigurationError, UnfinishedError
from dgm_ray.registry import TASKS, NonNegativeInt, PositiveFloat, PositiveInt, register

INSIDE = "DGM_RAY_WORKER"
COLUMNS = ("path", "has_error", "error", "gpu_device", "worker", "time")


@register
@dataclass(frozen=True)
class Worker:
    """One process. gpu_device: the number of the only GPU that it sees; null leaves it what there is."""

    gpu_device: NonNegativeInt | None = None


@dataclass(frozen=True)
class Outcome:
    """How one piece of work ended. error: one line, empty if there was none. seconds: that it took."""

    label: str
    error: str
    worker: int
    device: int | None
    seconds: float
    result: Any = None


@dataclass(frozen=True)
class MultiProcessTaskRunner:
    """Run configuration files side by side, each in a process of Ray's, and write a row for each as it ends.

    Columns of the CSV file: path, has_error, error, gpu_device, worker, time (seconds). A task that fails, takes too
    long, or whose process dies is a row with its error; the exit code is 1 then. Ctrl-C leaves a whole file.

    workers: how many processes; or a list of objects, each with the ``gpu_device`` that its process sees.
    inputs: the paths of the configuration files.
    output: the CSV file.
    log_every: seconds between two lines of progress.
    timeout: seconds that one task may take; null: any.
    address: of a Ray cluster to join; null starts Ray here.
    """

    workers: PositiveInt | list[Worker]
    inputs: list[Path]
    output: Path
    log_every: PositiveFloat = 5.0
    timeout: PositiveFloat | None = None
    address: str | None = None

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run them all. Raises UnfinishedError at the end if any failed."""
        if INSIDE in os.environ:
            raise ConfigurationError("task", "a MultiProcessTaskRunner cannot run inside another")
        from dgm_ray.tasks.csv_log import RowLog
        from dgm_ray.tune.cluster import start_ray
        from dgm_ray.tune.settings import Resources

        workers = [Worker()] * self.workers if isinstance(self.workers, int) else self.workers
        start_ray(Resources(), self.address)
        pool = Pool(workers, console, timeout=self.timeout, log_every=self.log_every)
        failed: list[str] = []
        with RowLog(self.output, COLUMNS) as rows:
            for one in pool.run(_run_file, [(str(path), str(path.absolute())) for path in self.inputs]):
                rows.write((one.label, bool(one.error), one.error, one.device, one.worker, one.seconds))
                if one.error:
                    failed.append(one.label)
                    console.print(f"failed: {one.label}: {one.error}", highlight=False, soft_wrap=True, markup=False)
        console.print(f"{len(self.inputs)} tasks, {len(failed)} failed: {self.output}", highlight=False, soft_wrap=True)
        if failed:
            raise UnfinishedError("inputs", f"{len(failed)} of {len(self.inputs)} tasks failed: {', '.join(failed)}")
        return {"tasks": len(self.inputs)}


@dataclass
class Pool:
    """Processes that take one piece of work after the other.

    timeout: seconds for one piece. log_every: seconds between two lines of progress. One that dies or takes too long
    is replaced.
    """

    workers: Sequence[Worker]
    console: Console
    timeout: float | None = None
    log_every: float = 5.0
    _running: dict[Any, _Job] = field(default_factory=dict)

    def run(self, work: Callable[[Any], Any], items: Collection[tuple[str, Any]]) -> Iterator[Outcome]:
        """Yield an outcome for each ``(label, item)`` as it ends; ``work(item)`` is done in a process.

        items: iterated once, an item when a process is free for it. A reference of Ray's in a tuple is work's to get.
        Raises SystemExit(130) on Ctrl-C, when all processes have ended.
        """
        import ray

        waiting, done, failed = iter(items), 0, 0
        try:
            for number, (worker, first) in enumerate(zip(self.workers, waiting, strict=False)):
                self._begin(_start(worker), number, work, *first)
            with _progress(len(items), self.console, self.log_every) as report:
                while self._running:
                    ended, _ = ray.wait(list(self._running), timeout=self._patience())
                    for job, outcome in [*map(self._ended, ended), *self._overdue()]:
                        done, failed = done + 1, failed + bool(outcome.error)
                        yield outcome
                        if (item := next(waiting, None)) is not None:
                            actor = job.actor if job.alive else _start(self.workers[job.worker])
                            self._begin(actor, job.worker, work, *item)
                    report(done, failed)
        except KeyboardInterrupt:
            self.console.print(f"stopped: {done} of {len(items)} are done", highlight=False)
            raise SystemExit(130) from None
        finally:
            for job in self._running.values():
                ray.kill(job.actor)
            self._running.clear()

    def _begin(self, actor: Any, number: int, work: Callable[[Any], Any], label: str, item: Any) -> None:
        self._running[actor.run.remote(work, item)] = _Job(actor, number, label, time.monotonic())

    def _ended(self, reference: Any) -> tuple[_Job, Outcome]:
        import ray

        job = self._running.pop(reference)
        try:
            error, result = ray.get(reference)
        except ray.exceptions.RayActorError:
            job.alive, error, result = False, "the process died", None
        except ray.exceptions.RayError as problem:
            error, result = one_line(problem), None
        return job, self._outcome(job, error, result)

    def _overdue(self) -> list[tuple[_Job, Outcome]]:
        import ray

        now, late = time.monotonic(), []
        for reference, job in list(self._running.items()):
            if self.timeout is not None and now - job.started > self.timeout:
                ray.kill(job.actor)
                job.alive = False
                del self._running[reference]
                late.append((job, self._outcome(job, f"took longer than {self.timeout:g} seconds", None)))
        return late

    def _outcome(self, job: _Job, error: str, result: Any) -> Outcome:
        seconds = time.monotonic() - job.started
        return Outcome(job.label, error, job.worker, self.workers[job.worker].gpu_device, seconds, result)

    def _patience(self) -> float:
        if self.timeout is None:
            return self.log_every
        oldest = min(job.started for job in self._running.values())
        return max(0.0, min(self.log_every, oldest + self.timeout - time.monotonic()))


@dataclass
class _Job:
    actor: Any
    worker: int
    label: str
    started: float
    alive: bool = True


class _Process:
    """What runs in a process. It has no CPU of Ray's, so there may be more processes than processors."""

    def __init__(self, folder: str, environment: dict[str, str | None]) -> None:
        for key, value in environment.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        if Path(folder).is_dir():  # on another node there may be no such folder
            os.chdir(folder)

    def run(self, work: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
        """Return the error in one line, empty if there is none, and the result."""
        try:
            return "", work(item)
        except (Exception, SystemExit) as error:
            return one_line(error), None


def _start(worker: Worker) -> Any:
    """Start a process. Ray hides GPUs from a process that asks for none, so it is told again what it sees."""
    import ray

    device = os.environ["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else None
    device = device if worker.gpu_device is None else str(worker.gpu_device)
    environment = {"OMP_NUM_THREADS": "1", INSIDE: "1", "CUDA_VISIBLE_DEVICES": device}
    return ray.remote(num_cpus=0)(_Process).remote(str(Path.cwd()), environment)


def _run_file(path: str) -> None:
    """Run a configuration file without a word."""
    from dgm_ray.tasks.configuration import read_task

    if not read_task(Path(path)).run(Console(quiet=True)):
        raise UnfinishedError(path, "figures differ from what the file expects")


def one_line(error: BaseException) -> str:
    """Return the kind of an error and what it says, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def _progress(total: int, console: Console, every: float) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many are done: a bar in a terminal, a line now and then elsewhere."""
    from dgm_ray.tasks.progress import steps_shown

    with steps_shown(total, console, "task", every) as shown:
        yield lambda done, failed: shown(done, {"failed": failed} if failed else {})


TASKS.register(MultiProcessTaskRunner)
