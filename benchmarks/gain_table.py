"""The protocol of the GAIN paper's table 2 for every imputer: 20% of the cells hidden, RMSE over them, in [0, 1].

    python -m benchmarks.gain_table                                     # some 25 minutes on 2 cores
    python -m benchmarks.gain_table --data breast_diagnostic --only GAIN,MissForest --seeds 3
    python -m benchmarks.gain_table --samples 8                         # tuned: hours; goes on where it was stopped

All rows are trained on, none of the hidden cells' values is seen; each seed hides other cells and starts from other
weights. Data sets: those of ../shared/data (the paper's Breast, Spam and Letter), else Breast from scikit-learn.

Without --samples nothing is tuned: some imputers with their default, or their authors', configuration. With it, the
spaces of search_spaces/imputers.yaml are searched anew for each seed: so many samples of each imputer, at most EPOCHS
epochs, ASHA, chosen by 5% of the cells that are left, which are hidden as well. The best of each is then trained with
these, for the epochs that were best, and scored on the test cells, once; no search saw them.

* GAIN: as its authors' code (not its paper): two hidden layers of the table's width, ReLU, alpha 100, hint 0.9 with
  "missing" where nothing is revealed, uniform noise up to 0.01, batches of 128, 10,000 iterations, the last weights.
  Differs from it: each network's step has a batch of its own; numbers with few values are not rounded.
* scikit-learn: IterativeImputer with BayesianRidge (ICE) or with a forest of 100 trees, 10 rounds (3 of the forest).
* published: Yoon et al. 2018, table 2; Breast and Letter are quoted from memory of the paper, Spam is verified.

rmse is over the hidden cells; rmse_all_cells over all, hidden or not, as the original library and Camino et al. 2019
have it: at 20% it is 0.447 times the first, so the two are never compared.
"""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.epoch import CREDIT
from dgm_ray.data import BreastCancer, CellHoldout, InMemory, Npy, Prepared
from dgm_ray.errors import nearest
from dgm_ray.evaluation import complete, impute_rows
from dgm_ray.evaluation.imputation_report import overall
from dgm_ray.space import read_file
from dgm_ray.tasks.configuration import load_tasks
from dgm_ray.tasks.imputers import imputer_configuration, imputer_names
from dgm_ray.training import DIVERGED

DATA = CREDIT.parents[1]
DEFAULT = ("breast_diagnostic", "spambase", "letter")
ITERATIONS, BATCH = 10_000, 128
SPACES = Path(__file__).parents[1] / "search_spaces" / "imputers.yaml"
VALIDATION = 0.05  # of the cells that are not test cells
EPOCHS = {"spambase": 150, "letter": 60}  # of the deep ones at most, where the default would take hours
OTHERS = ("ICE (scikit-learn)", "forest (scikit-learn)")
PAPER_NAMES = {"GAIN": "gain", "MissForest": "miss_forest", "ICE (scikit-learn)": "ICE (scikit-learn)"}
PUBLISHED = {
    "breast_diagnostic": {"GAIN": 0.0546, "MissForest": 0.0608, "ICE (scikit-learn)": 0.0646},
    "spambase": {"GAIN": 0.0513, "MissForest": 0.0553, "ICE (scikit-learn)": 0.0699},
    "letter": {"GAIN": 0.1198, "MissForest": 0.1605, "ICE (scikit-learn)": 0.1537},
}
Node = dict[str, Any]
Imputation = Callable[[Prepared, int], Any]  # (data, seed) -> completed rows (rows, num_features)


@dataclass(frozen=True)
class Run:
    """One imputer on one data set with one seed. best: the configuration that a search found for it."""

    data: str
    imputer: str
    seed: int
    best: Path | None = None


def main(
    data: Annotated[str, typer.Option(help="Folders of ../shared/data, with commas.")] = ",".join(DEFAULT),
    only: Annotated[str, typer.Option(help="Imputers, with commas; all if empty.")] = "",
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    output: Annotated[Path | None, typer.Option(help="A CSV file with a row for each run that is not tuned.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Tune: so many draws for each imputer.")] = 0,
    storage: Annotated[Path, typer.Option(help="Where the searches go.")] = Path("results/gain_table"),
) -> None:
    console = Console(width=120)
    sets = [name for name in data.split(",") if (DATA / name).is_dir()] or ["breast_cancer"]
    names = chosen(only, [*imputer_names(), *OTHERS] if samples else IMPUTERS)
    ours = [name for name in names if samples and name not in OTHERS]
    for one in sets:
        best = {seed: searched(one, seed, ours, samples, storage) if samples else {} for seed in range(seeds)}
        runs = {
            name: [Run(one, name, seed, best[seed][name] if name in ours else None) for seed in range(seeds)]
            for name in names
        }
        figures = measured([run for those in runs.values() for run in those], workers, console, output)
        title = f"{one}: 20% MCAR, {seeds} seeds{f', the best of {samples} samples' if samples else ''}"
        show(title, one, {name: [figures[run] for run in those] for name, those in runs.items()}, console)


def chosen(only: str, known: Collection[str]) -> list[str]:
    """Return the names of the option --only, all if it is empty. Raises SystemExit for one that is not known."""
    names = [name.strip() for name in only.split(",")] if only else list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"error: --only: no imputer is called {name!r}{nearest(name, known)}")
    return names


def hidden(data: str, seed: int) -> Prepared:
    """Return a data set with 20% of its cells hidden."""
    folder = DATA / data
    source = Npy(folder / "features.npy", folder / "metadata.json") if folder.is_dir() else BreastCancer()
    return CellHoldout(source, 0.2, 0.0, seed).prepare()


def searched(data: str, seed: int, names: list[str], samples: int, storage: Path) -> dict[str, Path]:
    """Search the spaces of imputers on a data set with hidden cells, by the command; return the best of each."""
    node = read_file(SPACES)
    node["imputers"] = {name: node["imputers"][name] for name in names}
    for name in names:
        if data in EPOCHS and imputer_configuration(name)["task"] != "TrainImputer":
            node["imputers"][name]["epochs"] = EPOCHS[data]
    folder = DATA / data
    files = {"features": str(folder / "features.npy"), "metadata": str(folder / "metadata.json")}
    source = {"factory": "Npy", "arguments": files} if folder.is_dir() else {"factory": "BreastCancer"}
    node["data"] = {"source": source, "test_probability": 0.2, "validation_probability": VALIDATION, "seed": seed}
    node["repeats"] = 1
    node["tune"] |= {"samples": samples, "seed": seed}
    storage.mkdir(parents=True, exist_ok=True)
    space = storage / f"{data}_{seed}.yaml"
    space.write_text(yaml.safe_dump(node, sort_keys=False))
    command = [sys.executable, "-m", "dgm_ray.tune", str(space), "--storage", str(storage)]
    subprocess.run([*command, *(["--resume"] if (storage / space.stem).exists() else [])], check=True)
    return {name: storage / space.stem / name / "best.json" for name in names}


def measured(runs: list[Run], workers: int, console: Console, output: Path | None) -> dict[Run, dict[str, float]]:
    """Return the figures of each run, worked on side by side; of one that failed, its error is shown."""
    from dgm_ray.tune.cluster import start_ray
    from dgm_ray.tune.parallel import Pool, Worker
    from dgm_ray.tune.settings import Resources

    start_ray(Resources(), None)
    labels = {f"{one.data} {one.imputer} {one.seed}": one for one in runs}
    found: dict[Run, dict[str, float]] = {}
    pool = Pool([Worker()] * workers, console, log_every=60)
    for outcome in pool.run(score, list(labels.items())):
        found[labels[outcome.label]] = outcome.result or {}
        if outcome.error:
            console.print(f"failed: {outcome.label}: {outcome.error}", highlight=False, soft_wrap=True)
        if output:
            with output.open("a") as file:
                file.write(f"{outcome.label.replace(' ', ',', 1)},{outcome.result},{outcome.seconds:.1f}\n")
    return found


def score(run: Run) -> dict[str, float]:
    """Impute the hidden cells of a data set, and return how well."""
    prepared = hidden(run.data, run.seed)
    assert prepared.test is not None
    torch.set_num_threads(1)
    load_tasks()
    started = time.monotonic()
    try:
        proposed = (IMPUTERS[run.imputer] if run.best is None else of_best(run.best))(prepared, run.seed)
    except DivergedError:
        return {"diverged": 1.0}
    seconds = time.monotonic() - started
    completed = complete(prepared.metadata, proposed, prepared.test.features)
    return overall(prepared.metadata, completed, prepared.test) | {"seconds": seconds}


class DivergedError(Exception):
    """A loss was not finite."""


def trained(task: str, node: Callable[[Prepared], Node]) -> Imputation:
    """Return what trains a task and imputes with its last weights."""

    def impute(data: Prepared, seed: int) -> Any:
        from dgm_ray.registry import TASKS, call  # here: Ray sends this function, and must not send the registry

        common = {"data": CellHoldout(InMemory()), "seed": seed, "keep_checkpoint_by_metric": None, "device": "cpu"}
        made = call(TASKS.get(task, "task"), node(data) | common, path="arguments")
        training = made.start(data)
        while not training.done:
            training.advance()
        if training.reason.startswith(DIVERGED):
            raise DivergedError
        with training.aside():
            return impute_rows(training.architecture, data.metadata, data.train.features, torch.device("cpu"))

    return impute


def gain(data: Prepared) -> Node:
    """The authors' settings: github.com/jsyoon0823/GAIN."""
    width, rows = data.metadata.num_features, len(data.train.features)
    layers = {"hidden_layers": {"sizes": [width, width], "activation": {"factory": "ReLU"}}}
    sigmoid = {"output_layer": {"activation": {"factory": "Sigmoid"}}}
    components = {
        "generator": {"factory": "SingleVariableGAINGenerator", "arguments": layers | sigmoid},
        "discriminator": {"factory": "SingleInputGAINDiscriminator", "arguments": layers},
        "generator_loss": {
            "factory": "GAINGeneratorLoss",
            "arguments": {
                "reconstruction_loss": {"factory": "MSE"},
                "reconstruction_loss_weight": 100.0,
                "mean_of_all": True,
            },
        },
        "discriminator_loss": {"factory": "GAINDiscriminatorLoss"},
        "generator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["generator"], "lr": 1e-3}},
        "discriminator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["discriminator"], "lr": 1e-3}},
    }
    epochs = round(ITERATIONS / (-(-rows // BATCH) / 2))
    return {
        "architecture": {"arguments": {"observed_mask": True, "initialization": "he"}, "components": components},
        "imputation": {"factory": "UniformNoiseImputation"},
        "batch_size": BATCH,
        "epochs": epochs,
        "evaluate_every": epochs,
        "hint_probability": 0.9,
        "hint_unrevealed": 1.0,
    }


def wide(data: Prepared) -> Node:
    """A masked autoencoder as large as 20,000 rows deserve: ten minutes on one processor for Letter."""
    arguments: Node = imputer_configuration("masked_autoencoder")["arguments"]
    components = arguments["architecture"]["components"]
    components["autoencoder"]["arguments"]["hidden_layers"] = {"width": 384, "blocks": 4}
    own = {"batch_size": 128, "epochs": 120, "evaluate_every": 120, "patience": None, "hide_probability": 0.3}
    return arguments | own


def of_best(path: Path) -> Imputation:
    """Return what trains the best of a search for as many epochs as were best, now without validation cells."""
    found = json.loads(path.read_text())
    epochs = found["expected"]["best_epoch"]
    arguments = found["arguments"] | {"epochs": epochs, "evaluate_every": epochs, "patience": None}
    return trained(found["task"], lambda data: arguments)


def imputer(factory: str, **arguments: Any) -> Imputation:
    """Return an imputer that is no network."""
    return trained("TrainImputer", lambda data: {"imputer": {"factory": factory, "arguments": arguments}})


def of_scikit_learn(estimator: Callable[[], Any], rounds: int) -> Imputation:
    """Return scikit-learn's IterativeImputer."""

    def impute(data: Prepared, seed: int) -> Any:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            made = IterativeImputer(estimator(), max_iter=rounds, random_state=seed)
            return made.fit_transform(data.train.features.astype(np.float64)).astype(np.float32)

    return impute


def ridge() -> Any:
    from sklearn.linear_model import BayesianRidge

    return BayesianRidge()


def forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(100, n_jobs=-1, random_state=0)


IMPUTERS: dict[str, Imputation] = {
    "means and modes": imputer("MeanAndModesImputation"),
    "GAIN": trained("TrainGAIN", gain),
    "MissForest": imputer("MissForest"),
    "masked autoencoder (wide)": trained("TrainMaskedAutoEncoder", wide),
    "ICE (scikit-learn)": of_scikit_learn(ridge, 10),
    "forest (scikit-learn)": of_scikit_learn(forest, 3),
}


def show(title: str, data: str, figures: dict[str, list[dict[str, float]]], console: Console) -> None:
    """Print the table of one data set, the best first."""
    table = Table(title=title)
    table.add_column("imputer")
    for column in ("rmse", "rmse_all_cells", "published rmse", "seconds", "diverged"):
        table.add_column(column, justify="right")

    def over(runs: list[dict[str, float]], name: str, digits: int = 4) -> str:
        values = [run[name] for run in runs if name in run]
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}" if values else ""

    def rank(item: tuple[str, list[dict[str, float]]]) -> float:
        return min((run["rmse"] for run in item[1] if "rmse" in run), default=np.inf)

    known = {PAPER_NAMES[name]: value for name, value in (PUBLISHED[data] if data in PUBLISHED else {}).items()}
    for name, runs in sorted(figures.items(), key=rank):
        paper = PAPER_NAMES[name] if name in PAPER_NAMES else name
        published = f"{known[paper]:.4f}" if paper in known else ""
        bad = str(sum("diverged" in run for run in runs) or "")
        table.add_row(name, over(runs, "rmse"), over(runs, "rmse_all_cells"), published, over(runs, "seconds", 1), bad)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
