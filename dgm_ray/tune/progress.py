"""How far a trial is and what it reports, whether it has a process to itself or is among the lanes of one."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dgm_ray.data import Prepared
from dgm_ray.tune.outcomes import FAILED, OOM
from dgm_ray.tune.plan import Plan, Schedule, plain
from dgm_ray.tune.shares import ran_out

if TYPE_CHECKING:
    from dgm_ray.tasks.training_task import TrainingTask
    from dgm_ray.training import Repeats, Training
    from dgm_ray.training.lanes import Lane


class Progress:
    """A trial's training, and all figures of it that were not reported yet.

    plan: of its study. together: its seeds may be trained as lanes. lanes: its training, or those with each of its
    seeds; empty before ``begin`` and after ``fail``.
    """

    def __init__(self, plan: Plan, data: Prepared, *, together: bool) -> None:
        self._plan, self._data, self._together = plan, data, together
        self.lanes: list[Lane] = []
        self.training: Training | Repeats | None = None
        self.failure = self._trace = ""
        self._seconds = 0.0
        self._schedule: Schedule = []
        self._last: dict[str, float] = {}  # figures of the last epoch
        self._history: list[dict[str, float]] = []

    def begin(
        self, task: TrainingTask, configuration: dict[str, Any], start: Callable[[], Training] | None = None
    ) -> None:
        """Start what a task trains. start: does it in the task's stead. Raises what it raises."""
        if self._plan.seeds > 1:
            self.training = task.repeats(self._plan.seeds, self._data, configuration, together=self._together)
            self.lanes = self.training.lanes
        else:
            from dgm_ray.training.lanes import Lane

            self.lanes = [Lane(start or partial(task.start, self._data, configuration))]
            self.training = self.lanes[0].training

    def note(self, values: Mapping[str, Any]) -> None:
        """Note with which values the next epochs are trained, if they are not those of the epochs before."""
        assert self.training is not None
        now = {name: plain(value) for name, value in values.items()}
        if not self._schedule or self._schedule[-1]["values"] != now:
            self._schedule = [*self._schedule, {"epoch": self.training.epoch + 1, "values": now}]

    def after(self, found: Sequence[Mapping[str, float]], more: Mapping[str, float]) -> None:
        """Note what an epoch of each lane gave, {} of one that had ended. more: figures of the trial's process."""
        from dgm_ray.training import Repeats

        self.add(self.training.after(found) if isinstance(self.training, Repeats) else found[0], more)

    def add(self, figures: Mapping[str, float], more: Mapping[str, float]) -> None:
        """Note what an epoch of the trial gave. more: as ``after``."""
        assert self.training is not None
        seconds = self.training.train_seconds
        pace = {"rows_per_second": self._data.train.rows / seconds if seconds else math.nan}
        self._seconds += figures["seconds"]
        self._last = {"epoch": self.training.epoch, **figures, **pace, **more}
        self._history.append(self._last)

    @property
    def measured(self) -> bool:
        """Whether there is something to report: an epoch with measures."""
        return bool(self._history) and any(name.startswith("val_") for name in self._history[-1])

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.failure) or (self.training is not None and self.training.done)

    def fail(self, error: Exception) -> None:
        """End with the error that is being handled as the reason; what the training held is free."""
        kind = OOM if ran_out(error) else FAILED
        self.failure = f"{kind}: {type(error).__name__}: {' '.join(str(error).split())}"
        self._trace = traceback.format_exc()
        self.training, self.lanes = None, []

    def report(self) -> dict[str, Any]:
        """Return what Tune is told of the epochs since the last report, which are in ``history``."""
        best = dict.fromkeys([f"best_{name}" for name in (self._plan.metric, *self._plan.others)], math.nan)
        # Schedulers need the metric in every result, a trial's last one too, which may have no measure.
        result: dict[str, Any] = {self._plan.metric: math.nan, **self._last, "history": self._history}
        result |= {"seconds": self._seconds, "schedule": self._schedule}
        self._history = []
        if self.failure:
            return result | best | {"epoch": 0, "done": True, "reason": self.failure, "trace": self._trace}
        from dgm_ray.training import Repeats

        training = self.training
        assert training is not None
        result |= best | {"epoch": training.epoch, "done": training.done, "reason": training.reason}
        if training.best:
            result |= {f"best_{name}": value for name, value in training.best.measures.items()}
            result["best_epoch"] = training.best.epoch
            if isinstance(training, Repeats):
                result["by_seed"] = training.by_seed
        if not isinstance(training, Repeats) and self.lanes[0].places:
            result["lanes"] = [list(place) for place in self.lanes[0].places]
        return result

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs to go on, and to use or repeat the trial without Ray."""
        from dgm_ray.training import Repeats

        of_training = self.training.state() if isinstance(self.training, Repeats) else self.lanes[0].state()
        return of_training | {"schedule": self._schedule, "seconds": self._seconds, "last": self._last}

    def load(self, state: Mapping[str, Any], place: str) -> None:
        """Go on from a checkpoint's state, in what ``begin`` has started."""
        from dgm_ray.training import Repeats

        if isinstance(self.training, Repeats):
            self.training.load(state, place)
        else:
            self.lanes[0].load(state, place)
        self._schedule = state["schedule"] if "schedule" in state else []
        self._seconds = state["seconds"] if "seconds" in state else 0.0
        self._last = state["last"] if "last" in state else {}


def gpu_memory() -> dict[str, float]:
    """Return the most that this process had of a GPU since the last call, in MiB, as a figure."""
    import torch

    most = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return {"gpu_memory_mb": most}
