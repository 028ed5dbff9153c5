"""How a study grows: with trials on one table, and with a table that does not fit in memory.

    python -m benchmarks.scale                          # every part
    python -m benchmarks.scale --part share
    python -m benchmarks.scale --part stream --gigabytes 1

Each study is ``python -m dgm_ray.tune`` in processes of its own, and its memory is looked at from outside, in /proc.

* share: 8 trials at a time on one table of 200 MB, and on one of an eighth of the rows for eight times the epochs.
  Memory is the sum of the proportional set sizes of all the study's processes, driver, Ray and trials, so what they
  share counts once. What the larger table adds is told in sizes of what it is larger by.
* stream: an autoencoder on a table of 4 GB that stays in its file, and on a part of it in memory. Memory is the largest
  resident set of the driver, and of any worker, at any time; rows per second are those of a trial, measures and all.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable

COLUMNS = 100
MB = 10**6
ROW = 4 * COLUMNS
TRIALS, SHARED_MB, SMALLER = 8, 200, 8
EVERY = 0.5  # seconds between two looks at the processes


@dataclass(frozen=True)
class Options:
    """gigabytes: of the table that is streamed. in_memory: of the part of it that is read into memory."""

    gigabytes: float
    in_memory: float
    console: Console


@dataclass
class Watched:
    """What was seen of a study's processes, in bytes.

    totals: the sums of proportional set sizes, at each look while all trials were there. largest: resident set of the
    driver, and of a worker.
    """

    totals: list[int] = field(default_factory=list)
    largest: dict[str, int] = field(default_factory=lambda: {"driver": 0, "worker": 0})


def share(options: Options) -> Table:
    rows = SHARED_MB * MB // ROW
    settings: dict[str, Any] = {"samples": TRIALS, "resources": {"cpu": (os.cpu_count() or 1) / TRIALS}}
    settings |= {"concurrent": TRIALS, "data": {"mode": "memory"}}
    table = Table(title=f"{TRIALS} trials at a time, {os.cpu_count()} CPUs")
    for column in ("table, MB", "median, MB", "peak, MB"):
        table.add_column(column, justify="right")
    seen: list[list[float]] = []
    for divisor in (SMALLER, 1):
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_table(folder, rows // divisor)
            trial = {"epochs": 4 * divisor, "batch_size": 1024, "evaluate_every": divisor}
            write_space(folder, settings, trial)
            watched = run(folder, trials=TRIALS)
        settled = watched.totals[len(watched.totals) // 3 :]  # all of them have begun by then
        seen.append([rows // divisor * ROW / MB, median(settled) / MB, max(settled) / MB])
        table.add_row(*(f"{value:.0f}" for value in seen[-1]))
    smaller, larger = seen
    grown = larger[0] - smaller[0]
    added = [(more - less) / grown for more, less in zip(larger[1:], smaller[1:], strict=True)]
    table.add_row(f"+ {grown:.0f}", *(f"x {value:.2f}" for value in added))
    return table


def stream(options: Options) -> Table:
    table = Table(title=f"{options.gigabytes:g} GB, {os.cpu_count()} CPUs")
    for column in ("rows", "rows to train", "rows per second", "driver, MB", "largest worker, MB"):
        table.add_column(column, justify="right" if table.columns else "left")
    for mode, size in (("stream", options.gigabytes), ("memory", options.in_memory)):
        rows = int(size * 1000 * MB) // ROW
        with TemporaryDirectory() as name:
            folder = Path(name)
            free = shutil.disk_usage(folder).free
            if free < 1.1 * rows * ROW:
                raise SystemExit(f"{folder}: needs {size:g} GB of disk, there are {free / 1000 / MB:.1f} free")
            write_table(folder, rows)
            settings = {"samples": 1, "resources": {"cpu": 1}, "data": {"mode": mode}}
            write_space(folder, settings, {"epochs": 2, "batch_size": 1024})
            watched = run(folder)
            found = pd.read_parquet(folder / "results" / "space" / "results.parquet").iloc[0]
        train = 0.96 * rows * found["epochs"]
        table.add_row(
            f"{size:g} GB: {mode}",
            f"{train / found['epochs']:.3g}",
            f"{train / found['seconds']:.3g}",
            *(f"{value / MB:.0f}" for value in watched.largest.values()),
        )
    return table


PARTS: Mapping[str, Callable[[Options], Table]] = {"share": share, "stream": stream}


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
    gigabytes: Annotated[float, typer.Option(min=0.01, help="Of the table that is streamed.")] = 4.0,
    in_memory: Annotated[float, typer.Option(min=0.01, help="Of its part that is read into memory.")] = 1.0,
) -> None:
    options = Options(gigabytes, in_memory, Console())
    for name in part or PARTS:
        if name not in PARTS:
            raise typer.BadParameter(f"there is no part {name!r}", param_hint="--part")
        options.console.print(PARTS[name](options))


def run(folder: Path, trials: int = 1) -> Watched:
    """Run the study of a folder and look at its processes. Raises SystemExit with what it said if it fails."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "RAY_AUTH_MODE": "disabled"}
    line = [sys.executable, "-m", "dgm_ray.tune", "space.json"]
    watched = Watched()
    with (folder / "log").open("w") as log:
        command = subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log)
        while command.poll() is None:
            look(command.pid, trials, watched)
            time.sleep(EVERY)
    if command.returncode:
        raise SystemExit((folder / "log").read_text())
    return watched


def look(driver: int, trials: int, watched: Watched) -> None:
    """Note what the processes below the driver take now."""
    total = there = 0
    for pid in family(driver):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            resident = memory_of(pid, "status", "VmRSS")
            total += memory_of(pid, "smaps_rollup", "Pss")
        except (OSError, StopIteration):  # it has ended
            continue
        worker = words.startswith(b"ray::") and b"Agent" not in words
        there += worker and words.startswith((b"ray::Trial", b"ray::ResourceTrainable"))
        kind = "driver" if pid == driver else "worker" if worker else ""
        if kind:
            watched.largest[kind] = max(watched.largest[kind], resident)
    if there >= trials:
        watched.totals.append(total)


def family(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    try:
        children = [Path(task, "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return
    for child in " ".join(children).split():
        yield from family(int(child))


def memory_of(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def write_table(folder: Path, rows: int) -> None:
    """Write features whose columns depend on each other, a part at a time, and their metadata."""
    random, step = np.random.default_rng(0), 50_000
    variables = tuple(Variable(f"column_{index}", "numerical") for index in range(COLUMNS))
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, COLUMNS)}
    with (folder / "features.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            noise, common = random.random((count, COLUMNS), np.float32), random.random((count, 1), np.float32)
            (0.5 * noise + 0.5 * common).tofile(file)
    (folder / "metadata.json").write_text(json.dumps(Metadata(variables, rows).to_dict()))


def write_space(folder: Path, settings: Mapping[str, Any], trial: Mapping[str, Any]) -> None:
    components: dict[str, Any] = {
        "autoencoder": {"factory": "SingleVariableAutoEncoder", "arguments": {"encoder": {}, "decoder": {}}},
        "reconstruction_loss": {"factory": "AutoEncoderLoss", "arguments": {"reconstruction_loss": {"factory": "MSE"}}},
        "autoencoder_optimizer": {
            "factory": "Adam",
            "arguments": {"parameters": ["autoencoder"], "lr": {"loguniform": [1e-4, 1e-2]}},
        },
    }
    source = {"features": str(folder / "features.npy"), "metadata": str(folder / "metadata.json")}
    data = {"source": {"factory": "Npy", "arguments": source}, "validation_fraction": 0.02, "test_fraction": 0.02}
    arguments = {"data": data, "architecture": {"arguments": {"code_size": 8}, "components": components}} | dict(trial)
    space = {"tune": settings, "trial": {"task": "TrainAutoEncoder", "arguments": arguments}}
    (folder / "space.json").write_text(json.dumps(space))


if __name__ == "__main__":
    typer.run(main)
