"""``dgm-ray export``: a trial's model as a folder, from MLflow or from its study's own folder."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from dgm_ray.data import Origin
from dgm_ray.errors import StudyError
from dgm_ray.tasks.exported import Model, check_free, copy_model, export
from dgm_ray.tasks.model_folder import SCRIPT, TABLE
from dgm_ray.training import read_checkpoint
from dgm_ray.tune.place import MODELS
from dgm_ray.tune.tracking.reading import (
    RESULTS,
    SHORT,
    answered,
    artifacts_of,
    client_of,
    configuration_of,
    find_run,
    parent_of,
    text_of,
    trials_of,
    winner_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHECKPOINT = "checkpoint/checkpoint.pt"  # an artifact of the best trials' runs
_TRIED = 20  # trials, best first, among which those with a checkpoint are looked for


def export_model(given: str, folder: Path, uri: str, console: Console) -> None:
    """Write the folder of a model.

    given: a study's folder, or its name below ./results; or a run of the MLflow at ``uri``, by its name or the
    beginning of its id. Of a study it is the best trial's.

    Raises ConfigurationError for a folder that is taken, StudyError for what is not there or has no checkpoint.
    """
    check_free(folder)
    place = next((one for one in (Path(given), RESULTS / given) if (one / "study.json").is_file()), None)
    model = _of_folder(place, folder) if place else _of_run(given, folder, uri)
    can = [what for what, able in (("completes rows", model.can_impute), ("draws rows", model.can_sample)) if able]
    found = ", ".join(f"{name} {value:.4g}" for name, value in model.scores.items())
    lines = [f"{model.configuration['task']}, epoch {model.epoch}{': ' if found else ''}{found}"]
    lines += [
        f"wrote {folder}: it {' and '.join(can)}",
        f"use it: python {folder / SCRIPT} {'IN.csv' if model.can_impute else 100} OUT.csv",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _of_folder(study: Path, folder: Path) -> Model:
    """Return the model of a study's best trial, which its folder has, after writing it."""
    import pandas as pd

    results = study / "results.parquet"
    if not results.is_file():
        inner = sorted(path.parent.name for path in study.glob("*/study.json"))
        rule = f"is a comparison: name one of {', '.join(inner)} in it" if inner else "has not ended: it has no results"
        raise StudyError(str(study), rule)
    best = pd.read_parquet(results, columns=["trial"])["trial"]
    kept = study / MODELS / f"trial_{best.iloc[0]:04d}"
    if not kept.is_dir():
        raise StudyError(str(study), "has no model of its best trial: none can win, or its version had none to keep")
    return copy_model(kept, folder)


def _of_run(given: str, folder: Path, uri: str) -> Model:
    client = client_of(uri)
    with answered(uri), TemporaryDirectory() as temporary:
        run = winner_of(client, find_run(client, given))
        if CHECKPOINT not in artifacts_of(client, run, "checkpoint"):
            raise StudyError(_name(run), f"has no checkpoint: tune.keep says how many have; {_others(client, run)}")
        origin = Origin.from_dict(json.loads(text_of(client, parent_of(client, run), TABLE)), TABLE)
        state = read_checkpoint(Path(client.download_artifacts(run.info.run_id, CHECKPOINT, temporary)))
        return export(folder, configuration_of(client, run), origin, state, _name(run))


def _others(client: MlflowClient, run: Run) -> str:
    """Say which trials of the study have a checkpoint."""
    trials = islice(trials_of(client, parent_of(client, run)), _TRIED)
    having = [_name(one) for one in trials if CHECKPOINT in artifacts_of(client, one, "checkpoint")]
    return f"of its study {', '.join(having)} {'has' if len(having) == 1 else 'have'}" if having else "no other has one"


def _name(run: Run) -> str:
    return f"run {run.info.run_id[:SHORT]} ({run.info.run_name})"
