"""How long MissForest takes: ours, missingpy's and scikit-learn's, with as many trees and rounds.

    python -m benchmarks.imputation_speed                 # spam, 10 trees, 3 rounds, 3 repeats: some 15 minutes
    python -m benchmarks.imputation_speed --data breast_diagnostic --repeats 5

20% of the cells are hidden, and every imputer completes the rows that it learns from; seconds are fit_transform's, the
median of several, and the processors are the same for all. Data sets: those of ../shared/data, else Breast from
scikit-learn. Nothing is tuned.

* ours: a split looks at the square root of the columns' number, as in the paper. "all columns": as missingpy does.
* missingpy: the package's 0.2.0, with its own defaults (a split looks at all columns), and with the paper's. It
  returns the round before the last.
* scikit-learn: IterativeImputer with a RandomForestRegressor, whose default is all columns too; and the paper's.

rmse is over the hidden cells, in [0, 1].
"""

import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gain_table import chosen, hidden
from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation import complete
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.imputers import MissForest, MissingpyMissForest

Impute = Callable[[Prepared, int, int, int, int], Any]  # (data, trees, rounds, seed, workers) -> completed rows


def main(
    data: Annotated[str, typer.Option(help="A folder of ../shared/data.")] = "spambase",
    only: Annotated[str, typer.Option(help="Imputers, with commas; all if empty.")] = "",
    trees: Annotated[int, typer.Option(min=1)] = 10,
    rounds: Annotated[int, typer.Option(min=2)] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds; seconds and rmse are medians.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processors that grow trees.")] = 2,
) -> None:
    """Measure, and print a table. The ratio is to ours: 3 means three times as long."""
    console = Console(width=120)
    names = chosen(only, IMPUTERS)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in range(repeats):
        prepared = hidden(data, seed)
        for name in names:  # one after the other within a repeat: a busy machine is busy for all
            try:
                runs[name].append(measured(partial(IMPUTERS[name], prepared, trees, rounds, seed, workers), prepared))
            except ConfigurationError as error:
                console.print(f"left out: {name}: {error}", highlight=False, soft_wrap=True)
    show(f"{data}: 20% MCAR, {trees} trees, {rounds} rounds, {workers} processors", runs, console)


def measured(impute: Callable[[], Any], data: Prepared) -> tuple[float, float]:
    """Return seconds and rmse."""
    started = time.perf_counter()
    proposed = impute()
    seconds = time.perf_counter() - started
    assert data.test is not None
    completed = complete(data.metadata, proposed, data.test.features)
    return seconds, overall(data.metadata, completed, data.test)["rmse"]


def ours(share: float | None, data: Prepared, trees: int, rounds: int, seed: int, workers: int) -> Any:
    made = MissForest(data.metadata, trees, max_features=share, max_iterations=rounds, seed=seed, workers=workers)
    return made.fit_transform(data.train.features, np.isnan(data.train.features))


def missingpy(root: bool, data: Prepared, trees: int, rounds: int, seed: int, workers: int) -> Any:
    share = float(np.sqrt(data.metadata.num_variables - 1) / (data.metadata.num_variables - 1)) if root else None
    made = MissingpyMissForest(data.metadata, trees, share, rounds, seed, workers)
    return made.fit_transform(data.train.features, np.isnan(data.train.features))


def scikit_learn(max_features: Any, data: Prepared, trees: int, rounds: int, seed: int, workers: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    forest = RandomForestRegressor(trees, max_features=max_features, n_jobs=workers, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        made = IterativeImputer(forest, max_iter=rounds, random_state=seed)
        return made.fit_transform(data.train.features.astype(np.float64)).astype(np.float32)


IMPUTERS: dict[str, Impute] = {
    "ours": partial(ours, None),
    "ours, all columns": partial(ours, 1.0),
    "missingpy": partial(missingpy, False),
    "missingpy, root of the columns": partial(missingpy, True),
    "scikit-learn": partial(scikit_learn, 1.0),
    "scikit-learn, root of the columns": partial(scikit_learn, "sqrt"),
}


def show(title: str, runs: dict[str, list[tuple[float, float]]], console: Console) -> None:
    """Print the table, the first imputer as the yardstick."""
    shown = Table(title=title)
    shown.add_column("imputer")
    for column in ("seconds", "ratio", "rmse"):
        shown.add_column(column, justify="right")
    figures = {name: [median(values) for values in zip(*found, strict=True)] for name, found in runs.items() if found}
    first = next(iter(figures.values()), [1.0])[0]
    for name, (seconds, rmse) in figures.items():
        shown.add_row(name, f"{seconds:.1f}", f"{seconds / first:.1f}", f"{rmse:.4f}")
    console.print(shown)


if __name__ == "__main__":
    typer.run(main)
