"""Masks, statistics and imputations without a network."""

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dgm_ray.data import Metadata, discretize, mcar_mask
from dgm_ray.errors import DGMError
from dgm_ray.nn import MultiReconstructionLoss
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.configuration import load_tasks

CREDIT = Path(__file__).parents[3] / "shared" / "data" / "credit"
load_tasks()


def run(name: str, **arguments: Any) -> dict[str, Any]:
    made = call(TASKS.get(name, ""), json.loads(json.dumps(arguments)), path="arguments")
    found: dict[str, Any] = made.run(Console(quiet=True))
    return found


@pytest.fixture
def given(tmp_path: Path, md7: Metadata, rows7: Any) -> dict[str, Any]:
    """The arguments that all imputations have."""
    (tmp_path / "metadata.json").write_text(json.dumps(md7.to_dict()))
    np.save(tmp_path / "rows.npy", rows7)
    np.save(tmp_path / "mask.npy", mcar_mask(md7, np.arange(120), 0.3, 0).astype(np.float32))
    files = {"inputs": tmp_path / "rows.npy", "missing_mask": tmp_path / "mask.npy", "outputs": tmp_path / "new" / "it"}
    return {"metadata": str(tmp_path / "metadata.json")} | {name: str(path) for name, path in files.items()}


def output(given: dict[str, Any]) -> Any:
    return np.load(f"{given['outputs']}.npy")


IMPUTATIONS = ["ZeroImputation", "NormalNoiseImputation", "MeansAndModesImputation", "MissForestImputation"]


def extra(name: str, given: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return what an imputation needs beside the common arguments, made by the task that makes it."""
    files = {key: given[key] for key in ("metadata", "inputs", "missing_mask")}
    if name == "MeansAndModesImputation":
        run("ComputeMeansAndModes", **files, outputs=str(tmp_path / "means.npy"))
        return {"means_and_modes": str(tmp_path / "means.npy")}
    if name == "MissForestImputation":
        run("TrainMissForest", **files, outputs=str(tmp_path / "forest"), n_estimators=3, max_iterations=2)
        return {"model": str(tmp_path / "forest")}
    return {}


@pytest.mark.parametrize("name", IMPUTATIONS)
def test_observed_cells_stay_and_others_become_valid(
    name: str, given: dict[str, Any], tmp_path: Path, rows7: Any, md7: Metadata
) -> None:
    mask = np.load(given["missing_mask"]) == 1
    more = extra(name, given, tmp_path)
    found = run(name, **given, **more)
    assert found == {"rows": 120, "imputed_cells": int(mask.sum())}
    completed = output(given)
    assert completed.dtype == np.float32
    np.testing.assert_array_equal(completed[~mask], rows7[~mask])
    np.testing.assert_array_equal(completed, discretize(md7, completed))
    # NaN in a table is a missing cell, whatever the mask says; and any kind of mask will do
    np.save(given["inputs"], np.where(mask, np.float32(np.nan), rows7))
    np.save(given["missing_mask"], np.zeros((120, 13), np.bool_))
    run(name, **given, **more)
    np.testing.assert_array_equal(output(given), completed)


@pytest.mark.parametrize("name", IMPUTATIONS)
def test_defect_20_the_inputs_are_not_changed(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    more = extra(name, given, tmp_path)
    files = [Path(given[key]) for key in ("inputs", "missing_mask")]
    before = [path.read_bytes() for path in files]
    run(name, **given, **more, logs={"path": str(tmp_path / "log.csv")})
    assert [path.read_bytes() for path in files] == before


def test_defect_19_errors_are_of_missing_cells(
    given: dict[str, Any], tmp_path: Path, rows7: Any, md7: Metadata
) -> None:
    scaler = {"min": [0.0] * 13, "max": [10.0] + [1.0] * 12}
    (tmp_path / "scaler.json").write_text(json.dumps(scaler))
    log = tmp_path / "logs" / "it.csv"
    for scaled in (False, True):
        more = {"scaler": str(tmp_path / "scaler.json")} if scaled else {}
        found = run("ZeroImputation", **given, **more, logs={"path": str(log)})
    mask = np.load(given["missing_mask"]) == 1
    completed = discretize(md7, np.where(mask, 0, rows7))
    squares = (completed - rows7)[mask] ** 2
    assert found["scaled_mse"] == pytest.approx(squares.mean(), rel=1e-5)
    assert found["scaled_rmse"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-5)
    loss = MultiReconstructionLoss(md7)
    tensors = (torch.from_numpy(one.astype(np.float32)) for one in (completed, rows7, mask))
    assert found["scaled_mr"] == pytest.approx(float(loss(*tensors)), rel=1e-5)
    units = np.array(scaler["max"])
    assert found["mse"] == pytest.approx(np.mean((((completed - rows7) * units)[mask]) ** 2), rel=1e-5)
    np.testing.assert_allclose(output(given), completed * units, rtol=1e-5)  # with a scaler, in the user's units
    with log.open(newline="") as file:
        header, first, second = csv.reader(file)
    names = ["scaled_mse", "scaled_rmse", "scaled_mr", "mse", "rmse", "mr"]
    assert header == ["inputs", "missing_mask", *names]
    assert first[:2] == [given["inputs"], given["missing_mask"]]
    assert first[5:] == ["", "", ""]
    assert [float(value) for value in second[2:]] == [found[name] for name in names]
    assert log.read_bytes().count(b"\r\n") == 3


def test_the_truth_must_be_there_to_log_errors(given: dict[str, Any], tmp_path: Path, rows7: Any) -> None:
    rows = rows7.copy()
    rows[0, 0] = np.nan
    np.save(given["inputs"], rows)
    with pytest.raises(DGMError, match="has NaN cells, so there is no truth"):
        run("ZeroImputation", **given, logs={"path": str(tmp_path / "log.csv")})
    assert not (tmp_path / "new").exists()


def test_defect_25_a_zero_is_the_first_category_or_none(given: dict[str, Any]) -> None:
    missing = np.load(given["missing_mask"])[:, 3] == 1
    run("ZeroImputation", **given)
    assert (output(given)[missing, 3:6] == [1, 0, 0]).all()
    run("ZeroImputation", **given, discretize=False)
    assert (output(given)[missing, 3:6] == 0).all()


def test_defect_40_noise_has_a_seed(given: dict[str, Any]) -> None:
    drawn = []
    for seed in (1, 1, 2):
        run("NormalNoiseImputation", **given, noise_mean=3.0, noise_std=0.5, seed=seed)
        drawn.append(output(given))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    noise = drawn[0][np.load(given["missing_mask"])[:, 0] == 1, 0]
    assert noise.mean() == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("name", ["ZeroImputation", "MissForestImputation", "MeansAndModesImputation"])
def test_defect_45_pickles_are_refused(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    old = tmp_path / "old.pickle"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    old.write_bytes(pickle.dumps(Trap()))
    more = {"scaler": str(old)} if name == "ZeroImputation" else {}
    more |= {"model": str(old)} if name == "MissForestImputation" else {}
    more |= {"means_and_modes": str(old)} if name == "MeansAndModesImputation" else {}
    with pytest.raises(DGMError, match=r"old\.pickle"):
        run(name, **given, **more)
    assert not (tmp_path / "sprung").exists()
    if name == "ZeroImputation":
        with pytest.raises(DGMError, match=r"dgm-ray convert .*--trust"):
            run(name, **given, **more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logs": {"paths": "x"}}, r"logs\.paths: .*did you mean 'path'"),
        ({"inputs": "nowhere.npy"}, r"nowhere\.npy: cannot be read"),
        ({"noise": 1}, "has no argument 'noise'"),
        ({"discretize": 1}, r"discretize: .*valid boolean"),
    ],
)
def test_mistakes(change: dict[str, Any], message: str, given: dict[str, Any]) -> None:
    with pytest.raises(DGMError, match=message):
        run("ZeroImputation", **(given | change))


def test_vectors_and_tables_must_fit(given: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "means.npy", np.zeros(5))
    with pytest.raises(DGMError, match=r"means\.npy: must have the shape \(13,\), not \(5,\)"):
        run("MeansAndModesImputation", **given, means_and_modes=str(tmp_path / "means.npy"))
    np.save(given["inputs"], np.zeros((4, 5)))
    with pytest.raises(DGMError, match=r"rows\.npy: must have the shape \(rows, 13\)"):
        run("ZeroImputation", **given)
    (tmp_path / "scaler.json").write_text('{"min": [0], "max": [1]}')
    np.save(given["inputs"], np.zeros((120, 13)))
    with pytest.raises(DGMError, match=r"scaler\.json: must have 13 columns, not 1"):
        run("ZeroImputation", **given, scaler=str(tmp_path / "scaler.json"))


# Masks and statistics


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_masks(probability: float, given: dict[str, Any], md7: Metadata) -> None:
    files = {key: given[key] for key in ("metadata", "inputs", "outputs")}
    masks = []
    for seed in (0, 0, 5):
        found = run("GenerateMissingMask", **files, missing_probability=probability, seed=seed)
        masks.append(output(given))
        assert found["missing_share"] == pytest.approx(masks[-1].mean())
    assert masks[0].shape == (120, 13)
    assert masks[0].dtype == np.float32
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2]) == (probability in (0, 1))
    assert masks[0].mean() == pytest.approx(probability, abs=0.1)
    for columns in md7.slices:
        assert (masks[0][:, columns] == masks[0][:, columns.start][:, None]).all()


def test_means_and_modes(given: dict[str, Any], rows7: Any) -> None:
    files = {key: given[key] for key in ("metadata", "inputs", "missing_mask", "outputs")}
    run("ComputeMeansAndModes", **files)
    values, mask = output(given), np.load(given["missing_mask"]) == 1
    assert values[0] == pytest.approx(rows7[~mask[:, 0], 0].mean(), rel=1e-5)
    assert values[1] == (rows7[~mask[:, 1], 1].mean() >= 0.5)
    assert values[3:6].tolist() == np.eye(3)[rows7[~mask[:, 3], 3:6].sum(axis=0).argmax()].tolist()


# MissForest as a task


def test_a_forest_without_metadata_takes_every_column_as_a_number(given: dict[str, Any], tmp_path: Path) -> None:
    files = {key: given[key] for key in ("inputs", "missing_mask")}
    run("TrainMissForest", **files, outputs=str(tmp_path / "f"), n_estimators=2, max_iterations=1)
    run("MissForestImputation", **given, model=str(tmp_path / "f"))
    other = json.loads(Path(given["metadata"]).read_text())
    other["variables"][1] = "x"
    other["index_to_value"][1] = ["x", ""]
    other["value_to_index"] = {}
    Path(given["metadata"]).write_text(json.dumps(other))
    run("TrainMissForest", **files, metadata=given["metadata"], outputs=str(tmp_path / "f"), n_estimators=2)
    other["variables"][1] = "b1"
    other["index_to_value"][1] = ["b1", ""]
    Path(given["metadata"]).write_text(json.dumps(other))
    with pytest.raises(DGMError, match="was trained on a table with other variables"):
        run("MissForestImputation", **given, model=str(tmp_path / "f"))


@pytest.mark.slow
def test_on_the_credit_table(tmp_path: Path) -> None:
    if not CREDIT.exists():
        pytest.skip(f"the credit table is not here: {CREDIT}")
    metadata, rows = Metadata.read(CREDIT / "metadata.json"), np.load(CREDIT / "features.npy")[:1200]
    mask = mcar_mask(metadata, np.arange(1200), 0.2, 0)
    for name, part in {"train": slice(0, 900), "test": slice(900, 1200)}.items():
        np.save(tmp_path / f"{name}.npy", rows[part])
        np.save(tmp_path / f"{name}_mask.npy", mask[part])
    train = {"inputs": str(tmp_path / "train.npy"), "missing_mask": str(tmp_path / "train_mask.npy")}
    common = {"metadata": str(CREDIT / "metadata.json")}
    test = {"inputs": str(tmp_path / "test.npy"), "missing_mask": str(tmp_path / "test_mask.npy")}
    logs = {"logs": {"path": str(tmp_path / "log.csv")}, "scaler": str(CREDIT / "scaler.json")}
    run("ComputeMeansAndModes", **common, **train, outputs=str(tmp_path / "means.npy"))
    run("TrainMissForest", **common, **train, outputs=str(tmp_path / "forest"), n_estimators=10, max_iterations=3)
    means = run("MeansAndModesImputation", **common, **test, **logs, means_and_modes=str(tmp_path / "means.npy"))
    forest = run("MissForestImputation", **common, **test, **logs, model=str(tmp_path / "forest"))
    assert forest["scaled_rmse"] < 0.8 * means["scaled_rmse"]
