"""Tables that cannot be learned from, through all that a user calls: one line with the column, or a stated behaviour.

Each is run as ``tune --data``, as ``dgm-ray impute`` and as ``dgm_ray.Imputer``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray import Imputer
from dgm_ray.cli import app
from dgm_ray.errors import ImputerError

SPACE = Path(__file__).parents[1] / "search_spaces" / "k_nearest.yaml"
ROWS = 80


def good(rows: int = ROWS) -> pd.DataFrame:
    """Return a table that can be learned from; a tenth of its cells is missing."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, rows).astype(float),
            "city": random.choice(["Rome", "Oslo", "Bonn"], rows),
            "pay": random.normal(size=rows).round(3),
        }
    )
    return frame.mask(random.random(frame.shape) < 0.1)


def with_cell(cell: Any, column: str = "age") -> pd.DataFrame:
    """Return the table with one other cell, in row 3."""
    frame = good().astype({column: object})
    frame.loc[3, column] = cell
    return frame


def with_column(*cells: Any, rows: int = ROWS) -> pd.DataFrame:
    """Return the table with one more column, ``bad``, that holds these cells over and over."""
    return good(rows).assign(bad=[cells[row % len(cells)] for row in range(rows)])


# The table, and how the error of the command line goes on after the name of the file.
CANNOT: dict[str, tuple[pd.DataFrame, str]] = {
    "all missing": (with_column(np.nan), "column 'bad': all its cells are missing, so nothing can be learned"),
    "all missing, text": (with_column(None), "column 'bad': all its cells are missing, so nothing can be learned"),
    "constant numbers": (with_column(7), "column 'bad': all its cells are the same (7)"),
    "constant where observed": (with_column(7, np.nan), "column 'bad': all its cells are the same (7.0)"),
    "constant text": (with_column("a"), "column 'bad': all its cells are the same (a)"),
    "constant dates": (with_column("2024-02-01"), "column 'bad': all its cells are the same (2024-02-01"),
    "numbers and text": (with_cell("old"), "column 'age': holds "),
    "dates and text": (
        with_column(*["2024-02-01", "2024-02-02"] * 5, "soon"),
        "column 'bad': holds mixed types, dates and text ('soon' in row 10)",
    ),
    "a date that there is not": (
        with_column("2023-02-30", "2024-02-01", "2024-02-02"),
        "column 'bad': holds mixed types, dates and text ('2023-02-30' in row 0)",
    ),
    "infinite": (with_cell(np.inf, "pay"), "column 'pay', row 3: must be finite, or empty where missing, not inf"),
    "infinite among flags": (with_column(0, 1, -np.inf), "column 'bad', row 2: must be finite"),
    "too large": (with_cell(1e300, "pay"), "column 'pay', row 3: is too large a number: rescale the column"),
    "an id": (with_column(*[f"n{row}" for row in range(ROWS)]), "column 'bad': every cell is different, as of an id"),
    "many categories": (
        with_column(*[f"c{number}" for number in range(1001)], rows=2002),
        "column 'bad': must have at most 1000 categories: drop it",
    ),
    "one row": (good(1), "must have more than 1 sample (row), not 1"),
    "no row": (good(0), "must have rows and columns, not (0, 3)"),
}
cannot = pytest.mark.parametrize(("frame", "said"), CANNOT.values(), ids=CANNOT)
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


def tune(run: Run, frame: pd.DataFrame, *options: str) -> Result:
    frame.to_csv("bad.csv", index=False)
    return run("tune", SPACE, "--check", "--data", "bad.csv", *options)


def assert_one_line(done: Result, said: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(f"error: {said}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(Path().glob("out*"))
    assert not Path("results").exists()


@cannot
def test_tune(frame: pd.DataFrame, said: str, run: Run) -> None:
    done = tune(run, frame)
    assert_one_line(done, f"bad.csv: {said}")
    assert "drop it" not in done.stderr or "drop it (--drop bad)" in done.stderr


@cannot
def test_impute(frame: pd.DataFrame, said: str, run: Run) -> None:
    frame.to_csv("bad.csv", index=False)
    assert_one_line(run("impute", "k_nearest", "bad.csv", "out.csv"), f"bad.csv: {said}")
    good().to_csv("good.csv", index=False)
    assert_one_line(run("impute", "k_nearest", "good.csv", "out.csv", "--train", "bad.csv"), f"bad.csv: {said}")


@cannot
def test_imputer(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ImputerError) as caught:
        Imputer("k_nearest").fit(frame)
    assert str(caught.value).startswith(f"table: {said}")
    assert "\n" not in str(caught.value)
    assert "--drop" not in str(caught.value), "Python has no options"


def test_dropped_columns_may_be_as_they_like(run: Run) -> None:
    for number, (frame, _) in enumerate(CANNOT.values()):
        if "bad" in frame:
            done = tune(run, frame, "--drop", "bad")
            assert done.exit_code == 0, done.stderr
            done = run("impute", "means_and_modes", "bad.csv", f"out{number}.csv", "--drop", "bad")
            assert done.exit_code == 0, done.stderr
            before, after = (pd.read_csv(name, dtype=str)["bad"] for name in ("bad.csv", f"out{number}.csv"))
            assert before.equals(after)


LABELS: dict[str, tuple[list[Any], str]] = {
    "missing": (["a", "b", None], "row 2: is missing: every row needs its class"),
    "all missing": ([None], "row 0: is missing: every row needs its class"),
    "one class": (["a"], "must hold 2 to 1000 classes, not 1"),
    "infinite": ([1.5, 2.5, np.inf], "row 2: must be finite"),
}


@pytest.mark.parametrize(("labels", "said"), LABELS.values(), ids=LABELS)
def test_labels(labels: list[Any], said: str, run: Run) -> None:
    separator = ", " if said.startswith("row") else ": "
    assert_one_line(tune(run, with_column(*labels), "--label", "bad"), f"bad.csv: label 'bad'{separator}{said}")


HIDING: dict[str, tuple[list[str], str]] = {
    "nothing to score": (["missing_probability=0"], "data.missing_probability: must hide a cell of the validation"),
    "a rate of next to nothing": (["missing_probability=1e-9"], "data.missing_probability: must hide a cell of the"),
    "a rate above 1": (["missing_probability=1.5"], "trial.arguments.data.missing_probability: Input should be less"),
    "hardly a training cell": (["train_missing_probability=0.9999"], "column 'age': cannot be scaled, all its cells"),
    "above what a quantile leaves": (
        ["missing={factory: MNARQuantile, arguments: {quantile: 0.9}}"],
        "data.missing: MNARQuantile hides a share of 0.1 of the cells at most, those above the quantile, not 0.2",
    ),
    "above what patterns can hide": (
        ["missing={factory: Patterns, arguments: {patterns: [[age], [city]]}}", "missing_probability=0.6"],
        "data.missing: Patterns hides a share of 0.5 of its variables' cells at most",
    ),
    "whole rows": (["missing={factory: Blocks, arguments: {size: 3}}"], "data.missing.size: should be below the 3"),
}


@pytest.mark.parametrize(("assignments", "said"), HIDING.values(), ids=HIDING)
def test_cells_that_cannot_be_hidden(assignments: list[str], said: str, run: Run) -> None:
    options = [option for one in assignments for option in ("--set", f"trial.arguments.data.{one}")]
    assert_one_line(tune(run, good(), *options), said)


def test_cells_that_an_imputer_cannot_hide() -> None:
    """With nothing hidden there are no scores, and it is trained all the same."""
    for probability in (0.0, 1e-9):
        imputer = Imputer("k_nearest", validation_probability=probability).fit(good())
        assert imputer.validation_scores_ == {}
        assert not imputer.transform(good()).isna().any(axis=None)
    with pytest.raises(ImputerError, match=r"column 'age': cannot be scaled.*: a lower validation_probability"):
        Imputer("k_nearest", validation_probability=0.9999).fit(good())
    for probability in (-0.1, 1.0):
        with pytest.raises(ImputerError, match=r"^validation_probability: must be within \[0, 1\), not "):
            Imputer("k_nearest", validation_probability=probability).fit(good())


# New rows, and how the error of the command line goes on after the name of the file.
NEW: dict[str, tuple[pd.DataFrame, str]] = {
    "an unseen category": (with_cell("Roma", "city"), "column 'city': has the category 'Roma', which was not there"),
    "infinite": (with_cell(-np.inf).astype({"age": float}), "column 'age', row 3: must be finite"),
    "too large": (with_cell(1e300).astype({"age": float}), "column 'age', row 3: is too large a number"),
    "text for numbers": (with_cell("old").astype({"age": str}), "column 'age': must hold numbers, as in training"),
}
new_rows = pytest.mark.parametrize(("frame", "said"), NEW.values(), ids=NEW)


@new_rows
def test_new_rows_of_a_file(frame: pd.DataFrame, said: str, run: Run) -> None:
    frame.to_csv("new.csv", index=False)
    good().to_csv("good.csv", index=False)
    done = run("impute", "k_nearest", "new.csv", "out.csv", "--train", "good.csv")
    assert_one_line(done, f"new.csv: {said}")
    assert "must hold" not in said or "not text ('old')" in done.stderr, "the cell that is none"


@new_rows
def test_new_rows_of_an_imputer(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ImputerError) as caught:
        Imputer("k_nearest").fit(good()).transform(frame)
    assert str(caught.value).startswith(f"rows: {said}")
    assert "\n" not in str(caught.value)


def test_new_rows_may_lack_what_was_learned() -> None:
    """A column without a cell, or with one value, or a row without a cell: all are imputed from what was learned."""
    imputer = Imputer("k_nearest").fit(good())
    for frame in (good().assign(age=np.nan), good().assign(city=None), good().assign(age=30.0), good().head(1)):
        assert not imputer.transform(frame).isna().any(axis=None)
    nothing = good()
    nothing.loc[0] = np.nan
    assert not imputer.transform(nothing).isna().any(axis=None)


def test_arrays_of_numbers() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    for cell, said in ((np.inf, r"column 'x1', row 3: must be finite"), (1e300, r"column 'x1', row 3: is too large")):
        wrong = rows.copy()
        wrong[3, 1] = cell
        with pytest.raises(ImputerError, match=rf"^table: {said}"):
            Imputer("k_nearest").fit(wrong)
        with pytest.raises(ImputerError, match=rf"^rows: {said}"):
            Imputer("k_nearest").fit(rows).transform(wrong)
    for column, said in ((np.nan, "all its cells are missing"), (2.0, r"all its cells are the same \(2.0\)")):
        rows[:, 1] = column
        with pytest.raises(ImputerError, match=rf"^table: column 'x1': {said}"):
            Imputer("k_nearest").fit(rows)
