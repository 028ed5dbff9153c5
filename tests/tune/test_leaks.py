"""The values of test cells never reach a trial: not with what is sent to its process, not before a model that looks."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from dgm_ray.data import MNAR, CellHoldout, Holdout, InMemory, Metadata, Prepared, Table, Variable
from dgm_ray.evaluation.final_report import final_report
from dgm_ray.imputers import BaseImputer, Change
from dgm_ray.registry import FACTORIES, TASKS, call, register
from dgm_ray.training import write_json
from dgm_ray.tune import compare, parallel
from dgm_ray.tune.comparison import Comparison
from dgm_ray.tune.data import Shared
from dgm_ray.tune.outcomes import Outcome
from dgm_ray.tune.place import Place
from dgm_ray.tune.run import Found
from dgm_ray.tune.study import Study

SEEN: list[np.ndarray[Any, Any]] = []


@pytest.fixture(scope="module")
def table() -> Table:
    """No two cells hold the same value, neither in the user's units nor scaled."""
    values = np.random.default_rng(0).permutation(200 * 5).reshape(200, 5).astype(np.float32) / 7 + 1
    values[np.random.default_rng(1).random(values.shape) < 0.05] = np.nan
    return Table(Metadata(tuple(Variable(name, "numerical") for name in "abcde")), values, scaled=False)


@pytest.fixture
def spy() -> Iterator[str]:
    """The name of an imputer that keeps all it is shown."""

    class Spy(BaseImputer):
        def iterations(self, features: Any, missing_mask: Any) -> Iterator[Change]:
            SEEN.append(features.copy())
            yield Change(0.0, np.nan)

        def transform(self, features: Any, missing_mask: Any) -> Any:
            SEEN.append(features.copy())
            return np.where(missing_mask, np.float32(0.5), features)

        def to_arrays(self) -> dict[str, Any]:
            return {}

        def load_arrays(self, arrays: Any, place: str) -> None:
            raise NotImplementedError

    SEEN.clear()
    register(Spy)
    yield "Spy"
    FACTORIES._entries.pop("Spy")


def arrays_of(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Yield every array of numbers that can be reached."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield value
    elif isinstance(value, torch.Tensor):
        yield value.numpy()
    elif is_dataclass(value):
        for field in fields(value):
            yield from arrays_of(getattr(value, field.name))
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from arrays_of(one)


def secrets_of(data: Prepared, table: Table) -> np.ndarray[Any, Any]:
    """Return the true values of the test cells, in both units."""
    assert data.test is not None
    hidden = data.test.hidden_mask
    values = np.concatenate([data.test.truth[hidden], table.features[data.test.row_ids][hidden]])
    assert len(values) > 50
    return values


HOLDOUTS = {
    "cells": lambda table: CellHoldout(InMemory(table)),
    "cells not at random": lambda table: CellHoldout(InMemory(table), missing=MNAR()),
    "rows": lambda table: Holdout(InMemory(table), train_missing_probability=0.2),
}


@pytest.mark.parametrize("name", HOLDOUTS)
def test_what_is_sent_to_a_trial_holds_no_test_cell(name: str, table: Table) -> None:
    data = HOLDOUTS[name](table).prepare()
    sent = pickle.loads(pickle.dumps(replace(data, test=None)))
    secrets, found = secrets_of(data, table), list(arrays_of(sent))
    assert len(found) > 4
    extremes = [] if data.scaler is None else [data.scaler.minimum, data.scaler.maximum]
    assert extremes, "the scaler is looked at as well"
    for array in found:
        shared = np.intersect1d(array[~np.isnan(array)].astype(np.float32), secrets)
        assert set(shared) <= {0.0, 1.0}, "only a scaled extreme may look the same"
    assert any(np.isin(array, secrets).any() for array in arrays_of(data)), "the search finds what is there"


@pytest.mark.parametrize("name", HOLDOUTS)
def test_a_spy_sees_no_test_cell(name: str, table: Table, spy: str) -> None:
    data = HOLDOUTS[name](table).prepare()
    node = {"factory": "CellHoldout", "arguments": {"source": {"factory": "BreastCancer"}}}  # not read
    task = call(TASKS.get("TrainImputer", "task"), {"data": node, "imputer": {"factory": spy}, "epochs": 3})
    training = task.start(replace(data, test=None))
    while not training.done:
        training.advance()
    assert len(SEEN) > 1
    trained = len(SEEN)
    assert final_report(training, data, torch.device("cpu")).test["rmse"] > 0
    assert len(SEEN) > trained, "it completes the test rows, too"
    secrets = secrets_of(data, table)
    for seen in SEEN:
        assert set(np.intersect1d(seen[~np.isnan(seen)], secrets)) <= {0.0, 1.0}


def test_a_comparison_sends_no_test_cell(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to the trials of a search nor to the repeats, whose validation cells differ; all goes through these."""
    pd.DataFrame(table.features, columns=list("abcde")).to_csv(tmp_path / "table.csv", index=False)
    source = {"factory": "Csv", "arguments": {"path": str(tmp_path / "table.csv")}}
    node = {"data": {"source": source}, "repeats": 2, "imputers": {"gaussian_em": {}}}
    (tmp_path / "few.json").write_text(json.dumps(node))
    comparison = Comparison.read(tmp_path / "few.json")
    data = comparison.prepare()
    sent: list[Any] = []

    def search(study: Study, shared: Shared, place: Place, *others: Any, **named: Any) -> Found:
        sent.extend([shared.for_trials(), shared.data])
        write_json(place.best, study.plan.configuration({}))
        return Found([Outcome("0", 0, {}, "completed", "", 0.1)], {}, {}, 0)

    def run(pool: Any, work: Any, items: Any) -> Iterator[parallel.Outcome]:
        for label, item in items:
            sent.append(item)
            yield parallel.Outcome(label, "", 0, None, 0.0, work(item))

    monkeypatch.setattr(compare, "search", search)
    monkeypatch.setattr(compare, "log_found", lambda *given: None)
    monkeypatch.setattr(compare, "Tracker", lambda *given: MagicMock(problem=""))
    monkeypatch.setattr(parallel.Pool, "run", run)
    monkeypatch.setattr("ray.put", lambda value: value)
    monkeypatch.setattr("ray.get", lambda value: value)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    place = Place(tmp_path / "few", "sqlite://")
    quiet = Console(quiet=True)
    assert compare.Compare(comparison, data, comparison.studies(data), place, quiet).run(0.0) == 0

    assert len(sent) == 2 * 2 + 2 * 2
    prepared = [data, *map(comparison.prepare, comparison.seeds)]
    secrets = np.concatenate([secrets_of(one, table) for one in prepared])
    found = [array for one in pickle.loads(pickle.dumps(sent)) for array in arrays_of(one)]
    assert len(found) > 20
    for array in found:
        assert set(np.intersect1d(array[~np.isnan(array)].astype(np.float32), secrets)) <= {0.0, 1.0}
    assert all(any(np.isin(array, secrets).any() for array in arrays_of(one)) for one in prepared), "it would be found"
    board = pd.read_parquet(tmp_path / "few" / "leaderboard.parquet")
    assert list(board["repeats"]) == [2, 2]
