"""Every imputer by its name: its configuration trains, on any table."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation import complete, impute_rows
from dgm_ray.imputers import BaseImputer
from dgm_ray.models import ALIASES, MODELS, Imputes
from dgm_ray.registry import FACTORIES, TASKS, call
from dgm_ray.tasks.configuration import load_tasks
from dgm_ray.tasks.imputers import fitting, imputer_configuration, imputer_names, largest_batch

load_tasks()
DATA = {"factory": "CellHoldout", "arguments": {"source": {"factory": "BreastCancer"}}}


@pytest.fixture(scope="module")
def incomplete(prepared7: Prepared) -> Prepared:
    """Rows of md7 whose training cells are hidden as well."""
    features = prepared7.train.features.copy()
    for columns in prepared7.metadata.slices:
        features[np.random.default_rng(columns.start).random(len(features)) < 0.2, columns] = np.nan
    return replace(prepared7, train=replace(prepared7.train, features=features))


@pytest.mark.parametrize("name", imputer_names())
def test_it_trains_and_completes(name: str, incomplete: Prepared) -> None:
    configuration = imputer_configuration(name)
    arguments = configuration["arguments"] | {"data": DATA, "seed": 0, "epochs": 1}
    if "batch_size" in arguments:
        arguments |= {"evaluate_every": 1, "batch_size": 32}
    training = call(TASKS.get(configuration["task"], "task"), arguments).start(incomplete)
    assert np.isfinite(training.advance()["val_imputation_rmse"])
    metadata, rows = incomplete.metadata, incomplete.validation.features
    completed = complete(metadata, impute_rows(training.architecture, metadata, rows, torch.device("cpu")), rows)
    assert np.isfinite(completed).all()
    assert np.array_equal(completed[~np.isnan(rows)], rows[~np.isnan(rows)])
    for variable, columns in zip(metadata.variables, metadata.slices, strict=True):
        if variable.kind == "categorical":
            assert (completed[:, columns].sum(axis=1) == 1).all()


def test_none_is_forgotten() -> None:
    tasks = {imputer_configuration(name)["task"] for name in imputer_names()}
    can = {f"Train{model.__name__}" for model in MODELS if issubclass(model, Imputes)} | set(ALIASES)
    assert tasks == {"TrainImputer", *can}
    nodes = [imputer_configuration(name)["arguments"] for name in imputer_names()]
    used = {node["imputer"]["factory"] for node in nodes if "imputer" in node}
    known = {name for name, entry in FACTORIES.items() if isinstance(entry, type) and issubclass(entry, BaseImputer)}
    assert known - used <= {"MissingpyMissForest"}, "another engine of MissForest, to compare with"


def test_a_name_that_is_none_says_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'miss_forest'"):
        imputer_configuration("mis_forest")


def test_what_is_returned_is_the_callers_own() -> None:
    imputer_configuration("dae")["arguments"]["epochs"] = 1
    assert imputer_configuration("dae")["arguments"]["epochs"] > 1


@pytest.mark.parametrize("rows", [10, 37, 569])
@pytest.mark.parametrize("name", ["gan", "medgan", "arae"])
def test_every_phase_has_a_step_on_small_tables(name: str, rows: int) -> None:
    arguments = imputer_configuration(name)["arguments"]
    steps = [arguments[key] for key in arguments if key.endswith("_steps")]
    assert -(-rows // fitting(arguments, rows)["batch_size"]) >= sum(steps) >= 3
    assert fitting(arguments, 10**6)["batch_size"] == arguments["batch_size"]
    assert fitting({"epochs": 1}, rows) == {"epochs": 1}


def test_of_drawn_steps_the_most_count() -> None:
    drawn = {"batch_size": 64, "discriminator_steps": {"randint": [1, 4]}, "generator_steps": 1}
    assert largest_batch(drawn, 100) == 20
    assert largest_batch({"discriminator_steps": {"choice": [1, 2]}, "generator_steps": 1}, 100) == 33
    assert largest_batch({"discriminator_steps": "x", "generator_steps": {}}, 100) == 100, "its signature refuses it"
