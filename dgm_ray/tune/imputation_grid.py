"""Every imputer on every table, mechanism, rate and seed: a grid that goes on where it was stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dgm_ray.data import MAR, MCAR, MNAR, Blocks, CellHoldout, Mechanism, Prepared, Source
from dgm_ray.evaluation import Floats
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.tasks.imputers import imputer_configuration
from dgm_ray.training import atomic, write_text
from dgm_ray.tune.parallel import Worker
from dgm_ray.tune.runs import Journal, Runs

MECHANISMS: dict[str, Mechanism] = {"mcar": MCAR(), "mar": MAR(), "mnar": MNAR(), "blocks": Blocks()}
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

    @property
    def configuration(self) -> dict[str, Any]:
        configuration = imputer_configuration(self.imputer)
        return configuration | {"arguments": configuration["arguments"] | {"seed": self.case.seed, "device": "cpu"}}


class Grid:
    """The runs that are not done yet, and the journal of those that are.

    sources: tables by name. folder: where ``runs.jsonl`` is, a line a run that ended. A run that failed is tried again.
    """

    def __init__(self, sources: dict[str, Source], runs: list[Run], folder: Path) -> None:
        self._runs = runs
        self._queue = Runs(
            runs, Journal(folder / "runs.jsonl"), lambda case: case.prepare(sources[case.dataset]), _scores
        )

    @property
    def waiting(self) -> Sequence[Any]:
        return self._queue.waiting

    def __len__(self) -> int:
        return len(self.waiting)

    def run(self, console: Console, workers: int, timeout: float | None) -> pd.DataFrame:
        """Run what is waiting, and return a row for each run that is done or failed, in the order of the grid."""
        found = self._queue.rows(console, [Worker()] * workers, timeout)
        pairs = zip(self._runs, found, strict=True)
        return pd.DataFrame([{**asdict(run.case), "imputer": run.imputer, **row} for run, row in pairs])


def _scores(data: Prepared, completed: Floats) -> dict[str, float]:
    assert data.test is not None
    return overall(data.metadata, completed, data.test)


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


def write_tables(
    table: pd.DataFrame,
    shown: pd.DataFrame,
    folder: Path,
    name: str = "results",
    title: str = "RMSE over hidden cells, scaled to [0, 1]",
) -> None:
    """Write ``{name}.parquet``, and what of it is shown as ``{name}.md`` and ``{name}.html``."""
    with atomic(folder / f"{name}.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    lines = [" | ".join(map(str, row)) for row in (shown.columns, ["---"] * len(shown.columns), *shown.to_numpy())]
    write_text(folder / f"{name}.md", "".join(f"| {line} |\n" for line in lines))
    style = "body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #999}"
    style += "td:first-child{text-align:left}:root{color-scheme:light dark}"
    body = shown.to_html(index=False, border=0)
    page = f"<!doctype html><meta charset=utf-8><title>Imputation</title><style>{style}</style>"
    page += f"<h1>{title}</h1>{body}\n"
    write_text(folder / f"{name}.html", page)
