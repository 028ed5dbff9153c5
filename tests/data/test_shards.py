"""A table that is read a shard at a time is the table that is read whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgm_ray.data import Csv, Metadata, Npy, Parquet, frames, witness
from dgm_ray.data import shards as module
from dgm_ray.data.shards import FileShards, NpyShards, Shards, open_shards
from dgm_ray.data.variable import Variable
from dgm_ray.errors import DataError

WORDS = ["red", "blue", "green", "no", "a,b", 'say "hi"', "two\nlines", "12", "3.5"]
CELLS = [
    st.integers(-5, 5).map(str),
    st.integers(0, 1).map(str),
    st.integers(10**6, 10**6 + 30).map(str),
    st.floats(-1e3, 1e3, width=32).map(repr),
    st.sampled_from(["1", "2.0", "2.5"]),
    st.sampled_from(["true", "True", "False"]),
    st.sampled_from(WORDS),
    st.sampled_from(["01", "1", "x"]),
    st.sampled_from(["2024-01-01", "2024-02-29 10:00", "2023-12-31T10:30", "2024-01-02"]),
    st.sampled_from(["2024-01-01", "2023-02-30", "soon"]),
    st.integers(0, 3000).map(lambda day: str(np.datetime64("2020-01-01") + day)),
    st.integers(0, 10**5).map(str),
]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 200)
    monkeypatch.setattr(module, "PART_ROWS", 7)


def whole(shards: Shards) -> tuple[Any, Any]:
    """Return all the features and labels, whose rows must be numbered from 0 on."""
    parts = [part for shard in shards.shards for part in shards.read(shard)]
    assert np.concatenate([part.row_ids for part in parts]).tolist() == list(range(shards.shards[-1].stop))
    labels = [part.labels for part in parts]
    return np.vstack([part.features for part in parts]), None if labels[0] is None else np.concatenate(labels)


def same(source: Csv | Parquet) -> None:
    """Assert that shards give what the whole table gives, an error too."""
    try:
        table = source.read()
    except DataError as error:
        expected = str(error)
    else:
        expected = ""
    if expected:
        with pytest.raises(DataError) as found:
            whole(FileShards.of(source))
        assert str(found.value) == expected
        return
    shards = FileShards.of(source)
    assert shards.encoder == table.encoder
    assert shards.metadata == table.metadata
    features, labels = whole(shards)
    np.testing.assert_array_equal(features, table.features)
    assert (labels is None) == (table.labels is None)
    if labels is not None:
        np.testing.assert_array_equal(labels, table.labels)


@st.composite
def columns(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(2, 60))
    made = {}
    for number in range(draw(st.integers(1, 4))):
        cell = draw(st.sampled_from(CELLS))
        holes = draw(st.sampled_from([st.nothing(), st.sampled_from(["", "NA"])]))
        early = draw(st.integers(0, rows))  # missing cells may all be in one shard
        cells = draw(st.lists(cell, min_size=early, max_size=early))
        cells += draw(st.lists(cell | holes, min_size=rows - early, max_size=rows - early))
        made[f"c{number}"] = cells
    return pd.DataFrame(made, dtype=str)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(columns(), st.sampled_from([3, 10, 1000]))
def test_a_csv_file_in_shards_is_the_file(tmp_path: Path, frame: pd.DataFrame, most: int) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(witness, "MAX_CATEGORIES", most)
        patch.setattr(frames, "MAX_CATEGORIES", most)
        try:
            Csv(tmp_path / "t.csv").read()
        except DataError as error:
            if "different, as of an id" in str(error) or "categories: drop it" in str(error):
                with pytest.raises(DataError, match=r"different, as of an id|categories: drop it|mixed types"):
                    FileShards.of(Csv(tmp_path / "t.csv"))  # how many there are is not counted
                return
        same(Csv(tmp_path / "t.csv"))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(columns())
def test_a_parquet_file_in_shards_is_the_file(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet", row_group_size=11)
    same(Parquet(tmp_path / "t.parquet"))


def test_rows_of_npy_files(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((123, 2))  # float64
    np.save(tmp_path / "f.npy", features)
    (tmp_path / "m.json").write_text(
        json.dumps(Metadata((Variable("a", "numerical"), Variable("b", "numerical"))).to_dict())
    )
    source = Npy(tmp_path / "f.npy", tmp_path / "m.json")
    shards = open_shards(source)
    assert isinstance(shards, NpyShards)
    assert [shard.stop - shard.start for shard in shards.shards] == [25, 25, 25, 25, 23]
    found, labels = whole(shards)
    np.testing.assert_array_equal(found, source.read().features)
    assert labels is None
    np.save(tmp_path / "l.npy", np.zeros(5))
    with pytest.raises(DataError, match=r"labels: must have one item per row \(123\), not \(5,\)"):
        open_shards(Npy(tmp_path / "f.npy", tmp_path / "m.json", labels=tmp_path / "l.npy"))
    mask = np.zeros(features.shape)
    mask[100, 1] = 2
    np.save(tmp_path / "k.npy", mask)
    with pytest.raises(DataError, match=r"row 100, column 1: must be 0 or 1, not 2"):
        whole(open_shards(Npy(tmp_path / "f.npy", tmp_path / "m.json", missing_mask=tmp_path / "k.npy")))


def test_a_word_late_in_a_file_makes_all_of_its_column_text(tmp_path: Path) -> None:
    codes = ["01", "02", "03"] * 100
    pd.DataFrame({"code": [*codes, *["A7"] * 400], "x": np.arange(700) % 30}).to_csv(tmp_path / "t.csv", index=False)
    shards = FileShards.of(Csv(tmp_path / "t.csv"))
    assert len(shards.shards) > 3
    assert shards.encoder.columns[0].values == ("01", "02", "03", "A7")  # type: ignore[union-attr]
    same(Csv(tmp_path / "t.csv"))


def test_dates_to_the_minute_among_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_CATEGORIES", 10)
    monkeypatch.setattr(frames, "MAX_CATEGORIES", 10)
    days = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 29)]
    days[200] += " 10:30"
    pd.DataFrame({"day": days, "x": np.arange(len(days))}).to_csv(tmp_path / "t.csv", index=False)
    shards = FileShards.of(Csv(tmp_path / "t.csv"))
    assert shards.encoder.columns[0].detail == "dates, in minutes"
    same(Csv(tmp_path / "t.csv"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, message in (
        ("a,b\n1,2\n", "must have more than 1 sample"),
        ("", "is empty"),
        ("a,\n1,2\n1,3\n", "column 1 has no name"),
        ("a,b\n" + "1,2\n" * 200 + "1,2,3\n", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            FileShards.of(Csv(path))
    path.write_text("a,b\n" + "1,2\n3,4\n" * 50)
    with pytest.raises(DataError, match="there is no column 'c'"):
        FileShards.of(Csv(path, label="c"))
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"] * 20)})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'a': pandas categories cannot be streamed"):
        FileShards.of(Parquet(tmp_path / "t.parquet"))
