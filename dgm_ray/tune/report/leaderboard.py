"""What a comparison found: a row for each imputer, best first, as numbers and as people read it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dgm_ray.evaluation.ranking import interval
from dgm_ray.tasks.imputers import BASELINE
from dgm_ray.tasks.progress import some
from dgm_ray.tune.report.page import Page, Paragraph, Table
from dgm_ray.tune.report.standings import against_seconds, as_text, with_interval

COLUMNS = (
    "imputer",
    "validation_mean",
    "validation_std",
    "validation_interval",
    "test_mean",
    "test_std",
    "test_interval",
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

    Columns: mean, standard deviation and half the 95% interval over repeats (both NaN of fewer than two); gap: test
    minus validation; better: by how much, in percent, the test error is below that of means and modes; seconds: of a
    training, the mean; search_seconds: of all trials together; repeats: that ended; failed: searches and repeats;
    reason: of the first.
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
            f"{part}_interval": interval(values)[1],
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
        pairs = zip(table[f"{part}_mean"], table[f"{part}_interval"], strict=True)
        shown[f"{part} {measure}"] = [with_interval(*pair) for pair in pairs]
    shown["gap"] = [as_text(value, "+z.4f") for value in table["gap"]]
    shown["vs means"] = [as_text(value, "+z.1f", " %") for value in table["better"]]
    shown["seconds"] = [as_text(value, ".1f") for value in table["seconds"]]
    shown["trials"] = table["trials"]
    shown["search seconds"] = [as_text(value, ".1f") for value in table["search_seconds"]]
    return shown


def page_of(table: pd.DataFrame, measure: str, repeats: int) -> Page:
    """Return the leaderboard as a page, with test errors against seconds; failures are lines below the table."""
    page = Page(f"{measure} over hidden cells, scaled to [0, 1]: mean ± 95% interval over {some(repeats, 'repeat')}")
    page.add(Table(readable(table, measure)))
    page.notes(
        [
            "gap: test minus validation; that of means and modes is the cells' own",
            "vs means: by how much the test error is below that of means and modes",
        ]
    )
    for one in table[table["failed"] > 0].itertuples():
        page.add(Paragraph(f"failed: {one.imputer}: {one.reason}"))
    return page.add(*against_seconds(list(table["imputer"]), table["test_mean"], table["seconds"], f"test {measure}"))
