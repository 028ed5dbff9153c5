"""What studies have written to MLflow, found again: by the beginning of a run's id, or by its name.

A study's run has the tag ``study``, a trial's the tag ``trial_id`` and its study's run as parent. MLflow is imported
when it is asked.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from dgm_ray.errors import StudyError, nearest
from dgm_ray.tune.tracking.address import OPTION, check_uri, database_of
from dgm_ray.tune.tracking.outbox import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RESULTS = Path("results")  # where studies' folders are, if nothing else is said
WAIT = 30.0  # seconds for the first answer
TRY = 10  # seconds for one answer of a server, which is asked twice
PAGE = 100  # runs of one answer
SHORT = 8  # characters of an id that tables show
WINNING = ("completed", "stopped", "early stop", "interrupted")  # as ``outcomes.RANKED``, which needs Ray
CONFIGURATION = "configuration.json"  # an artifact of every trial's run: what repeats it


def default_uri() -> str:
    """Return where studies write if no other is named: a database in the working directory."""
    return f"sqlite:///{Path('mlflow.db').absolute()}"


def client_of(uri: str) -> MlflowClient:
    """Return a client whose server or database has answered.

    Raises StudyError for a database that is not there (none is made), a file that is none, and for what does not
    answer in ``WAIT`` seconds.
    """
    if path := database_of(uri):
        _check_database(path, uri)
    check_uri(uri)
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TRY)),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    found: list[MlflowClient | Exception] = []

    def ask() -> None:
        try:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            found.append(client)
        except Exception as error:
            found.append(error)

    asking = Thread(target=ask, daemon=True)  # what never answers does not keep the command from its end
    asking.start()
    asking.join(WAIT)
    if not found:
        raise StudyError(OPTION, f"does not answer in {WAIT:.0f} s", without_password(uri))
    if isinstance(found[0], Exception):
        raise StudyError(OPTION, f"does not answer ({said(found[0])})", without_password(uri))
    return found[0]


def said(error: Exception) -> str:
    """Return the reason that an error ends with, in one line: servers' errors hold each other."""
    text = " ".join(str(error).split())
    reasons = re.findall(r"Caused by \w+\(['\"].*?>?:? ?([^<>]*?)['\"]\)", text)
    return f"{type(error).__name__}: {(reasons[-1] if reasons else text)[:200]}"


@contextmanager
def answered(uri: str) -> Iterator[None]:
    """Turn an error of MLflow's into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise StudyError(OPTION, f"does not give what is asked ({said(error)})", without_password(uri)) from None


def find_run(client: MlflowClient, given: str) -> Run:
    """Return the run of a study or of a trial. given: its name (of several the last), its id, or the beginning of it.

    Raises StudyError for one that is not there, is not one only, or was written by another program.
    """
    named = list(_search(client, f"attributes.run_name = {_quoted(given)}", most=PAGE))
    for run in filter(_ours, named):
        return run
    begin = f"attributes.run_id LIKE '{given}%'"
    found = list(_search(client, begin, most=4)) if re.fullmatch("[0-9a-f]{1,32}", given) else []
    found = found or named[:1]
    if not found:
        raise StudyError("RUN_ID", f"there is no run of this id or name{_known(client, given)}", given)
    if len(found) > 1:
        several = ", ".join(f"{run.info.run_id[: len(given) + 4]} ({run.info.run_name})" for run in found)
        raise StudyError("RUN_ID", f"should be the beginning of one run's id, and is that of {several}", given)
    if not _ours(found[0]):
        rule = "was written by another program: it has neither the tag 'study' nor 'trial_id'"
        raise StudyError(f"run {found[0].info.run_id} ({found[0].info.run_name})", rule)
    return found[0]


def is_study(run: Run) -> bool:
    """Tell whether a run is a study's or a comparison's, and not a trial's."""
    return "study" in run.data.tags


def is_comparison(run: Run) -> bool:
    """Tell whether a run is a comparison's, whose imputers have studies of their own."""
    tags = run.data.tags
    return is_study(run) and "best" in tags and "comparison" in tags and tags["comparison"] == run.info.run_name


def parent_of(client: MlflowClient, run: Run) -> Run:
    """Return the run of a trial's study; a study's is its own. Raises StudyError if it was deleted."""
    if is_study(run):
        return run
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    if parent.info.lifecycle_stage != "active" or not is_study(parent):
        raise StudyError(f"run {run.info.run_id}", "the run of its study was deleted")
    return parent


def metric_of(parent: Run) -> str:
    """Return what the trials of a study are judged by; smaller is better."""
    return str(json.loads(parent.data.params["metric"]))


def number_of(trial: Run) -> int:
    """Return a trial's number in its study, with which its run's name ends."""
    return int(trial.info.run_name.rpartition(" ")[2])


def rank(trial: Run, metric: str) -> tuple[bool, float, int]:
    """Return by what trials are sorted, best first: whether it cannot win, its score, and its number."""
    tags, metrics = trial.data.tags, trial.data.metrics
    score = metrics[f"best_{metric}"] if f"best_{metric}" in metrics else math.inf
    winning = "status" in tags and tags["status"] in WINNING and math.isfinite(score)
    return not winning, score, number_of(trial)


def trials_of(client: MlflowClient, parent: Run) -> Iterator[Run]:
    """Yield the trials of a study, those that cannot win too, by their score; those that were not measured last."""
    where = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' AND tags.trial_id IS NOT NULL"
    yield from _search(client, where, f"metrics.`best_{metric_of(parent)}` ASC", [parent.info.experiment_id])


def winner_of(client: MlflowClient, parent: Run) -> Run:
    """Return the best trial of a study, or of a comparison's best imputer; a trial's run is its own.

    Raises StudyError if no trial can win, or none has a run.
    """
    if not is_study(parent):
        return parent
    if is_comparison(parent):
        return winner_of(client, _best_study(client, parent))
    metric, first = metric_of(parent), None
    for trial in trials_of(client, parent):
        own = rank(trial, metric)
        if first is not None and own[1] > rank(first, metric)[1]:
            break
        if not own[0] and (first is None or own < rank(first, metric)):
            first = trial
    if first is None:
        raise StudyError(f"study {parent.info.run_name}", f"no trial of it can win: none has ended with a {metric}")
    return first


def studies(client: MlflowClient, experiment: str | None = None, last: int | None = None) -> Iterator[Run]:
    """Yield the runs of studies and comparisons, newest first. experiment: of this name alone.

    Raises StudyError for an experiment that is not there.
    """
    where = None
    if experiment is not None:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = [one.name for one in _experiments(client)]
            rule = f"there is no such experiment{nearest(experiment, names)}; there are {', '.join(names)}"
            raise StudyError("--experiment", rule, experiment)
        where = [found.experiment_id]
    yield from _search(client, "tags.study IS NOT NULL", within=where, most=last)


def find_study(client: MlflowClient, given: str, place: str = "STUDY") -> Run:
    """Return a study's run by its name, its folder, or its id. Raises StudyError as ``find_run``, and for a trial's."""
    located = next(_search(client, f"tags.study = {_quoted(str(Path(given).absolute()))}", most=1), None)
    if located is not None:
        return located
    try:
        run = find_run(client, given)
    except StudyError as error:
        raise StudyError(place, error.rule, given) if error.place == "RUN_ID" else error from None
    if not is_study(run):
        raise StudyError(place, f"is a trial, of the study {parent_of(client, run).info.run_name}", given)
    return run


def text_of(client: MlflowClient, run: Run, name: str) -> str:
    """Return a text artifact of a run. Raises StudyError if it is not there."""
    place = f"run {run.info.run_id[:SHORT]} ({run.info.run_name})"
    if name not in artifacts_of(client, run):
        rule = f"has no {name}: it is still running, older than this version, or its files were removed"
        raise StudyError(place, rule)
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.info.run_id, name, folder)).read_text(encoding="utf-8")


def configuration_of(client: MlflowClient, trial: Run) -> dict[str, Any]:
    """Return what repeats a trial. Raises StudyError if it is not there, or is not what was logged."""
    text = text_of(client, trial, CONFIGURATION)
    try:
        node = json.loads(text)
    except ValueError:
        node = None
    if not isinstance(node, dict):
        raise StudyError(f"run {trial.info.run_id[:SHORT]}", f"its {CONFIGURATION} is no JSON object")
    return node


def artifacts_of(client: MlflowClient, run: Run, below: str | None = None) -> list[str]:
    """Return the paths of a run's artifacts, those in folders too."""
    found: list[str] = []
    for one in client.list_artifacts(run.info.run_id, below):
        found += artifacts_of(client, run, one.path) if one.is_dir else [one.path]
    return found


def history(client: MlflowClient, run: Run) -> dict[str, dict[int, float]]:
    """Return the figures of a trial's epochs, by name and epoch; of one that was logged twice the last."""
    found: dict[str, dict[int, float]] = {}
    for name in run.data.metrics:
        steps = sorted(client.get_metric_history(run.info.run_id, name), key=lambda one: one.timestamp)
        if steps[-1].step:  # what is of the whole trial has none
            found[name] = {one.step: one.value for one in steps}
    return found


def _best_study(client: MlflowClient, comparison: Run) -> Run:
    name, best = comparison.info.run_name, comparison.data.tags["best"]
    where = f"tags.comparison = {_quoted(name)} AND attributes.run_name = {_quoted(best)}"
    until = comparison.info.end_time
    for study in _search(client, where, within=[comparison.info.experiment_id]):
        if until is None or study.info.start_time <= until:  # a later one is of a comparison that overwrote this
            return study
    raise StudyError(f"comparison {name}", f"the run of its best imputer is not there, not {best!r}")


def _ours(run: Run) -> bool:
    return is_study(run) or ("trial_id" in run.data.tags and "mlflow.parentRunId" in run.data.tags)


def _known(client: MlflowClient, given: str) -> str:
    """Return what to say of the names that are there."""
    names = list(dict.fromkeys(run.info.run_name for run in studies(client, last=1000)))
    if not names:
        return "; nothing that is here was written by a study"
    study = given.rpartition(" ")[0]  # of a trial, maybe
    return nearest(given, names) or nearest(study, names) or f"; the last studies are {', '.join(names[:5])}"


def _experiments(client: MlflowClient) -> list[Any]:
    return list(_pages(lambda token: client.search_experiments(page_token=token)))


def _search(
    client: MlflowClient,
    where: str,
    order: str = "attributes.start_time DESC",
    within: list[str] | None = None,
    most: int | None = None,
) -> Iterator[Run]:
    """Yield runs; ``most`` of them, or all. within: ids of experiments, all by default."""
    experiments = [one.experiment_id for one in _experiments(client)] if within is None else within
    size = PAGE if most is None else min(most, PAGE)
    found = _pages(
        lambda token: client.search_runs(experiments, where, order_by=[order], max_results=size, page_token=token)
    )
    for count, run in enumerate(found, 1):
        yield run
        if count == most:
            return


def _pages(ask: Any) -> Iterator[Any]:
    token = None
    while token != "":
        page = ask(token)
        yield from page
        token = page.token or ""


def _quoted(text: str) -> str:
    """Return a text as MLflow's filters take it, which have no way to write both kinds of quotes in one."""
    return f'"{text.replace(chr(34), "")}"' if "'" in text else f"'{text}'"


def _check_database(path: Path, uri: str) -> None:
    """Raise StudyError unless there is a database: MLflow would make an empty one."""
    if not path.is_file() or not path.stat().st_size:
        rule = "there is no such database: run a study first, or name another (MLFLOW_TRACKING_URI)"
        raise StudyError(OPTION, rule, uri)
