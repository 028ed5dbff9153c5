"""Run a study: Ray Tune around the trials, MLflow beside it, results at the end."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial
from rich.console import Console

from dgm_ray.data import Prepared, Streamed
from dgm_ray.evaluation import baseline
from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.training import write_json
from dgm_ray.tune.cluster import bundles, check_nodes, placed
from dgm_ray.tune.console import ConsoleCallback, print_report, print_summary
from dgm_ray.tune.data import Shared
from dgm_ray.tune.journal import Decisions
from dgm_ray.tune.kept import Collector, trial_name
from dgm_ray.tune.lanes.runner import Runner
from dgm_ray.tune.lanes.start import limits_of, shape_of, start_worker
from dgm_ray.tune.live import figure
from dgm_ray.tune.observer import Observer, Publisher
from dgm_ray.tune.outcomes import Outcome, best_first, outcome_of
from dgm_ray.tune.parallel import one_line
from dgm_ray.tune.patience import Patience, Stopper
from dgm_ray.tune.place import MODELS, Place
from dgm_ray.tune.proposals import Proposals
from dgm_ray.tune.report.study_page import write_report
from dgm_ray.tune.results import (
    repeating,
    write_best,
    write_imputation,
    write_missing,
    write_models,
    write_origin,
    write_results,
    write_scores,
    write_winner,
)
from dgm_ray.tune.search import param_space
from dgm_ray.tune.study import Study
from dgm_ray.tune.tracking.environment import environment
from dgm_ray.tune.tracking.history import write_history
from dgm_ray.tune.tracking.tracker import Tracker, TrackingCallback
from dgm_ray.tune.trial import CHECKPOINT, Trial

QUIET = ("best trial:", "best:", "report:", "leaderboard:")  # how the lines begin that --quiet leaves


class Watch(Observer):
    """Keeps the trials, and hands a signal to Tune as soon as Tune can stop neatly."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.received = 0
        self.trials: list[RayTrial] = []
        self._console, self._forwarded = console, False

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self.trials = trials
        if self.received and not self._forwarded:
            self._forwarded = True
            self._console.print("stopping; once more stops at once", highlight=False)
            os.kill(os.getpid(), signal.SIGUSR1)  # Tune saves its state and returns

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        if "epoch" in trial.last_result:  # a scheduler may stop a trial that waits, which reports nothing more
            trial.last_result["done"] = True

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM stop the study neatly, and the second stop it at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received:
                raise SystemExit(128 + number)
            self.received = number  # nothing is printed here: a line that is being printed would come twice

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class Found:
    """What a search found.

    outcomes: of all trials. means: the scores of means and modes on the validation cells. report: of the winner, empty
    if the test cells are not known. signal: what stopped it, or 0.
    """

    outcomes: list[Outcome]
    means: dict[str, float]
    report: FinalReport
    signal: int

    @property
    def status(self) -> str:
        """How the study's run ends."""
        return "KILLED" if self.signal else "FINISHED"


def run_study(study: Study, data: Prepared, place: Place, console: Console, started: float) -> int:
    """Run a study on the Ray that was started, and write its results.

    started: when, by time.monotonic. Return the exit code: 0, or 128 plus the signal that stopped it.
    """
    check_nodes(study.files, place.storage)
    shared = Shared(data)
    del data  # the object store has it: no second copy stays here
    settings = study.settings
    tracker = Tracker(place.folder, place.tracking_uri, settings.experiment, place.artifacts, settings.mlflow)
    found = search(study, shared, place, tracker, console)
    log_found(tracker, study, place, found)  # which is sent while the page is made
    print_summary(console, study.plan, found.outcomes, found.means)
    for winner in best_first(found.outcomes)[:1]:
        print_report(console, found.report, winner.number, place.found(place.imputation))
    write_page(place, console)
    if place.report.exists():
        tracker.log_file(place.report)
    tracker.close(found.status)
    tracker.settle(settings.mlflow.wait)
    place.publish()
    _print_files(console, place, tracker, study.plan.metric, found.outcomes, time.monotonic() - started)
    return 128 + found.signal if found.signal else 0


def search(
    study: Study,
    shared: Shared,
    place: Place,
    tracker: Tracker,
    console: Console,
    *,
    tags: Mapping[str, str] = MappingProxyType({}),
    lines: bool = True,
) -> Found:
    """Run the trials of a study and write what they found.

    tracker: gets all of it; ``log_found`` tells it the end. tags: of the study's run, beside its own. lines: print the
    baseline, and one for each trial that ends.
    """
    data = shared.data
    place.claim(study.node, study.resolved(), shared.content_hash)
    Decisions(place.journal).begin()
    _open(tracker, study, data, place, {"data_hash": shared.content_hash, **study.tags, **tags})
    means = means_of(data)
    if means and lines:
        console.print(f"means and modes: val_imputation_rmse {means['val_imputation_rmse']:.4g}", highlight=False)
    watch = Watch(console)
    with watch.signals():
        outcomes = _fit(study, shared, place, tracker, watch, console, lines)
    write_history(place.folder, place.history)
    write_results(study, place, outcomes)
    report = write_best(study, data, place, outcomes)
    write_imputation(place, report)
    write_winner(place, data, report)
    write_scores(place, means, report)
    with dispensable(f"{MODELS}/", console):
        write_models(study, data, place, outcomes)
    place.publish()
    return Found(outcomes, means, report, watch.received)


def means_of(data: Prepared) -> dict[str, float]:
    """Return the scores of means and modes on the validation cells."""
    scores = baseline(data.metadata, data.means_and_modes, data.validation)
    return {f"val_{name}": value for name, value in scores.items()}


def _fit(
    study: Study, shared: Shared, place: Place, tracker: Tracker, watch: Watch, console: Console, lines: bool
) -> list[Outcome]:
    settings, mutated = study.settings, study.settings.scheduler.mutated(study.plan)
    scheduler = type(settings.scheduler).__name__

    def outcome(trial: RayTrial) -> Outcome:
        return outcome_of(trial, study.plan.metric, scheduler=scheduler)

    drawn = study.plan.label("trial.arguments.epochs")

    def epochs(trial: RayTrial) -> int:
        return int(trial.config[drawn]) if drawn else study.epochs

    name = "" if lines else place.folder.name
    shown = ConsoleCallback(console, study.plan.metric, study.trials, outcome, epochs, name=name, lines=lines)
    repeats = partial(repeating, study, streamed=isinstance(shared.data.train, Streamed))
    tracking = TrackingCallback(tracker, outcome, mutated, repeats, study.plan.metric, study.tags)
    collector = Collector(settings.keep, outcome)
    patience = Patience(settings.stop, lambda trial: outcome(trial).score) if settings.stop else None
    resources = placed(settings.resources)
    trainable = tune.with_parameters(
        Trial,
        plan=study.plan,
        table=shared.for_trials,
        gpu=resources.gpu,
        workers=resources.workers,
        together=study.together(shared.data),
    )
    trainable = tune.with_resources(trainable, tune.PlacementGroupFactory(bundles(resources)))
    callbacks: list[tune.Callback] = [watch, tracking, shown, collector, *([patience] if patience else [])]
    if place.mirror:
        callbacks.append(Publisher(place.publish))
    stop = Stopper(patience) if patience else None
    kept = tune.CheckpointConfig(num_to_keep=settings.scheduler.checkpoints, checkpoint_at_end=True)
    fitting = max(1, int(ray.cluster_resources()["CPU"] / (resources.cpu * resources.workers)))
    made = settings.scheduler.make(study.plan, study.epochs)
    proposals = Proposals(
        settings.search.make(study.plan.metric, settings.seed, study.first),
        made,
        Decisions(place.journal),
        study.plan,
        place.local,
        limit=None if settings.scheduler.together or settings.lanes != 1 else settings.concurrent or fitting,
        changing=bool(mutated),
    )
    named = {"trial_name_creator": trial_name, "trial_dirname_creator": trial_name}
    fit: Callable[[], Any]
    if settings.lanes == 1:
        # A new one also for a study that is resumed: its journal has more than Ray's last snapshot, and is no pickle.
        fit = tune.Tuner(
            trainable,
            param_space=param_space(study.plan),
            tune_config=tune.TuneConfig(
                num_samples=settings.samples,
                search_alg=proposals,
                scheduler=made,
                time_budget_s=settings.time_budget,
                reuse_actors=True,
                **named,
            ),
            run_config=tune.RunConfig(
                name=place.folder.name,
                storage_path=place.storage,
                verbose=0,
                callbacks=callbacks,
                stop=stop,
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                checkpoint_config=kept,
            ),
        ).fit
    else:
        experiment = Experiment(
            place.folder.name,
            trainable,
            config=param_space(study.plan),
            num_samples=settings.samples,
            storage_path=place.storage,
            stop=stop,
            time_budget_s=settings.time_budget,
            checkpoint_config=kept,
            max_failures=settings.max_failures,
            **named,
        )
        fit = Runner(
            experiment,
            proposals,
            made,
            callbacks,
            limits_of(settings, fitting),
            shape=partial(shape_of, study, shared.data),
            tried=place.lanes,
            start=partial(start_worker, study, resources, shared.for_trials),
            say=partial(console.print, highlight=False, soft_wrap=True, markup=False),
        ).run
    shown.start()
    try:
        fit()
    finally:
        shown.stop()
    proposals.settle()
    collector.collect()
    outcomes = [outcome(trial) for trial in watch.trials]
    tracking.finish(outcomes)
    if patience and patience.over:
        line = f"stopped: {study.plan.metric} did not improve in {patience.without} trials (tune.stop)"
        console.print(line, highlight=False)
    return outcomes


def write_page(place: Place, console: Console) -> None:
    """Write the study's page."""
    place.report.unlink(missing_ok=True)  # of the study before it was resumed
    with dispensable(place.report.name, console):
        write_report(place)
    place.publish()


@contextmanager
def dispensable(name: str, console: Console) -> Iterator[None]:
    """Say an error in one line and go on: all else is there without what is written."""
    try:
        yield
    except Exception as error:
        line = f"warning: {name} could not be written ({one_line(error)})"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _open(tracker: Tracker, study: Study, data: Prepared, place: Place, more: Mapping[str, str]) -> None:
    found = environment()
    if not place.environment.exists():
        write_json(place.environment, found)
    tags = found | {"task": study.plan.template["task"], "study": place.location, **more}
    tags |= {"resources": json.dumps(asdict(study.settings.resources)), "seed": str(study.settings.seed)}
    tracker.open_study(place.folder.name, study.resolved() | {"trials": study.trials}, tags, resume=place.resume)
    tracker.log_study(write_missing(data, place), {})
    write_origin(study, data, place)
    tracker.log_text(study.path.read_text(encoding="utf-8"), study.path.name)
    for path in (place.settings, place.missing, place.origin):
        tracker.log_file(path)


def log_found(tracker: Tracker, study: Study, place: Place, found: Found) -> None:
    """Log what a search found; the study's run is still open."""
    ranked = best_first(found.outcomes)
    tracker.log_best(ranked)
    for one in ranked[: study.settings.keep]:
        if one.checkpoint:
            tracker.log_file(place.local(f"{one.checkpoint}/{CHECKPOINT}"), one.trial_id, "checkpoint")
            if place.model(one.number).exists():
                tracker.log_model(place.model(one.number), one.trial_id)
    for path in (place.best, place.table, place.text, place.history, place.imputation):
        if path.exists():
            tracker.log_file(path)
    figures = {f"baseline_{name}": value for name, value in found.means.items()} | found.report.metrics()
    figures |= {f"best_{name}": value for name, value in (ranked[0].measures if ranked else {}).items()}
    tracker.log_study(figures, {"status": "interrupted" if found.signal else "completed"})


def _print_files(
    console: Console, place: Place, tracker: Tracker, metric: str, outcomes: Sequence[Outcome], seconds: float
) -> None:
    best = ["best trial: none has a score"]
    for one in best_first(outcomes)[:1]:
        best = [f"best trial: {one.number:03d}, {metric} {figure(one.score)}"]
        best += [f"best: {place.found(place.best)}", repeat_line(place)]
    page = [f"report: {place.found(place.report)}"] if place.report.exists() else []
    print_lines(console, place, tracker, [*best, *page, f"all trials: {place.found(place.table)}"], seconds)


def repeat_line(place: Place) -> str:
    """Return how to repeat the winner."""
    how = "repeat it, with a copy" if place.mirror else "repeat it"
    return f"{how}: {Path(sys.executable).name} -m dgm_ray.tasks.runner {place.given}"


def print_lines(console: Console, place: Place, tracker: Tracker, lines: Sequence[str], seconds: float) -> None:
    """Print what there is and how to go on, and where MLflow has it; with --quiet what is best and a page alone."""
    problem = f"warning: MLflow has not got everything ({tracker.problem}); {place.location} has"
    if tracker.kept:
        problem += f", and {command('dgm-ray')} sync {place.location} sends the {tracker.kept} requests that are left"
    more = [f"compare them: {command('mlflow')} ui --backend-store-uri {place.tracking_uri}", f"took {seconds:.1f} s"]
    if console.quiet:
        console.quiet, lines, more = False, [line for line in lines if line.startswith(QUIET)], []
    for line in [*([problem] if tracker.problem or tracker.kept else []), *lines, *more]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def command(name: str) -> str:
    """Return how a command that was installed with this Python is called here: by name if it is on the path."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else str(beside)
