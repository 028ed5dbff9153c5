"""What a study decided, in the order in which it did: a line of JSON each. A study that is resumed decides it again.

Ray's own snapshots lose a scheduler's tables, and all that came after the last of them.

    {"trial": 3, "values": {...}}                                        it was proposed
    {"trial": 3, "epoch": 2, "value": 0.31, "decision": "CONTINUE"}      what the scheduler saw, and made of it
    {"trial": 3, "again": 1}                                             its process died once, and is started again
    {"trial": 3, "end": "complete", "result": {...}}                     it ended
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler

from dgm_ray.training import append_line, read_lines, write_text
from dgm_ray.tune.outcomes import failure_of, number_of
from dgm_ray.tune.plan import plain

COMPLETE, REMOVE, ERROR = "complete", "remove", "error"
_KEPT = ("epoch", "done", "reason", "trace", "seconds", "schedule", "best_epoch", "by_seed", "lanes")

Event = dict[str, Any]


class Decisions:
    """The file of a study's decisions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Event]:
        """Yield what was written. A line that was cut short is left out: nobody has acted upon it."""
        return read_lines(self.path)

    @property
    def trials(self) -> int:
        """How many trials were proposed."""
        return sum("values" in event for event in self)

    def begin(self) -> None:
        """Make the file, if it is not there: a study without it cannot be resumed."""
        if not self.path.exists():
            write_text(self.path, "")

    def add(self, trial: RayTrial, **event: Any) -> None:
        append_line(self.path, json.dumps({"trial": number_of(trial), **event}))


def values_of(trial: RayTrial) -> dict[str, Any]:
    """Return what was drawn for a trial, as JSON has it."""
    return {name: plain(value) for name, value in trial.config.items()}


class Journaled:
    """A scheduler that writes down what it decides, and decides it again when its study is resumed.

    decides: what it decides depends on what it was told alone, so that it can be repeated.
    """

    decides: ClassVar[bool] = True
    metric: str  # Ray's

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._decisions: Decisions | None = None
        self._decided: dict[RayTrial, dict[int, str]] = {}  # by trial and epoch
        self._ended: set[RayTrial] = set()
        self._replayed: set[RayTrial] = set()  # and not yet handed to Tune
        self._shares: dict[RayTrial, float] = {}

    def write_to(self, decisions: Decisions) -> None:
        """From now on write to a journal, whose lines have been repeated."""
        self._decisions = decisions

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        if trial in self._replayed:
            self._replayed.remove(trial)
            if trial in self._shares:
                enlarge(trial, max(self._shares[trial], share_of(trial)))
            if self.decides or trial.is_finished():
                return
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        if trial not in self._decided:
            self._decided[trial] = {}
            self._write(trial, values=values_of(trial))

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        epoch, known = int(result["epoch"]), self._decided[trial]
        if epoch in known:  # it is trained again, from its last checkpoint on; if it waited then, it has waited
            return known[epoch] if known[epoch] == TrialScheduler.STOP else TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        if self.decides:
            known[epoch] = decision
            more = {} if decision == TrialScheduler.CONTINUE else {"result": self._kept(result)}  # it may be the last
            self._write(trial, epoch=epoch, value=plain(result[self.metric]), decision=decision, **more)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> None:
        self._end(trial, COMPLETE)
        super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        if trial.status != RayTrial.ERROR:  # else it is started again
            self._end(trial, REMOVE)
        super().on_trial_remove(tune_controller, trial)  # type: ignore[misc]

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Called by Tune for every failure; the trial's status is ERROR if it is started again."""
        again = trial.status == RayTrial.ERROR
        if not again:
            self._end(trial, ERROR)
        super().on_trial_error(tune_controller, trial)  # type: ignore[misc]
        if again and self._decisions:
            gpu = {"gpu": share_of(trial)} if share_of(trial) else {}
            self._write(trial, again=trial.num_failures, **gpu)

    def repeat(self, tune_controller: Any, trial: RayTrial, event: Event) -> None:
        """Do what a line of the journal says was done. tune_controller: has ``stop_trial`` alone."""
        if "values" in event:
            self._replayed.add(trial)
            self._decided[trial] = {}
            if self.decides:
                super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        elif "decision" in event:
            trial.set_status(RayTrial.RUNNING)
            result = {"epoch": event["epoch"], self.metric: event["value"]}
            super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
            self._decided[trial][event["epoch"]] = event["decision"]
            if event["decision"] == TrialScheduler.PAUSE:
                trial.set_status(RayTrial.PAUSED)
        elif "again" in event:
            trial.run_metadata.num_failures = event["again"]
            if "gpu" in event:
                self._shares[trial] = event["gpu"]
            if self.decides:
                trial.set_status(RayTrial.ERROR)
                self.on_trial_error(tune_controller, trial)
                trial.set_status(RayTrial.PENDING)
                super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        elif trial not in self._ended:
            self._ended.add(trial)
            if self.decides:
                self._repeat_end(tune_controller, trial, event)
            trial.set_status(RayTrial.TERMINATED)

    def _repeat_end(self, tune_controller: Any, trial: RayTrial, event: Event) -> None:
        if event["end"] == COMPLETE:
            super().on_trial_complete(tune_controller, trial, event["result"])  # type: ignore[misc]
        elif event["end"] == REMOVE:
            super().on_trial_remove(tune_controller, trial)  # type: ignore[misc]
        else:
            super().on_trial_error(tune_controller, trial)  # type: ignore[misc]

    def stopped_at(self, trial: RayTrial) -> int:
        """Return the epoch at which it was decided to stop a trial, 0 if it was not."""
        return max((epoch for epoch, one in self._decided[trial].items() if one == TrialScheduler.STOP), default=0)

    def has_ended(self, trial: RayTrial) -> bool:
        return trial in self._ended

    def note_end(self, trial: RayTrial) -> None:
        """Write that a trial has ended of which Tune will not say so any more, because the study was stopped."""
        self._end(trial, COMPLETE)

    def _end(self, trial: RayTrial, end: str) -> None:
        if trial in self._ended:
            return
        self._ended.add(trial)
        if self._decisions:
            result = self._kept(trial.last_result)
            if end == ERROR:
                result = {"epoch": 0, "done": True} | result | {"reason": failure_of(trial)[1]}
            self._write(trial, end=end, result=result)

    def _kept(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a trial's last result its outcome and the searcher need."""
        if "epoch" not in result:
            return {}
        named = {
            name: plain(value)
            for name, value in result.items()
            if name in (*_KEPT, self.metric) or name.startswith(("val_", "best_"))
        }
        return named | {"done": True}

    def _write(self, trial: RayTrial, **event: Any) -> None:
        if self._decisions:
            self._decisions.add(trial, **event)


def share_of(trial: RayTrial) -> float:
    """Return which share of a GPU a trial asks for, each of its workers if it has several."""
    first = trial.placement_group_factory.bundles[0]
    return float(first["GPU"]) if "GPU" in first else 0.0


def enlarge(trial: RayTrial, gpu: float) -> None:
    """Give a trial, which does not run, another share of a GPU."""
    held = trial.placement_group_factory.bundles
    trial.update_resources(PlacementGroupFactory([bundle | {"GPU": gpu} for bundle in held]))
