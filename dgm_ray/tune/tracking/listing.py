"""What MLflow has of studies and trials, as tables for a terminal."""

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dgm_ray.errors import StudyError, nearest
from dgm_ray.tasks.configuration import duration
from dgm_ray.tasks.progress import some
from dgm_ray.tune.tracking.address import OPTION
from dgm_ray.tune.tracking.outbox import without_password
from dgm_ray.tune.tracking.reading import (
    CONFIGURATION,
    RESULTS,
    SHORT,
    answered,
    artifacts_of,
    client_of,
    configuration_of,
    default_uri,
    find_run,
    find_study,
    history,
    is_comparison,
    metric_of,
    number_of,
    parent_of,
    rank,
    studies,
    trials_of,
    winner_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a sparkline
BEST = "best.json"


def list_runs(experiment: str | None, study: str | None, last: int, uri: str, console: Console) -> None:
    """Print the last studies, newest first; or the best trials of one. Raises StudyError for what is not there."""
    client = client_of(uri)
    with answered(uri):
        if study is None:
            found = list(studies(client, experiment, last))
            if not found:
                raise StudyError(OPTION, "no study has been written here", uri)
            console.print(_studies(client, found))
            line = (
                f"{some(len(found), 'study').replace('studys', 'studies')}, newest first; --study NAME shows the trials"
            )
            console.print(line, highlight=False, soft_wrap=True)
            return
        parent = find_study(client, study, "--study")
        metric = metric_of(parent)
        trials = sorted(trials_of(client, parent), key=lambda one: rank(one, metric))
        if not trials:
            said = "its imputers are studies of their own" if is_comparison(parent) else "none was logged"
            raise StudyError("--study", f"has no trials: {said}", study)
        console.print(_trials(trials[:last], metric))
        line = (
            f"{parent.info.run_name}: {min(last, len(trials))} of {some(len(trials), 'trial')}, best first by {metric}"
        )
        _say(console, f"{line}; dgm-ray show RUN_ID{_there(uri)} has all of one")


def show_run(given: str, uri: str, console: Console) -> None:
    """Print all of a run. Raises StudyError as ``find_run``."""
    client = client_of(uri)
    with answered(uri):
        run = find_run(client, given)
        parent = parent_of(client, run)
        metric, tags = metric_of(parent), run.data.tags
        console.print(Text(f"{run.info.run_name}  {run.info.run_id}", style="bold"))
        what = f"of the study {parent.info.run_name} ({parent.info.run_id[:SHORT]}), " if run is not parent else ""
        reason = f": {tags['reason']}" if "reason" in tags else ""
        _say(console, f"{what}{_what(parent)}, {_status(run)}{reason}, {_when(run)}")
        line = _curve(history(client, run), metric) if run is not parent else _found(client, parent, metric)
        if line:
            _say(console, line)
        _print_mapping(console, "metrics", {name: f"{value:.6g}" for name, value in sorted(run.data.metrics.items())})
        _print_mapping(console, "parameters", run.data.params)
        shown = {name: value for name, value in tags.items() if not name.startswith("mlflow.") and name != "reason"}
        own = {name: value for name, value in shown.items() if not _is_environment(name)}
        _print_mapping(console, "tags", own)
        environment = {name: value for name, value in parent.data.tags.items() if _is_environment(name)}
        _print_mapping(console, "environment", environment)
        files = artifacts_of(client, run)
        _say(console, f"artifacts: {', '.join(sorted(files)) or 'none'}")
        models = [f"models:/{one.model_id}" for one in run.outputs.model_outputs]
        if models:
            _say(console, f"MLflow model: {', '.join(models)}")
        short, there = run.info.run_id[:SHORT], _there(uri)
        if run is parent or CONFIGURATION in files:
            _say(console, f"repeat it: dgm-ray reproduce {short}{there}")
        if run is parent or any(name.startswith("checkpoint/") for name in files):
            _say(console, f"use it: dgm-ray export {short} DIR{there}")
        if run is parent:
            trials = "" if is_comparison(run) else f"its trials: dgm-ray runs --study {short}{there}; "
            _say(console, f"{trials}the best: dgm-ray best {short}{there}")


def best_of(study: str, uri: str) -> dict[str, Any]:
    """Return the winner's configuration. study: its folder, its name below ./results, or its name or id in MLflow.

    Raises StudyError for one that is not there, or that has no winner.
    """
    for folder in (Path(study), RESULTS / study):
        if (folder / "study.json").is_file():
            return _best_in(folder)
    try:
        client = client_of(uri)
        with answered(uri):
            return configuration_of(client, winner_of(client, find_study(client, study)))
    except StudyError as error:
        names = [path.parent.name for path in RESULTS.glob("*/study.json")]
        hint = nearest(study, names)
        if error.place == OPTION:
            rule = f"there is no such folder, nor is it in {RESULTS}{hint}; and MLflow, {error}"
            raise StudyError("STUDY", rule) from None
        raise StudyError(error.place, f"{error.rule}{hint}", study) if hint else error from None


def print_configuration(node: Mapping[str, Any], console: Console) -> None:
    """Print a configuration for people, a line for each value."""
    _print_mapping(console, str(node["task"]), dict(_leaves(node["arguments"])))
    _print_mapping(
        console,
        "expected",
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in node["expected"].items()},
    )


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of at most ``WIDTH`` blocks, the smallest lowest; what is not finite is left blank."""
    if len(values) > WIDTH:
        edges = [len(values) * index // WIDTH for index in range(WIDTH + 1)]
        values = [_mean(values[low:high]) for low, high in pairwise(edges)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = (high - low) / (len(BLOCKS) - 1) or 1.0
    return "".join(BLOCKS[round((value - low) / step)] if math.isfinite(value) else " " for value in values)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _best_in(folder: Path) -> dict[str, Any]:
    path = folder / BEST
    if not path.is_file():
        over = (folder / "results.parquet").is_file()
        rule = (
            "no trial of it can win: why they ended is in results.csv"
            if over
            else "has no best.json yet: it has not ended"
        )
        raise StudyError(str(folder), rule)
    try:
        node: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(str(path), f"is no JSON ({error})") from None
    return node


def _studies(client: "MlflowClient", found: Sequence["Run"]) -> Table:
    table = _of("id", "study", "task", "data", "status", "metric", "best", "trials", "time", "when")
    for run in found:
        metrics, metric, compares = run.data.metrics, metric_of(run), is_comparison(run)
        name = f"{_tag(run, 'best')}_validation_mean" if compares else f"best_{metric}"
        score = metrics[name] if name in metrics else math.nan
        trials = "" if compares else _count(run)
        columns = (
            _what(run),
            _tag(run, "data"),
            _status(run),
            metric,
            _figure(score),
            trials,
            _seconds(run),
            _when(run),
        )
        table.add_row(run.info.run_id[:SHORT], run.info.run_name, *columns)
    return table


def _count(study: "Run") -> str:
    """Return how many trials have ended; of those that there will be, if there will be more."""
    there, metrics = int(study.data.params["trials"]), study.data.metrics
    ended = int(metrics["trials_ended"]) if "trials_ended" in metrics else 0
    return str(ended) if ended >= there else f"{ended} of {there}"  # a parameter does not change if it is extended


def _trials(trials: Sequence["Run"], metric: str) -> Table:
    table = _of("id", "trial", "status", metric, "epochs", "time", "when", "reason")
    for run in trials:
        metrics = run.data.metrics
        score = metrics[f"best_{metric}"] if f"best_{metric}" in metrics else math.nan
        epochs = f"{metrics['epochs']:.0f}" if "epochs" in metrics else ""
        seconds = f"{metrics['train_seconds']:.1f} s" if "train_seconds" in metrics else ""
        columns = (_status(run), _figure(score), epochs, seconds, _when(run), _tag(run, "reason"))
        table.add_row(run.info.run_id[:SHORT], run.info.run_name, *columns)
    return table


def _of(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        right = name in ("best", "trials", "epochs", "time") or name.startswith("val_")
        folds = name in ("study", "trial", "task", "data", "reason", "metric") or name.startswith("val_")
        table.add_column(name, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    return table


def _curve(known: Mapping[str, Mapping[int, float]], metric: str) -> str:
    """Return a trial's metric by epoch in one line."""
    if metric not in known:
        return ""
    by_epoch = dict(sorted(known[metric].items()))
    values = list(by_epoch.values())
    best = min(by_epoch, key=lambda epoch: (math.isnan(by_epoch[epoch]), by_epoch[epoch]))
    ends = f"{_figure(values[0])} to {_figure(values[-1])}, best {_figure(by_epoch[best])} in epoch {best}"
    return f"{metric} {sparkline(values)} {ends} of {max(max(steps) for steps in known.values())}"


def _found(client: "MlflowClient", parent: "Run", metric: str) -> str:
    """Return the metric of a study's trials, in their order, in one line."""
    name = f"best_{metric}"
    trials = sorted(trials_of(client, parent), key=number_of)
    scores = [one.data.metrics[name] if name in one.data.metrics else math.nan for one in trials]
    if not any(math.isfinite(score) for score in scores):
        return ""
    best = min(score for score in scores if math.isfinite(score))
    return f"{metric} of {some(len(scores), 'trial')} {sparkline(scores)} best {_figure(best)}"


def _is_environment(name: str) -> bool:
    return name.startswith(("version.", "git.")) or name in ("command", "cpu", "cpus", "gpu", "os", "resources")


def _there(uri: str) -> str:
    """Return what a command needs to find an MLflow that neither the folder nor the environment names."""
    known = os.environ["MLFLOW_TRACKING_URI"] if "MLFLOW_TRACKING_URI" in os.environ else default_uri()
    return "" if uri == known else f" {OPTION} {shlex.quote(without_password(uri))}"


def _print_mapping(console: Console, title: str, rows: Mapping[str, Any]) -> None:
    if not rows:
        return
    table = Table(box=None, show_header=False, padding=(0, 2), title=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(f"  {name}"), Text(str(value)))
    console.print(Text(title, style="bold"))
    console.print(table)


def _leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a node by their place; ``factory`` stands for what it makes."""
    if not isinstance(node, Mapping) or not node:
        yield place, json.dumps(node)
        return
    for key, value in node.items():
        inner = place if key in ("factory", "arguments") else f"{place}.{key}" if place else key
        yield from _leaves(value, inner)


def _tag(run: "Run", name: str) -> str:
    return str(run.data.tags[name]) if name in run.data.tags else ""


def _what(study: "Run") -> str:
    """Return what a study searched, or which imputer won a comparison."""
    return f"comparison, best: {_tag(study, 'best')}" if is_comparison(study) else _tag(study, "task")


def _status(run: "Run") -> str:
    ended = run.info.status in ("FINISHED", "FAILED", "KILLED")
    return _tag(run, "status") if ended and "status" in run.data.tags else str(run.info.status.lower())


def _when(run: "Run") -> str:
    return f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M}"


def _seconds(run: "Run") -> str:
    return duration((run.info.end_time - run.info.start_time) / 1000) if run.info.end_time else ""


def _figure(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
