"""``report.html``: what a study searched, found and took, as one page that is made from the study's folder alone."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dgm_ray.errors import DGMError, StudyError
from dgm_ray.evaluation.association import associations
from dgm_ray.evaluation.final_report import METRICS
from dgm_ray.evaluation.generation import wasserstein
from dgm_ray.space import Draw, read_draws
from dgm_ray.tasks.progress import some
from dgm_ray.training import write_text
from dgm_ray.tune.place import Place
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.report.figures import svg_of
from dgm_ray.tune.report.importance import LEAST_TRIALS, importance
from dgm_ray.tune.report.leaderboard import page_of
from dgm_ray.tune.report.page import Block, Figure, Heading, Links, Marked, Page, Paragraph, Table
from dgm_ray.tune.report.scores import (
    FAILED,
    below,
    case_of,
    folders_of,
    nothing_there,
    read_study,
    read_table,
)
from dgm_ray.tune.report.study_figures import (
    as_numbers,
    bars,
    errors_by_variable,
    is_scale,
    learning_curves,
    marginals,
    matrices,
    parallel_coordinates,
    shares_of,
    trials_in_order,
)
from dgm_ray.tune.tracking.reading import RESULTS

FIRST, CURVES, HIGHLIGHTED = 5, 8, 3  # trials in a table, curves, trials that stand out in them
VARIABLES, IN_MATRIX = 24, 20
ROWS, COLUMNS = 8, 8  # of completed rows


def report(studies: Sequence[str], console: Console) -> None:
    """Write the pages of some studies, folders or names below ./results, or else of all there, and print their paths.

    Raises ConfigurationError or StudyError for one that was named and has no page; of all, it is said.
    """
    folders = [one for study in studies for one in folders_of(study)] if studies else below(RESULTS)
    if not folders:
        raise nothing_there()
    for folder in folders:
        try:
            line = str(write_report(folder))
        except DGMError as error:
            if len(folders) == 1 or str(folder) in studies:
                raise
            line = f"left out: {error}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def write_report(place: Place | Path) -> Path:
    """Write the page of a study, or of a comparison and of its studies, into its folder; return its path.

    Raises StudyError for a folder that has no study, or one that has not ended.
    """
    folder = place.folder if isinstance(place, Place) else place
    page = page_of_folder(folder)
    write_text(folder / "report.html", page.html())
    return folder / "report.html"


def page_of_folder(folder: Path) -> Page:
    """Return the page; of a comparison those of its studies are written. Raises StudyError as ``write_report``."""
    if not (folder / "study.json").is_file() and (folder / "runs.jsonl").is_file():
        raise StudyError(str(folder), f"is a benchmark, which has no search to report: dgm-ray leaderboard {folder}")
    written = read_study(folder)
    if "imputers" in written["space"]:
        return _comparison(folder, written)
    return StudyPage(Left(folder, written)).page()


def _comparison(folder: Path, written: Mapping[str, Any]) -> Page:
    table = read_table(folder / "leaderboard.parquet", ("imputer", "validation_mean", "test_mean", "failed"))
    measure = str(written["settings"]["metric"]).removeprefix("val_imputation_").upper()
    page = page_of(table, measure, written["settings"]["repeats"])
    links, without = {}, []
    for name in written["space"]["imputers"]:
        try:
            links[name] = write_report(folder / name).relative_to(folder).as_posix()
        except StudyError as error:
            without.append(f"{name} has no report: {error.rule}")
    return page.add(Heading("The search of each imputer"), Links(links)).notes(without)


@dataclass(frozen=True)
class Left:
    """What a study left in its folder. written: its study.json."""

    folder: Path
    written: Mapping[str, Any]

    @cached_property
    def plan(self) -> Plan:
        """What was drawn."""
        return Plan(read_draws(self.written["space"]["trial"]), self.settings["metric"], (), self.settings["seeds"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """As resolved."""
        settings: Mapping[str, Any] = self.written["settings"]
        return settings

    @cached_property
    def draws(self) -> dict[str, Draw]:
        """By label; without those that the table of trials does not have."""
        return {label: draw for label, (_, draw) in self.plan.draws.items() if f"draw:{label}" in self.trials}

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each, the best first, with a ``score``: NaN where it cannot win."""
        needed = ("trial", "status", "reason", "epochs", "best_epoch", "seconds")
        table = read_table(self.folder / "results.parquet", needed)
        score = table[self.plan.metric] if self.plan.metric in table else pd.Series(math.nan, index=table.index)
        return table.assign(score=score.where(~table["status"].isin(FAILED) & np.isfinite(score.astype(float))))

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The trials that can win, best first."""
        return self.trials[self.trials["score"].notna()]

    def values(self, table: pd.DataFrame) -> list[dict[str, Any]]:
        """Return what was drawn for each row of a table of trials, by label."""
        columns = {label: table[f"draw:{label}"].astype(object) for label in self.draws}
        columns = {label: cells.where(cells.notna(), None) for label, cells in columns.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def table(self, name: str, *needed: str) -> pd.DataFrame | None:
        """Return a file of the folder, None if there is none. Raises StudyError for one that is not as it should be."""
        path = self.folder / name
        if not path.is_file():
            return None
        if path.suffix == ".parquet":
            return read_table(path, needed)
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise StudyError(str(path), f"is no table ({' '.join(str(error).split())[:80]})") from None

    def json(self, name: str) -> dict[str, Any]:
        """Return a file of the folder, {} if there is none. Raises StudyError for one that is no JSON."""
        path = self.folder / name
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise StudyError(str(path), f"is no JSON ({error})") from None
        return found


class StudyPage:
    """The page of one study, section by section; one without data is a sentence that says so."""

    def __init__(self, left: Left) -> None:
        self._left, self._metric = left, left.plan.metric

    def page(self) -> Page:
        """Return the page."""
        left = self._left
        page = Page(f"{left.folder.name}: {left.plan.template['task']}")
        page.add(*self._summary(), *self._searched())
        if not len(left.trials):
            return page.add(Paragraph("No trial was started."))
        page.add(*self._trials(), *self._knobs(), *self._curves())
        if len(left.ranked):
            page.add(*self._scores(), *self._variables(), *self._rows())
        return page.add(*self._resources(), *self._environment())

    def _summary(self) -> list[Block]:
        left, means = self._left, self._left.json("scores.json")
        if not len(left.ranked):
            return [Paragraph(f"No trial has a {self._metric}, so none is the best.")]
        best = left.ranked.iloc[0]
        text = f"The best of {some(len(left.trials), 'trial')} is {best['trial']:03d}: {self._metric} "
        seeds = f" over {left.plan.seeds} seeds" if left.plan.seeds > 1 else ""
        text += f"{self._scored(best)}{seeds} in epoch {best['best_epoch']}"
        if means and self._metric in means["means_and_modes"]:
            text += f"; means and modes have {_number(means['means_and_modes'][self._metric])}"
        return [Paragraph(f"{text}. Smaller is better.")]

    def _scored(self, row: Any) -> str:
        std = f"{self._metric}_std"
        more = f" ± {row[std]:.2g}" if std in row and row[std] == row[std] else ""
        return f"{_number(row['score'])}{more}"

    def _searched(self) -> list[Block]:
        left, settings = self._left, self._left.settings
        arguments = left.plan.template["arguments"]
        known = case_of(left.written["space"]["trial"]["arguments"]["data"])
        rows = {"task": left.plan.template["task"], "table": known["dataset"], "hidden cells": known["case"]}
        rows |= {"data": _said(left.written["space"]["trial"]["arguments"]["data"])}
        if (missing := left.table("missing.csv")) is not None:
            rows["hidden, by variable"] = "; ".join(
                f"{name.removesuffix('_missing_rate')} {part.min():.1%} to {part.max():.1%}, mean {part.mean():.1%}"
                for name, part in missing.drop(columns="variable").items()
                if part.notna().any()
            )
        for name in ("search", "scheduler", "stop"):
            if settings[name]:
                rows[name] = _said(settings[name])
        rows["metric"] = self._metric
        rows["trials"] = f"{len(left.trials)}, samples: {settings['samples']}"
        drawn = isinstance(arguments["epochs"], Draw) if "epochs" in arguments else True
        rows |= {} if drawn else {"epochs": f"at most {arguments['epochs']}"}
        first = arguments["seed"] if "seed" in arguments else 0
        own = f"{first} to {first + left.plan.seeds - 1}" if left.plan.seeds > 1 else str(first)
        rows["seeds"] = f"search {settings['seed']}, trials {own}"
        blocks: list[Block] = [Heading("What was searched"), Table(_pairs(rows), texts=True)]
        if left.draws:
            draws = {label: f"{draw.distribution} {_options(draw)}" for label, draw in left.draws.items()}
            return [*blocks, Table(_pairs(draws, "draw", "of"), texts=True)]
        return [*blocks, Paragraph("Nothing was drawn.", note=True)]

    def _trials(self) -> list[Block]:
        left = self._left
        ordered = left.trials.sort_values("trial")
        counts = left.trials["reason"].value_counts()
        blocks: list[Block] = [Heading("Trials"), Table(pd.DataFrame({"why they ended": counts.index, "n": counts}))]
        if len(left.ranked):
            best = left.ranked.iloc[:FIRST]
            values = left.values(best) or [{}] * len(best)
            shown = pd.DataFrame({"trial": [*_MEASURED, *left.draws]})
            for (_, row), drawn in zip(best.iterrows(), values, strict=True):
                cells = [self._scored(row), row["best_epoch"], row["epochs"], f"{row['seconds']:.1f}"]
                shown[f"{row['trial']:03d}"] = [*cells, *(_number(drawn[label]) for label in left.draws)]
            shown.iloc[0, 0] = self._metric
            blocks.append(Table(shown))
        if len(ordered) > 1 and len(left.ranked):
            drawn_figure = trials_in_order(ordered["trial"].tolist(), ordered["score"].tolist(), self._metric)
            text = f"{self._metric} of {len(ordered)} trials by number; the best so far ends at "
            blocks.append(Figure(svg_of(drawn_figure, f"{text}{_number(left.ranked['score'].iloc[0])}")))
        return blocks

    def _knobs(self) -> list[Block]:
        left = self._left
        if not left.draws or len(left.ranked) < 2:
            return []
        values, scores = left.values(left.ranked), left.ranked["score"].tolist()
        blocks: list[Block] = [Heading("Knobs")]
        drawn = parallel_coordinates(left.draws, values, scores, self._metric)
        blocks += [Figure(svg_of(drawn, f"{len(scores)} trials: what was drawn, and {self._metric}"))]
        blocks += [
            Paragraph("A line is a trial: the stronger its colour, the better; the widest is the best.", note=True)
        ]
        if len(scores) < LEAST_TRIALS:
            rule = f"Too few to say which knob matters: it takes {LEAST_TRIALS} trials with a score, and there are "
            return [*blocks, Paragraph(f"{rule}{len(scores)}.", note=True)]
        found = importance(left.draws, values, scores)
        label = "share of what a forest loses when a knob is shuffled"
        blocks.append(Figure(svg_of(bars(found.values, label), f"importance: {_listed(found.values)}")))
        text = (
            "Permutation importance of a random forest that foretells a trial's rank from its draws; on trials that it "
            f"had not seen it explains {max(found.foretold, 0):.0%} of the ranks' variance"
        )
        weak = ": too little to believe the bars" if found.foretold < 0.2 else ""
        return [*blocks, Paragraph(f"{text}{weak}. A trial that was stopped early counts with what it had.", note=True)]

    def _curves(self) -> list[Block]:
        left, heading = self._left, Heading("Learning curves")
        history = left.table("history.parquet", "trial", "epoch")
        if history is None or not len(history):
            return [heading, Paragraph("There is no history.parquet, so no curve can be drawn.", note=True)]
        measured = [name for name in history if history[name].notna().any() and not name.endswith("_std")]
        losses = [name for name in measured if name.endswith("loss") and not name.startswith("val_")]
        others = [name for name in measured if name.startswith("val_") and name != self._metric]
        columns = [name for name in (self._metric, *losses, *others) if name in measured][:CURVES]
        if history["epoch"].max() < 2 or not columns:
            return [heading, Paragraph("Trials have one epoch, so there is no curve.", note=True)]
        best = left.ranked["trial"].tolist()[:HIGHLIGHTED]
        drawn = learning_curves(history, columns, best)
        text = f"{', '.join(columns)} by epoch, of {some(history['trial'].nunique(), 'trial')}"
        note = "What lies far beyond the other curves is cut off."
        if left.plan.seeds > 1:
            note = f"Means over {left.plan.seeds} seeds. {note}"
        return [heading, Figure(svg_of(drawn, text)), Paragraph(note, note=True)]

    def _scores(self) -> list[Block]:
        scores = self._left.json("scores.json")
        if not scores or not scores["winner"]:
            return [Heading("The winner"), Paragraph("It was not scored on test cells.", note=True)]
        own = scores["winner"]
        parts = {
            "validation": "best_val_",
            "test": "test_",
            "means and modes: validation": "baseline_val_",
            "means and modes: test": "test_baseline_",
        }
        rows = [
            {"": name} | {part: _at(own, f"{prefix}{name}") for part, prefix in parts.items()}
            for name in METRICS.values()
            if f"test_{name}" in own
        ]
        for row in rows:
            if f"test_{row['']}_mean" in own:
                mean, std = (own[f"test_{row['']}_{kind}"] for kind in ("mean", "std"))
                row[f"test, {self._left.plan.seeds} seeds"] = f"{mean:.4g} ± {std:.2g}"
        tables: list[Block] = [Table(pd.DataFrame(rows))] if rows else []
        named = {f"{prefix}{name}" for prefix in (*parts.values(), "test_gap_") for name in METRICS.values()}
        named |= {f"test_{name}_{kind}" for name in METRICS.values() for kind in ("mean", "std")}
        more = {name: _number(value) for name, value in own.items() if name not in named}
        if more:
            tables.append(Table(_pairs(more, "on test rows", "")))
        text = "Test cells were hidden from every trial, and scored once, for the winner."
        return [Heading("The winner"), Paragraph(text, note=True), *tables]

    def _variables(self) -> list[Block]:
        table = self._left.table("imputation.csv")
        heading = Heading("Errors by variable")
        if table is None:
            return [heading, Paragraph("The winner's test cells have no imputation to be scored.", note=True)]
        worst = table.iloc[:VARIABLES]
        names, errors, means = (worst[name].tolist() for name in ("variable", "rmse", "means_and_modes_rmse"))
        drawn = errors_by_variable(names, errors, means, "RMSE of hidden test cells, scaled to [0, 1]")
        text = f"RMSE of {len(worst)} variables; the largest: {worst['variable'].iloc[0]} {worst['rmse'].iloc[0]:.3g}"
        shown = worst[["variable", "kind", "cells", "rmse", "means_and_modes_rmse", "nrmse", "user_rmse", "accuracy"]]
        shown = shown.rename(columns={"means_and_modes_rmse": "of means and modes", "user_rmse": "in your units"})
        shown = shown.loc[:, shown.notna().any()].map(_number)
        note = "Largest RMSE first."
        if len(worst) < len(table):
            note = f"The {len(worst)} of {len(table)} variables with the largest RMSE; all are in imputation.csv."
        return [heading, Figure(svg_of(drawn, text)), Paragraph(note, note=True), Table(shown)]

    def _rows(self) -> list[Block]:
        winner = self._left.table("winner.parquet", "row")
        if winner is None:
            return [Heading("Rows"), Paragraph("There is no winner.parquet, so no rows can be shown.", note=True)]
        parts: dict[str, pd.DataFrame] = {}
        for part in ("true", "hidden", "completed", "generated"):
            names = [name for name in winner if name.startswith(f"{part}:")]
            if names:
                parts[part] = winner[names].rename(columns=lambda name: name.partition(":")[2])
        blocks: list[Block] = []
        if "generated" in parts:
            blocks += self._against(parts["true"], parts["generated"], "generated")
        if "completed" in parts:
            hidden = parts["hidden"]
            true, made = (parts[part].where(hidden) for part in ("true", "completed"))
            blocks += self._against(true, made, "imputed", whole=None if "generated" in parts else parts)
            blocks += _sample(winner["row"], parts)
        return blocks

    def _against(
        self, true: pd.DataFrame, made: pd.DataFrame, name: str, whole: Mapping[str, pd.DataFrame] | None = None
    ) -> list[Block]:
        """Return marginals and associations. whole: whose rows associations are of, if not of these."""
        distances = {column: distance(true[column], made[column]) for column in true}
        known = {column: value for column, value in distances.items() if math.isfinite(value)}
        kind = "rows" if name == "generated" else "cells"
        heading = Heading(f"True against {name} {kind}")
        if not known:
            return [heading, Paragraph("There is no cell of both.", note=True)]
        most = VARIABLES if name == "generated" or whole else VARIABLES // 2
        worst = sorted(known, key=lambda column: -known[column])[:most]
        drawn = marginals({column: (true[column], made[column]) for column in worst}, name)
        text = f"distance: {_listed({column: known[column] for column in worst[:5]})}"
        which = f"The {len(worst)} of {len(known)} variables that differ most, w" if len(worst) < len(known) else "W"
        said = f"{which}orst first: Wasserstein distance over the true range, or total variation of categories."
        blocks: list[Block] = [heading, Figure(svg_of(drawn, text)), Paragraph(said, note=True)]
        if name == "imputed" and whole is None:
            return blocks
        rows = (whole["true"], whole["completed"]) if whole else (true, made)
        chosen = [column for column in true if column in worst[:IN_MATRIX]]
        if len(chosen) < 2:
            return blocks
        one, other = (associations(_numeric(part[chosen])) for part in rows)
        gap = float(np.nanmean(np.abs((other - one).to_numpy()[np.triu_indices(len(chosen), 1)])))
        label = "generated" if name == "generated" else "completed"
        said = (
            "Associations: Pearson's correlation of two numbers, correlation ratio of a number and a category, "
            f"Cramér's V of two categories; blue: positive, orange: negative. Mean difference {gap:.3g}."
        )
        return [*blocks, Figure(svg_of(matrices(one, other, label), said)), Paragraph(said, note=True)]

    def _resources(self) -> list[Block]:
        trials = self._left.trials
        total = trials["seconds"].sum()
        rows = {
            "all trials": f"{total:.1f} s of training and measuring",
            "a trial": f"{trials['seconds'].median():.3g} s (median), at most {trials['seconds'].max():.3g} s",
            "an epoch": f"{1000 * total / max(trials['epochs'].sum(), 1):.3g} ms (mean)",
        }
        history = self._left.table("history.parquet", "trial", "epoch")
        if history is not None and "rows_per_second" in history:
            rates = history["rows_per_second"].dropna()
            rows |= {"rows per second": f"{rates.median():.3g} (median)"} if len(rates) else {}
        held = self._left.settings["resources"]
        rows["held by a trial"] = ", ".join(f"{name} {value}" for name, value in held.items() if value)
        blocks: list[Block] = [Heading("Resources"), Table(_pairs(rows), texts=True)]
        by_status = trials.groupby("status")["seconds"].agg(["size", "sum"]).sort_values("sum", ascending=False)
        went = pd.DataFrame({"the time went into trials that": by_status.index, "n": by_status["size"].to_numpy()})
        went["seconds"] = [f"{one:.1f}" for one in by_status["sum"]]
        went["share"] = [f"{one / total:.0%}" if total else "" for one in by_status["sum"]]
        went.iloc[:, 0] = [_ENDED[one] if one in _ENDED else one for one in by_status.index]
        return [*blocks, Table(went)]

    def _environment(self) -> list[Block]:
        left, found = self._left, self._left.json("environment.json")
        if "data" in left.written:
            found["data hash"] = left.written["data"]
        if not found:
            return [Heading("Environment"), Paragraph("There is no environment.json.", note=True)]
        shown = {name.removeprefix("version."): str(value) for name, value in found.items()}
        return [Heading("Environment"), Table(_pairs(shown), texts=True)]


_MEASURED = ("", "best epoch", "epochs", "seconds")
_ENDED = {
    "completed": "had all their epochs",
    "stopped": "the scheduler stopped",
    "early": "stopped early",
    "interrupted": "were interrupted",
    "failed": "failed",
    "diverged": "diverged",
    "oom": "ran out of memory",
}


def distance(true: pd.Series, made: pd.Series) -> float:
    """Return how far two columns differ: Wasserstein-1 over the true range, or total variation of categories.

    NaN if one of both has no cell.
    """
    one, other = true.dropna(), made.dropna()
    if not len(one) or not len(other):
        return math.nan
    if is_scale(true):
        first, second = (as_numbers(part).to_numpy() for part in (one, other))
        return float(wasserstein(first, second)) / (float(np.ptp(first)) or 1.0)
    shares = shares_of(one, other)
    return float(np.abs(shares["true"] - shares["made"]).sum() / 2)


def _numeric(table: pd.DataFrame) -> pd.DataFrame:
    """Return points in time as numbers; all else stays."""
    return table.apply(lambda cells: as_numbers(cells) if is_scale(cells) else cells)


def _sample(row_ids: pd.Series, parts: Mapping[str, pd.DataFrame]) -> list[Block]:
    """Return some completed rows, in the user's units and categories."""
    hidden = parts["hidden"]
    chosen = hidden.index[hidden.any(axis=1)][:ROWS]
    columns = hidden.loc[chosen].sum().sort_values(ascending=False, kind="stable").index[:COLUMNS]
    columns = [column for column in hidden if column in columns]
    if not len(chosen):
        return []
    rows = []
    for index in chosen:
        row: dict[str, str | Marked] = {"row": str(row_ids[index])}
        for column in columns:
            true, made = (parts[part].at[index, column] for part in ("true", "completed"))
            row[column] = _cell(made)
            if hidden.at[index, column]:
                row[column] = Marked(f"{row[column]} (true {_cell(true)})")
            elif pd.isna(true):
                row[column] = Marked(f"{row[column]} (was missing)")
        rows.append(row)
    note = "Marked: what the winner put into cells that were hidden from it or missing. Columns: those with most."
    return [Heading("Completed rows"), Table(pd.DataFrame(rows)), Paragraph(note, note=True)]


def _cell(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _pairs(rows: Mapping[str, Any], *names: str) -> pd.DataFrame:
    columns = names or ("", " ")
    return pd.DataFrame({columns[0]: list(rows), columns[1]: list(map(str, rows.values()))})


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _at(figures: Mapping[str, float], name: str) -> str:
    return _number(figures[name]) if name in figures else ""


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _options(draw: Draw) -> str:
    return ", ".join(map(_said, draw.arguments))


def _said(node: Any) -> str:
    """Return plain data as people read it: ``MCAR``, ``ASHA(grace_period=4)``."""
    if isinstance(node, Mapping) and "factory" in node:
        own = {
            key: value for key, value in (node["arguments"] if "arguments" in node else {}).items() if value is not None
        }
        return f"{node['factory']}({_said(own)})" if own else str(node["factory"])
    if isinstance(node, Mapping):
        return ", ".join(f"{key}={_said(value)}" for key, value in node.items())
    return str(node)
