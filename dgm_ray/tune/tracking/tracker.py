"""MLflow, from the driver alone: one parent run a study, one nested run a trial, metrics in batches.

A thread does the writing, so that neither trials nor Tune's loop wait for the tracker.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from ray.tune.experiment import Trial as RayTrial

from dgm_ray.space import Draw
from dgm_ray.training import DIVERGED
from dgm_ray.tune.observer import Observer
from dgm_ray.tune.outcomes import FAILED, INTERRUPTED, OOM, Outcome, number_of
from dgm_ray.tune.plan import decoded
from dgm_ray.tune.tracking.model import log_model
from dgm_ray.tune.tracking.reading import CONFIGURATION

BATCH = 500  # metrics of one request; MLflow takes 1000 at most
MAX_PARAM = 6000  # characters of a parameter's value


class Tracker:
    """Write a study to an MLflow server or database.

    uri: as MLflow takes it. Requests are carried out in order by one thread; ``close`` waits for them.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        self._uri, self._experiment, self._artifacts = uri, experiment, artifacts
        self._queue: Queue[Callable[[], None] | None] = Queue()
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()  # when the study was resumed: whoever wrote them was killed
        self.study = self.parent = ""
        self.problem = ""  # the first error; a study goes on without its tracker
        self._thread = Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def open_study(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], *, resume: bool = False
    ) -> None:
        """Start the study's run, called ``name``.

        resume: go on with the last one whose tag ``study`` is the same, if there is one.
        """
        self.study = name

        def write() -> None:
            import mlflow
            from mlflow.entities import Param

            mlflow.set_tracking_uri(self._uri)
            self._client = mlflow.MlflowClient(self._uri)
            found = self._client.get_experiment_by_name(self._experiment)
            location = self._artifacts.as_uri() if self._artifacts else None
            self._experiment_id = (
                found.experiment_id if found else self._client.create_experiment(self._experiment, location)
            )
            if resume and self._go_on(tags["study"]):
                return
            run = self._client.create_run(self._experiment_id, run_name=name, tags=dict(tags))
            self.parent = run.info.run_id
            shown = [Param(key, json.dumps(value)[:MAX_PARAM]) for key, value in params.items()]
            self._client.log_batch(self.parent, params=shown)

        self._queue.put(write)

    def open_trial(self, trial_id: str, name: str, values: Mapping[str, Any]) -> None:
        """Start a trial's nested run; its parameters are the values that were drawn."""
        self._queue.put(lambda: self._start(trial_id, name, values))

    def log_metrics(self, trial_id: str, rows: list[tuple[str, float, int, int]]) -> None:
        """Log (name, value, milliseconds since 1970, epoch) rows of a trial."""

        def write() -> None:
            from mlflow.entities import Metric

            for start in range(0, len(rows), BATCH):
                metrics = [Metric(*row) for row in rows[start : start + BATCH]]
                self._client.log_batch(self._runs[trial_id], metrics=metrics)

        self._queue.put(write)

    def close_trial(self, outcome: Outcome) -> None:
        """End a trial's run with its status, its reason and the measures of its best epoch."""
        self._queue.put(lambda: self._end(outcome))

    def catch_up(self, outcome: Outcome, name: str) -> None:
        """Write a trial that had ended before its study was resumed, unless that was done."""

        def write() -> None:
            if outcome.trial_id not in self._runs:
                self._start(outcome.trial_id, name, outcome.values)
            elif outcome.trial_id not in self._open:
                return
            self._end(outcome)

        self._queue.put(write)

    def log_file(self, path: Path, trial_id: str | None = None, folder: str | None = None) -> None:
        """Log a file as an artifact of a trial's run, or of the study's."""
        self._queue.put(lambda: self._client.log_artifact(self._run_of(trial_id), str(path), folder))

    def log_model(self, folder: Path, trial_id: str) -> None:
        """Log a model's folder as an MLflow model of a trial's run."""

        def write() -> None:
            log_model(self._client, self._runs[trial_id], folder)

        self._queue.put(write)

    def log_text(self, text: str, name: str, trial_id: str | None = None) -> None:
        """Log a text as an artifact of a trial's run, or of the study's."""
        self._queue.put(lambda: self._client.log_text(self._run_of(trial_id), text, name))

    def log_study(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log what the study found."""

        def write() -> None:
            from mlflow.entities import Metric, RunTag

            shown = [Metric(name, value, _milliseconds(), 0) for name, value in metrics.items()]
            self._client.log_batch(self.parent, metrics=shown, tags=[RunTag(*tag) for tag in tags.items()])

        self._queue.put(write)

    def close(self, status: str) -> None:
        """End the study's run and wait until all is written."""
        self._queue.put(lambda: self._client.set_terminated(self.parent, status))
        self._queue.put(None)
        self._thread.join()

    def _go_on(self, study: str) -> bool:
        """Find the runs of a study that was stopped; tell whether there are any."""
        where = f"tags.study = '{study}'"
        found = self._client.search_runs([self._experiment_id], where, order_by=["start_time DESC"], max_results=1)
        for run in found:
            self.parent = run.info.run_id
            self._client.update_run(self.parent, "RUNNING")
            token = None
            while token != "":
                where = f"tags.`mlflow.parentRunId` = '{self.parent}'"
                page = self._client.search_runs([self._experiment_id], where, page_token=token)
                self._runs |= {child.data.tags["trial_id"]: child.info.run_id for child in page}
                self._open |= {child.data.tags["trial_id"] for child in page if child.info.status == "RUNNING"}
                token = page.token or ""
        return bool(found)

    def _start(self, trial_id: str, name: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        if trial_id in self._runs:  # resumed
            self._client.update_run(self._runs[trial_id], "RUNNING")
            return
        tags = {"mlflow.parentRunId": self.parent, "trial_id": trial_id}
        run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
        self._runs[trial_id] = run.info.run_id
        shown = [Param(key, str(value)[:MAX_PARAM]) for key, value in values.items()]
        self._client.log_batch(run.info.run_id, params=shown)

    def _end(self, outcome: Outcome) -> None:
        from mlflow.entities import Metric, RunTag

        run, now = self._runs[outcome.trial_id], _milliseconds()
        tags = [RunTag("status", outcome.status), RunTag("reason", outcome.reason[:4000])]
        best = {f"best_{name}": value for name, value in outcome.measures.items() if value == value}
        best |= {"best_epoch": outcome.best_epoch, "epochs": outcome.epochs, "train_seconds": outcome.seconds}
        metrics = [Metric(name, value, now, 0) for name, value in best.items()]
        self._client.log_batch(run, metrics=metrics, tags=tags)
        if outcome.trace:
            self._client.log_text(run, outcome.trace, "traceback.txt")
        failed = outcome.status in (FAILED, DIVERGED, OOM)
        ended = "KILLED" if outcome.status == INTERRUPTED else "FAILED" if failed else "FINISHED"
        self._client.set_terminated(run, ended)

    def _run_of(self, trial_id: str | None) -> str:
        return self._runs[trial_id] if trial_id else self.parent

    def _work(self) -> None:
        while (write := self._queue.get()) is not None:
            try:
                if not self.problem:
                    write()
            except Exception as error:
                self.problem = f"{type(error).__name__}: {' '.join(str(error).split())}"


class TrackingCallback(Observer):
    """Tell the tracker what Tune tells this. Metrics wait until there are enough of them, or the trial ends.

    mutated: draws whose values change while a trial runs, which MLflow's parameters cannot; they are metrics.
    repeating: returns the configuration that repeats a trial, which its run has as an artifact.
    """

    def __init__(
        self,
        tracker: Tracker,
        outcome: Callable[[RayTrial], Outcome],
        mutated: Mapping[str, Draw],
        repeating: Callable[[Outcome], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._mutated, self._repeating = mutated, repeating
        self._tracker, self._outcome = tracker, outcome
        self._waiting: dict[str, list[tuple[str, float, int, int]]] = {}
        self._closed: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._open(trial)

    def _open(self, trial: RayTrial) -> None:
        if trial.trial_id not in self._waiting:
            self._waiting[trial.trial_id] = []
            self._tracker.open_trial(trial.trial_id, self._name(number_of(trial)), trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        rows, now = self._waiting[trial.trial_id], _milliseconds()
        for epoch in result["history"]:
            step = int(epoch["epoch"])
            rows += [(name, float(value), now, step) for name, value in epoch.items() if name != "epoch"]
            for label, draw in self._mutated.items():
                rows.append((f"value.{label}", _number(draw, result["schedule"][-1]["values"][label]), now, step))
        if len(rows) >= BATCH:
            self._flush(trial.trial_id)

    def on_trial_end(self, trial: RayTrial) -> None:
        self._open(trial)  # a process that did not come up started nothing
        self._close(self._outcome(trial))

    def finish(self, outcomes: list[Outcome]) -> None:
        """Close the runs of trials that were started but did not end, because the study was stopped.

        Those of trials that had ended are written if the driver was killed before it could.
        """
        for outcome in outcomes:
            if outcome.trial_id in self._waiting:
                self._close(outcome)
            elif outcome.epochs:
                self._tracker.catch_up(outcome, self._name(outcome.number))
                self._configure(outcome)

    def _name(self, number: int) -> str:
        return f"{self._tracker.study} {number:03d}"

    def _close(self, outcome: Outcome) -> None:
        if outcome.trial_id not in self._closed:
            self._closed.add(outcome.trial_id)
            self._flush(outcome.trial_id)
            self._configure(outcome)
            self._tracker.close_trial(outcome)

    def _configure(self, outcome: Outcome) -> None:
        self._tracker.log_text(json.dumps(self._repeating(outcome), indent=2), CONFIGURATION, outcome.trial_id)

    def _flush(self, trial_id: str) -> None:
        rows, self._waiting[trial_id] = self._waiting[trial_id], []
        if rows:
            self._tracker.log_metrics(trial_id, rows)


def _number(draw: Draw, value: Any) -> float:
    """Return a value as a metric can hold it: of options that are no numbers, which one it is."""
    option = decoded(draw, value)
    return float(option) if isinstance(option, int | float) else float(draw.arguments.index(option))


def load_mlflow() -> None:
    """Import MLflow, which takes seconds. Nothing is written yet."""
    import mlflow  # noqa: F401
    from mlflow.store.db import utils  # noqa: F401  # and what a database needs

    logging.getLogger("mlflow").setLevel(logging.WARNING)


def _milliseconds() -> int:
    return int(time.time() * 1000)
