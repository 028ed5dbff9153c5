"""A user's own table comes back as it was: types, categories, units and every observed cell."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import FrameEncoder
from dgm_ray.errors import DataError


def mixed(rows: int = 60) -> pd.DataFrame:
    """A table with a column of every type, most with missing cells."""
    random = np.random.default_rng(0)
    number = random.normal(size=rows)
    frame = pd.DataFrame(
        {
            "id": 2**60 + np.arange(rows),
            "age": pd.Series(random.integers(18, 90, rows)).astype("int16"),
            "visits": pd.Series(random.integers(0, 9, rows)).astype("Int64"),
            "children": random.integers(0, 5, rows).astype(float),
            "income": number * 1e4 + 0.1,
            "weight": (number + 70).astype(np.float32),
            "smoker": random.random(rows) < 0.5,
            "insured": pd.Series(random.random(rows) < 0.5).astype("boolean"),
            "flag": random.integers(0, 2, rows),
            "city": random.choice(["Rome", "Oslo", "Bonn"], rows),
            "sex": random.choice(["f", "m"], rows),
            "size": pd.Categorical(random.choice(["s", "m", "l"], rows), ["s", "m", "l", "xl"], ordered=True),
            "born": pd.Timestamp("1950-03-01") + pd.to_timedelta(random.integers(0, 20000, rows), unit="D"),
            "seen": pd.date_range("2024-03-30", periods=rows, freq="h", tz="Europe/Berlin"),
        }
    )
    frame.index = pd.Index([f"row {i}" for i in range(rows)])
    for name in [name for name in frame if name not in ("id", "age", "flag")]:
        frame[name] = frame[name].mask(random.random(rows) < 0.2)
    return frame


OWN = {"age": "int16", "visits": "Int64", "children": "int64", "weight": "float32", "insured": "boolean"}


def test_kinds_are_inferred() -> None:
    kinds = {name: kind for name, kind, _ in FrameEncoder.infer(mixed()).describe()}
    assert {name for name, kind in kinds.items() if kind == "binary"} == {"smoker", "insured", "flag", "sex"}
    assert {name for name, kind in kinds.items() if kind == "categorical"} == {"city", "size"}
    details = {name: detail for name, _, detail in FrameEncoder.infer(mixed()).describe()}
    assert details["born"] == "dates, in days"
    assert details["seen"] == "dates, in hours"
    assert details["children"] == "whole numbers"
    assert details["size"] == "3 categories: s, m, l"


def test_the_users_word_goes_first() -> None:
    frame = mixed()
    kinds: dict[str, Any] = {"children": "categorical", "flag": "numerical", "age": "categorical"}
    encoder = FrameEncoder.infer(frame, kinds)
    assert [kind for name, kind, _ in encoder.describe() if name in kinds] == [
        "categorical",
        "categorical",
        "numerical",
    ]
    given: dict[str, Any] = {"children": "numerical"}
    frame["children"] *= 1.0
    encoder = FrameEncoder.infer(frame, given)
    assert encoder.describe()[3].detail == "numbers"
    assert encoder.complete(frame, encoder.encode(frame) * 0)["children"].dtype == np.float64


def test_encoded_and_decoded_is_the_same() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame)
    features = encoder.encode(frame)
    assert features.dtype == np.float32
    assert features.shape == (len(frame), encoder.metadata.num_features)
    decoded = encoder.decode(features, frame)
    for name in ("children", "smoker", "flag", "city", "sex", "born", "seen"):
        same = (decoded[name] == frame[name]) | (decoded[name].isna() & frame[name].isna())
        assert same.all(), name
    assert decoded.index.equals(frame.index)


def test_completed_keeps_every_observed_cell_and_fills_the_others() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame)
    features = np.nan_to_num(encoder.encode(frame), nan=0.6)
    completed = encoder.complete(frame, features)
    assert not completed.isna().any().any()
    assert list(completed) == list(frame)
    assert completed.index.equals(frame.index)
    for name in frame:
        observed = frame[name].notna()
        assert (completed.loc[observed, name] == frame.loc[observed, name]).all(), name
        wanted = OWN[name] if name in OWN else frame[name].dtype  # pandas itself makes gaps floats or objects
        assert completed[name].dtype == wanted, name
    assert completed["id"].equals(frame["id"])
    born = completed.loc[frame["born"].isna(), "born"]
    assert (born.dt.floor("D") == born).all()
    assert frame.isna().any().any(), "the table itself is left alone"


def test_whole_numbers_that_gaps_made_floats_are_whole_again() -> None:
    frame = pd.DataFrame({"n": [1, 2, None, 4], "f": [1.0, 2.5, None, 3.0]})
    encoder = FrameEncoder.infer(frame)
    completed = encoder.complete(frame, np.array([[0, 0], [0, 0], [2.7, 2.7], [0, 0]], np.float32))
    assert completed["n"].tolist() == [1, 2, 3, 4]
    assert completed["n"].dtype == np.int64
    assert completed["f"].tolist() == [1.0, 2.5, float(np.float32(2.7)), 3.0]
    other = pd.DataFrame({"n": [1.5, None], "f": [1, 2]})
    completed = encoder.complete(other, np.array([[0, 0], [2.7, 0]], np.float32))
    assert completed["n"].tolist() == [1.5, 3.0], "an observed cell that is not whole stays as it is"


def test_an_integer_fits_its_type() -> None:
    frame = pd.DataFrame({"n": pd.array([1, 250, None, 7], "UInt8"), "m": [1, 2, 3, 5]})
    encoder = FrameEncoder.infer(frame)
    for value, held in ((-3.0, 0), (900.0, 255)):
        features = np.full((4, 2), value, np.float32)
        assert encoder.complete(frame, features)["n"].iloc[2] == pytest.approx(held, abs=1)


def test_numbers_far_from_zero_stay_apart() -> None:
    frame = pd.DataFrame({"n": [1_700_000_001, 1_700_000_002, 1_700_000_003]})
    encoder = FrameEncoder.infer(frame)
    assert len(set(encoder.encode(frame)[:, 0])) == 3
    assert encoder.decode(encoder.encode(frame))["n"].tolist() == frame["n"].tolist()


def test_categories_of_new_rows_in_another_order() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame)
    other = frame[list(frame)[::-1]].iloc[:5]
    assert np.array_equal(encoder.encode(other), encoder.encode(frame)[:5], equal_nan=True)
    assert list(encoder.complete(other, encoder.encode(frame)[:5] * 0)) == list(other)


def test_new_rows_may_have_a_column_with_nothing_in_it() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame)
    rows = frame.iloc[:2].assign(city=None, born=None)
    features = encoder.encode(rows)
    assert np.isnan(features).sum() > 4
    completed = encoder.complete(rows, np.nan_to_num(features))
    assert completed["born"].dtype == frame["born"].dtype


def test_it_survives_json() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame, {"children": "categorical"})
    again = FrameEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    assert np.array_equal(again.encode(frame), encoder.encode(frame), equal_nan=True)
    with pytest.raises(DataError, match="encoder: does not describe columns"):
        FrameEncoder.from_dict({"columns": [{"type": "Nothing"}]})


def test_the_summary_is_short() -> None:
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 300)))
    (line,) = FrameEncoder.infer(wide).summary()
    assert line.startswith("300 numerical: 0 (numbers), 1 (numbers), ")
    assert line.endswith("5 (numbers), and 294 more")
    assert len(FrameEncoder.infer(mixed()).summary()) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [None, None, None]}, "table: column 'a': all its cells are missing, .*: drop it"),
        ({"a": [3, 3, None]}, r"column 'a': all its cells are the same \(3.0\), so nothing can be learned .*: drop it"),
        ({"a": [1, "x", None]}, r"column 'a': holds cells of mixed types, str \('x'\) and int \(1\): convert"),
        ({"a": ["1", "2", "4", "x"]}, r"column 'a': holds mixed types, numbers and text \('x' in row 3\): mend it, or"),
        ({"a": [1.0, np.inf, 2.0]}, "column 'a', row 1: must be finite, or empty where missing, not inf"),
        ({"a": [1.0, -1e300, 2.0]}, "column 'a', row 1: is too large a number"),
        ({"a": [1j, 2j]}, "column 'a': must hold numbers, text, booleans or dates, not complex"),
        ({"a": pd.interval_range(0, 3)}, "column 'a': must hold numbers, .* not interval"),
        ({"a": [f"n{i}" for i in range(30)]}, "column 'a': every cell is different, as of an id, .*: drop it, or set"),
        ({"a": [f"n{i % 1001}" for i in range(2000)]}, "column 'a': must have at most 1000 categories: drop it, group"),
        ({}, r"table: must have "),
        ({"a": [1]}, "must have more than 1 sample"),
    ],
)
def test_a_table_that_cannot_be_learned_from(columns: dict[str, Any], message: str) -> None:
    frame = pd.DataFrame(columns)
    with pytest.raises(DataError, match=message) as caught:
        FrameEncoder.infer(frame).encode(frame)
    assert "\n" not in str(caught.value)


def test_columns_have_one_name_each() -> None:
    with pytest.raises(DataError, match="has two columns that are called 'a': rename one"):
        FrameEncoder.infer(pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]))
    with pytest.raises(DataError, match="must have one level of column names"):
        FrameEncoder.infer(pd.DataFrame([[1], [3]], columns=pd.MultiIndex.from_tuples([("a", "b")])))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"aeg": "numerical"}, "table: kinds: there is no column 'aeg'; did you mean 'age'?"),
        ({"age": "number"}, r"kinds.age: must be 'numerical', .*, not 'number'"),
        ({"city": "numerical"}, "column 'city': cannot be numerical, it holds text: convert it to numbers first"),
        ({"size": "numerical"}, "column 'size': cannot be numerical, it holds pandas categories"),
        ({"city": "binary"}, "column 'city': a binary column must hold two values, not 3"),
        ({"born": "categorical"}, "column 'born': holds dates, which are numerical"),
    ],
)
def test_kinds_that_do_not_fit(kinds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FrameEncoder.infer(mixed(), kinds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"city": "Roma"}, "rows: column 'city': has the category 'Roma', which was not there .* did you mean 'Rome'?"),
        ({"size": "xl"}, "column 'size': has the category 'xl'"),
        ({"age": "old"}, r"column 'age': must hold numbers, as in training, not text \('old'\)"),
        ({"born": 3}, r"column 'born': must hold dates, as in training, not numbers \("),
        ({"smoker": "yes"}, "column 'smoker': must hold booleans, as in training, not text"),
        ({"agee": 1}, "rows: has the column 'agee', which the training table had not; did you mean 'age'?"),
    ],
)
def test_new_rows_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    frame = mixed()
    with pytest.raises(DataError, match=message):
        FrameEncoder.infer(frame).encode(frame.assign(**change))


def test_new_rows_that_lack_a_column() -> None:
    frame = mixed()
    encoder = FrameEncoder.infer(frame)
    with pytest.raises(DataError, match=r"rows: lacks the column 'age' of the training table; did you mean 'Age'?"):
        encoder.encode(frame.rename(columns={"age": "Age"}))
