"""What a study leaves: ``best.json``, which repeats the winner, and one row per trial."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dgm_ray.data import Origin, Prepared, Streamed, achieved
from dgm_ray.data.columns import Categories
from dgm_ray.data.user_files import own_source
from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.tasks.configuration import NOT_REPEATED
from dgm_ray.tasks.exported import export
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import atomic, read_checkpoint, write_json
from dgm_ray.tune.console import said_schedule
from dgm_ray.tune.outcomes import Outcome, best_first, pareto
from dgm_ray.tune.place import MODELS, Place
from dgm_ray.tune.study import Study, task_of
from dgm_ray.tune.trial import CHECKPOINT

WIDEST = 200  # variables of a winner's rows


def repeating(study: Study, one: Outcome, *, streamed: bool = False) -> dict[str, Any]:
    """Return the configuration that repeats a trial, with what it reached as ``expected``.

    It trains for as many epochs as the trial did, so it reaches the same figures, unless rows were streamed or values
    changed while the trial ran: then ``expected`` says so. Of several seeds it has the one that is best on the
    validation cells. One that cannot win reached nothing.
    """
    configuration = study.plan.configuration(one.values)
    if one.epochs:
        configuration["arguments"] |= {"epochs": one.epochs}
    if one.lanes:
        configuration["arguments"] |= {"lanes": one.lanes}
    if not one.ranked:
        return configuration | {"expected": {}}
    score, measures = one.score, one.measures
    if best := one.best_seed:
        score, measures = best["score"], best["measures"]
        configuration["arguments"] |= {"seed": best["seed"], "epochs": best["epochs"]}
        if "lanes" in best:
            configuration["arguments"] |= {"lanes": best["lanes"]}
    expected: dict[str, Any] = {"best_epoch": one.best_epoch, **measures}
    found = f"{study.plan.metric} {score:.6g} in epoch {one.best_epoch}"
    if streamed:
        rule = "was found with streamed rows; this configuration has them in memory, where their order is another"
        expected = {NOT_REPEATED: f"{found} {rule}"}
    if one.schedule:
        rule = "was found while values changed; this configuration has those of that epoch, from the beginning"
        expected = {NOT_REPEATED: f"{found} {rule}: {said_schedule(one.schedule)}"}
    return configuration | {"expected": expected}


def write_best(study: Study, data: Prepared, place: Place, outcomes: list[Outcome]) -> FinalReport:
    """Write the winner's configuration; return what it is worth on the test cells, which nothing has seen before.

    Without a trial that can win nothing is written.
    """
    ranked = best_first(outcomes)
    if not ranked:
        return FinalReport()
    winner = ranked[0]
    configuration = repeating(study, winner, streamed=isinstance(data.train, Streamed))
    write_json(place.best, configuration)
    if not winner.checkpoint or data.test is None or not data.test.hidden_mask.any():
        return FinalReport()
    state = read_checkpoint(place.local(f"{winner.checkpoint}/{CHECKPOINT}"))
    task = replace(task_of(configuration), device="auto")  # a cluster's driver may have no GPU
    return _of_seeds(task, data, winner, state["seeds"]) if winner.seeds else task.score_test(data, state)


def _of_seeds(task: TrainingTask, data: Prepared, winner: Outcome, states: list[dict[str, Any]]) -> FinalReport:
    """Return the report of the seed that is best on the validation cells, with the test figures of all."""
    seeds = [one["seed"] for one in winner.seeds]
    report = task.score_test(data, states[seeds.index(winner.best_seed["seed"])])
    each = [replace(task, seed=seed).score_test_cells(data, state) for seed, state in zip(seeds, states, strict=True)]
    return replace(report, seeds=each)


def write_origin(study: Study, data: Prepared, place: Place) -> None:
    """Write what the table's columns are to a model, with a few rows as an example."""
    source = own_source(study.plan.template, "trial")
    label, left_out = (None, ()) if source is None else (source.label, tuple(source.drop or ()))
    write_json(place.origin, Origin.of(data, label, left_out).to_dict())


def write_models(study: Study, data: Prepared, place: Place, outcomes: list[Outcome]) -> None:
    """Write the models of the best trials, each a folder that ``dgm_ray.load`` reads."""
    shutil.rmtree(place.folder / MODELS, ignore_errors=True)  # of the study before it was resumed
    origin, streamed = Origin.read(place.origin), isinstance(data.train, Streamed)
    for one in best_first(outcomes)[: study.settings.keep]:
        if one.checkpoint:
            state = read_checkpoint(place.local(f"{one.checkpoint}/{CHECKPOINT}"))
            export(
                place.model(one.number), repeating(study, one, streamed=streamed), origin, state, f"trial {one.number}"
            )


def write_imputation(place: Place, report: FinalReport) -> None:
    """Write the errors of each variable's test cells, largest RMSE first, beside those of means and modes."""
    place.imputation.unlink(missing_ok=True)  # of the study before it was resumed
    if not report.variables:
        return
    table = pd.DataFrame([asdict(one) for one in report.variables])
    for name in ("rmse", "accuracy"):
        table[f"means_and_modes_{name}"] = [getattr(one, name) for one in report.baseline_variables]
    with atomic(place.imputation) as temporary:
        table.rename(columns={"name": "variable"}).to_csv(temporary, index=False)


def write_scores(place: Place, means: Mapping[str, float], report: FinalReport) -> None:
    """Write the figures of means and modes on the validation cells, and the winner's on those and the test cells."""
    parts = {"means_and_modes": means, "winner": report.metrics()}
    finite = {part: {name: one for name, one in of.items() if math.isfinite(one)} for part, of in parts.items()}
    write_json(place.scores, finite)


def write_winner(place: Place, data: Prepared, report: FinalReport) -> None:
    """Write some test rows in the user's units: of each variable the true cell, whether it was hidden, and what the
    winner made of it; beside them rows that it generated, which have nothing to do with those.

    Columns are ``true:NAME``, ``hidden:NAME``, ``completed:NAME`` and ``generated:NAME``; categories are text. Of a
    wide table it is the WIDEST variables with the largest errors.
    """
    place.winner.unlink(missing_ok=True)
    rows = report.rows
    if rows is None or (rows.completed is None and rows.generated is None):
        return
    names = [one.name for one in data.metadata.variables]
    worst = {one.name: -one.rmse for one in report.variables}
    kept = sorted(names, key=lambda name: worst[name] if name in worst else 0.0)[:WIDEST]
    hidden = rows.hidden_mask[:, [own.start for own in data.metadata.slices]]
    parts = {"hidden": pd.DataFrame(hidden, columns=names)}
    for part, features in (("true", rows.truth), ("completed", rows.completed), ("generated", rows.generated)):
        if features is not None:
            parts[part] = in_user_units(data, features)
    columns = {f"{part}:{name}": table[name] for name in names if name in kept for part, table in parts.items()}
    with atomic(place.winner) as temporary:
        pd.DataFrame({"row": rows.row_ids, **columns}).to_parquet(temporary, index=False)


def in_user_units(data: Prepared, features: NDArray[Any]) -> pd.DataFrame:
    """Return scaled features (rows, num_features) as one column a variable, by its name; categories are text."""
    made = data.scaler.inverse_transform(features) if data.scaler else features
    if data.encoder is not None:
        decoded = data.encoder.decode(made)
        columns = {
            str(column.name): _texts(decoded[column.name]) if isinstance(column, Categories) else decoded[column.name]
            for column in data.encoder.columns
        }
        return pd.DataFrame(columns)
    columns = {}
    for variable, own in zip(data.metadata.variables, data.metadata.slices, strict=True):
        cells = made[:, own]
        if variable.kind == "numerical":
            columns[variable.name] = pd.Series(cells[:, 0].astype(np.float64))
            continue
        codes = cells[:, 0] > 0.5 if variable.kind == "binary" else cells.argmax(axis=1)
        names = np.array([*(variable.categories or ("0", "1")), None], dtype=object)
        columns[variable.name] = pd.Series(names[np.where(np.isnan(cells[:, 0]), len(names) - 1, codes)], dtype=object)
    return pd.DataFrame(columns)


def _texts(cells: pd.Series) -> pd.Series:
    return cells.astype(object).map(str, na_action="ignore").astype(object)


def write_results(study: Study, place: Place, outcomes: list[Outcome]) -> None:
    """Write one row per trial, best first, as Parquet and as CSV."""
    rank = {one.trial_id: position for position, one in enumerate(best_first(outcomes))}
    ordered = sorted(outcomes, key=lambda one: (rank[one.trial_id] if one.trial_id in rank else len(rank), one.number))
    table = pd.DataFrame([_row(study, one) for one in ordered])
    if study.plan.others:
        front = {one.trial_id for one in pareto(outcomes, (study.plan.metric, *study.plan.others))}
        table.insert(0, "pareto", [one.trial_id in front for one in ordered])
    with atomic(place.table) as temporary:
        table.to_parquet(temporary, index=False)
    with atomic(place.text) as temporary:
        table.drop(columns=["configuration"]).to_csv(temporary, index=False)


def write_missing(data: Prepared, place: Place) -> dict[str, float]:
    """Write which share of each variable's known cells is hidden; return the smallest, mean and largest of each part.

    All the shares of a wide table would be too many metrics, so they are in the file alone.
    """
    parts = {"val": data.validation} | ({"test": data.test} if data.test is not None else {})
    rates = {f"{name}_missing_rate": achieved(data.metadata, part) for name, part in parts.items()}
    table = pd.DataFrame(rates).rename_axis("variable")
    with atomic(place.missing) as temporary:
        table.to_csv(temporary)
    summary = table.agg(["min", "mean", "max"]).dropna(axis="columns")  # without a known cell there is no share
    return {f"{name}_{kind}": float(value) for name, column in summary.items() for kind, value in column.items()}


def _row(study: Study, one: Outcome) -> dict[str, Any]:
    return {
        "trial": one.number,
        "trial_id": one.trial_id,
        "status": one.status,
        "reason": one.reason,
        "epochs": one.epochs,
        "best_epoch": one.best_epoch,
        "seconds": one.seconds,
        **one.measures,
        **{f"draw:{label}": value for label, value in one.values.items()},
        **({"seeds": json.dumps(one.seeds)} if study.plan.seeds > 1 else {}),
        **({"schedule": json.dumps(one.schedule)} if study.settings.scheduler.mutated(study.plan) else {}),
        "configuration": json.dumps(study.plan.configuration(one.values), sort_keys=True),
    }
