"""What became of each trial: one row a trial, the same for the terminal, the Parquet file and the tracker."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.training import CONVERGED, DIVERGED, EARLY
from dgm_ray.tune.shares import OUT_OF_SHARE

COMPLETED, STOPPED, FAILED, INTERRUPTED = "completed", "stopped", "failed", "interrupted"
OOM = "oom"  # memory ran out, of a GPU or of the node
LOW_ON_MEMORY = "running low on memory"  # what Ray says of a process that it ended to save a node
RANKED = (COMPLETED, STOPPED, EARLY, INTERRUPTED)


@dataclass(frozen=True)
class Outcome:
    """A trial's end. values: what was drawn. measures: of the best epoch. seconds: of training and measuring."""

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
    return Outcome(
        trial_id=trial.trial_id,
        number=number_of(trial),
        values=dict(trial.config),
        status=status,
        reason=reason,
        score=float(best[metric]) if metric in best else math.nan,
        measures=best,
        best_epoch=int(result["best_epoch"]) if "best_epoch" in result else 0,
        epochs=epochs,
        seconds=float(result["seconds"]) if "seconds" in result else 0.0,
        trace=str(result["trace"]) if "trace" in result else "",
        checkpoint=trial.checkpoint.path if trial.checkpoint else None,
    )


def number_of(trial: RayTrial) -> int:
    """Return the trial's number in its study: Ray's experiment tag begins with it."""
    return int(str(trial.experiment_tag).split("_")[0])


def last_error(trial: RayTrial) -> str:
    """Return what Tune wrote of a trial's last failure, "" if there was none: the file has all of them."""
    if trial.error_file is None or not Path(trial.error_file).exists():
        return ""
    return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure # ")[2]


def best_first(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the outcomes that can win, best first."""
    return sorted((one for one in outcomes if one.ranked), key=lambda one: (one.score, one.number))


def reasons(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count why trials ended, most frequent first."""
    return dict(Counter(one.reason for one in outcomes).most_common())


def _status(trial: RayTrial, reason: str, done: bool, epochs: int, scheduler: str) -> tuple[str, str]:
    if trial.status == RayTrial.ERROR:
        if OUT_OF_SHARE in (said := last_error(trial)):
            return OOM, f"{OOM}: a trial's share of a GPU is too small"
        if LOW_ON_MEMORY in said:
            return OOM, f"{OOM}: its node ran low on memory"
        error = trial.get_error()
        died = error is None or isinstance(error, RayActorError)
        return FAILED, "failed: its process died" if died else f"failed: {' '.join(str(error).split())[:200]}"
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
