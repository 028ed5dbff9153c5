"""The process that trains a pack of trials, an epoch of all at a time.

torch is imported by the first call, so that processes are there sooner.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from resource import getpagesize
from typing import TYPE_CHECKING, Any

from ray.tune import Checkpoint

from dgm_ray.data import Prepared
from dgm_ray.tune.data import available_memory
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.progress import Progress, gpu_memory
from dgm_ray.tune.schedulers import Scheduler
from dgm_ray.tune.shares import ran_out, take_gpu
from dgm_ray.tune.trial import CHECKPOINT, CHECKPOINT_SECONDS

if TYPE_CHECKING:
    from dgm_ray.training.lanes import Lane, Pack

REPORT_SECONDS = 0.5  # between two reports, if an epoch does not take longer
STOPPED = "stopped"
PROBE_CYCLES, PROBE_SECONDS = 5, 2.0
LANES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # that are tried
PAYS = 1.1  # times as many trainings in the same time


@dataclass(frozen=True)
class Begin:
    """A trial that is to be trained. storage: Ray's, of its folder. checkpoint: to go on from."""

    trial_id: str
    values: dict[str, Any]
    storage: Any
    checkpoint: Checkpoint | None


@dataclass
class Report:
    """What a trial found. results: one for each measured epoch, and the last. checkpoint: if one was written.

    waits: for what the scheduler makes of the last result.
    """

    trial_id: str
    results: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    waits: bool = False

    @property
    def done(self) -> bool:
        return bool(self.results and self.results[-1]["done"])


@dataclass(frozen=True)
class Trained:
    """What a call of ``Worker.train`` found. broken: why the whole pack could not go on; nothing of it is left then.

    oom: because memory ran out.
    """

    reports: list[Report]
    broken: str = ""
    oom: bool = False


@dataclass
class _Member:
    """A trial of the pack. storage: its own copy, which counts checkpoints. decided: how often it could be stopped."""

    progress: Progress
    report: Report
    storage: Any
    saved: float
    decided: int = 0


class Worker:
    """Trains trials of one shape as lanes; of those that cannot be lanes, one at a time.

    plan, scheduler: of the study. table: returns the data. gpu: the share of a GPU that this process has.
    """

    def __init__(
        self, plan: Plan, scheduler: Scheduler, table: Callable[[], Prepared], gpu: float = 0.0, compiled: bool = False
    ) -> None:
        self._plan, self._scheduler, self._data, self._gpu, self._compiled = plan, scheduler, table(), gpu, compiled
        self._members: dict[str, _Member] = {}
        self._rows: list[Lane] = []  # of the pack; what has ended stays until another takes its row
        self._packs: list[Pack] = []
        self._taken = False

    def ready(self) -> None:
        """Import what training needs: the process is there when this returns."""
        import dgm_ray.tune.study  # noqa: F401

        if self._gpu and not self._taken:
            take_gpu(self._gpu)
        self._taken = True

    def train(self, begin: Sequence[Begin], places: int, *, alone: bool = False) -> Trained:
        """Train until something is to be decided, or has ended, or some time has passed; an epoch at least.

        begin: trials that come in. places: for so many trials there is room. alone: their lanes have to be trained one
        after the other.
        """
        for one in begin:
            self._members[one.trial_id] = self._begun(one)
        try:
            self._gather(places * self._plan.seeds, alone=alone, anew=bool(begin))
            self._advance()
        except Exception as error:
            live = self._live
            if len(live) != 1:
                return self._broken(error)
            live[0].progress.fail(error)
            live[0].report.results.append(live[0].progress.report())
        return Trained(self._reports())

    def stop(self, trial_ids: Iterable[str]) -> dict[str, Checkpoint | None]:
        """Let trials end where they are; return their last checkpoints."""
        saved: dict[str, Checkpoint | None] = {}
        for trial_id in trial_ids:
            saved[trial_id] = self._save(self._members[trial_id])
            self._leave(trial_id)
        return saved

    def probe(self, values: Mapping[str, Any], share: float, workers: int = 1) -> int:
        """Return how many lanes it pays to train together, by a few cycles of copies of one trial.

        They are doubled until that is no faster, or a try takes seconds, or until twice as many would take more than
        ``share`` of the memory that is left. What cannot be tried is alone. workers: that share the memory of the node;
        of a GPU each has a part for itself.
        """
        try:
            return self._probed(values, share if self._gpu else share / workers)
        except Exception:
            if self._gpu:
                _empty_gpu()
            return 1

    def _probed(self, values: Mapping[str, Any], share: float) -> int:
        from dgm_ray.training.lanes import Lane, Pack
        from dgm_ray.tune.study import task_of

        configuration = self._plan.configuration(values)
        start = partial(task_of(configuration).start, self._data, configuration)
        found, best, missed = 1, 0.0, 0
        room, held = share * _memory_left(self._gpu), _memory_held(self._gpu)
        for lanes in LANES:
            began = time.monotonic()
            pack = Pack([Lane(start) for _ in range(lanes)], compiled=self._compiled)
            rate = lanes / pack.probe(PROBE_CYCLES)
            missed += 1
            if rate > PAYS * best:
                found, best, missed = lanes, rate, 0
            slow = lanes > 2 and time.monotonic() - began > PROBE_SECONDS  # the first two import and trace
            if slow or missed == 2 or 2 * (_memory_held(self._gpu) - held) > room:  # two: a stack costs something, too
                break
        return found

    @property
    def _live(self) -> list[_Member]:
        return [one for one in self._members.values() if not one.progress.done]

    def _begun(self, one: Begin) -> _Member:
        """Start a trial. One that cannot start has its failure in its report."""
        from dgm_ray.training import read_checkpoint
        from dgm_ray.tune.study import task_of

        progress = Progress(self._plan, self._data, together=True)
        member = _Member(progress, Report(one.trial_id), copy.copy(one.storage), time.monotonic())
        try:
            configuration = self._plan.configuration(one.values)
            progress.begin(task_of(configuration), configuration)
            if one.checkpoint is not None:
                with one.checkpoint.as_directory() as folder:
                    path = Path(folder) / CHECKPOINT
                    progress.load(read_checkpoint(path), str(path))
            progress.note(one.values)
        except Exception as error:
            progress.fail(error)
        if progress.done:  # it may have been saved at its end, and not been reported
            member.report.results.append(progress.report())
        elif progress.training is not None:
            epoch = progress.training.epoch
            before = (count for count in range(epoch) if not self._scheduler.decides(epoch, count))
            member.decided = next(before, epoch)
        return member

    def _gather(self, rows: int, *, alone: bool, anew: bool) -> None:
        """Put the lanes of trials that came in into rows that are free, and make the pack anew if it changes."""
        from dgm_ray.training.lanes import Pack

        if not anew and self._packs and rows == sum(pack.rows for pack in self._packs):
            return
        live = [lane for member in self._live for lane in member.progress.lanes]
        new = [lane for lane in live if not any(lane is row for row in self._rows)]
        if rows < len(self._rows):
            self._rows, new = [], live
        rest = iter(new)
        taken = [lane if any(lane is one for one in live) else next(rest, lane) for lane in self._rows]
        self._rows = [*taken, *rest]
        if alone or not self._rows:
            self._packs = [Pack([lane]) for lane in self._rows]
        else:
            self._packs = [Pack(self._rows, rows, compiled=self._compiled)]

    def _advance(self) -> None:
        started, going = time.monotonic(), self._live
        while going and len(going) == len(self._live):
            found = [figures for pack in self._packs for figures in pack.advance()]
            of_lane = {id(lane): figures for lane, figures in zip(self._rows, found, strict=True)}
            more = gpu_memory() if self._gpu else {}
            for member in going:
                self._after(member, [of_lane[id(lane)] for lane in member.progress.lanes], more)
            if any(member.report.waits for member in going) or time.monotonic() - started >= REPORT_SECONDS:
                return

    def _after(self, member: _Member, found: list[dict[str, float]], more: Mapping[str, float]) -> None:
        """Note what an epoch gave a trial. See ``Progress.after``."""
        progress = member.progress
        progress.after(found, more)
        if not (progress.measured or progress.done):
            return
        result = progress.report()
        member.report.results.append(result)
        if result["done"]:
            return
        if time.monotonic() - member.saved > CHECKPOINT_SECONDS:  # now, when all that it has trained is reported
            member.report.checkpoint = self._save(member)
        if self._scheduler.decides(result["epoch"], member.decided):
            member.decided += 1
            member.report.waits = True

    def _reports(self) -> list[Report]:
        """Return what there is to report, and save those that have ended."""
        reports = []
        for trial_id, member in list(self._members.items()):
            report, member.report = member.report, Report(trial_id)
            if report.done:
                report.checkpoint = self._save(member)
                self._leave(trial_id)
            reports += [report] if report.results else []
        return reports

    def _save(self, member: _Member) -> Checkpoint | None:
        """Write a checkpoint as Tune does for a trial; None for one that failed."""
        member.saved = time.monotonic()
        if member.progress.training is None:
            return None
        from dgm_ray.training import write_checkpoint

        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder) / CHECKPOINT, member.progress.state())
            member.storage._update_checkpoint_index({})
            saved: Checkpoint = member.storage.persist_current_checkpoint(Checkpoint.from_directory(folder))
        return saved

    def _leave(self, trial_id: str) -> None:
        """Forget a trial. Its lanes keep their rows, and train no more, until others take them."""
        for lane in self._members.pop(trial_id).progress.lanes:
            lane.stop(STOPPED)
        if not self._members:
            self._rows, self._packs = [], []

    def _broken(self, error: Exception) -> Trained:
        """Forget the whole pack."""
        oom = ran_out(error)
        self._members, self._rows, self._packs = {}, [], []
        if self._gpu:
            _empty_gpu()
        return Trained([], f"{type(error).__name__}: {' '.join(str(error).split())}", oom)


def _memory_left(gpu: float) -> float:
    """Return the bytes that there still are, of this process's share of a GPU or of the node."""
    if not gpu:
        return float(available_memory())
    import torch

    return min(1.0, gpu) * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def _memory_held(gpu: float) -> float:
    """Return the bytes that this process has now; of a GPU the most that it had since the last call."""
    if gpu:
        return 2**20 * gpu_memory()["gpu_memory_mb"]
    from dgm_ray.tune.forecast import peak_memory

    now = Path("/proc/self/statm")  # of Linux alone
    return float(now.read_text().split()[1]) * getpagesize() if now.exists() else float(peak_memory())


def _empty_gpu() -> None:
    import torch

    torch.cuda.empty_cache()
