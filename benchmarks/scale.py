"""What happens when a study grows: more trials, more of them on one table, a table that does not fit, more workers.

    python -m benchmarks.scale trials    # 500 one-epoch trials against Ray Tune around empty ones: 3 minutes
    python -m benchmarks.scale share     # what 8 trials at a time on one table of 200 MB add: 3 minutes
    python -m benchmarks.scale stream    # a table of 4 GB that stays in its file: 10 minutes
    python -m benchmarks.scale workers   # one trial on one and on two data-parallel workers: 5 minutes

Linux alone: memory is what /proc says.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import data_parallel
from benchmarks.overhead import BARE, environment, timed, write_space
from benchmarks.watch import HELD_OUT, MB, ROW, memory_of, run, write_autoencoders, write_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
TRIALS, SHARED_MB, SMALLER = 8, 200, 8
app.command("workers")(data_parallel.main)
ENDED = re.compile(r"^[ *] \d+  val_")  # a study prints one such line for each trial that ends


class Run(NamedTuple):
    """A study that was watched.

    seconds: when so many trials had ended, since the process started. megabytes: resident in the driver then.
    """

    seconds: dict[int, float]
    megabytes: dict[int, float]


@app.command()
def trials(
    few: Annotated[int, typer.Option(min=1)] = 100,
    many: Annotated[int, typer.Option(min=2)] = 500,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Compare trials per second with bare Ray Tune, and the driver's memory after few and after many trials.

    Trials per second are those between the first ``few`` and ``many``: no start, no end. Bare: ``bare_tune.py``, whose
    processes are used again and which logs nothing. A trial of dgm_ray builds, trains and scores a MedGAN, writes a
    checkpoint, and has a run in MLflow.
    """
    studies, bare = [], []
    for _ in range(rounds):
        with TemporaryDirectory() as name:
            studies.append(watched(Path(name), few, many))
            bare.append({count: timed(Path(name), "-P", str(BARE), str(count)).command for count in (few, many)})
    table = Table(title=f"{many} one-epoch trials, median of {rounds}")
    for column in ("contestant", "trials per second", f"driver after {few}, MB", f"after {many}, MB", "ratio"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    rate = {
        "bare": median((many - few) / (one[many] - one[few]) for one in bare),
        "dgm_ray": median((many - few) / (one.seconds[many] - one.seconds[few]) for one in studies),
    }
    table.add_row("bare Ray Tune", f"{rate['bare']:.1f}", "", "", "")
    held = [median(one.megabytes[count] for one in studies) for count in (few, many)]
    growth = median(one.megabytes[many] / one.megabytes[few] for one in studies)
    table.add_row("dgm_ray", f"{rate['dgm_ray']:.1f}", *(f"{one:.0f}" for one in held), f"{growth:.2f}")
    Console().print(table)


@app.command()
def share() -> None:
    """Tell what a larger table adds to the memory of 8 trials at a time.

    Memory is the sum of the proportional set sizes of all the study's processes, driver, Ray and trials: what they
    share counts once. The smaller table has an eighth of the rows, for eight times the epochs. What the larger one adds
    is told in sizes of what it is larger by.
    """
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
            write_autoencoders(folder, settings, trial)
            seen_of_it = run(folder, trials=TRIALS)
        settled = seen_of_it.totals[len(seen_of_it.totals) // 3 :]  # all of them have begun by then
        seen.append([rows // divisor * ROW / MB, median(settled) / MB, max(settled) / MB])
        table.add_row(*(f"{value:.0f}" for value in seen[-1]))
    smaller, larger = seen
    grown = larger[0] - smaller[0]
    added = [(more - less) / grown for more, less in zip(larger[1:], smaller[1:], strict=True)]
    table.add_row(f"+ {grown:.0f}", *(f"x {value:.2f}" for value in added))
    Console().print(table)


@app.command()
def stream(
    gigabytes: Annotated[float, typer.Option(min=0.01, help="Of the table that is streamed.")] = 4.0,
    in_memory: Annotated[float, typer.Option(min=0.01, help="Of its part that is read into memory.")] = 1.0,
) -> None:
    """Train an autoencoder on a table that stays in its file, and on a part of it in memory.

    Memory is the largest resident set of the driver, and of any worker, at any time; rows per second are those of a
    trial, measures and all.
    """
    table = Table(title=f"{gigabytes:g} GB, {os.cpu_count()} CPUs")
    for column in ("rows", "rows to train", "rows per second", "driver, MB", "largest worker, MB"):
        table.add_column(column, justify="right" if table.columns else "left")
    for mode, size in (("stream", gigabytes), ("memory", in_memory)):
        rows = int(size * 1000 * MB) // ROW
        with TemporaryDirectory() as name:
            folder = Path(name)
            free = shutil.disk_usage(folder).free
            if free < 1.1 * rows * ROW:
                raise SystemExit(f"{folder}: needs {size:g} GB of disk, there are {free / 1000 / MB:.1f} free")
            write_table(folder, rows)
            settings = {"samples": 1, "resources": {"cpu": 1}, "data": {"mode": mode}}
            write_autoencoders(folder, settings, {"epochs": 2, "batch_size": 1024})
            seen_of_it = run(folder)
            found = pd.read_parquet(folder / "results" / "space" / "results.parquet").iloc[0]
        train = (1 - 2 * HELD_OUT) * rows * found["epochs"]
        table.add_row(
            f"{size:g} GB: {mode}",
            f"{train / found['epochs']:.3g}",
            f"{train / found['seconds']:.3g}",
            *(f"{value / MB:.0f}" for value in seen_of_it.largest.values()),
        )
    Console().print(table)


def watched(folder: Path, few: int, many: int) -> Run:
    """Run a study of ``many`` trials and look at its driver after ``few`` and after the last."""
    write_space(folder, many)
    found, ended = Run({}, {}), 0
    command = [sys.executable, "-m", "dgm_ray.tune", "space.yaml"]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        for line in driver.stdout:
            if ENDED.match(line):
                ended += 1
                if ended in (few, many):
                    found.seconds[ended] = time.perf_counter() - started
                    found.megabytes[ended] = memory_of(driver.pid, "status", "VmRSS") / MB
    assert driver.returncode == 0
    assert ended == many
    return found


if __name__ == "__main__":
    app()
