"""``--data my_table.csv`` puts a user's own table into any space."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.data.user_files import source_node
from dgm_ray.errors import ConfigurationError
from dgm_ray.tune.command import _checked
from dgm_ray.tune.study import Study

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"age": random.integers(18, 80, 80), "city": random.choice(["Rome", "Oslo", "Bonn"], 80)})
    frame["good"] = random.choice(["yes", "no"], 80)
    frame.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def test_the_table_stands_in_for_the_spaces_own(small: dict[str, Any], write: Write, table: Path) -> None:
    small["trial"]["arguments"]["data"]["validation_fraction"] = 0.25
    data = Study.read(write(small), source=source_node(table)).prepare()
    assert [variable.name for variable in data.metadata.variables] == ["age", "city", "good"]
    assert data.train.labels is None
    labelled = Study.read(write(small), source=source_node(table, "good"))
    data = labelled.prepare()
    assert data.metadata.classes == ("no", "yes")
    assert data.train.labels is not None
    assert labelled.plan.template["arguments"]["data"]["validation_fraction"] == 0.25


def test_a_named_holdout_and_no_data_at_all(small: dict[str, Any], write: Write, table: Path) -> None:
    arguments = small["trial"]["arguments"]
    arguments["data"] = {"factory": "CellHoldout", "arguments": {"source": {"factory": "Wine"}, "seed": 3}}
    study = Study.read(write(small), source=source_node(table))
    assert study.plan.template["arguments"]["data"]["arguments"]["seed"] == 3
    with pytest.raises(Exception, match="missing cells and the model cannot take them"):
        study.prepare()
    del arguments["data"]
    assert Study.read(write(small), source=source_node(table)).prepare().metadata.num_variables == 3


def test_set_has_the_last_word(small: dict[str, Any], write: Write, table: Path) -> None:
    assignment = "trial.arguments.data.source.arguments.drop=[city]"
    data = Study.read(write(small), [assignment], source=source_node(table)).prepare()
    assert data.metadata.num_variables == 2


def test_relative_paths_become_absolute(
    small: dict[str, Any], write: Write, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    template = Study.read(write(small), source=source_node(Path(table.name))).plan.template
    assert template["arguments"]["data"]["source"]["arguments"]["path"] == str(table)


def test_files_of_features_have_no_source(small: dict[str, Any], write: Write, table: Path) -> None:
    small["trial"]["arguments"]["data"] = {"train_features": "a.npy"}
    with pytest.raises(ConfigurationError, match=r"trial.arguments.data: has no source that --data could stand in for"):
        Study.read(write(small), source=source_node(table))


def test_the_kinds_are_shown(small: dict[str, Any], write: Write, table: Path) -> None:
    study = Study.read(write(small), source=source_node(table))
    console = Console(record=True, width=120)
    _checked(study, console)
    text = console.export_text()
    assert "  1 numerical: age (whole numbers)\n" in text
    assert "  1 binary: good (no, yes)\n" in text
    assert "  1 categorical: city (3 categories: Bonn, Oslo, Rome)\n" in text


def test_columns_are_dropped_and_taken_for_another_kind(
    small: dict[str, Any], write: Write, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    pd.read_csv(table).assign(id=[f"n{row}" for row in range(80)]).to_csv("ids.csv", index=False)
    line = ["tune", str(write(small)), "--check", "--data", "ids.csv"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 2
    assert "ids.csv: column 'id': every cell is different, as of an id" in done.stderr
    assert "drop it (--drop id)" in done.stderr
    done = CliRunner().invoke(app, [*line, "--drop", "id", "--kind", "age=categorical"])
    assert done.exit_code == 0, done.stderr
    assert "  2 categorical: age (" in done.stdout
    assert "id" not in re.findall(r"\w+", done.stdout.partition("numerical")[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "features.npy"], "features.npy: a .npy file has no columns' names"),
        (["--data", "none.csv"], "none.csv: cannot be read: No such file"),
        (["--data", "people.xlsx"], "must be a table: .csv, .tsv, .parquet, not '.xlsx'"),
        (["--label", "good"], "error: --label: names a column of --data, which is not given, not 'good'"),
        (["--drop", "good"], "error: --drop: names a column of --data, which is not given, not ['good']"),
        (["--data", "people.csv", "--kind", "age"], "error: --kind: should be COLUMN=KIND, not 'age'"),
        (["--data", "people.csv", "--kind", "age=odd"], "Input should be 'numerical', 'binary' or 'categorical'"),
        (["--data", "people.csv", "--drop", "agee"], "people.csv: there is no column 'agee'; did you mean 'age'?"),
        (["--data", "people.csv", "--label", "god"], "people.csv: there is no column 'god'; did you mean 'good'?"),
    ],
)
def test_the_options_are_checked(
    small: dict[str, Any],
    write: Write,
    table: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(small)
    monkeypatch.chdir(table.parent)
    done = CliRunner().invoke(app, ["tune", str(path), "--check", *options])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
