"""Every imputer on every table, mechanism, rate and seed: a grid that goes on where it was stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dgm_ray.data import MAR, MCAR, MNAR, Blocks, CellHoldout, Mechanism, Prepared, Source
from dgm_ray.evaluation import Floats
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.tasks.imputers import imputer_configuration
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
