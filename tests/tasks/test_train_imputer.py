"""An imputer trains, is measured, saved, resumed and repeated as any model is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dgm_ray.data import mcar_mask
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.evaluation import baseline, impute_rows
from dgm_ray.imputers import ImputerModel, MissForest
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.train_imputer import TrainImputer
from dgm_ray.training import read_checkpoint

FOREST = {"factory": "MissForest", "arguments": {"n_estimators": 5, "max_depth": 4}}
IMPUTERS = [FOREST, *({"factory": f"{name}Imputation"} for name in ("Zero", "NormalNoise", "MeanAndModes"))]


def read(imputer: Any = FOREST, **more: Any) -> TrainImputer:
    data = {"source": {"factory": "Wine"}, "train_missing_probability": 0.2}
    node = {"data": data, "imputer": imputer, "epochs": 3} | more
    made: TrainImputer = call(TASKS.get("TrainImputer", ""), json.loads(json.dumps(node)), path="arguments")
    return made


def every(training: Any) -> list[dict[str, float]]:
    found = []
    while not training.done:
        found.append(training.advance())
        found[-1].pop("seconds")
    return found


@pytest.mark.parametrize("imputer", IMPUTERS, ids=lambda node: node["factory"])
def test_the_same_seed_gives_the_same_figures(imputer: dict[str, Any]) -> None:
    training = read(imputer).start()
    found = every(training)
    assert found == every(read(imputer).start())
    assert training.best.metric == min(epoch["val_imputation_rmse"] for epoch in found)
    if imputer is not FOREST:
        assert (len(found), training.reason) == (1, "converged")
    if imputer["factory"] in ("MissForest", "NormalNoiseImputation"):
        assert found != every(read(imputer, seed=1).start())


def test_means_and_modes_are_the_baseline() -> None:
    data = read().prepare()
    (epoch,) = every(read(IMPUTERS[3]).start(data))
    for name, value in baseline(data.metadata, data.means_and_modes, data.validation).items():
        assert epoch[f"val_{name}"] == pytest.approx(value)


def test_the_figures_are_those_of_the_imputer_alone() -> None:
    """MissForest fitted and applied by hand to the same rows."""
    data = read().prepare()
    found = every(read().start(data))
    forest = MissForest(data.metadata, n_estimators=5, max_depth=4)
    rows, scored = data.train.features, data.validation
    for epoch, change in zip(found, forest.iterations(rows, np.isnan(rows)), strict=False):
        completed = forest.transform(scored.features, np.isnan(scored.features))
        errors = (completed - scored.truth)[scored.hidden_mask].astype(np.float64)
        assert epoch["val_imputation_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert epoch["numerical_change"] == pytest.approx(change.numerical)


def test_a_resumed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = read(epochs=3).start()
    expected = every(whole)
    saved = {"checkpoints": {"output": str(tmp_path / "it.pt"), "continue_from_output": True}}
    read(epochs=1, **saved).run(Console(quiet=True))
    training = read(epochs=3).start()
    training.load(read_checkpoint(tmp_path / "it.pt"), "it.pt")
    assert training.epoch == 1
    assert every(training) == expected[1:]
    assert training.best.epoch == whole.best.epoch
    for one, other in ((training.state(), whole.state()),):
        assert one["best_metric"] == other["best_metric"]


def test_what_is_loaded_completes_rows_without_fitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(checkpoints={"output": str(tmp_path / "it.pt")}).run(Console(quiet=True))

    def grown(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be fitted")

    monkeypatch.setattr("dgm_ray.imputers.miss_forest.grow", grown)
    training = read(epochs=3).start()
    training.load(read_checkpoint(tmp_path / "it.pt"), "it.pt")
    training.use_best()
    assert training.evaluate()["val_imputation_rmse"] == found["val_imputation_rmse"]


def test_a_checkpoint_of_another_table_is_refused(tmp_path: Path) -> None:
    read(checkpoints={"output": str(tmp_path / "it.pt")}, epochs=1).run(Console(quiet=True))
    other = read(data={"source": {"factory": "BreastCancer"}}).start()
    with pytest.raises(DataError, match="imputer: was trained on a table with other variables"):
        other.load(read_checkpoint(tmp_path / "it.pt"), "it.pt")


def test_observed_cells_are_returned_as_they_are() -> None:
    data = read().prepare()
    training = read().start(data)
    training.advance()
    rows = torch.rand(20, data.metadata.num_features)
    mask = torch.as_tensor(mcar_mask(data.metadata, np.arange(20), 0.3, 0)).float()
    model = training.architecture.model
    assert isinstance(model, ImputerModel)
    assert torch.equal(model.impute(rows, mask)[mask == 0], rows[mask == 0])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"imputer": {"factory": "MisForest"}}, r"imputer\.factory: .*did you mean 'MissForest'"),
        ({"imputer": {"factory": "MSE"}}, r"imputer: should be a BaseImputer or ImputationLayer, not 'MSE'"),
        (
            {"imputer": {"factory": "MissForest", "arguments": {"n_estimators": 0}}},
            r"imputer\.arguments\.n_estimators: .*1",
        ),
        (
            {"imputer": {"factory": "MissForest", "arguments": {"forests_": {}}}},
            r"imputer\.arguments\.forests_: .*no argument",
        ),
        ({"keep_checkpoint_by_metric": "val_los"}, r"an imputer reports val_imputation_rmse, val_imputation_mae"),
        ({"patience": 2, "keep_checkpoint_by_metric": None}, r"patience: needs keep_checkpoint_by_metric"),
    ],
)
def test_bad_arguments(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(**more).start()


def test_cells_may_be_held_out_instead_of_rows() -> None:
    node = {"factory": "CellHoldout", "arguments": {"source": {"factory": "Wine"}}}
    task = read(data=node)
    data = task.prepare()
    training = task.start(data)
    every(training)
    report = task.score_test(data, training.state())
    assert data.test is not None
    training.use_best()
    made = impute_rows(training.architecture, data.metadata, data.train.features, torch.device("cpu"))
    errors = (made - data.test.truth)[data.test.hidden_mask].astype(np.float64)
    assert report.test["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert report.validation["rmse"] == training.best.measures["val_imputation_rmse"]


def test_a_metric_that_nothing_can_be_measured_by() -> None:
    arguments = {"source": {"factory": "Wine"}, "validation_probability": 0.0}
    node = {"factory": "CellHoldout", "arguments": arguments}
    with pytest.raises(
        ConfigurationError, match=r"data\.validation_probability: hides no cell, so val_imputation_rmse"
    ):
        read(data=node).start()
    assert read(data=node, keep_checkpoint_by_metric=None).start().advance().keys() >= {"numerical_change"}
