"""What a comparison found: a row for each imputer, best first, as numbers and as people read it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from dgm_ray.tasks.imputers import BASELINE
from dgm_ray.tasks.progress import some

COLUMNS = (
    "imputer",
    "validation_mean",
    "validation_std",
    "test_mean",
    "test_std",
    "gap",
    "better",
    "seconds",
    "trials",
    "search_seconds",
    "repeats",
    "failed",
    "reason",
)


def leaderboard(searched: Mapping[str, Mapping[str, Any]], repeats: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return a row for each imputer, best first by its mean on validation cells; those that failed are last.

    searched: of each imputer the ``trials`` and ``seconds`` of its search, or the ``error`` that it ended with.
    repeats: of each the rows of its repeats: ``validation``, ``test`` (errors over hidden cells), ``seconds``, or
    ``error``. An imputer of which a repeat failed cannot win; its means are over the others.

    Columns: mean and standard deviation over repeats (NaN of fewer than two); gap: test minus validation; better: by
    how much, in percent, the test error is below that of means and modes; seconds: of a training, the mean;
    search_seconds: of all trials together; repeats: that ended; failed: searches and repeats; reason: of the first.
    """
    table = pd.DataFrame([_row(name, found, repeats[name]) for name, found in searched.items()])
    baseline = table.loc[table["imputer"] == BASELINE, "test_mean"]
    reference = float(baseline.iloc[0]) if len(baseline) else math.nan
    table["better"] = 100 * (1 - table["test_mean"] / reference)
    table = table.assign(lost=table["failed"] > 0).sort_values(["lost", "validation_mean"], kind="stable")
    return table[list(COLUMNS)].reset_index(drop=True)


def winner_of(table: pd.DataFrame) -> str | None:
    """Return the name of the best imputer, if there is one that did not fail."""
    able = table[(table["failed"] == 0) & table["validation_mean"].notna()]
    return str(able["imputer"].iloc[0]) if len(able) else None


def _row(name: str, searched: Mapping[str, Any], repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = [row for row in repeats if "error" not in row]
    errors = [str(row["error"]) for row in (searched, *repeats) if "error" in row]
    row: dict[str, Any] = {"imputer": name}
    for part in ("validation", "test"):
        values = np.array([one[part] for one in done])
        row |= {
            f"{part}_mean": _mean(values),
            f"{part}_std": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        }
    return row | {
        "gap": row["test_mean"] - row["validation_mean"],
        "seconds": _mean(np.array([one["seconds"] for one in done])),
        "trials": searched["trials"],
        "search_seconds": searched["seconds"],
        "repeats": len(done),
        "failed": len(errors),
        "reason": errors[0] if errors else "",
    }


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan


def readable(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the leaderboard as text. measure: "RMSE" or "MAE"."""
    shown = pd.DataFrame({"imputer": table["imputer"]})
    for part in ("validation", "test"):
        pairs = zip(table[f"{part}_mean"], table[f"{part}_std"], strict=True)
        shown[f"{part} {measure}"] = [_with_std(*pair) for pair in pairs]
    shown["gap"] = [_text(value, "+z.4f") for value in table["gap"]]
    shown["vs means"] = [_text(value, "+z.1f", " %") for value in table["better"]]
    shown["seconds"] = [_text(value, ".1f") for value in table["seconds"]]
    shown["trials"] = table["trials"]
    shown["search seconds"] = [_text(value, ".1f") for value in table["search_seconds"]]
    if table["failed"].any():
        shown["failed"] = table["reason"]
    return shown


def print_leaderboard(table: pd.DataFrame, measure: str, repeats: int, console: Console) -> None:
    """Print the leaderboard; failures are lines of their own below it, which may be long."""
    shown = readable(table, measure)
    title = f"{measure} over hidden cells, scaled to [0, 1]: mean ± std over {some(repeats, 'repeat')} of each best"
    console.print(title, style="bold", highlight=False)
    rich = Table(box=box.SIMPLE_HEAD)
    for position, column in enumerate(column for column in shown if column != "failed"):
        rich.add_column(column, justify="right" if position else "left", no_wrap=True)
    for row in shown[[column for column in shown if column != "failed"]].itertuples(index=False):
        rich.add_row(*map(str, row))
    console.print(rich)
    for line in (
        "gap: test minus validation; that of means and modes is the cells' own",
        "vs means: by how much the test error is below that of means and modes",
    ):
        console.print(line, style="dim", highlight=False)
    for one in table[table["failed"] > 0].itertuples():
        line = f"failed: {one.imputer}: {one.reason}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _with_std(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "failed"
    return f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"


def _text(value: float, form: str, unit: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{form}}{unit}"
