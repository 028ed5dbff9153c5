"""A table that is streamed is split, hidden and scaled as one that is in memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import (
    MAR,
    Blocks,
    Csv,
    Holdout,
    Mechanism,
    Metadata,
    Npy,
    Parquet,
    Patterns,
    Prepared,
    Streamed,
    streaming,
)
from dgm_ray.data import shards as module
from dgm_ray.data.shards import open_shards
from dgm_ray.data.streaming import TrainParts, prepare_streamed
from dgm_ray.data.variable import Variable
from dgm_ray.errors import DataError

ROWS = 700
VARIABLES = (
    Variable("n", "numerical"),
    Variable("b", "binary"),
    Variable("c", "categorical", 3),
    Variable("m", "numerical"),
)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 1000)
    monkeypatch.setattr(module, "PART_ROWS", 30)


@pytest.fixture
def npy(tmp_path: Path) -> Npy:
    """A scaled table with missing cells, labels and a mask, in files."""
    random = np.random.default_rng(0)
    one_hot = np.eye(3)[random.choice(3, ROWS, p=[0.2, 0.5, 0.3])]
    binary = random.random((ROWS, 1)) < 0.6
    features = np.hstack([random.random((ROWS, 1)), binary, one_hot, random.random((ROWS, 1))]).astype(np.float32)
    features[random.random(ROWS) < 0.1, 2:5] = np.nan
    np.save(tmp_path / "features.npy", features)
    np.save(tmp_path / "labels.npy", random.integers(0, 2, ROWS))
    np.save(tmp_path / "mask.npy", np.repeat(random.random((ROWS, 4)) < 0.1, [1, 1, 3, 1], axis=1))
    metadata = Metadata(VARIABLES, ROWS, ("no", "yes"), 2)
    (tmp_path / "metadata.json").write_text(json.dumps(metadata.to_dict()))
    names = ("features.npy", "metadata.json", "labels.npy", "mask.npy")
    return Npy(*(tmp_path / name for name in names))


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(1)
    made = pd.DataFrame({"year": 2000 + random.integers(0, 20, ROWS), "height": random.normal(170, 10, ROWS)})
    made["city"] = random.choice(["Rome", "Oslo", "Bonn"], ROWS)
    made["born"] = np.datetime64("1990-01-01") + random.integers(0, 5000, ROWS).astype("timedelta64[D]")
    made["good"] = random.choice(["yes", "no"], ROWS)
    made.loc[random.random(ROWS) < 0.1, ["height", "city"]] = np.nan
    made["id"] = np.arange(ROWS)
    return made


def source_of(kind: str, npy: Npy, frame: pd.DataFrame, folder: Path) -> Any:
    if kind == "npy":
        return npy
    if kind == "csv":
        frame.to_csv(folder / "t.csv", index=False)
        return Csv(folder / "t.csv", label="good", drop=["id"])
    frame.to_parquet(folder / "t.parquet", row_group_size=100)
    return Parquet(folder / "t.parquet", label="good", drop=["id"])


def parts_of(prepared: Prepared) -> TrainParts:
    assert isinstance(prepared.train, Streamed)
    found = prepared.train.open(None, None)
    assert isinstance(found, TrainParts)
    return found


def prepare(holdout: Holdout) -> Prepared:
    return prepare_streamed(holdout, open_shards(holdout.source), lambda parts, rows: lambda device, classes: parts)


def train_of(prepared: Prepared) -> tuple[Any, Any]:
    parts = parts_of(prepared)
    found = [rows for shard in parts.shards.shards for rows in parts.read(shard)]
    labels = [one for _, one in found]
    return np.vstack([one for one, _ in found]), None if labels[0] is None else np.concatenate(labels)


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
@pytest.mark.parametrize(
    "missing", [None, Blocks(2, "random"), Patterns([["a"], ["b"]])], ids=["mcar", "blocks", "sets"]
)
def test_the_same_rows_cells_and_statistics(
    kind: str, missing: Mechanism | None, npy: Npy, frame: pd.DataFrame, tmp_path: Path
) -> None:
    source = source_of(kind, npy, frame, tmp_path)
    names = [variable.name for variable in source.read().metadata.variables]
    if isinstance(missing, Patterns):
        missing = Patterns([names[:1], names[1:3]], [1, 2])
    more: dict[str, Any] = {} if missing is None else {"missing": missing}
    holdout = Holdout(source, 0.2, 0.15, 0.25, 0.1, seed=5, **more)
    streamed, memory = prepare(holdout), holdout.prepare()
    assert isinstance(streamed.train, Streamed)
    assert streamed.train.rows == memory.train.rows
    assert streamed.metadata == memory.metadata
    assert streamed.encoder == memory.encoder
    for name in ("validation", "test"):
        for field in ("row_ids", "features", "labels", "hidden_mask", "truth"):
            ours, theirs = (getattr(getattr(one, name), field) for one in (streamed, memory))
            np.testing.assert_array_equal(ours, theirs)
    features, labels = train_of(streamed)
    np.testing.assert_array_equal(features, memory.train.features)
    np.testing.assert_array_equal(labels, memory.train.labels)
    np.testing.assert_array_equal(streamed.train.incomplete, memory.train.incomplete)
    np.testing.assert_allclose(streamed.means_and_modes, memory.means_and_modes, rtol=0, atol=1e-6)
    assert (streamed.scaler is None) == (memory.scaler is None)
    if streamed.scaler is not None and memory.scaler is not None:
        assert streamed.scaler.to_dict() == memory.scaler.to_dict()


def test_held_rows_are_those_with_the_lowest_draws(npy: Npy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HELD_ROWS", 20)
    holdout = Holdout(npy, 0.3, 0.3)
    found, memory = prepare(holdout), holdout.prepare()
    assert found.train.rows == memory.train.rows
    for few, all_of_it in ((found.validation, memory.validation), (found.test, memory.test)):
        assert few is not None
        assert all_of_it is not None
        draws = holdout.draws(all_of_it.row_ids)
        expected = np.sort(all_of_it.row_ids[np.argsort(draws)[:20]])
        assert few.row_ids.tolist() == expected.tolist()
        kept = np.isin(all_of_it.row_ids, expected)
        np.testing.assert_array_equal(few.features, all_of_it.features[kept])


def test_the_hash_is_that_of_the_cells(npy: Npy, monkeypatch: pytest.MonkeyPatch) -> None:
    holdout = Holdout(npy)
    first = prepare(holdout).content_hash()
    monkeypatch.setattr(module, "SHARD_BYTES", 3000)
    assert prepare(holdout).content_hash() == first, "it depends on the shards"
    features = np.load(npy.features)
    row = int(holdout.prepare().train.row_ids[-1])
    features[row, 0] = 1 - features[row, 0]
    np.save(npy.features, features)
    assert prepare(holdout).content_hash() != first


def test_places_in_errors_are_those_of_the_table(npy: Npy, frame: pd.DataFrame, tmp_path: Path) -> None:
    features = np.load(npy.features)
    features[513, 0] = 7
    np.save(npy.features, features)
    with pytest.raises(DataError, match=r"row 513, column 'n': a numerical cell must be scaled") as whole:
        Holdout(npy).prepare()
    with pytest.raises(DataError) as found:
        prepare(Holdout(npy))
    assert str(found.value) == str(whole.value)
    frame["height"] = frame["height"].astype(object)
    frame.loc[613, "height"] = "tall"
    for column, cell in (("height", "tall"), ("good", np.nan), ("year", np.inf)):
        other = frame.copy() if column == "height" else frame.assign(height=1.5 * np.arange(ROWS))
        other[column] = other[column].astype(object)
        other.loc[613, column] = cell
        source = source_of("csv", npy, other, tmp_path)
        with pytest.raises(DataError, match="row 613") as whole:
            Holdout(source).prepare()
        with pytest.raises(DataError) as found:
            prepare(Holdout(source))
        assert str(found.value) == str(whole.value)


def test_what_leaves_nothing(npy: Npy) -> None:
    with pytest.raises(DataError, match="leaves no row of 700 for validation"):
        prepare(Holdout(npy, validation_fraction=0.0))
    with pytest.raises(DataError, match="must hide a cell of the validation rows"):
        prepare(Holdout(npy, missing_probability=0.0))
    with pytest.raises(DataError, match="sum below 1"):
        prepare(Holdout(npy, 0.5, 0.5))
    with pytest.raises(AssertionError):
        prepare(Holdout(npy, missing=MAR()))
