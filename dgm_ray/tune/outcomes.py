"""What became of each trial: one row a trial, the same for the terminal, the Parquet file and the tracker."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import le
from pathlib import Path
from typing import Any

from pyarrow.fs import FileType
from ray.exceptions import RayActorError
from ray.tune import Checkpoint
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.training import CONVERGED, DIVERGED, EARLY
from dgm_ray.tune.plan import Schedule, plain
from dgm_ray.tune.shares import OUT_OF_SHARE

COMPLETED, STOPPED, FAILED, INTERRUPTED = "completed", "stopped", "failed", "interrupted"
OOM = "oom"  # memory ran out, of a GPU or of the node
LOW_ON_MEMORY = "running low on memory"  # what Ray says of a process that it ended to save a node
RANKED = (COMPLETED, STOPPED, EARLY, INTERRUPTED)


@dataclass(frozen=True)
class Outcome:
    """A trial's end. values: what was drawn. measures: of the best epoch. seconds: of training and measuring.

    schedule: what was drawn, by epoch, if it changed while the trial ran; ``values`` are then those of the best epoch.
    seeds: of several, what each found (``Repeats.by_seed``); measures are then means, the best epoch is of the best.
    lanes: of one that was a lane beside others, where (``Lane.places``).
    """

    trial_id: str
    number: int
    values: dict[str, Any]
    status: str
    reason: str
    score: float
    measures: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    trace: str = ""
    checkpoint: str | None = None
    schedule: Schedule = field(default_factory=list)
    seeds: list[dict[str, Any]] = field(default_factory=list)
    lanes: list[list[int]] = field(default_factory=list)

    @property
    def best_seed(self) -> dict[str, Any]:
        """What the best of several seeds found, {} of one."""
        return min(self.seeds, key=lambda one: float(one["score"]), default={})

    @property
    def ranked(self) -> bool:
        return self.status in RANKED and math.isfinite(self.score)


def outcome_of(trial: RayTrial, metric: str, *, scheduler: str) -> Outcome:
    """Read a Ray trial. scheduler: who stopped it, if it was stopped."""
    reported = trial.last_result and "epoch" in trial.last_result
    result: dict[str, Any] = trial.last_result if reported else {"epoch": 0, "reason": "", "done": False}
    epochs = int(result["epoch"])
    status, reason = _status(trial, str(result["reason"]), bool(result["done"]), epochs, scheduler)
    best = {name.removeprefix("best_"): value for name, value in result.items() if name.startswith("best_val_")}
    best_epoch = int(result["best_epoch"]) if "best_epoch" in result else 0
    schedule: Schedule = result["schedule"] if "schedule" in result else []
    kept = trial.checkpoint is not None and _is_there(trial.checkpoint)  # a study keeps those of its best
    # One that was given another's weights and values, and stopped before it went on, has the other's checkpoint.
    own = not schedule or schedule[-1]["values"] == {name: plain(value) for name, value in trial.config.items()}
    return Outcome(
        trial_id=trial.trial_id,
        number=number_of(trial),
        values=_values(schedule, best_epoch) if schedule else dict(trial.config),
        status=status,
        reason=reason,
        score=float(best[metric]) if metric in best else math.nan,
        measures=best,
        best_epoch=best_epoch,
        epochs=epochs,
        seconds=float(result["seconds"]) if "seconds" in result else 0.0,
        trace=str(result["trace"]) if "trace" in result else "",
        checkpoint=trial.checkpoint.path if own and kept else None,
        schedule=schedule if len(schedule) > 1 else [],
        seeds=result["by_seed"] if "by_seed" in result else [],
        lanes=result["lanes"] if "lanes" in result else [],
    )


def _is_there(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.filesystem.get_file_info(checkpoint.path).type != FileType.NotFound)


def _values(schedule: Schedule, epoch: int) -> dict[str, Any]:
    """Return the values that an epoch was trained with."""
    until = [entry["values"] for entry in schedule if entry["epoch"] <= epoch]
    return dict(until[-1] if until else schedule[-1]["values"])


def changes(schedule: Schedule) -> dict[str, dict[int, Any]]:
    """Return each value that changed, by label and by the epoch from which on it held."""
    found: dict[str, dict[int, Any]] = {label: {} for label in schedule[0]["values"]}
    for entry in schedule:
        for label, values in found.items():
            if not values or list(values.values())[-1] != entry["values"][label]:
                values[entry["epoch"]] = entry["values"][label]
    return {label: values for label, values in found.items() if len(values) > 1}


def number_of(trial: RayTrial) -> int:
    """Return the trial's number in its study: Ray's experiment tag begins with it."""
    return int(str(trial.experiment_tag).split("_")[0])


def last_error(trial: RayTrial) -> str:
    """Return what Tune wrote of a trial's last failure, "" if there was none: the file has all of them."""
    if trial.error_file is None or not Path(trial.error_file).exists():
        return ""
    return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure # ")[2]


def failure_of(trial: RayTrial) -> tuple[str, str]:
    """Return the status and the reason of a trial whose process failed."""
    if OUT_OF_SHARE in (said := last_error(trial)):
        return OOM, f"{OOM}: a trial's share of a GPU is too small"
    if LOW_ON_MEMORY in said:
        return OOM, f"{OOM}: its node ran low on memory"
    error = said.partition("\n")[2] or trial.get_error()  # what Ray has stored is not there yet when a trial ends
    died = error is None or isinstance(error, RayActorError) or "The actor died" in str(error)
    return FAILED, "failed: its process died" if died else f"failed: {' '.join(str(error).split())[:200]}"


def best_first(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the outcomes that can win, best first."""
    return sorted((one for one in outcomes if one.ranked), key=lambda one: (one.score, one.number))


def pareto(outcomes: Iterable[Outcome], metrics: Sequence[str]) -> list[Outcome]:
    """Return the outcomes that no other equals in all metrics and excels in one, best first by the study's metric."""
    having = [one for one in best_first(outcomes) if all(math.isfinite(_measure(one, name)) for name in metrics)]
    points = {one.trial_id: [_measure(one, name) for name in metrics] for one in having}

    def beaten(point: list[float]) -> bool:
        return any(other != point and all(map(le, other, point)) for other in points.values())

    return [one for one in having if not beaten(points[one.trial_id])]


def _measure(one: Outcome, name: str) -> float:
    return one.measures[name] if name in one.measures else math.nan


def reasons(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count why trials ended, most frequent first."""
    return dict(Counter(one.reason for one in outcomes).most_common())


def _status(trial: RayTrial, reason: str, done: bool, epochs: int, scheduler: str) -> tuple[str, str]:
    if trial.status == RayTrial.ERROR:
        return failure_of(trial)
    if reason == "epochs":
        return COMPLETED, "all epochs done"
    if reason == CONVERGED:
        return COMPLETED, reason
    for status in (EARLY, DIVERGED, FAILED, OOM):
        if reason.startswith(status):
            return status, reason
    if done:
        return STOPPED, f"stopped by {scheduler} at epoch {epochs}"
    return INTERRUPTED, "the study was stopped first"
