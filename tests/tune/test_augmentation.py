"""The task that says whether oversampling is worth it."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dgm_ray.data import Metadata, Variable
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.evaluation.augmentation import Fold, imbalanced_learn, random_under, scores, summary
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.runner import run
from dgm_ray.tune.augmentation import COLUMNS, FIGURES, Augmentation

QUIET = Console(quiet=True)
METADATA = Metadata((Variable("size", "numerical"), Variable("sex", "binary"), Variable("colour", "categorical", 3)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folds of 120 train, 30 val and 50 test rows, a fifth of them the minority; and samples for each."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for fold in (0, 1):
        for part, rows in (("train", 120), ("val", 30), ("test", 50)):
            labels = (np.arange(rows) % 5 == 0).astype(np.int64)
            one_hot = np.eye(3)[random.integers(0, 3, rows)]
            numbers = np.stack([random.random(rows) + labels / 2, random.integers(0, 2, rows)], axis=1)
            np.save(f"{part}-{fold}.npy", np.hstack([numbers, one_hot]).astype(np.float32))
            np.save(f"{part}-labels-{fold}.npy", labels)
        np.save(f"sample-{fold}.npy", random.random((200, 5), dtype=np.float32))
    Path("metadata.json").write_text(json.dumps(METADATA.to_dict()))
    return tmp_path


def files(part: str) -> list[str]:
    return [f"{part}-{fold}.npy" for fold in (0, 1)]


def data(*parts: str) -> dict[str, Any]:
    found = {f"{part}_features": files(part) for part in parts}
    return {"num_folds": 2} | found | {f"{part}_labels": files(f"{part}-labels") for part in parts}


def comparison(name: Any = "none", **model: Any) -> dict[str, Any]:
    whole = data("train", "val", "test")
    return {"name": name, "case": "toy", "data": whole, "model": {"n_estimators": 5, "max_depth": 2} | model}


def over(**arguments: Any) -> dict[str, Any]:
    return {"over_sampling": {"ratio": 0.8} | arguments}


def smote(name: str = "SMOTE", **more: Any) -> dict[str, Any]:
    return over(type="imbalanced_learn", imbalanced_learn_factory=name, **more)


def sampled() -> dict[str, Any]:
    return over(type="from_sample", sample_path_by_fold=files("sample"))


def read(*inputs: Any, **more: Any) -> Augmentation:
    node = {"inputs": list(inputs), "output": "deep/out.csv"} | more
    made: Augmentation = call(TASKS.get("Augmentation", ""), node, path="arguments")
    return made


@pytest.mark.slow
def test_defect_13_the_runner_compares(folder: Path, joined: None, cluster: str) -> None:
    under = {"under_sampling": {"type": "random", "ratio": 0.5}}
    inputs = [
        comparison(),
        comparison("all", **under, **smote("SMOTENC", metadata_path="metadata.json")),
        comparison(3, **sampled()),
        comparison("reached", under_sampling={"type": "random", "ratio": 1}, **sampled()),
    ]
    del inputs[0]["data"]["val_features"], inputs[0]["data"]["val_labels"]
    path = folder / "task.json"
    arguments = {"inputs": inputs, "output": "deep/out.csv", "workers": [{}, {}], "seed": 7, "address": cluster}
    path.write_text(json.dumps({"task": "Augmentation", "arguments": arguments}))
    with pytest.raises(SystemExit) as ended:
        run(path)
    assert ended.value.code == 1
    rows = {row["name"]: row for row in csv.DictReader((folder / "deep/out.csv").read_text().splitlines())}
    assert list(rows["3"]) == list(COLUMNS)
    assert rows["reached"]["error"].startswith("DataError: over_sampling.ratio: is reached already")
    assert [rows["reached"][name] for name in FIGURES] == [""] * 8
    assert {name: row["has_error"] for name, row in rows.items()} == {
        "none": "False",
        "all": "False",
        "3": "False",
        "reached": "True",
    }
    assert rows["all"]["under_sampling"] == "random"
    assert rows["all"]["over_sampling"] == "SMOTENC"
    assert rows["3"]["over_sampling_sample_path"] == "sample-0.npy;sample-1.npy"
    # The same figures from the formulas alone: train and val rows together, a seed more for each fold.
    expected = []
    for fold in (0, 1):
        parts = [np.load(f"{part}-{fold}.npy") for part in ("train", "val", "test")]
        labels = [np.load(f"{part}-labels-{fold}.npy") for part in ("train", "val", "test")]
        one = Fold(np.vstack(parts[:2]), np.concatenate(labels[:2]), parts[2], labels[2])
        samplers = [random_under(0.5), imbalanced_learn("SMOTENC", 0.8, METADATA)]
        expected.append(scores(one, samplers, 5, 2, 7 + fold))
    for name, value in summary(expected).items():
        assert float(rows["all"][name]) == pytest.approx(value), name


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (over(type="imbalanced_learn"), r"model\.over_sampling: .*needs 'imbalanced_learn_factory'"),
        (over(type="from_sample"), r"model\.over_sampling: .*needs 'sample_path_by_fold'"),
        (over(type="else"), r"model\.over_sampling\.type"),
        (smote("SMOTENC"), r"model\.over_sampling: .*SMOTENC needs 'metadata_path'"),
        (smote("SMOTENCE"), r"model\.over_sampling\.imbalanced_learn_factory"),
        (smote(sample_path_by_fold=["a"]), r"sample_path_by_fold: imbalanced_learn has no such argument"),
        (smote(ratio=1.5), r"model\.over_sampling\.ratio: .*less than or equal to 1"),
        (over(type="from_sample", sample_path_by_fold=["a"]), r"sample_path_by_fold: must have 2 paths.*not 1"),
        ({"max_depht": 3}, r"model\.max_depht: .*did you mean 'max_depth'"),
        ({"under_sampling": {"type": "random", "ratio": 0}}, r"model\.under_sampling\.ratio: .*greater than 0"),
    ],
)
def test_bad_models(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"inputs\.0\.?" + f".*{message}"):
        read(comparison(**model))


def test_bad_folds() -> None:
    one = comparison()
    one["data"]["test_labels"] = ["a"]
    with pytest.raises(ConfigurationError, match=r"inputs\.0\.data.*test_labels: must have 2 paths.*not 1"):
        read(one)

    one = comparison()
    del one["data"]["val_labels"]
    with pytest.raises(ConfigurationError, match=r"inputs\.0\.data: .*both val_features and val_labels"):
        read(one)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-1", np.zeros((120, 4)), r"train-1\.npy: must have 5 columns, as train-0\.npy, not 4"),
        ("sample-1", np.zeros((9, 4)), r"sample-1\.npy: must have 5 columns, not 4"),
        ("test-labels-0", np.ones(50), r"test-labels-0\.npy: must hold both classes, 0 and 1, not .1 alone"),
        ("test-labels-0", np.full(50, 2), r"test-labels-0\.npy"),
        ("val-labels-1", np.ones(3), r"val-labels-1\.npy: must have one item per row of val-1\.npy, not 3"),
    ],
)
def test_bad_files_are_found_before_anything_starts(folder: Path, name: str, array: Any, message: str) -> None:
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(DataError, match=message):
        read(comparison(**sampled())).run(QUIET)
    assert not (folder / "deep").exists()


def test_bad_metadata(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps(Metadata((Variable("a", "numerical"),)).to_dict()))
    with pytest.raises(DataError, match=r"metadata\.json: must describe 5 columns, not 1"):
        read(comparison(**smote(metadata_path="metadata.json"))).run(QUIET)


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ConfigurationError, match=r"xgboost: needs the extra"):
        read(comparison()).run(QUIET)
