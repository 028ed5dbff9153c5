"""The checkpoints of a study: which is a trial's last, and which are kept."""

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial as RayTrial

from dgm_ray.errors import TrainingError
from dgm_ray.training import read_checkpoint
from dgm_ray.tune.observer import Observer
from dgm_ray.tune.outcomes import Outcome, best_first, number_of
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.trial import CHECKPOINT


def trial_name(trial: RayTrial) -> str:
    """Return a trial's name and folder: its number. What was drawn is in the results, not in a path."""
    return f"trial_{number_of(trial):04d}"


def folders_of(trial: RayTrial, study: Path) -> list[Path]:
    """Return the folders of the checkpoints that a trial has on disk, oldest first. study: its folder."""
    return sorted((study / trial_name(trial)).glob("checkpoint_*"))


def last_whole(folders: Sequence[Path]) -> tuple[int, dict[str, Any]] | None:
    """Return where the last checkpoint stands that can be read, and what it holds; the newest may be cut short."""
    for index in reversed(range(len(folders))):
        with suppress(TrainingError):
            return index, read_checkpoint(folders[index] / CHECKPOINT)
    return None


def reported(state: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return what a trial reported, by its checkpoint."""
    best = dict.fromkeys([f"best_{name}" for name in (plan.metric, *plan.others)], math.nan)
    if "best_measures" in state:
        best |= {f"best_{name}": value for name, value in state["best_measures"].items()}
        best["best_epoch"] = state["best_epoch"]
    known = {name: state[name] for name in ("epoch", "seconds", "schedule")}
    return {plan.metric: math.nan, **best, **known, "reason": "", "done": False}


class Collector(Observer):
    """Removes checkpoints while the study runs: of trials that ended, the best ``keep`` have their last one.

    folder: of the study. What a trial that has not ended has stays, and what of another's it was given.
    """

    def __init__(self, keep: int, folder: Path, outcome: Callable[[RayTrial], Outcome]) -> None:
        super().__init__()
        self._keep, self._folder, self._outcome = keep, folder, outcome
        self._ended: dict[RayTrial, Outcome] = {}
        self._trials: list[RayTrial] = []

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self._trials = trials
        if iteration < 2:  # those of a study that is resumed, which are not told
            for trial in trials:
                if trial.is_finished():
                    self.on_trial_end(trial)

    def on_trial_end(self, trial: RayTrial) -> None:
        self._ended[trial] = self._outcome(trial)
        self.collect()

    def collect(self) -> None:
        """Remove what is not kept."""
        best = {one.number for one in best_first(self._ended.values())[: self._keep]}
        needed = {_named(one) for one in self._trials if one.checkpoint and not one.is_finished()}
        needed |= {_named(one) for one, outcome in self._ended.items() if one.checkpoint and outcome.number in best}
        for trial, outcome in list(self._ended.items()):
            folders = folders_of(trial, self._folder)
            left = [folder for folder in folders if (folder.parent.name, folder.name) in needed]
            for folder in folders:
                if folder not in left:
                    shutil.rmtree(folder, ignore_errors=True)
            if not left and outcome.number not in best:
                del self._ended[trial]  # it never comes back among the best


def _named(trial: RayTrial) -> tuple[str, str]:
    """Return the names of the folders of a trial's last checkpoint."""
    path = Path(trial.checkpoint.path)
    return path.parent.name, path.name
