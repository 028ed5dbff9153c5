from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import Csv, FrameEncoder, Holdout, Parquet, Source
from dgm_ray.data.user_files import read_csv, read_frame, source_node
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.registry import build

TEXT = """name,age,income,member,since,class
Ann,31,1200.5,True,2020-01-31,good
Bob,?,300.25,,2021-05-01,bad
Cid,45,,False,NA,good
Ann,22,80,True,2019-11-11,bad
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(TEXT)
    return path


def test_a_csv_file(path: Path) -> None:
    table = Csv(path, label="class").read()
    assert [variable.kind for variable in table.metadata.variables] == [
        "categorical",
        "numerical",
        "numerical",
        "binary",
        "numerical",
    ]
    assert table.metadata.classes == ("bad", "good")
    assert table.labels is not None
    assert table.labels.tolist() == [1, 0, 1, 0]
    assert not table.scaled
    assert np.isnan(table.features).sum(axis=0).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert table.encoder is not None
    assert [one.detail for one in table.encoder.describe()][1::3] == ["whole numbers", "dates, in days"]


def test_parquet_reads_the_same(path: Path) -> None:
    read_csv(path).to_parquet(path.with_suffix(".parquet"))
    csv, parquet = Csv(path).read(), Parquet(path.with_suffix(".parquet")).read()
    assert np.array_equal(csv.features, parquet.features, equal_nan=True)
    assert csv.metadata == parquet.metadata


def test_kinds_and_dropped_columns(path: Path) -> None:
    node = {"path": str(path), "kinds": {"age": "categorical"}, "drop": ["name", "class"]}
    table = build({"factory": "Csv", "arguments": node}, Source).read()
    assert [(variable.name, variable.kind) for variable in table.metadata.variables][:2] == [
        ("age", "categorical"),
        ("income", "numerical"),
    ]
    assert table.metadata.variables[0].categories == ("22", "31", "45")


def test_another_separator(path: Path) -> None:
    other = path.with_suffix(".tsv")
    other.write_text(TEXT.replace(",", "\t"))
    assert read_frame(other).equals(read_frame(path))
    assert build(source_node(other), Source).read().metadata == Csv(path).read().metadata


def test_the_encoder_is_part_of_the_datas_hash(path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=50), "b": random.choice(["x", "y"], 50)})
    frame.to_csv(path, index=False)
    prepared = Holdout(Csv(path)).prepare()
    encoder = FrameEncoder.infer(frame)
    other = FrameEncoder.infer(frame.replace("x", "w"))
    hashes = {replace(prepared, encoder=one).content_hash() for one in (None, encoder, other)}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (TEXT, {"label": "clas"}, "people.csv: there is no column 'clas'; did you mean 'class'?"),
        (TEXT, {"drop": ["nam"]}, "people.csv: there is no column 'nam'; did you mean 'name'?"),
        (TEXT, {"label": "class", "drop": ["class"]}, "the label 'class' cannot be dropped"),
        (TEXT, {"label": "age"}, "people.csv: label 'age', row 1: is missing: every row needs its class"),
        (TEXT, {"kinds": {"agee": "numerical"}}, "people.csv: kinds: there is no column 'agee'; did you mean 'age'?"),
        ("", {}, "people.csv: is empty"),
        ("a,b\n", {}, r"people.csv: must have rows and columns"),
        ("a,a\n1,2\n", {}, "people.csv: has two columns that are called 'a': rename one"),
        (",a\n0,2\n", {}, "people.csv: column 0 has no name: name it, or write the file without an index"),
        ("a,b\n1,2,3\n4,5,6\n", {}, "people.csv: cannot be read: "),
        ("a,b\n1,2\n4,5,6\n", {}, "people.csv: cannot be read: .*Expected 2 fields in line 3, saw 3"),
        (
            "a,b\n1,2\n2,3\nx,5\n3,4\n",
            {},
            r"column 'a': holds mixed types, numbers and text \('x' in row 2\)",
        ),
        ("a,b\n1,\n2,\n", {}, "people.csv: column 'b': all its cells are missing"),
        ("a,b\n1,inf\n2,3\n", {}, "people.csv: column 'b', row 0: must be finite"),
    ],
)
def test_files_that_cannot_be_learned_from(path: Path, text: str, arguments: dict[str, Any], message: str) -> None:
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Csv(path, **arguments).read()
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(path: Path) -> None:
    for source in (Csv(path.with_name("none.csv")), Parquet(path.with_name("none.parquet"))):
        with pytest.raises(DataError, match="cannot be read: No such file"):
            source.read()
    with pytest.raises(DataError, match="cannot be read"):
        Parquet(path).read()
    path.write_bytes("a,b\nä,1\nü,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="must be text in UTF-8"):
        Csv(path).read()


def test_names_of_files() -> None:
    with pytest.raises(DataError, match=r"a.npy: a .npy file has no columns' names: use the source Npy"):
        source_node(Path("a.npy"))
    with pytest.raises(DataError, match=r"a.xlsx: must be a table: .csv, .tsv, .parquet, not '.xlsx'"):
        source_node(Path("a.xlsx"))


def test_a_kind_that_there_is_not(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"kinds.*Input should be 'numerical', 'binary' or 'categorical'"):
        build({"factory": "Csv", "arguments": {"path": str(path), "kinds": {"age": "number"}}}, Source)
