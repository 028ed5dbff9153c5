"""What a person sees of a study: one line per finished trial, what runs now below, a summary at the end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from dgm_ray.evaluation.final_report import DRAWS, FinalReport
from dgm_ray.tune.live import Now, Row, figure
from dgm_ray.tune.observer import Observer, before_resume
from dgm_ray.tune.outcomes import Outcome, best_first, changes, number_of, pareto, reasons
from dgm_ray.tune.plan import Plan, Schedule

# Trials in the summary, in a console of so many columns; deviations over seeds take more.
SHOWN, SHOWN_NARROW, NARROW, DEVIATIONS = 5, 3, 110, 30
WORST = 5  # variables in the report
REFRESHES = 4  # of what runs now, a second
SILENCE = 30.0  # seconds after which a log gets a line about what runs now


class ConsoleCallback(Observer):
    """Print a line when a trial ends (unless not ``lines``), and what runs now: a table in a terminal.

    In a log it is a line after ``silence`` seconds without one. total: how many trials there are. epochs: how many a
    trial has at most. name: of the study, if it is one of several.
    """

    def __init__(
        self,
        console: Console,
        metric: str,
        total: int,
        outcome: Callable[[RayTrial], Outcome],
        epochs: Callable[[RayTrial], int],
        *,
        name: str = "",
        lines: bool = True,
        silence: float = SILENCE,
    ) -> None:
        super().__init__()
        self._console, self._metric, self._outcome, self._epochs = console, metric, outcome, epochs
        self._lines, self._silence, self._said = lines, silence, time.monotonic()
        self.now = Now(metric, total, name)
        self._live = Live(self.now, console=console, refresh_per_second=REFRESHES, transient=True)
        self._ended: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._row(trial)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        row = self._row(trial)
        row.epoch = int(result["epoch"])
        row.now = result[self._metric] if result[self._metric] == result[self._metric] else row.now
        row.best = result[f"best_{self._metric}"]

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        for trial in before_resume(iteration, trials):
            if trial.trial_id not in self._ended:
                self._ended.add(trial.trial_id)
                self.now.end(self._outcome(trial), before=True)
        if not self._console.is_terminal and time.monotonic() - self._said > self._silence:
            self._say(self.now.line)

    def on_trial_end(self, trial: RayTrial) -> None:
        self._ended.add(trial.trial_id)
        outcome = self._outcome(trial)
        mark = "*" if self.now.end(outcome) else " "
        if not self._lines:
            return
        score = _with_std(outcome.measures, self._metric) or figure(outcome.score)
        line = f"{mark} {outcome.number:03d}  {self._metric} {score}  epoch {outcome.best_epoch}"
        self._say(f"{line} of {outcome.epochs}  {outcome.seconds:.1f} s  {outcome.reason}")

    def start(self) -> None:
        if self._console.is_terminal and not self._console.quiet:
            self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def _row(self, trial: RayTrial) -> Row:
        """Return the row of a trial that runs; its values may be others now than when it was started."""
        if trial.trial_id not in self.now.running:
            self.now.running[trial.trial_id] = Row(number_of(trial), self._epochs(trial), trial.config)
        row = self.now.running[trial.trial_id]
        row.values = trial.config
        return row

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)
        self._said = time.monotonic()


def print_summary(console: Console, plan: Plan, outcomes: Sequence[Outcome], baseline: dict[str, float]) -> None:
    """Print the best trials with the baseline beside them, and why trials ended."""
    narrow = console.width < NARROW + (DEVIATIONS if plan.seeds > 1 else 0)
    ranked = best_first(outcomes)[: SHOWN_NARROW if narrow else SHOWN]
    seeds = f"; mean ± std over {plan.seeds} seeds" if plan.seeds > 1 else ""
    title = f"best of {len(outcomes)} trials by {plan.metric}, smaller is better{seeds}"
    console.print(title, style="bold", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("trial", no_wrap=True)
    for one in ranked:
        table.add_column(f"{one.number:03d}", justify="right")
    table.add_column("means and modes", justify="right")
    for name, of_trial, of_baseline in _FIGURES:
        figures = [figure(of_trial(one)) for one in ranked]
        if any(figures):
            table.add_row(name, *figures, figure(of_baseline(baseline)))
    table.add_section()
    for label in plan.draws:
        table.add_row(label, *[figure(one.values[label]) for one in ranked])
    console.print(table)
    if any(_fidelity(one.measures) is not None for one in ranked):
        console.print("fidelity: 1 - mean distance between real and generated marginals", style="dim")
    if plan.others:
        names = (plan.metric, *plan.others)
        console.print(f"no trial is better in both {' and '.join(names)} than:", highlight=False, soft_wrap=True)
        for one in pareto(outcomes, names):
            console.print(f"  {one.number:03d}  {'  '.join(figure(one.measures[n]) for n in names)}", highlight=False)
    if ranked and ranked[0].schedule:
        values = said_schedule(ranked[0].schedule)
        console.print(f"values of {ranked[0].number:03d}: {values}", highlight=False, soft_wrap=True, markup=False)
    console.print("why trials ended:", highlight=False)
    for reason, count in reasons(outcomes).items():
        console.print(f"  {count:3d}  {reason}", highlight=False, soft_wrap=True, markup=False)


def said_schedule(schedule: Schedule) -> str:
    """Return which values changed, for people: ``lr 0.01, 0.012 from epoch 6``."""
    lines = []
    for label, values in changes(schedule).items():
        first, *later = values.items()
        lines.append(", ".join([f"{label} {figure(first[1])}", *(f"{figure(v)} from epoch {e}" for e, v in later)]))
    return "; ".join(lines)


def print_report(console: Console, report: FinalReport, number: int, path: str) -> None:
    """Print what the winner is worth on the test cells, and the worst of its variables.

    number: of the winner's trial. path: where all the variables are.
    """
    if report.test:
        one = f"trial {number:03d}{', its best seed,' if report.seeds else ''} on the test cells, scored once"
        console.print(one, style="bold", highlight=False)
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("", no_wrap=True)
        for name in ("validation", "test", "test - validation", "means and modes: validation", "test"):
            table.add_column(name, justify="right")
        for name, text in _IMPUTATION.items():
            if name in report.test:
                own, means = (
                    [figure(_measure(name, part)) for part in parts]
                    for parts in (
                        (report.validation, report.test),
                        (report.baseline_validation, report.baseline_test),
                    )
                )
                gap = f"{report.gap[name]:+.3g}" if name in report.gap else ""
                table.add_row(text, *own, gap, *means)
        console.print(table)
    if over := report.over_seeds:
        figures = ", ".join(f"{text} {_with_std(over, name)}" for name, text in _IMPUTATION.items() if name in over)
        line = f"test cells, mean ± std over {len(report.seeds)} seeds: {figures}"
        console.print(line, highlight=False, soft_wrap=True)
    for name, value in report.more.items():
        text = _MORE[name] if name in _MORE else name
        console.print(f"on test rows: {text} {figure(value)}", highlight=False, soft_wrap=True)
    if report.variables:
        _print_variables(console, report, path)


def _print_variables(console: Console, report: FinalReport, path: str) -> None:
    worst, total = report.variables[:WORST], len(report.variables)
    heading = f"the {len(worst)} of {total} variables with the largest RMSE on test cells; all are in {path}"
    console.print(heading, highlight=False, soft_wrap=True, markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("variable", max_width=40)
    for name in ("kind", "cells", "RMSE", "of means and modes", "NRMSE", "RMSE in your units", "accuracy"):
        table.add_column(name, justify="right")
    for one, mean in zip(worst, report.baseline_variables, strict=False):
        numbers = (one.rmse, mean.rmse, one.nrmse, one.user_rmse, one.accuracy)
        shown = [figure(value) if value == value else "" for value in numbers]
        table.add_row(escape(one.name), one.kind, str(one.cells), *shown)
    console.print(table)


def _measure(name: str, measures: dict[str, float]) -> float | None:
    return measures[name] if name in measures else None


def _with_std(measures: dict[str, float], name: str) -> str | None:
    """Return a measure as a table shows it, with its deviation over seeds if there is one."""
    return figure(measures[name]) + _deviation(measures, name) if name in measures else None


def _deviation(measures: dict[str, float], name: str) -> str:
    std = f"{name}_std"
    return f" ± {measures[std]:.2g}" if std in measures else ""


def _fidelity(measures: dict[str, float]) -> str | None:
    name = "val_marginal_distance"
    return figure(1 - measures[name]) + _deviation(measures, name) if name in measures else None


_FIGURES: tuple[tuple[str, Callable[[Outcome], Any], Callable[[dict[str, float]], Any]], ...] = (
    (
        "val imputation RMSE",
        lambda one: _with_std(one.measures, "val_imputation_rmse"),
        lambda b: _measure("val_imputation_rmse", b),
    ),
    (
        "val imputation MAE",
        lambda one: _with_std(one.measures, "val_imputation_mae"),
        lambda b: _measure("val_imputation_mae", b),
    ),
    ("fidelity", lambda one: _fidelity(one.measures), lambda b: None),
    ("best epoch", lambda one: one.best_epoch, lambda b: None),
    ("epochs", lambda one: one.epochs, lambda b: None),
    ("seconds", lambda one: round(one.seconds, 1), lambda b: None),
)


# What the figures of a final report are called.
_IMPUTATION = {
    "rmse": "RMSE of hidden cells",
    "mae": "MAE of hidden cells",
    "accuracy": "accuracy of hidden categories",
    "nrmse": "NRMSE of hidden numbers",
    "rmse_all_cells": "RMSE of all cells, seen or hidden",
    "sliced_wasserstein": "sliced Wasserstein distance of rows",
}
_MORE = {
    "downstream_accuracy": "accuracy of a classifier that was trained on completed rows:",
    "downstream_accuracy_of_truth": "accuracy of a classifier that was trained on true rows:",
    "crps": f"CRPS of {DRAWS} draws, in scaled units:",
    "coverage_of_90": f"share of true values in the central 90% of {DRAWS} draws:",
}
