"""Sample, Encode and Impute: what is done with trained models."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dgm_ray.data import Metadata, discretize
from dgm_ray.errors import DGMError, UnfinishedError
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.configuration import load_tasks

Original = Callable[..., dict[str, Any]]
Trained = Callable[..., dict[str, Any]]
load_tasks()


def run(name: str, **arguments: Any) -> dict[str, Any]:
    made = call(TASKS.get(name, ""), json.loads(json.dumps(arguments)), path="arguments")
    found: dict[str, Any] = made.run(Console(quiet=True))
    return found


@pytest.fixture
def trained(original: Original, tmp_path: Path) -> Trained:
    """Train a model and return what the tasks that use it need: ``trained("TrainGAN", conditional=True)``."""

    def make(name: str, conditional: bool = False, epochs: int = 1) -> dict[str, Any]:
        arguments = original(name, epochs=epochs, masked=name == "TrainMIDA")
        node = json.loads(Path(arguments["architecture"]).read_text())
        if conditional:
            node["arguments"]["conditional"] = {}
            Path(arguments["architecture"]).write_text(json.dumps(node))
            arguments["data"] |= {f"{part}_labels": str(tmp_path / f"{part}_labels.npy") for part in ("train", "val")}
        run(name, **arguments)
        common = {name: arguments[name] for name in ("metadata", "architecture")}
        return common | {"checkpoint": arguments["checkpoints"]["output"], "output": str(tmp_path / "out" / "it.npy")}

    return make


# Sample


SAMPLED = ["GAN", "ARAE", "MedGAN", "VAE"]


@pytest.mark.parametrize("model", SAMPLED)
@pytest.mark.parametrize("conditional", [False, True])
def test_samples_are_valid_rows_and_repeatable(
    model: str, conditional: bool, trained: Trained, md7: Metadata, tmp_path: Path
) -> None:
    given = trained(f"Train{model}", conditional) | {"batch_size": 16, "sample_size": 50}
    if conditional:
        given["strategy"] = {"factory": "conditional", "arguments": {"condition": 1}}
    samples = []
    for seed in (1, 1, 2):
        assert run(f"Sample{model}", **given, seed=seed) == {"rows": 50}
        samples.append(np.load(given["output"]))
    assert samples[0].dtype == np.float32
    assert samples[0].shape == (50, 13)
    np.testing.assert_array_equal(samples[0], discretize(md7, samples[0]))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_the_scaler_gives_the_users_units(trained: Trained, tmp_path: Path) -> None:
    scaler = {"min": [-5.0] + [0.0] * 12, "max": [5.0] + [1.0] * 12}
    (tmp_path / "scaler.json").write_text(json.dumps(scaler))
    given = trained("TrainGAN") | {"batch_size": 16, "sample_size": 20}
    run("SampleGAN", **given)
    plain = np.load(given["output"])
    run("SampleGAN", **given, scale_transform=str(tmp_path / "scaler.json"))
    np.testing.assert_allclose(np.load(given["output"])[:, 0], plain[:, 0] * 10 - 5, rtol=1e-5)
    np.testing.assert_array_equal(np.load(given["output"])[:, 1:], plain[:, 1:])


def test_defect_24_soft_values_can_be_saved(trained: Trained, md7: Metadata) -> None:
    given = trained("TrainGAN") | {"batch_size": 16, "sample_size": 20}
    run("SampleGAN", **given, discretize=False)
    rows = np.load(given["output"])
    assert not np.array_equal(rows, discretize(md7, rows))


def test_no_rows(trained: Trained) -> None:
    given = trained("TrainGAN")
    run("SampleGAN", **given, batch_size=4, sample_size=0)
    assert np.load(given["output"]).shape == (0, 13)


def rejection(keep: dict[str, int], **more: Any) -> dict[str, Any]:
    return {"factory": "rejection", "arguments": {"keep_values": keep, "max_iterations": 30, **more}}


@pytest.mark.parametrize("keep", [{"b1": 1, "c1": 0}, {"c1": 0, "b1": 1}])
def test_defect_08_rejection_in_any_order(keep: dict[str, int], trained: Trained, md7: Metadata) -> None:
    given = trained("TrainGAN") | {"batch_size": 64, "sample_size": 40}
    run("SampleGAN", **given, strategy=rejection(keep, drop_columns=False))
    whole = np.load(given["output"])
    assert whole.shape == (40, 13)
    assert (whole[:, 1] == 1).all()
    assert (whole[:, 3] == 1).all()
    run("SampleGAN", **given, strategy=rejection(keep))
    np.testing.assert_array_equal(np.load(given["output"]), np.delete(whole, [1, 3, 4, 5], axis=1))


def test_defect_41_the_kept_columns_stay_if_they_are_wanted(trained: Trained) -> None:
    """Contract 9.6: by default they are left out, as in the original."""
    given = trained("TrainGAN") | {"batch_size": 64, "sample_size": 40}
    run("SampleGAN", **given, strategy=rejection({"b1": 1, "c1": 0}, drop_columns=False))
    whole = np.load(given["output"])
    assert whole.shape == (40, 13)
    run("SampleGAN", **given, strategy=rejection({"b1": 1, "c1": 0}))
    assert np.load(given["output"]).shape == (40, 13 - 1 - 3)


def test_defect_34_missing_folders_are_made(trained: Trained, tmp_path: Path) -> None:
    given = trained("TrainGAN") | {"output": str(tmp_path / "a" / "b" / "rows.npy")}
    for _ in range(2):  # and it is no error that they are there
        run("SampleGAN", **given, batch_size=4, sample_size=4)
    assert np.load(given["output"]).shape == (4, 13)


def test_what_rejection_never_finds(trained: Trained) -> None:
    given = trained("TrainGAN") | {"batch_size": 1, "sample_size": 10**6}
    many = {"b1": 1, "b2": 1, "b3": 1, "c1": 2, "c2": 4}
    with pytest.raises(UnfinishedError, match=r"gave up with \d+ of 1000000 rows, which are saved"):
        run("SampleGAN", **given, strategy=rejection(many, drop_columns=False))
    assert np.load(given["output"]).shape[1] == 13


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (rejection({"bb1": 1}), r"keep_values\.bb1: is no variable of the table; did you mean 'b1'"),
        (rejection({"n1": 1}), r"keep_values\.n1: is numerical"),
        (rejection({"c1": 3}), r"keep_values\.c1: should be 0 to 2, not 3"),
        (rejection({"b1": 2}), r"keep_values\.b1: should be 0 to 1, not 2"),
        ({"factory": "rejection", "arguments": {"keep_values": {}}}, "Rejection needs the argument 'max_iterations'"),
        ({"factory": "rejected"}, r"strategy\.factory: no factory is called 'rejected'; did you mean 'rejection'"),
        ({"factory": "conditional", "arguments": {"condition": 1}}, "the model is not conditional"),
        ({"factory": "Tanh"}, "strategy: should be a Strategy"),
        ({"arguments": {}}, "strategy"),
    ],
)  # fmt: skip
def test_mistakes_of_a_strategy(strategy: Any, message: str, trained: Trained) -> None:
    given = trained("TrainGAN")
    with pytest.raises(DGMError, match=message):
        run("SampleGAN", **given, batch_size=4, sample_size=4, strategy=strategy)
    assert not Path(given["output"]).exists()


@pytest.mark.parametrize("condition", [2, -1])
def test_a_condition_is_a_class(condition: int, trained: Trained) -> None:
    given = trained("TrainGAN", True) | {"batch_size": 4, "sample_size": 4}
    with pytest.raises(DGMError, match="condition: should be a class, 0 to 1"):
        run("SampleGAN", **given, strategy={"factory": "conditional", "arguments": {"condition": condition}})
    with pytest.raises(DGMError, match="strategy: the model is conditional"):
        run("SampleGAN", **given)


def test_defect_39_only_what_is_used_is_needed(trained: Trained) -> None:
    """And neither losses nor optimizers are needed (defect 39), as in a file that holds a generator alone."""
    given = trained("TrainGAN") | {"batch_size": 8, "sample_size": 8}
    state = torch.load(given["checkpoint"], weights_only=True)
    run("SampleGAN", **given)
    last = np.load(given["output"])
    zeros = {key: value * 0 for key, value in state["architecture"]["generator"].items()}
    torch.save({"architecture": {"generator": zeros}, "epoch": 1}, given["checkpoint"])
    run("SampleGAN", **given)
    zero = np.load(given["output"])
    assert (zero[:, 0] == 0).all()
    assert not np.array_equal(zero, last)
    best = {"best_architecture": state["architecture"]}
    torch.save({"architecture": {"generator": zeros}, "epoch": 1, **best}, given["checkpoint"])
    run("SampleGAN", **given)
    np.testing.assert_array_equal(np.load(given["output"]), last)


# Encode


@pytest.mark.parametrize("name", ["AutoEncoder", "DeNoisingAutoEncoder", "MIDA", "VAE", "MedGAN"])
def test_defect_05_codes_are_of_the_evaluation_mode(name: str, trained: Trained, tmp_path: Path) -> None:
    given = trained(f"Train{name}") | {"features": str(tmp_path / "val.npy")}
    codes = []
    for seed in (1, 2):
        alias = "Encode" if name == "MedGAN" else f"EncodeWith{name}"
        assert run(alias, **given, seed=seed) == {"rows": 20}
        codes.append(np.load(given["output"]))
    assert codes[0].shape == (20, 4)
    assert codes[0].dtype == np.float32
    np.testing.assert_array_equal(*codes)


def test_defect_37_rows_are_encoded_in_chunks(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dgm_ray.tasks import encode

    given = trained("TrainAutoEncoder") | {"features": str(tmp_path / "val.npy")}
    run("Encode", **given)
    whole = np.load(given["output"])
    monkeypatch.setattr(encode, "CHUNK", 3)
    run("Encode", **given)
    np.testing.assert_allclose(np.load(given["output"]), whole, rtol=1e-5, atol=1e-6)


def test_encoding_needs_whole_rows_and_fitting_labels(trained: Trained, tmp_path: Path, rows7: Any) -> None:
    given = trained("TrainAutoEncoder", True) | {"features": str(tmp_path / "val.npy")}
    with pytest.raises(DGMError, match="labels: the architecture is conditional"):
        run("Encode", **given)
    run("Encode", **given, labels=str(tmp_path / "val_labels.npy"))
    with pytest.raises(DGMError, match=r"labels: must have one item per row \(20\), not 100"):
        run("Encode", **given, labels=str(tmp_path / "train_labels.npy"))
    rows = rows7[:5].copy()
    rows[2, 0] = np.nan
    np.save(tmp_path / "holes.npy", rows)
    with pytest.raises(DGMError, match=r"holes\.npy: has missing cells"):
        run("Encode", **(given | {"features": str(tmp_path / "holes.npy")}))


# Impute


@pytest.mark.parametrize("model", ["GAIN", "MIDA", "VAE", "AutoEncoder", "DeNoisingAutoEncoder"])
def test_imputing_leaves_observed_cells_alone(model: str, trained: Trained, tmp_path: Path, md7: Metadata) -> None:
    given = trained(f"Train{model}") | {
        "features": str(tmp_path / "val.npy"),
        "missing_mask": str(tmp_path / "val_mask.npy"),
    }
    rows, mask = np.load(given["features"]), np.load(given["missing_mask"]) == 1
    results = []
    for seed, value in ((1, 0.0), (2, np.nan), (1, 1e30)):
        np.save(given["features"], np.where(mask, np.float32(value), rows))
        found = run(f"ImputeWith{model}", **given, imputation={"factory": "ZeroImputation"}, seed=seed)
        assert found == {"rows": 20, "imputed_cells": int(mask.sum())}
        results.append(np.load(given["output"]))
        np.testing.assert_array_equal(results[-1][~mask], rows[~mask])
        np.testing.assert_array_equal(results[-1], discretize(md7, results[-1]))
    np.testing.assert_array_equal(results[0], results[1]), "defect 5: nothing is drawn"
    np.testing.assert_array_equal(results[0], results[2]), "defect 16: nothing under the mask is looked at"


def test_defect_18_conditional_models_impute(trained: Trained, tmp_path: Path) -> None:
    given = trained("TrainVAE", True) | {
        "features": str(tmp_path / "val.npy"),
        "missing_mask": str(tmp_path / "val_mask.npy"),
        "imputation": {"factory": "ZeroImputation"},
    }
    results = []
    for label in (0.0, 1.0):
        np.save(tmp_path / "labels.npy", np.full(20, label))
        run("ImputeWithVAE", **given, labels=str(tmp_path / "labels.npy"))
        results.append(np.load(given["output"]))
    assert not np.array_equal(*results)


@pytest.mark.parametrize("missing_loss", [False, True])
@pytest.mark.parametrize("conditional", [False, True])
def test_iterative_imputation(
    missing_loss: bool, conditional: bool, trained: Trained, tmp_path: Path, md7: Metadata
) -> None:
    given = trained("TrainGAN", conditional) | {
        "features": str(tmp_path / "val.npy"),
        "missing_mask": str(tmp_path / "val_mask.npy"),
        "imputation": {"factory": "ZeroImputation"},
        "noise_learning_rate": 0.05,
        "max_iterations": 40,
        "reconstruction_loss": {"factory": "MSE", "arguments": {"reduction": "sum"}},
        "logs": str(tmp_path / "logs" / "it.csv"),
        "log_missing_loss": missing_loss,
        **({"labels": str(tmp_path / "val_labels.npy")} if conditional else {}),
    }
    run("GANIterativeImputation", **given)
    rows, mask = np.load(given["features"]), np.load(given["missing_mask"]) == 1
    completed = np.load(given["output"])
    np.testing.assert_array_equal(completed[~mask], rows[~mask])
    np.testing.assert_array_equal(completed, discretize(md7, completed))
    with Path(given["logs"]).open(newline="") as file:
        header, *logged = csv.reader(file)
    assert header == ["epoch", "metric_name", "metric_value", "time"]
    names = ["non_missing_loss", *(["missing_loss", "loss"] if missing_loss else [])]
    assert [row[:2] for row in logged] == [[str(i), name] for i in range(1, 41) for name in names]
    losses = [float(row[2]) for row in logged if row[1] == "non_missing_loss"]
    assert losses[-1] < losses[0]
    run("GANIterativeImputation", **(given | {"tolerance": 10.0}))
    with Path(given["logs"]).open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(names), "it stops before the first step"


def test_the_truth_of_missing_cells_must_be_there_to_log_its_loss(trained: Trained, tmp_path: Path, rows7: Any) -> None:
    rows = rows7[:20].copy()
    rows[0, 0] = np.nan
    np.save(tmp_path / "holes.npy", rows)
    given = trained("TrainGAN") | {
        "features": str(tmp_path / "holes.npy"),
        "missing_mask": str(tmp_path / "val_mask.npy"),
        "imputation": {"factory": "ZeroImputation"},
        "noise_learning_rate": 0.05,
        "max_iterations": 3,
        "reconstruction_loss": {"factory": "MSE"},
        "logs": str(tmp_path / "it.csv"),
        "log_missing_loss": True,
    }
    with pytest.raises(DGMError, match="has NaN cells"):
        run("GANIterativeImputation", **given)
    assert not Path(given["output"]).exists()


def test_a_checkpoint_that_does_not_fit(trained: Trained, tmp_path: Path) -> None:
    given = trained("TrainGAN") | {"batch_size": 4, "sample_size": 4}
    with pytest.raises(DGMError, match="there is no such checkpoint"):
        run("SampleGAN", **(given | {"checkpoint": "nowhere.pickle"}))
    (tmp_path / "text").write_text("x")
    with pytest.raises(DGMError, match="is not a checkpoint"):
        run("SampleGAN", **(given | {"checkpoint": str(tmp_path / "text")}))
    with pytest.raises(DGMError, match="'autoencoder' is needed"):
        run("SampleMedGAN", **given)
