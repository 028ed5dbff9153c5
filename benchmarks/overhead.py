"""Seconds of a study of 32 one-epoch trials here, and of Ray Tune around as many trials that do nothing.

    python -m benchmarks.overhead               # five minutes
    python -m benchmarks.overhead --rounds 1 --no-defaults

Each contestant is a command in a process of its own. "command" is measured from outside: imports, Ray's start and end,
everything. "study" is what the command says of itself: from its first statement to the moment that the results are
there, so without Python's own start and without the end of Ray and of the process. A ratio is the median of the
ratios within rounds.

* bare, actors reused: ``bare_tune.py``, one class whose step reports a number; the same number of trials and of CPUs
  for each, no dashboard, no loggers, actors reused. This is as fast as Ray Tune gets.
* dgm_ray: ``python -m dgm_ray.tune`` on a MedGAN over 569 rows. Beside Ray's work it checks the space by building its
  corners, imports torch in the command and in each worker, builds, trains and scores a model per trial, saves a
  checkpoint of each, makes an MLflow database (SQLite), writes a run per trial into it, and scores the winner again.
* dgm_ray, database there: a second study in the same folder, which is what all but the first are.
* bare, as Ray comes: ``bare_tune.py --defaults``: a new process for each trial, Ray's own loggers. Once, to compare.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import numpy as np
import typer
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable

ROWS, COLUMNS = 569, 30
BARE = Path(__file__).with_name("bare_tune.py")


class Seconds(NamedTuple):
    """Of one run, from outside and as it says itself."""

    command: float
    study: float


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    trials: Annotated[int, typer.Option(min=1)] = 32,
    defaults: Annotated[bool, typer.Option(help="Run Ray as it comes as well: minutes.")] = True,
) -> None:
    console = Console()
    reference = "bare, actors reused"
    study = ("-m", "dgm_ray.tune", "space.yaml", "--name")
    commands = {
        reference: ("-P", str(BARE), str(trials)),
        "dgm_ray": (*study, "first"),
        "dgm_ray, database there": (*study, "second"),
    }
    found: dict[str, list[Seconds]] = {}
    for number in track(range(rounds), description="rounds", transient=True):
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_space(folder, trials)
            turns = list(commands.items())
            for label, arguments in turns if number % 2 == 0 else [*turns[1:], turns[0]]:
                found.setdefault(label, []).append(timed(folder, *arguments))
            if defaults and number == 0:
                found["bare, as Ray comes"] = [timed(folder, "-P", str(BARE), str(trials), "--defaults")]
    table = Table(title=f"{trials} trials, {os.cpu_count()} CPUs, median of {rounds}")
    table.add_column("contestant")
    for column in ("command, s", "study, s", "command, ratio", "study, ratio"):
        table.add_column(column, justify="right")
    for label, runs in found.items():
        pairs = list(zip(runs, found[reference], strict=False))
        table.add_row(
            label,
            f"{median(run.command for run in runs):.1f}",
            f"{median(run.study for run in runs):.1f}",
            f"{median(run.command / bare.command for run, bare in pairs):.2f}",
            f"{median(run.study / bare.study for run, bare in pairs):.2f}",
        )
    console.print(table)


def timed(folder: Path, *arguments: str) -> Seconds:
    """Run a Python command in a folder. Raises CalledProcessError if it fails.

    A script is run with -P, without which it would import its neighbour ``logging``.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    said = re.search(r"^took ([\d.]+) s$", done.stdout, re.MULTILINE)
    assert said, done.stdout
    return Seconds(seconds, float(said[1]))


def environment() -> dict[str, str]:
    """Return the environment of a command that runs in another folder."""
    return os.environ | {"PYTHONPATH": str(BARE.parents[1])}


def write_space(folder: Path, trials: int) -> None:
    """Write a table and a small search space over it."""
    variables = tuple(Variable(f"column_{index}", "numerical") for index in range(COLUMNS))
    np.save(folder / "features.npy", np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32))
    (folder / "metadata.json").write_text(json.dumps(Metadata(variables, ROWS).to_dict()))
    source = {"features": str(folder / "features.npy"), "metadata": str(folder / "metadata.json")}
    data = {"source": {"factory": "Npy", "arguments": source}, "validation_fraction": 0.2, "test_fraction": 0.2}
    components: dict[str, dict[str, object]] = {
        "autoencoder": {"factory": "SingleVariableAutoEncoder", "arguments": {"encoder": {}, "decoder": {}}},
        "generator": {"factory": "CodeGenerator"},
        "discriminator": {"factory": "Discriminator"},
        "reconstruction_loss": {"factory": "AutoEncoderLoss", "arguments": {"reconstruction_loss": {"factory": "MSE"}}},
        "generator_loss": {"factory": "GANGeneratorLoss"},
        "discriminator_loss": {"factory": "GANDiscriminatorLoss"},
    }
    for name in ("autoencoder", "generator", "discriminator"):
        arguments = {"parameters": [name], "lr": {"loguniform": [1e-4, 1e-2]}}
        components[f"{name}_optimizer"] = {"factory": "Adam", "arguments": arguments}
    trial: dict[str, object] = {
        "data": data | {"missing_probability": 0.2, "seed": 0},
        "batch_size": 64,
        "epochs": 1,
        "architecture": {"arguments": {"noise_size": 16, "code_size": 8}, "components": components},
    }
    tune = {"metric": "val_imputation_rmse", "samples": trials, "resources": {"cpu": 1}, "seed": 0}
    space = {"tune": tune, "trial": {"task": "TrainMedGAN", "arguments": trial}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))


if __name__ == "__main__":
    typer.run(main)
