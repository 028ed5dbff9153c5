"""The leaderboard over tables: ranks, intervals, tests over data sets, and what tuning gave; as a page and as rows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dgm_ray.errors import ConfigurationError, StudyError, nearest
from dgm_ray.evaluation.ranking import (
    LEAST_DATA_SETS,
    LEAST_METHODS,
    LEVEL,
    alike,
    critical_difference,
    friedman,
    front,
    interval,
    least_pairs,
    pairwise,
    ranks,
)
from dgm_ray.tasks.progress import some
from dgm_ray.training import atomic, write_text
from dgm_ray.tune.report.figures import critical_difference_diagram, quality_against_seconds
from dgm_ray.tune.report.page import Block, Figure, Heading, Page, Paragraph, Table
from dgm_ray.tune.report.scores import WORST, Found, Rows, read_all

FIRST = "test_imputation_rmse"  # the metric, if nothing else is asked for and there is one
LARGER = ("accuracy",)  # how the names of metrics end of which larger is better
PRINTED = 4  # tables in a terminal; a page has all


def leaderboard(studies: Sequence[str], metric: str | None, output: Path, console: Console) -> None:
    """Read the folders, print the leaderboard and write leaderboard.md, .html and .parquet below ``output``.

    Raises ConfigurationError or StudyError for a folder or a metric that is not there, before anything is written.
    """
    found = read_all(studies)
    standings = Standings(found, metric)
    write(standings.rows, standings.page(), output, "leaderboard")
    standings.page(short=True).print(console)
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard.parquet"):
        console.print(str(output / name), highlight=False, soft_wrap=True, markup=False)


def write(rows: pd.DataFrame, page: Page, folder: Path, name: str) -> None:
    """Write rows as ``{name}.parquet``, and a page as ``{name}.md`` and ``{name}.html``."""
    with atomic(folder / f"{name}.parquet") as temporary:
        rows.to_parquet(temporary, index=False)
    write_text(folder / f"{name}.md", page.markdown())
    write_text(folder / f"{name}.html", page.html())


class Standings:
    """Who stands where.

    metric: by which; None: ``FIRST`` if there is one, or else what most folders have, if need be the first one's own.
    rows: for each dataset, case and method: kind, n and what it counts, mean, interval (half its width, 95%), rank,
    better (percent below means and modes), seconds, runs, failed.
    """

    def __init__(self, found: Found, metric: str | None = None) -> None:
        self._searches, self._left_out = found.searches, list(found.left_out)
        self.metric = _metric(found.scores, metric, self._left_out)
        self._larger = self.metric.endswith(LARGER)
        self._scores = self._chosen(found.scores)
        self.rows = pd.concat([self._standing(key) for key in self._tables], ignore_index=True)

    @property
    def _tables(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(zip(self._scores["dataset"], self._scores["case"], strict=True)))

    def _chosen(self, scores: Rows) -> pd.DataFrame:
        """Return the rows that have the metric, or failed, each with its ``name``: the method's, told from its like."""
        folders = {row["folder"] for row in scores if _has(row, self.metric)}
        for folder in dict.fromkeys(row["folder"] for row in scores if row["folder"] not in folders):
            self._left_out.append(f"{folder}: has no {self.metric}")
        kept = [row for row in scores if row["folder"] in folders and (_has(row, self.metric) or row["error"])]
        table = pd.DataFrame(kept)
        if self.metric.startswith("val_"):
            table["case"], table["mask"] = table["val_case"], table["val_mask"]
        table["value"] = table[self.metric].where(table["error"] == "")
        named = table["method"]
        named = named.where(
            named.map(table.groupby("method")["kind"].nunique()) == 1, named + " (" + table["kind"] + ")"
        )
        keys = ["dataset", "case", "mask", "seed"]
        again = table.assign(name=named).groupby([*keys, "name"])["folder"].transform("nunique") > 1
        crowded = set(named[again])  # the same training in several folders: two studies of a model on one table
        folder = table["folder"].map(lambda path: Path(path).name)
        return table.assign(name=named.where(~named.isin(crowded), named + " (" + folder + ")"))

    def _standing(self, key: tuple[str, str]) -> pd.DataFrame:
        dataset, case = key
        table = self._scores[(self._scores["dataset"] == dataset) & (self._scores["case"] == case)]
        rows = []
        for name, own in table.groupby("name", sort=False):
            done = own[own["value"].notna()]
            by_mask = done.groupby("mask")["value"].mean()
            several = len(by_mask) > 1
            mean, half = interval(by_mask if several else done["value"])
            failed = len(own) - len(done)
            rows.append(
                {"dataset": dataset, "case": case, "method": name, "kind": own["kind"].iloc[0], "mean": mean}
                | {"interval": half, "n": len(by_mask) if several else len(done), "of": "mask" if several else "seed"}
                | {"loss": math.inf if failed or math.isnan(mean) else -mean if self._larger else mean}
                | {"seconds": done["seconds"].mean(), "runs": len(own), "failed": failed}
                | {"reason": next((text for text in own["error"] if text), "")}
            )
        standing = pd.DataFrame(rows)
        standing["rank"] = ranks([standing["loss"]])[0]
        reference = standing.loc[standing["kind"] == WORST, "mean"]
        worst = float(reference.iloc[0]) if len(reference) else math.nan
        standing["better"] = math.nan if self._larger else 100 * (1 - standing["mean"] / worst)
        return standing.sort_values("rank", kind="stable")

    def page(self, *, short: bool = False) -> Page:
        """Return the leaderboard. short: as for a terminal, which has a few tables and no figures."""
        page = Page(f"Leaderboard: {self.metric}, {'larger' if self._larger else 'smaller'} is better")
        tables = self._tables
        page.notes(["± is the 95% interval (Student's t) over masks of hidden cells, or over seeds of one mask"])
        if len(tables) > 1:
            self._overall(page)
        for key in tables[: PRINTED if short else None]:
            self._one(page, key, figures=not short)
        if short and len(tables) > PRINTED:
            page.notes([f"{some(len(tables) - PRINTED, 'more table')}: in the files"])
        self._tuning(page)
        for row in self.rows[self.rows["failed"] > 0].to_dict("records"):
            page.add(Paragraph(f"failed: {row['method']} on {row['dataset']}, {row['case']}: {row['reason']}"))
        for line in self._left_out:
            page.add(Paragraph(f"left out: {line}"))
        return page

    def _one(self, page: Page, key: tuple[str, str], *, figures: bool) -> None:
        own = self.rows[(self.rows["dataset"] == key[0]) & (self.rows["case"] == key[1])]
        shown = pd.DataFrame({"method": own["method"], "": own["kind"]})
        shown[self.metric] = [with_interval(*pair) for pair in zip(own["mean"], own["interval"], strict=True)]
        shown["rank"] = [f"{value:g}" for value in own["rank"]]
        if own["better"].notna().any():
            shown["vs means"] = [as_text(value, "+z.1f", " %") for value in own["better"]]
        shown["seconds"] = [as_text(value, ".3g") for value in own["seconds"]]
        shown["n"] = [some(n, of) for n, of in zip(own["n"], own["of"], strict=True)]
        shown["failed"] = [f"{failed} of {runs}" for failed, runs in zip(own["failed"], own["runs"], strict=True)]
        page.add(Heading(f"{key[0]}, {key[1]}"), Table(shown))
        best = against_seconds(list(own["method"]), own["mean"], own["seconds"], self.metric, larger=self._larger)
        page.add(*best if figures else best[1:])

    def _overall(self, page: Page) -> None:
        """Add ranks and tests over data sets, of the methods that were run on all of them."""
        losses = self.rows.pivot(index=["dataset", "case"], columns="method", values="loss")
        everywhere = [name for name in losses if losses[name].notna().all()]
        count = self._scores["dataset"].nunique()
        partly = [str(name) for name in losses if name not in everywhere]
        page.add(Heading(f"Over {some(count, 'data set')}, {len(losses)} tables"))
        if len(everywhere) < 2:
            page.add(Paragraph("no two methods were run on all tables, so each table is ranked by itself"))
            return
        by_set = losses[everywhere].groupby(level="dataset").mean()  # (data sets, methods): the mean over cases
        mean_ranks = ranks(by_set).mean(axis=0)
        order = [int(index) for index in np.argsort(mean_ranks, kind="stable")]
        p = pairwise(by_set) if count >= least_pairs() else None
        rows = []
        for index in order:
            name = everywhere[index]
            own = self.rows[self.rows["method"] == name]
            row: dict[str, Any] = {"method": name, "": own["kind"].iloc[0], "mean rank": f"{mean_ranks[index]:.2f}"}
            if count > 1:
                row["first on"] = int((ranks(by_set)[:, index] == 1).sum())
            if p is not None:
                row["p, to the first"] = "" if index == order[0] else f"{p[order[0], index]:.3g}"
            row["seconds"] = as_text(float(np.exp(np.log(own["seconds"]).mean())), ".3g")
            rows.append(row | {"failed": f"{own['failed'].sum()} of {own['runs'].sum()}"})
        page.add(Table(pd.DataFrame(rows)))
        lines = ["ranks are of the mean over a data set's cases; a method that failed once is last there"]
        lines += ["seconds: geometric mean over tables"]
        if partly:
            lines.append(f"not on all tables, so not ranked over them: {', '.join(partly)}")
        page.notes(lines)
        self._tests(page, everywhere, by_set, mean_ranks, p)

    def _tests(self, page: Page, names: list[str], by_set: pd.DataFrame, mean_ranks: Any, p: Any) -> None:
        count, methods = by_set.shape
        pairs = methods * (methods - 1) // 2
        if p is None:
            rule = (
                f"no signed-rank test: it needs {least_pairs()} data sets to reach {LEVEL:.0%}, and there are {count}"
            )
            page.notes([rule])
        else:
            line = f"p: Wilcoxon's signed-rank test over data sets, Holm's correction for {pairs} pairs"
            if count < (needed := least_pairs(pairs)):
                line += f"; with so many it needs {needed} data sets to reach {LEVEL:.0%}, and there are {count}"
            page.notes([line])
        if count < LEAST_DATA_SETS or methods < LEAST_METHODS:
            rule = (
                f"it needs {LEAST_DATA_SETS} data sets and {LEAST_METHODS} methods, and there are {count} and {methods}"
            )
            page.notes([f"no critical difference: {rule}"])
            return
        tested, difference = friedman(by_set), critical_difference(methods, count)
        groups = alike(list(mean_ranks), difference)
        caption = f"Friedman's test (Iman and Davenport): F {tested.f:.3g}, p {tested.p:.3g}. Nemenyi's critical "
        caption += (
            f"difference of mean ranks at {LEVEL:.0%}: {difference:.2f}; methods below one bar are not told apart"
        )
        if tested.p >= LEVEL:
            caption += "; Friedman's test finds no difference at all, so read nothing into this order"
        page.add(Figure(critical_difference_diagram(names, list(mean_ranks), difference, groups)))
        page.add(Paragraph(caption, note=True))

    def _tuning(self, page: Page) -> None:
        """Add the best trial of each search beside the one with the default configuration, where there is one."""
        rows = [row for row in self._searches if row["default"] == row["default"]]
        if not rows:
            return
        shown = [
            {
                "method": row["method"],
                "table": f"{row['dataset']}, {row['case']}",
                "baseline": as_text(row["baseline"], ".4f"),
                "default": as_text(row["default"], ".4f"),
                "tuned": as_text(row["best"], ".4f"),
                "gain": f"{100 * (1 - row['best'] / row['default']):+z.1f} %",
                "trials": f"{row['trials']}, {row['failed']} failed",
                "seconds": f"{row['seconds']:.3g}",
            }
            for row in rows
        ]
        metrics = ", ".join(dict.fromkeys(row["metric"] for row in rows))
        page.add(Heading(f"What tuning gave: {metrics}"), Table(pd.DataFrame(shown)))
        page.notes(["on the cells that the search looked at, so the tuned one can only be better: an upper bound"])


def _metric(scores: Rows, asked: str | None, left_out: Sequence[str]) -> str:
    """Return the metric. Raises ConfigurationError for one that no folder has, StudyError if there is nothing."""
    folders: dict[str, set[str]] = {}
    for row in scores:
        for name in row:
            if name.startswith(("test_", "val_")) and name not in ("val_case", "val_mask") and _has(row, name):
                folders.setdefault(name, set()).add(row["folder"])
    if not folders:
        raise StudyError("leaderboard", f"nothing has been measured{f': {left_out[0]}' if left_out else ''}")
    if asked is not None and asked not in folders:
        rule = f"should be of {', '.join(sorted(folders))}{nearest(asked, folders)}"
        raise ConfigurationError("--metric", rule, asked)
    if asked is None and FIRST in folders:
        return FIRST
    return asked or max(folders, key=lambda name: len(folders[name]))


def _has(row: dict[str, Any], metric: str) -> bool:
    return metric in row and isinstance(row[metric], float | int) and math.isfinite(row[metric])


def against_seconds(
    names: Sequence[str], values: Sequence[float], seconds: Sequence[float], label: str, *, larger: bool = False
) -> list[Block]:
    """Return the figure of values against seconds, and which methods are on its front; [] of fewer than two methods.

    label: of the values. larger: better.
    """
    numbers, times = np.asarray(values, dtype=np.float64).tolist(), np.asarray(seconds, dtype=np.float64).tolist()
    best = front([-value for value in numbers] if larger else numbers, times)
    if not best or len(names) < 2:
        return []
    text = f"no method is both better and faster than: {', '.join(names[index] for index in best)}"
    return [Figure(quality_against_seconds(names, numbers, times, label, larger=larger)), Paragraph(text, note=True)]


def with_interval(mean: float, half: float) -> str:
    """Return a mean as a table shows it, with half its interval's width; "failed" for none."""
    if math.isnan(mean):
        return "failed"
    return f"{mean:.4f}" if math.isnan(half) else f"{mean:.4f} ± {half:.4f}"


def as_text(value: float, form: str, unit: str = "") -> str:
    """Return a number as a table shows it, nothing for one that is not finite."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else ""
