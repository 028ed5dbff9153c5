"""What happens when a study grows: more trials.

    python -m benchmarks.scale trials    # 500 one-epoch trials against Ray Tune around empty ones: 3 minutes

Linux alone: memory is what /proc says.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.overhead import BARE, environment, write_space

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
ENDED = re.compile(r"^[ *] \d+  val_")  # a study prints one such line for each trial that ends


class Run(NamedTuple):
    """A study that was watched.

    seconds: when so many trials had ended, since the process started. megabytes: resident in the driver then.
    """

    seconds: dict[int, float]
    megabytes: dict[int, float]


@app.callback()
def _commands() -> None: ...


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
            bare.append({count: command_seconds(Path(name), str(BARE), str(count)) for count in (few, many)})
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
                    found.megabytes[ended] = resident(driver.pid)
    assert driver.returncode == 0
    assert ended == many
    return found


def command_seconds(folder: Path, *arguments: str) -> float:
    """Return the seconds that a Python command takes. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment(), check=True, capture_output=True)
    return time.perf_counter() - started


def resident(pid: int) -> float:
    """Return the megabytes of a process that are in memory."""
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    app()
