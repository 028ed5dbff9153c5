"""MLflow, as a study sees it: one parent run a study, one nested run a trial, metrics by epoch.

All is written down in the study's folder (``outbox``), and a process of its own sends it (``sender``): neither trials
nor Tune's loop wait for MLflow, and what it does not get now is not lost.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from ray.tune.experiment import Trial as RayTrial

from dgm_ray.space import Draw
from dgm_ray.training import DIVERGED
from dgm_ray.tune.observer import Observer, before_resume
from dgm_ray.tune.outcomes import FAILED, INTERRUPTED, OOM, Outcome, number_of
from dgm_ray.tune.plan import decoded
from dgm_ray.tune.settings import BestTrials, MLflow
from dgm_ray.tune.tracking.outbox import REQUESTS, Outbox, Sent, requests_of, without_password
from dgm_ray.tune.tracking.reading import CONFIGURATION
from dgm_ray.tune.tracking.sender import Sender, sender_of

LOOK = 0.1  # seconds between two looks at what was sent


class Tracker:
    """Tell an MLflow server or database what a study does.

    folder: the study's. uri: as MLflow takes it. artifacts: where files go if no server decides it. Nothing is written
    before ``open_study``, and nothing here raises because MLflow cannot be reached.
    """

    def __init__(
        self, folder: Path, uri: str, experiment: str, artifacts: Path | None, settings: MLflow | None = None
    ) -> None:
        self._folder, self._uri, self._experiment, self._artifacts = folder, uri, experiment, artifacts
        self._settings = settings or MLflow()
        self._outbox: Outbox | None = None
        self._sender: Sender | None = None
        self._end = 0  # of the last request
        self._begun: set[str] = set()  # trials, when the study was resumed
        self._ended: set[str] = set()
        self.epochs: dict[str, int] = {}  # the last that was logged, by trial
        self.study = ""
        self.problem = ""  # the first; a study goes on without its tracker
        self.kept = 0  # requests that are not sent

    @property
    def seconds(self) -> float:
        """What writing took."""
        return self._outbox.seconds if self._outbox else 0.0

    def open_study(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], *, resume: bool = False
    ) -> None:
        """Start the study's run, called ``name``.

        resume: go on with the last one whose tag ``study`` is the same, if there is one.
        """
        self.study, changed = name, False
        if resume:
            changed = self._recall()
        self._do(
            "study",
            name=name,
            key=uuid4().hex,
            resume=resume,
            uri=without_password(self._uri),
            experiment=self._experiment,
            artifacts=str(self._artifacts) if self._artifacts else None,
            log="all" if self._settings.log == "all" else "some",
            params=dict(params),
            tags=dict(tags),
        )
        if changed:
            self._do("full", trials=sorted(self._begun))
        if self._outbox:
            self._sender = sender_of(self._uri)
            self._sender.send(self._folder)

    def open_trial(
        self, trial_id: str, number: int, values: Mapping[str, Any], tags: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Start a trial's nested run; its parameters are the values that were drawn."""
        self._open_trial(trial_id, number, values, tags, late=False)

    def log_metrics(self, trial_id: str, epochs: Sequence[Mapping[str, float]]) -> None:
        """Log the figures of a trial's epochs, each with its ``epoch``."""
        self._do("metrics", trial=trial_id, epochs=[dict(epoch) for epoch in epochs])

    def close_trial(self, outcome: Outcome) -> None:
        """End a trial's run with its status, its reason and the measures of its best epoch."""
        self._close_trial(outcome, late=False)

    def catch_up(self, outcome: Outcome, tags: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Write a trial that had ended before its study was resumed, unless that was done; tell whether it was not."""
        if outcome.trial_id in self._ended:
            return False
        if outcome.trial_id not in self._begun:
            self._open_trial(outcome.trial_id, outcome.number, outcome.values, tags, late=True)
        self._close_trial(outcome, late=True)
        return True

    def log_best(self, ranked: Sequence[Outcome]) -> None:
        """Give the best trials their runs, if ``tune.mlflow.log`` leaves these to the end. ranked: best first."""
        if isinstance(self._settings.log, BestTrials):
            self._do("full", trials=[one.trial_id for one in ranked[: self._settings.log.best]])

    def log_file(self, path: Path, trial_id: str | None = None, folder: str | None = None) -> None:
        """Log a file as an artifact of a trial's run, or of the study's. It stays where it is until it is sent."""
        shown = path.relative_to(self._folder) if path.is_relative_to(self._folder) else path.absolute()
        self._do("file", path=str(shown), trial=trial_id, folder=folder)

    def log_model(self, folder: Path, trial_id: str) -> None:
        """Log a model's folder, which is in the study's, as an MLflow model of a trial's run."""
        self._do("model", path=str(folder.relative_to(self._folder)), trial=trial_id)

    def log_text(self, text: str, name: str, trial_id: str | None = None) -> None:
        """Log a text as an artifact of a trial's run, or of the study's."""
        self._do("text", text=text, name=name, trial=trial_id)

    def log_study(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        """Log what the study found."""
        self._do("figures", metrics=dict(metrics), tags=dict(tags), step=step)

    def close(self, status: str) -> None:
        """End the study's run. Nothing is waited for: ``settle`` does."""
        if self._outbox:
            self._do("close", status=status)
            self._outbox.close()
        if self._sender:
            self._sender.hurry()

    def settle(self, wait: float) -> None:
        """Wait until all is sent; then say what MLflow refused.

        wait: seconds without progress; then the sender is ended, and ``kept`` tells how many requests it has left.
        """
        if self._sender is None:
            return
        sent, progress, again = Sent(self._folder, self._uri), time.monotonic(), False
        while sent.offset < self._end and time.monotonic() - progress < wait:
            if sent.update():
                progress = time.monotonic()
            elif not self._sender.running and not again:
                self._sender, again = sender_of(self._uri), True
                self._sender.send(self._folder)
            time.sleep(LOOK)
        if sent.refused:
            self.problem = self.problem or f"it refused {sent.refused} requests, the first with {sent.refusal}"
        if sent.offset < self._end:
            self._sender.end()
            self.kept = sum(1 for _ in requests_of(self._folder, sent.offset))
            self.problem = self.problem or sent.waiting

    def _open_trial(
        self, trial_id: str, number: int, values: Mapping[str, Any], tags: Mapping[str, str], *, late: bool
    ) -> None:
        shown = {name: _readable(value) for name, value in values.items()}
        name = f"{self.study} {number:03d}"
        self._do("trial", trial=trial_id, number=number, name=name, params=shown, tags=dict(tags), late=late)

    def _close_trial(self, outcome: Outcome, *, late: bool) -> None:
        tags = {"status": outcome.status, "reason": outcome.reason}
        best = {f"best_{name}": value for name, value in outcome.measures.items() if math.isfinite(value)}
        best |= {"best_epoch": outcome.best_epoch, "epochs": outcome.epochs, "train_seconds": outcome.seconds}
        failed = outcome.status in (FAILED, DIVERGED, OOM)
        ended = "KILLED" if outcome.status == INTERRUPTED else "FAILED" if failed else "FINISHED"
        of_trial = {"trial": outcome.trial_id, "status": ended, "late": late}
        self._do("end", **of_trial, metrics=best, tags=tags, trace=outcome.trace)

    def _recall(self) -> bool:
        """Learn what was written before the study was resumed; tell whether it had runs for some trials alone."""
        some = False
        for _, request in requests_of(self._folder):
            if request["do"] == "study":
                some = request["log"] != "all"
            elif request["do"] == "trial":
                self._begun.add(request["trial"])
            elif request["do"] == "metrics":
                self.epochs[request["trial"]] = request["epochs"][-1]["epoch"]
            elif request["do"] == "end" and request["tags"]["status"] != INTERRUPTED:
                self._ended.add(request["trial"])
        return some and self._settings.log == "all"

    def _do(self, do: str, **content: Any) -> None:
        try:
            self._outbox = self._outbox or Outbox(self._folder)
            self._end = self._outbox.add(do, **content)
        except OSError as error:  # no room: the study may still have some elsewhere
            self.problem = self.problem or f"{self._folder / REQUESTS}: {error}"


class TrackingCallback(Observer):
    """Tell the tracker what Tune tells this.

    mutated: draws whose values change while a trial runs, which MLflow's parameters cannot; they are metrics.
    repeating: returns the configuration that repeats a trial, which its run has as an artifact. metric: the study's.
    tags: of every trial's run.
    """

    def __init__(
        self,
        tracker: Tracker,
        outcome: Callable[[RayTrial], Outcome],
        mutated: Mapping[str, Draw],
        repeating: Callable[[Outcome], dict[str, Any]],
        metric: str = "",
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._tracker, self._outcome, self._mutated, self._metric = tracker, outcome, mutated, metric
        self._tags, self._repeating = tags, repeating
        self._opened: set[str] = set()
        self._closed: set[str] = set()
        self._ended, self._best = 0, math.inf

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        for trial in before_resume(iteration, trials):
            if trial.trial_id not in self._closed:
                self._count(self._outcome(trial))

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._open(trial)

    def _open(self, trial: RayTrial) -> None:
        if trial.trial_id not in self._opened:
            self._opened.add(trial.trial_id)
            self._tracker.open_trial(trial.trial_id, number_of(trial), trial.config, self._tags)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        epochs = list(self._new(trial.trial_id, result["history"]))
        for epoch in epochs:
            for label, draw in self._mutated.items():
                epoch[f"value.{label}"] = _number(draw, result["schedule"][-1]["values"][label])
        if epochs:
            self._tracker.log_metrics(trial.trial_id, epochs)

    def _new(self, trial_id: str, history: Iterable[Mapping[str, float]]) -> Iterable[dict[str, float]]:
        """Yield the epochs that were not logged: a trial that is started again repeats some, unless values change."""
        logged = self._tracker.epochs
        for epoch in history:
            number = int(epoch["epoch"])
            if self._mutated or trial_id not in logged or number > logged[trial_id]:
                logged[trial_id] = number
                yield {"epoch": number, **{name: float(value) for name, value in epoch.items() if name != "epoch"}}

    def on_trial_end(self, trial: RayTrial) -> None:
        self._open(trial)  # a process that did not come up started nothing
        self._close(self._outcome(trial))

    def finish(self, outcomes: list[Outcome]) -> None:
        """Close the runs of trials that were started but did not end, because the study was stopped.

        Those of trials that had ended are written if the driver was killed before it could.
        """
        for outcome in outcomes:
            if outcome.trial_id in self._opened:
                self._close(outcome)
            elif outcome.epochs and self._tracker.catch_up(outcome, self._tags):
                self._configure(outcome)

    def _close(self, outcome: Outcome) -> None:
        if outcome.trial_id in self._closed:
            return
        self._closed.add(outcome.trial_id)
        self._configure(outcome)
        self._tracker.close_trial(outcome)
        self._count(outcome)
        best = {f"best_so_far_{self._metric}": self._best} if math.isfinite(self._best) else {}
        self._tracker.log_study({"trials_ended": self._ended, **best}, {}, self._ended)

    def _configure(self, outcome: Outcome) -> None:
        self._tracker.log_text(json.dumps(self._repeating(outcome), indent=2), CONFIGURATION, outcome.trial_id)

    def _count(self, outcome: Outcome) -> None:
        self._ended += 1
        self._best = min(self._best, outcome.score) if outcome.ranked else self._best


def _number(draw: Draw, value: Any) -> float:
    """Return a value as a metric can hold it: of options that are no numbers, which one it is."""
    option = decoded(draw, value)
    return float(option) if isinstance(option, int | float) else float(draw.arguments.index(option))


def _readable(value: Any) -> Any:
    """Return a drawn value as JSON has it, numbers as Python's own."""
    return value.item() if hasattr(value, "item") else value
