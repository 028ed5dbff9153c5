"""Every imputer on every table, mechanism, rate and seed: a grid that goes on where it was stopped.

Test cells stay on the driver: a process gets the table without them, and gives back a completed one.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dgm_ray.data import MAR, MCAR, MNAR, Blocks, CellHoldout, InMemory, Mechanism, Prepared, Source
from dgm_ray.evaluation import Floats, complete
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.tasks.imputers import fitting, imputer_configuration
from dgm_ray.training import append_line, atomic, write_text
from dgm_ray.tune.parallel import Pool, Worker

MECHANISMS: dict[str, Mechanism] = {"mcar": MCAR(), "mar": MAR(), "mnar": MNAR(), "blocks": Blocks()}
BASELINE = "means_and_modes"
VALIDATION = 0.1  # of the cells that are no test cells: what early stopping looks at


@dataclass(frozen=True)
class Case:
    """A table with hidden cells."""

    dataset: str
    mechanism: str
    rate: float
    seed: int

    def prepare(self, source: Source) -> Prepared:
        """Read the table and hide cells of it. Raises DataError for a table or a rate that will not do."""
        missing = MECHANISMS[self.mechanism]
        return CellHoldout(source, self.rate, VALIDATION, self.seed, missing).prepare()


@dataclass(frozen=True)
class Run:
    """An imputer on a case."""

    case: Case
    imputer: str

    @property
    def label(self) -> str:
        case = self.case
        return f"{self.imputer} on {case.dataset}, {case.mechanism} {case.rate:g}, seed {case.seed}"

    @property
    def key(self) -> str:
        """What tells this run from all others, also from one with an older configuration of the imputer."""
        configuration = json.dumps(imputer_configuration(self.imputer), sort_keys=True)
        return f"{self.label}, {sha256(configuration.encode()).hexdigest()[:12]}"


class Grid:
    """The runs that are not done yet, and the journal of those that are.

    sources: tables by name. folder: where ``runs.jsonl`` is, a line a run that ended. A run that failed is tried again.
    """

    def __init__(self, sources: dict[str, Source], runs: list[Run], folder: Path) -> None:
        self._sources, self._runs, self._journal = sources, runs, folder / "runs.jsonl"
        self._truth: dict[str, Prepared] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.done = self._read()
        self.waiting = [run for run in runs if run.key not in self.done]

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, item: object) -> bool:
        return item in self.waiting

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield a label and what a process needs; a case is put into Ray's memory once for all its imputers."""
        import ray

        case, data, reference = None, None, None
        for run in self.waiting:
            if run.case != case:
                case = run.case
                data = case.prepare(self._sources[case.dataset])
                reference = ray.put(replace(data, test=None))
            assert data is not None
            self._truth[run.label] = data
            yield run.label, (reference, run.imputer, run.case.seed)

    def run(self, console: Console, workers: int, timeout: float | None) -> pd.DataFrame:
        """Run what is waiting, and return a row for each run that is done or failed, in the order of the grid."""
        by_label = {run.label: run for run in self.waiting}
        failed: dict[str, str] = {}
        pool = Pool([Worker()] * workers, console, timeout=timeout)
        for outcome in pool.run(_impute, self):
            run, data = by_label[outcome.label], self._truth.pop(outcome.label)
            if outcome.error:
                failed[run.key] = outcome.error
                console.print(f"failed: {outcome.label}: {outcome.error}", highlight=False, soft_wrap=True)
                continue
            self.done[run.key] = _scores(data, *outcome.result)
            append_line(self._journal, json.dumps({"run": run.key, **self.done[run.key]}))
        rows = []
        for run in self._runs:
            found = self.done[run.key] if run.key in self.done else {"error": failed[run.key]}
            rows.append({**asdict(run.case), "imputer": run.imputer, **found})
        return pd.DataFrame(rows)

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return what the journal holds; a line that was cut short counts as not done."""
        done: dict[str, dict[str, Any]] = {}
        for line in self._journal.read_text(encoding="utf-8").splitlines() if self._journal.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            done[row.pop("run")] = row
        return done


def _impute(item: tuple[Any, str, int]) -> tuple[Floats, float]:
    """Train an imputer and return the completed rows and the seconds it took. Done in a process."""
    import ray
    import torch

    from dgm_ray.evaluation import impute_rows
    from dgm_ray.tasks.configuration import load_tasks
    from dgm_ray.tune.imputation_grid import task_for

    load_tasks()
    reference, name, seed = item
    data = ray.get(reference)
    started = time.monotonic()
    training = task_for(name, len(data.train.features), seed).start(data)
    while not training.done:
        training.advance()
    training.use_best()
    with training.aside():
        rows = impute_rows(training.architecture, data.metadata, data.train.features, torch.device("cpu"))
    return rows, time.monotonic() - started


def task_for(name: str, rows: int, seed: int) -> Any:
    """Return the task that trains a named imputer on a table that is already prepared."""
    from dgm_ray.registry import TASKS, call

    configuration = imputer_configuration(name)
    unread = CellHoldout(InMemory())
    given = fitting(configuration["arguments"], rows) | {"data": unread, "seed": seed, "device": "cpu"}
    return call(TASKS.get(configuration["task"], "task"), given, path=f"imputers.{name}")


def _scores(data: Prepared, rows: Floats, seconds: float) -> dict[str, float]:
    assert data.test is not None
    completed = complete(data.metadata, rows, data.test.features)
    return overall(data.metadata, completed, data.test) | {"seconds": seconds}


def ranked(table: pd.DataFrame, measure: str = "rmse") -> pd.DataFrame:
    """Return a row for each imputer, best first: mean rank, mean ± std of each case over its seeds, mean seconds.

    table: as ``Grid.run`` returns it. Ranks are given within each case and seed, 1 is best; equals share their mean; a
    run that failed is last.
    """
    table = table.assign(**{measure: table[measure] if measure in table else np.nan})
    case = ["dataset", "mechanism", "rate"]
    ranks = table.groupby([*case, "seed"])[measure].rank(na_option="bottom")
    columns: dict[str, Any] = {"mean rank": ranks.groupby(table["imputer"]).mean().round(2)}
    for key, group in table.groupby(case, sort=False):
        columns[" ".join(map(str, key))] = group.groupby("imputer")[measure].agg(_mean_and_std)
    if "seconds" in table:
        columns["seconds"] = table.groupby("imputer")["seconds"].mean().round(1)
    return pd.DataFrame(columns).sort_values("mean rank").rename_axis("imputer").reset_index()


def _mean_and_std(values: pd.Series) -> str:
    mean, std = values.mean(), values.std()
    if np.isnan(mean):
        return "failed"
    return f"{mean:.4f}" if np.isnan(std) else f"{mean:.4f} ± {std:.4f}"


def write_tables(table: pd.DataFrame, best: pd.DataFrame, folder: Path) -> None:
    """Write ``results.parquet``, and ``results.md`` and ``results.html`` with the ranks."""
    with atomic(folder / "results.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    lines = [" | ".join(map(str, row)) for row in (best.columns, ["---"] * len(best.columns), *best.to_numpy())]
    write_text(folder / "results.md", "".join(f"| {line} |\n" for line in lines))
    style = "body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #999}"
    style += "td:first-child{text-align:left}:root{color-scheme:light dark}"
    body = best.to_html(index=False, border=0)
    page = f"<!doctype html><meta charset=utf-8><title>Imputation</title><style>{style}</style>"
    page += f"<h1>RMSE over hidden cells, scaled to [0, 1]</h1>{body}\n"
    write_text(folder / "results.html", page)
