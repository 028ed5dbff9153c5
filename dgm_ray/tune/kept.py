"""The checkpoints of a study: which is a trial's last, and which are kept."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.errors import TrainingError
from dgm_ray.training import read_checkpoint
from dgm_ray.tune.observer import Observer, before_resume
from dgm_ray.tune.outcomes import Outcome, best_first, number_of
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.trial import CHECKPOINT

Local = Callable[[str], Path]


def trial_name(trial: RayTrial) -> str:
    """Return a trial's name and folder: its number. What was drawn is in the results, not in a path."""
    return f"trial_{number_of(trial):04d}"


def folders_of(trial: RayTrial) -> list[str]:
    """Return the folders of the checkpoints that a trial has where its study is kept, oldest first."""
    there = trial.storage.storage_filesystem
    found = there.get_file_info(
        FileSelector(f"{trial.storage.experiment_fs_path}/{trial_name(trial)}", allow_not_found=True)
    )
    return sorted(info.path for info in found if info.base_name.startswith("checkpoint_"))


def last_whole(folders: Sequence[str], local: Local) -> tuple[int, dict[str, Any]] | None:
    """Return where the last checkpoint stands that can be read, and what it holds; the newest may be cut short.

    local: as ``Place.local``.
    """
    for index in reversed(range(len(folders))):
        with suppress(TrainingError, OSError):
            return index, read_checkpoint(local(f"{folders[index]}/{CHECKPOINT}"))
    return None


def reported(state: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return what a trial reported, by its checkpoint."""
    best: dict[str, Any] = dict.fromkeys([f"best_{name}" for name in (plan.metric, *plan.others)], math.nan)
    if "best_measures" in state:
        best |= {f"best_{name}": value for name, value in state["best_measures"].items()}
        best["best_epoch"] = state["best_epoch"]
    names = ("epoch", "seconds", "schedule", "by_seed", "lanes")
    known: dict[str, Any] = {name: state[name] for name in names if name in state}
    return {plan.metric: math.nan, **best, **known, "reason": "", "done": False}


class Collector(Observer):
    """Removes checkpoints while the study runs: of trials that ended, the best ``keep`` have their last one.

    What a trial that has not ended has stays, and what of another's it was given.
    """

    def __init__(self, keep: int, outcome: Callable[[RayTrial], Outcome]) -> None:
        super().__init__()
        self._keep, self._outcome = keep, outcome
        self._ended: dict[RayTrial, Outcome] = {}
        self._trials: list[RayTrial] = []

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self._trials = trials
        for trial in before_resume(iteration, trials):
            self.on_trial_end(trial)

    def on_trial_end(self, trial: RayTrial) -> None:
        self._ended[trial] = self._outcome(trial)
        self.collect()

    def collect(self) -> None:
        """Remove what is not kept."""
        best = {one.number for one in best_first(self._ended.values())[: self._keep]}
        needed = {one.checkpoint.path for one in self._trials if one.checkpoint and not one.is_finished()}
        needed |= {one.checkpoint.path for one, ended in self._ended.items() if one.checkpoint and ended.number in best}
        for trial, outcome in list(self._ended.items()):
            folders = folders_of(trial)
            left = [folder for folder in folders if folder in needed]
            for folder in folders:
                if folder not in left:
                    with suppress(OSError):
                        trial.storage.storage_filesystem.delete_dir(folder)
            if not left and outcome.number not in best:
                del self._ended[trial]  # it never comes back among the best
