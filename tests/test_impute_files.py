"""``dgm-ray impute``: a user's file comes back complete, and otherwise as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray.cli import app

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with people.csv, new.csv (other rows) and best.json, which is the working directory."""
    forest = {"factory": "MissForest", "arguments": {"n_estimators": 4, "max_depth": 4}}
    data = {"source": {"factory": "Wine"}}
    node = {"task": "TrainImputer", "arguments": {"data": data, "imputer": forest, "epochs": 2}}
    (tmp_path / "best.json").write_text(json.dumps(node | {"expected": {"best_epoch": 2}}))
    (tmp_path / "people.csv").write_text(people(60, 0))
    (tmp_path / "new.csv").write_text(people(12, 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def people(rows: int, seed: int) -> str:
    """Return a CSV file as people write them: quotes, leading zeros, trailing zeros, true and false, gaps."""
    random = np.random.default_rng(seed)
    lines = ['id,zip,"age, years",income,member,since']
    for row in range(rows):
        cells = [
            random.choice(["00501", "02108", "99950"]),
            str(random.integers(18, 80)),
            f"{random.normal(3000, 500):.2f}",
            random.choice(["true", "false"]),
            f"20{random.integers(10, 24)}-0{random.integers(1, 10)}-1{random.integers(0, 10)}",
        ]
        cells = [cell if random.random() > 0.2 else random.choice(["", "?", "NA"]) for cell in cells]
        lines.append(",".join([f"{seed}a{row // 2}", *cells]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(folder: Path) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["impute", *map(str, arguments)])


def texts(path: Path | str) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, na_filter=False)


KIND = ("--kind", "zip=categorical", "--drop", "id")


def assert_same_where_observed(given: str, done: str) -> None:
    before, after = texts(given), texts(done)
    assert list(before) == list(after)
    observed = ~before.isin(["", "?", "NA"])
    assert (after == before).where(observed, True).all(axis=None)
    assert not after.isin(["", "?", "NA", "nan"]).any(axis=None)
    assert set(after["zip"]) <= {"00501", "02108", "99950"}
    assert after["age, years"].str.fullmatch(r"\d\d").all()
    assert after["member"].isin(["true", "false"]).all()
    assert after["since"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert after["income"].str.len().max() < 12


def test_a_csv_file_is_completed(run: Run) -> None:
    done = run("best.json", "people.csv", "out.csv", *KIND, "--save", "model.pt")
    assert done.exit_code == 0, done.output
    assert_same_where_observed("people.csv", "out.csv")
    assert "1 binary: member (False, True)" in done.output
    assert "trained on 60 rows, 2 epochs in " in done.output
    count = int(texts("people.csv").isin(["", "?", "NA"]).sum(axis=None))
    assert f"filled {count} cells of 5 columns" in done.output
    again = run("best.json", "people.csv", "again.csv", *KIND)
    assert again.exit_code == 0
    assert Path("out.csv").read_bytes() == Path("again.csv").read_bytes()

    loaded = run("model.pt", "people.csv", "loaded.csv", "--drop", "id")
    assert loaded.exit_code == 0, loaded.output
    assert Path("out.csv").read_bytes() == Path("loaded.csv").read_bytes()
    other = run("model.pt", "new.csv", "new_out.csv")
    assert other.exit_code == 0, other.output
    assert "as in training: id is left as it is\n" in other.output
    assert_same_where_observed("new.csv", "new_out.csv")


def test_rows_that_were_not_trained_on(run: Run) -> None:
    done = run("best.json", "new.csv", "out.csv", "--train", "people.csv", *KIND)
    assert done.exit_code == 0, done.output
    assert "trained on 60 rows" in done.output
    assert len(texts("out.csv")) == 12
    assert_same_where_observed("new.csv", "out.csv")


def test_an_imputer_by_its_name(run: Run) -> None:
    done = run("means_and_modes", "people.csv", "out.csv", *KIND)
    assert done.exit_code == 0, done.output
    assert_same_where_observed("people.csv", "out.csv")


def test_draws_are_files_of_their_own(run: Run) -> None:
    done = run("best.json", "people.csv", "made/out.csv", "--draws", 2, *KIND)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("made").iterdir()) == ["out-1.csv", "out-2.csv"]
    for number in (1, 2):
        assert_same_where_observed("people.csv", f"made/out-{number}.csv")


def test_parquet_keeps_types_and_index(run: Run, folder: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(random.choice(["s", "m", "l"], 50), ["s", "m", "l", "xl"], ordered=True),
            "count": pd.array(random.integers(0, 9, 50), "Int16"),
            "weight": random.normal(size=50).astype(np.float32),
        },
        index=pd.Index([f"row {i}" for i in range(50)], name="key"),
    )
    frame = frame.mask(random.random(frame.shape) < 0.2)
    frame.to_parquet("in.parquet")
    done = run("best.json", "in.parquet", "out.parquet")
    assert done.exit_code == 0, done.output
    made = pd.read_parquet("out.parquet")
    assert made.dtypes.to_dict() == frame.dtypes.to_dict()
    assert made.index.equals(frame.index)
    assert not made.isna().any(axis=None)
    for name in frame:
        observed = frame[name].notna()
        assert made.loc[observed, name].equals(frame.loc[observed, name])
    assert run("best.json", "in.parquet", "out.csv").exit_code == 0
    assert list(texts("out.csv")) == ["key", "size", "count", "weight"]


@pytest.fixture(params=["Holdout", "CellHoldout", ""])
def study(request: pytest.FixtureRequest, folder: Path) -> None:
    """Let best.json be of a study of people.csv, however its rows were split."""
    known = {"path": "people.csv", "label": "member", "drop": ["id"], "kinds": {"zip": "categorical"}}
    data: dict[str, Any] = {"source": {"factory": "Csv", "arguments": known}}
    node = json.loads((folder / "best.json").read_text())
    node["arguments"]["data"] = {"factory": request.param, "arguments": data} if request.param else data
    (folder / "best.json").write_text(json.dumps(node))


@pytest.mark.usefixtures("study")
def test_what_the_study_knew_of_the_table_holds(run: Run) -> None:
    done = run("best.json", "people.csv", "out.csv", "--save", "model.pt")
    assert done.exit_code == 0, done.output
    assert "as in the study: id is left as it is, member is left as it is, zip is categorical\n" in done.output
    assert "1 categorical: zip" in done.output
    before, after = texts("people.csv"), texts("out.csv")
    for name in ("id", "member"):
        assert before[name].equals(after[name]), "the label's missing cells, too, are as they were"
    assert set(after["zip"]) == {"00501", "02108", "99950"}
    new = run("model.pt", "new.csv", "new_out.csv")
    assert new.exit_code == 0, new.output
    texts("new.csv").drop(columns=["member"]).to_csv("unlabelled.csv", index=False)
    assert run("model.pt", "unlabelled.csv", "unlabelled_out.csv").exit_code == 0
    given = texts("new_out.csv").drop(columns=["member"])
    assert texts("unlabelled_out.csv").equals(given), "what was left out says nothing of the others"
    unlabelled = texts("people.csv").drop(columns=["id", "member"])
    unlabelled.to_csv("train.csv", index=False)
    assert run("best.json", "new.csv", "again.csv", "--train", "train.csv").exit_code == 0
    assert texts("again.csv").equals(texts("new_out.csv"))


@pytest.mark.usefixtures("study")
def test_options_win_over_what_the_study_knew(run: Run) -> None:
    done = run("best.json", "people.csv", "out.csv", "--kind", "member=binary", "--kind", "zip=numerical")
    assert done.exit_code == 0, done.output
    assert "as in the study: id is left as it is\n" in done.output
    assert "1 binary: member (False, True)" in done.output
    assert "zip (numbers)" in done.output
    done = run("best.json", "people.csv", "out.csv", "--drop", "zip")
    assert done.exit_code == 0, done.output
    assert texts("out.csv")["zip"].equals(texts("people.csv")["zip"])


def test_an_id_is_named_with_its_file_and_what_to_do(run: Run) -> None:
    frame = texts("people.csv").assign(**{"the id": [f"n{row}" for row in range(60)]})
    frame.to_csv("ids.csv", index=False)
    for arguments in (("ids.csv", "out.csv"), ("people.csv", "out.csv", "--train", "ids.csv")):
        done = run("best.json", *arguments, "--drop", "id")
        assert done.exit_code == 2
        said = (
            "error: ids.csv: column 'the id': every cell is different, as of an id, so nothing can be learned from it"
        )
        assert done.stderr.startswith(f"{said}: drop it (--drop 'the id'), or set its kind to categorical")
        assert done.stderr.count("\n") == 1
    assert run("best.json", "ids.csv", "out.csv", *KIND, "--drop", "the id").exit_code == 0


BAD: list[tuple[list[Any], str]] = [
    (["best.json", "people.csv", "people.csv"], "OUT: would overwrite what is read"),
    (["best.json", "people.csv", "out.xlsx"], "out.xlsx: must be a table: .csv, .tsv, .parquet, not '.xlsx'"),
    (["best.json", "people.npy", "out.csv"], "people.npy: a .npy file has no columns' names"),
    (["best.json", "none.csv", "out.csv"], "none.csv: cannot be read: No such file or directory"),
    (["none.json", "people.csv", "out.csv"], "none.json: there is no such configuration or model"),
    (["miss_forst", "people.csv", "out.csv"], "no imputer is called 'miss_forst'; did you mean 'miss_forest'?"),
    (["people.csv", "new.csv", "out.csv"], "people.csv: is not a checkpoint that can be read safely"),
    (["best.json", "people.csv", "out.csv", "--save", "best.json"], "--save: would overwrite what is read"),
    (["best.json", "people.csv", "out.csv", "--save", "model.json"], "--save: a model needs a name such as model.pt"),
    (["best.json", "people.csv", "out.csv", "--kind", "zip"], "--kind: should be COLUMN=KIND, not 'zip'"),
    (["best.json", "people.csv", "out.csv", "--kind", "zp=binary"], "no column 'zp'; did you mean 'zip'?"),
    (["best.json", "people.csv", "out.csv", "--kind", "zip=text"], "kinds.zip: must be 'numerical', 'binary' or"),
    (["best.json", "people.csv", "out.csv", "--drop", "idd"], "people.csv: there is no column 'idd'; did you mean"),
    (["best.json", "new.csv", "out.csv", "--train", "people.csv"], "has the category "),
    (["model.pt", "new.csv", "out.csv", "--epochs", 3, "--drop", "id"], "--epochs: is for a training, and model.pt is"),
    (["model.pt", "more.csv", "out.csv"], "more.csv: has the column 'shoe', which the training table had not"),
    (["model.pt", "lacks.csv", "out.csv"], "lacks.csv: lacks the column 'income' of the training table; did you mean"),
    (["best.json", "people.csv", "out.csv", "--device", "tpu"], "device: "),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_line(run: Run, arguments: list[Any], message: str) -> None:
    if arguments[0] == "model.pt":
        assert run("best.json", "people.csv", "first.csv", *KIND, "--save", "model.pt").exit_code == 0
        texts("new.csv").assign(shoe=44).to_csv("more.csv", index=False)
        texts("new.csv").drop(columns=["id"]).rename(columns={"income": "incme"}).to_csv("lacks.csv", index=False)
    before = Path("people.csv").read_bytes()
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not Path("out.csv").exists()
    assert Path("people.csv").read_bytes() == before
