"""A study whose trials are lanes: what Tune's controller does for trials with a process each, for packs of them.

Trials, search, scheduler, journal, stopper and callbacks are those of any study, and are told the same in the same
order; what differs is who trains: a worker a process, which trains a pack of trials of one shape.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.callback import CallbackList
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.stopper import NoopStopper

from dgm_ray.training import write_json
from dgm_ray.training.lanes import Shape
from dgm_ray.tune.lanes.packing import Waiting, largest, resized, size_of
from dgm_ray.tune.lanes.worker import Begin, Report, Trained
from dgm_ray.tune.outcomes import LOW_ON_MEMORY
from dgm_ray.tune.proposals import Proposals

LOOK = 0.1  # seconds between two looks at what workers have done
ALONE = "alone "  # how the shape of a trial begins that is no lane beside others
GUESS = 16  # lanes, before any are tried out
SHARE = 0.8  # of the memory that packs may take
AHEAD, AHEAD_LEAST = 4, 64  # trials that are proposed before they can begin: for each that can run; at least


@dataclass(eq=False)
class Desk:
    """A worker as the driver sees it. asked: its answer that is waited for, and what takes it.

    trials: of its pack, by id. ending: those that it has to save. size: for so many trials its pack has room.
    """

    worker: Any
    asked: tuple[ray.ObjectRef, Callable[["Desk", Any], None]] | None = None
    shape: str = ""
    size: int = 0
    trials: dict[str, RayTrial] = field(default_factory=dict)
    ending: list[str] = field(default_factory=list)
    up: bool = False


@dataclass(frozen=True)
class Limits:
    """How many at a time. workers: processes. lanes: of a pack, None: as many as it pays, which workers try out.

    seeds: lanes that a trial is. concurrent: trials, None: as many as fit. ahead: whether trials may be proposed long
    before they can begin.
    """

    workers: int
    lanes: int | None
    seeds: int
    concurrent: int | None
    ahead: bool


class Runner:
    """Runs the trials of an experiment.

    shape: of a trial. start: starts a worker. tried: file with how many lanes of each shape it pays to train together.
    say: prints a line.
    """

    def __init__(
        self,
        experiment: Experiment,
        proposals: Proposals,
        scheduler: TrialScheduler,
        callbacks: Sequence[tune.Callback],
        limits: Limits,
        *,
        shape: Callable[[RayTrial], Shape],
        start: Callable[[], Any],
        tried: Path,
        say: Callable[[str], None],
    ) -> None:
        self._experiment, self._proposals, self._scheduler = experiment, proposals, scheduler
        self._callbacks, self._limits = CallbackList(list(callbacks)), limits
        self._stopper = experiment.stopper or NoopStopper()
        self._shape_of, self._start, self._say = shape, start, say
        self._trials: list[RayTrial] = []  # that were begun, or had been when the study was stopped
        self._waiting: Waiting[RayTrial] = Waiting()
        self._shapes: dict[str, Shape] = {}  # by trial
        self._tried = tried
        self._lanes: dict[str, int] = json.loads(tried.read_text(encoding="utf-8")) if tried.exists() else {}
        self._most: dict[str, int] = {}  # trials of a shape that fit into the memory
        self._desks: list[Desk] = []
        self._iteration = 0
        self._said: set[str] = set()

    def run(self) -> None:
        """Run all trials, or until SIGUSR1 comes, as Tune does."""
        spec = self._experiment.public_spec
        self._proposals.set_search_properties(None, None, self._experiment.spec["config"], **spec)
        self._scheduler.set_search_properties(None, None, **spec)
        self._proposals.add_configurations([self._experiment])
        self._callbacks.setup(**spec, total_num_samples=self._proposals.total_samples)
        with _interrupted() as interrupted:
            try:
                while not (self._finished or interrupted.is_set()):
                    self._step()
            finally:
                self._end()
                self._callbacks.on_experiment_end(trials=self._trials)

    @property
    def _finished(self) -> bool:
        busy = any(desk.trials for desk in self._desks)
        return self._iteration > 0 and not busy and not self._waiting and self._proposals.is_finished()

    def _step(self) -> None:
        self._callbacks.on_step_begin(iteration=self._iteration, trials=self._trials)
        self._propose()
        self._hire()  # for one that died
        for desk in self._desks:
            if desk.asked is None:
                self._order(desk)
        self._listen()
        if self._stopper.stop_all():
            self._stop_all()
        self._iteration += 1
        self._callbacks.on_step_end(iteration=self._iteration, trials=self._trials)

    # What waits

    def _propose(self) -> None:
        """Ask the search for trials: for those that can begin, or for some more that can then be grouped."""
        free = self._free
        room = max(AHEAD_LEAST, AHEAD * self._at_a_time) if self._limits.ahead and free else free
        while self._proposals.resumed or len(self._waiting) < room:
            trial = self._proposals.next_trial()
            if trial is None:
                return
            trial.create_placement_group_factory()
            self._scheduler.on_trial_add(self, trial)
            if trial.is_finished() or "epoch" in trial.last_result:
                self._trials.append(trial)
            if not trial.is_finished():
                self._shapes[trial.trial_id] = self._shape(trial)
                self._waiting.add(self._shapes[trial.trial_id].key, trial)
                self._hire()  # a process takes seconds to come up

    def _shape(self, trial: RayTrial) -> Shape:
        """Return a trial's shape; one that has to train alone has a shape of its own."""
        found = self._shape_of(trial)
        return Shape(f"{ALONE}{trial.trial_id}", found.reason) if found.reason or not found.key else found

    @property
    def _free(self) -> int:
        """How many trials could begin now."""
        running = sum(len(desk.trials) for desk in self._desks)
        packs = [desk for desk in self._desks if desk.trials]
        places = sum(desk.size - len(desk.trials) for desk in packs)
        places += (self._limits.workers - len(packs)) * self._of_a_pack
        return min(places, self._at_a_time - running)

    @property
    def _of_a_pack(self) -> int:
        """How many trials a pack has at most; about, as long as that is tried out."""
        lanes = self._limits.lanes or max(self._lanes.values(), default=GUESS)
        return max(1, lanes // self._limits.seeds)

    @property
    def _at_a_time(self) -> int:
        fit = self._limits.workers * self._of_a_pack
        return min(fit, self._limits.concurrent or fit)

    # Who trains

    def _hire(self) -> None:
        """Start workers, as long as there is something for them."""
        idle = sum(1 for desk in self._desks if not desk.trials)
        workers = min(self._limits.workers, self._at_a_time)
        while len(self._desks) < workers and idle < len(self._waiting):
            desk = Desk(self._start())
            desk.asked = desk.worker.ready.remote(), self._ready
            self._desks.append(desk)
            idle += 1

    def _ready(self, desk: Desk, answer: None) -> None:
        desk.up = True

    def _order(self, desk: Desk) -> None:
        """Tell a worker what to do next, if there is something."""
        if desk.ending:
            desk.asked = desk.worker.stop.remote(desk.ending), self._stopped
            return
        allowed = self._at_a_time - sum(len(one.trials) for one in self._desks)
        counts, idle = self._waiting.counts, sum(1 for one in self._desks if not one.trials)
        if not desk.trials:
            for one in self._desks:  # a shape that another is trying out
                counts.pop("" if one.trials or one is desk or one.asked is None else one.shape, None)
            if not counts or allowed < 1:
                return
            desk.shape = largest(counts)
            several = counts[desk.shape] > 1  # one has nobody to share with
            if self._limits.lanes is None and several and desk.shape not in self._lanes:
                values = next(trial for trial in self._waiting if self._shapes[trial.trial_id].key == desk.shape).config
                desk.asked = desk.worker.probe.remote(dict(values), SHARE, self._limits.workers), self._probed
                return
            desk.size = min(allowed, size_of(desk.shape, counts, idle, self._most_of(desk.shape)))
        else:
            could = min(allowed, counts[desk.shape] if desk.shape in counts else 0)
            most = desk.size if idle else self._most_of(desk.shape)  # who has nothing to do takes what is too much
            desk.size = resized(desk.size, len(desk.trials), could, most)
        self._train(desk, self._waiting.take(desk.shape, min(allowed, desk.size - len(desk.trials))))

    def _train(self, desk: Desk, begun: Sequence[RayTrial] = ()) -> None:
        desk.trials |= {trial.trial_id: trial for trial in begun}
        orders = [self._begin(trial) for trial in begun]
        desk.asked = desk.worker.train.remote(orders, desk.size, alone=self._alone(desk.shape)), self._trained

    def _begin(self, trial: RayTrial) -> Begin:
        trial.init_local_path()
        if trial not in self._trials:
            self._trials.append(trial)
        last = trial.latest_checkpoint_result
        if last is not None:
            trial.run_metadata.last_result = dict(last.metrics)
        self._callbacks.on_trial_start(iteration=self._iteration, trials=self._trials, trial=trial)
        trial.set_status(RayTrial.RUNNING)
        return Begin(trial.trial_id, dict(trial.config), trial.storage, trial.checkpoint)

    def _most_of(self, shape: str) -> int:
        """Return how many trials of a shape a pack may have."""
        if self._alone(shape):
            return 1
        lanes = self._limits.lanes or (self._lanes[shape] if shape in self._lanes else GUESS)
        most = max(1, lanes // self._limits.seeds)
        return min(most, self._most[shape]) if shape in self._most else most

    def _alone(self, shape: str) -> bool:
        return shape.startswith(ALONE)

    def _probed(self, desk: Desk, lanes: int) -> None:
        self._lanes[desk.shape] = lanes
        write_json(self._tried, self._lanes)

    # What they say

    def _listen(self) -> None:
        """Take what workers have answered; wait a little for it."""
        asked = {desk.asked[0]: desk for desk in self._desks if desk.asked}
        if not asked:
            time.sleep(LOOK)
            return
        done, _ = ray.wait(list(asked), timeout=LOOK, num_returns=1)
        for reference in done:
            desk = asked[reference]
            assert desk.asked is not None
            take, desk.asked = desk.asked[1], None
            try:
                answer = ray.get(reference)
            except RayError as error:
                self._died(desk, error)
            else:
                take(desk, answer)

    def _trained(self, desk: Desk, trained: Trained) -> None:
        if trained.broken:
            self._broken(desk, trained)
            return
        going = not any(report.done or report.waits for report in trained.reports)
        if going and (len(desk.trials) == desk.size or not self._waiting):
            self._train(desk)  # while we look at what it reports, which changes nothing
        for report in trained.reports:
            self._report(desk, report)

    def _report(self, desk: Desk, report: Report) -> None:
        """Tell everyone what a trial has reported, and do what they make of it."""
        trial, ended = desk.trials[report.trial_id], report.done
        if report.results and trial.trial_id not in desk.ending:  # what comes after its end counts no more
            self._result(trial, report.results)
        if report.checkpoint is not None:
            self._saved(trial, report.checkpoint)
        if ended:
            desk.ending = [trial_id for trial_id in desk.ending if trial_id != trial.trial_id]
            self._complete(desk, trial)
        elif report.results and trial.last_result["done"] and trial.trial_id not in desk.ending:
            desk.ending.append(trial.trial_id)

    def _result(self, trial: RayTrial, results: Sequence[dict[str, Any]]) -> None:
        """Take a trial's results up to that which ends it, if one does; callbacks get them as one."""
        history: list[dict[str, Any]] = []
        for result in results:
            history += result["history"]
            result |= {"trial_id": trial.trial_id, "training_iteration": result["epoch"]}  # as Tune has them
            result["done"] = (
                result["done"]
                or self._stopper(trial.trial_id, result)
                or self._scheduler.on_trial_result(self, trial, result) == TrialScheduler.STOP
            )
            if result["done"]:
                break
            self._proposals.on_trial_result(trial.trial_id, result)
        result = result | {"history": history}
        self._callbacks.on_trial_result(iteration=self._iteration, trials=self._trials, trial=trial, result=result)
        trial.update_last_result(result)

    def _saved(self, trial: RayTrial, checkpoint: Checkpoint) -> None:
        self._callbacks.on_checkpoint(
            iteration=self._iteration, trials=self._trials, trial=trial, checkpoint=checkpoint
        )
        trial.on_checkpoint(_TrainingResult(checkpoint, dict(trial.last_result)))
        self._callbacks.on_trial_save(iteration=self._iteration, trials=self._trials, trial=trial)

    def _stopped(self, desk: Desk, saved: dict[str, Checkpoint | None]) -> None:
        """Trials that the scheduler stopped are saved, and end."""
        desk.ending = []
        for trial_id, checkpoint in saved.items():
            trial = desk.trials[trial_id]
            if checkpoint is not None:
                self._saved(trial, checkpoint)
            self._complete(desk, trial)

    def _complete(self, desk: Desk, trial: RayTrial) -> None:
        del desk.trials[trial.trial_id]
        self._scheduler.on_trial_complete(self, trial, trial.last_result)
        self._proposals.on_trial_complete(trial.trial_id, result=trial.last_result)
        self._callbacks.on_trial_complete(iteration=self._iteration, trials=self._trials, trial=trial)
        trial.set_status(RayTrial.TERMINATED)

    # What goes wrong

    def _broken(self, desk: Desk, trained: Trained) -> None:
        """Let the trials of a pack that could not go on wait again: for a smaller pack, or to be trained alone."""
        if trained.oom:
            self._halve(desk)
            return
        self._say_once(f"lanes: trained one by one, because together they failed ({trained.broken})")
        for trial_id in desk.trials:
            self._shapes[trial_id] = Shape(f"{ALONE}{trial_id}", trained.broken)
        self._unpack(desk)

    def _halve(self, desk: Desk) -> None:
        """Let the trials of a pack for which there was no memory wait again, for a smaller one."""
        self._most[desk.shape] = max(1, desk.size // 2)
        self._say(f"lanes: memory ran out, so trials of this shape are {self._most[desk.shape]} at a time now")
        self._unpack(desk)

    def _unpack(self, desk: Desk) -> None:
        trials, desk.trials, desk.ending = list(desk.trials.values()), {}, []
        for trial in reversed(trials):
            trial.set_status(RayTrial.PENDING)
            self._waiting.add_first(self._shapes[trial.trial_id].key, [trial])

    def _died(self, desk: Desk, error: Exception) -> None:
        """Let the trials of a worker that died go on with another, or end. One that did not come up had some to come.

        Another worker is started for it.
        """
        self._desks.remove(desk)
        ray.kill(desk.worker)
        if len(desk.trials) > 1 and LOW_ON_MEMORY in str(error):  # Ray ends a process before its memory runs out
            self._halve(desk)
            return
        trials = list(desk.trials.values())
        if desk.up and not trials:  # it died of trying a shape out
            self._probed(desk, 1)
        if not desk.up and self._waiting:
            shape = largest(self._waiting.counts)
            trials = self._waiting.take(shape, self._most_of(shape))
            for trial in trials:
                self._begin(trial)
        for trial in trials:
            self._fail(trial, error)

    def _fail(self, trial: RayTrial, error: Exception) -> None:
        trial.handle_error(error)
        if trial.should_recover():
            trial.set_status(RayTrial.ERROR)
            self._scheduler.on_trial_error(self, trial)
            trial.set_status(RayTrial.PENDING)
            self._waiting.add_first(self._shapes[trial.trial_id].key, [trial])
            self._scheduler.on_trial_add(self, trial)
            self._callbacks.on_trial_recover(iteration=self._iteration, trials=self._trials, trial=trial)
            return
        self._scheduler.on_trial_error(self, trial)
        self._proposals.on_trial_complete(trial.trial_id, error=True)
        trial.set_status(RayTrial.ERROR)
        self._callbacks.on_trial_error(iteration=self._iteration, trials=self._trials, trial=trial)

    # How it ends

    def _stop_all(self) -> None:
        """Stop what runs where it is, and begin nothing more."""
        self._proposals.set_finished()
        self._waiting = Waiting()
        self._end()

    def _end(self) -> None:
        for desk in self._desks:
            for trial in desk.trials.values():
                trial.set_status(RayTrial.TERMINATED)
            ray.kill(desk.worker)
        self._desks = []

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Yield what SIGUSR1 sets inside, as Tune lets it end a study neatly."""
    found = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: found.set())
    try:
        yield found
    finally:
        signal.signal(signal.SIGUSR1, before)
