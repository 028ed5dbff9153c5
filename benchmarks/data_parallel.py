"""One trial on one and on two data-parallel workers.

    python -m benchmarks.scale workers                        # five minutes, on two processors or more
    python -m benchmarks.scale workers --workers 4 --width 1024

Each contestant is a study of one trial, ``python -m dgm_ray.tune``, on random numbers: a variational autoencoder with
two hidden layers each way. Seconds are a trial's own for an epoch: training, averaging gradients, its first worker
measuring, and its part of the first epoch, in which the others get ready. Contestants take turns; a ratio is the median
of the ratios within rounds. The speed-up says what workers bring on this machine; that the scores are the same is
asserted. Each worker has one thread.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.overhead import environment
from dgm_ray.data import Metadata, Variable


def main(
    workers: Annotated[int, typer.Option(min=2)] = 2,
    rows: Annotated[int, typer.Option(min=100)] = 40_000,
    features: Annotated[int, typer.Option(min=2)] = 100,
    width: Annotated[int, typer.Option(min=1, help="Of the hidden layers.")] = 512,
    batch_size: Annotated[int, typer.Option(min=2, help="Of all workers together.")] = 2048,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Compare one trial on one worker and on several, of one thread each."""
    found: dict[int, list[tuple[float, float]]] = {1: [], workers: []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder, rows, features)
        for _ in range(rounds):
            for count, runs in found.items():
                node = space(folder, count, width, batch_size, epochs)
                (folder / "space.json").write_text(json.dumps(node), encoding="utf-8")
                runs.append(epoch_of(folder, epochs))
    table = Table(title=f"{rows} rows, {features} features, batches of {batch_size}, layers of {width}")
    for column in ("workers", "seconds an epoch", "times as fast", "val_imputation_rmse"):
        table.add_column(column, justify="right")
    (alone, *_), (together, *_) = found.values()
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-5)
    for count, runs in found.items():
        faster = median(one[0] / run[0] for one, run in zip(found[1], runs, strict=True))
        seconds = median(run[0] for run in runs)
        table.add_row(str(count), f"{seconds:.2f}", f"{faster:.2f}", f"{runs[0][1]:.8f}")
    Console().print(table)


def write_table(folder: Path, rows: int, features: int) -> None:
    """Write numbers in [0, 1) that hang together, and their metadata."""
    random = np.random.default_rng(0)
    cells = random.random((rows, 8)) @ random.random((8, features)) / 8
    np.save(folder / "features.npy", cells.astype(np.float32))
    metadata = Metadata(tuple(Variable(f"x{index}", "numerical", 1) for index in range(features)), num_samples=rows)
    (folder / "metadata.json").write_text(json.dumps(metadata.to_dict()), encoding="utf-8")


def space(folder: Path, workers: int, width: int, batch_size: int, epochs: int) -> dict[str, Any]:
    """Return a study of one trial."""
    hidden = {"hidden_layers": {"sizes": [width, width]}}
    loss = {"reconstruction_loss": {"factory": "MultiReconstructionLoss"}, "kl_weight": 0.01}
    source = {"factory": "Npy", "arguments": {name: str(folder / f) for name, f in FILES.items()}}
    return {
        "tune": {"samples": 1, "resources": {"workers": workers}},
        "trial": {
            "task": "TrainVAE",
            "arguments": {
                "data": {"source": source},
                "batch_size": batch_size,
                "epochs": epochs,
                "architecture": {
                    "arguments": {"code_size": 16},
                    "components": {
                        "autoencoder": {
                            "factory": "SingleVariableVAE",
                            "arguments": {"encoder": hidden, "decoder": hidden},
                        },
                        "reconstruction_loss": {"factory": "VAELoss", "arguments": loss},
                        "autoencoder_optimizer": {
                            "factory": "Adam",
                            "arguments": {"parameters": ["autoencoder"], "lr": 1e-3},
                        },
                    },
                },
            },
        },
    }


FILES = {"features": "features.npy", "metadata": "metadata.json"}


def epoch_of(folder: Path, epochs: int) -> tuple[float, float]:
    """Run the study; return its trial's seconds an epoch, and its score."""
    command = [sys.executable, "-m", "dgm_ray.tune", "space.json", "--overwrite"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    (trial,) = pd.read_parquet(folder / "results" / "space" / "results.parquet").to_dict("records")
    return trial["seconds"] / epochs, trial["val_imputation_rmse"]
