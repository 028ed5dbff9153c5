"""Which trials Tune gets: first those that a study had when it was stopped, as they were then, then new ones."""

import json
from collections.abc import Sequence
from typing import Any

from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.search import SearchAlgorithm, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from dgm_ray.errors import StudyError
from dgm_ray.tune.journal import COMPLETE, ERROR, Decisions, Journaled, values_of
from dgm_ray.tune.kept import Local, folders_of, last_whole, reported, trial_name
from dgm_ray.tune.plan import Plan


class Proposals(SearchAlgorithm):  # type: ignore[misc]
    """Asks a search for trials; the search and the scheduler of a study that is resumed are brought to where they were.

    search, scheduler: Ray's, new; a new search of the same seed proposes the same again, whatever the number of
    samples. decisions: of the study so far, empty for a new one. local: as ``Place.local``. limit: trials at a time,
    None: all at once. changing: the values of a trial may have changed while it ran.
    """

    def __init__(
        self,
        search: Searcher | BasicVariantGenerator,
        scheduler: Journaled,
        decisions: Decisions,
        plan: Plan,
        local: Local,
        *,
        limit: int | None,
        changing: bool,
    ) -> None:
        self._search, self._scheduler, self._decisions = search, scheduler, decisions
        self._plan, self._local, self._limit, self._changing = plan, local, limit, changing
        self._waiting: list[RayTrial] = []  # those that the study had
        self._handed: list[RayTrial] = []
        self._live: set[str] = set()
        self._proposed = self._total = 0

    @property
    def metric(self) -> Any:
        return self._search.metric

    @property
    def total_samples(self) -> int:
        return self._total

    @property
    def resumed(self) -> bool:
        """Whether there are trials left that the study had when it was stopped."""
        return bool(self._waiting)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return bool(self._search.set_search_properties(metric, mode, config, **spec))

    def add_configurations(self, experiments: Sequence[Experiment]) -> None:
        """Called by Tune once, with the space."""
        (experiment,) = experiments
        self._spec, self._total = experiment.spec, experiment.spec["num_samples"]
        self._parser = _make_parser()
        if isinstance(self._search, BasicVariantGenerator):
            self._search.add_configurations(experiment)
            self._total = self._search.total_samples
        self._repeat()
        self._scheduler.write_to(self._decisions)

    def next_trial(self) -> RayTrial | None:
        if self._waiting:
            trial = self._waiting.pop(0)
        elif self.is_finished() or (self._limit and len(self._live) >= self._limit):
            return None
        else:
            trial = self._propose()
        self._handed.append(trial)
        return trial

    def is_finished(self) -> bool:
        return not self._waiting and (self._finished or self._proposed >= self._total)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._search.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._live.discard(trial_id)
        self._search.on_trial_complete(trial_id, result=result, error=error)

    def settle(self) -> None:
        """Decide for trials that had reported their end when the study was stopped: who was saved by then has ended."""
        for trial in self._handed:
            result = trial.run_metadata.last_result
            if self._scheduler.has_ended(trial) or "epoch" not in result or not result["done"]:
                continue
            folders = folders_of(trial)
            last = last_whole(folders, self._local)
            saved = last is not None and last[1]["epoch"] == result["epoch"] and self._is_of(last[1], trial)
            if last is not None and saved:
                self._register(trial, [folders[last[0]]], result)
            if saved or not result["epoch"]:  # one that failed saves nothing
                self._scheduler.note_end(trial)
            else:
                result |= {"done": False, "reason": ""}

    def _propose(self) -> RayTrial:
        name = f"{self._proposed:05d}"
        if isinstance(self._search, BasicVariantGenerator):
            trial = self._search.next_trial()
            trial.trial_id = name  # Ray's differs from run to run
        else:
            values = self._search.suggest(name)
            spec = self._spec | {"config": self._spec["config"] | values}
            tag = str(self._proposed)
            trial = _create_trial_from_spec(
                spec, self._parser, evaluated_params=values, trial_id=name, experiment_tag=tag
            )
        self._proposed += 1
        self._live.add(name)
        return trial

    def _repeat(self) -> None:
        """Do all that the journal says was done."""
        trials: list[RayTrial] = []
        results: dict[int, dict[str, Any]] = {}  # the last of a trial that has ended, or may have
        said: set[int] = set()  # to have ended
        tune = _Stopping(self._scheduler)
        for event in self._decisions:
            number = event["trial"]
            if "values" in event and number == len(trials):
                trials.append(self._propose_again(event["values"]))
            elif "values" in event or number >= len(trials):
                raise StudyError(str(self._decisions.path), "is damaged: something is missing before the line", event)
            if "result" in event:
                results[number] = event["result"]
            self._scheduler.repeat(tune, trials[number], event)
            if "end" in event:
                said.add(number)
                told = event["result"] if event["end"] == COMPLETE else None
                self.on_trial_complete(trials[number].trial_id, result=told, error=event["end"] == ERROR)
        for number, trial in enumerate(trials):
            result = results[number] if number in results else {}
            self._bring_back(trial, result)
            if trial.is_finished() and number not in said:
                self._live.discard(trial.trial_id)
                self._decisions.add(trial, end=COMPLETE, result=result)
        self._waiting = trials

    def _propose_again(self, values: dict[str, Any]) -> RayTrial:
        trial = self._propose()
        trial.init_local_path()
        if json.loads(json.dumps(values_of(trial))) != values:
            rule = f"{trial_name(trial)} would be drawn otherwise by the versions of Ray and Optuna that are here"
            raise StudyError(str(self._decisions.path), f"{rule}, so the study cannot go on with them")
        return trial

    def _bring_back(self, trial: RayTrial, result: dict[str, Any]) -> None:
        """Give a trial its last result and its checkpoints; one that was stopped and has all its epochs has ended."""
        folders = folders_of(trial)
        last = None if trial.is_finished() else last_whole(folders, self._local)
        if last is not None and self._is_of(last[1], trial):
            index, state = last
            folders = folders[: index + 1]
            if 0 < self._scheduler.stopped_at(trial) <= state["epoch"]:
                self._scheduler.repeat(_Stopping(self._scheduler), trial, {"end": COMPLETE, "result": result})
                self.on_trial_complete(trial.trial_id, result=result)
            elif trial.status != RayTrial.PAUSED:
                result = reported(state, self._plan)
        elif not trial.is_finished():
            result, folders = result if trial.status == RayTrial.PAUSED else {}, []
        if trial.status == RayTrial.PAUSED:  # what it reported counts, also if it never goes on
            result = result | {"done": False}
        if trial.status == RayTrial.RUNNING:
            trial.set_status(RayTrial.PENDING)
        if self._changing and result and result["schedule"]:
            trial.set_config(result["schedule"][-1]["values"])
        trial.run_metadata.last_result = result
        self._register(trial, folders, result)

    def _is_of(self, state: dict[str, Any], trial: RayTrial) -> bool:
        """Tell whether a checkpoint is of a trial's values."""
        named = "schedule" in state and state["schedule"]
        return bool(named and (self._changing or state["schedule"][-1]["values"] == values_of(trial)))

    def _register(self, trial: RayTrial, folders: Sequence[str], result: dict[str, Any]) -> None:
        """Tell Ray of a trial's checkpoints, and from which number on new ones are counted."""
        for folder in folders:
            found = Checkpoint(folder, trial.storage.storage_filesystem)
            trial.run_metadata.checkpoint_manager.register_checkpoint(_TrainingResult(found, dict(result)))
        there = folders_of(trial)
        if there:
            trial.storage.current_checkpoint_index = int(there[-1].rpartition("_")[2])


class _Stopping:
    """What a scheduler sees of Tune while the journal is repeated: the trials that it stops have stopped."""

    def __init__(self, scheduler: Journaled) -> None:
        self._scheduler = scheduler

    def stop_trial(self, trial: RayTrial) -> None:
        self._scheduler.on_trial_remove(self, trial)
        trial.set_status(RayTrial.TERMINATED)
