"""Studies that are watched from outside, in /proc, and a table for them. Linux alone."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.overhead import environment
from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable

COLUMNS = 100
MB = 10**6
ROW = 4 * COLUMNS  # bytes
HELD_OUT = 0.02  # of the rows, to validate, and as many to test
EVERY = 0.5  # seconds between two looks at the processes


@dataclass
class Watched:
    """What was seen of a study's processes, in bytes.

    totals: the sums of proportional set sizes, at each look while all trials were there. largest: resident set of the
    driver, and of a worker.
    """

    totals: list[int] = field(default_factory=list)
    largest: dict[str, int] = field(default_factory=lambda: {"driver": 0, "worker": 0})


def run(folder: Path, trials: int = 1) -> Watched:
    """Run the study of a folder and look at its processes. Raises SystemExit with what it said if it fails."""
    line = [sys.executable, "-m", "dgm_ray.tune", "space.json"]
    watched = Watched()
    with (folder / "log").open("w") as log:
        command = subprocess.Popen(line, cwd=folder, env=environment(), stdout=log, stderr=log)
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
    """Return bytes that a file of a process tells in kB."""
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


def write_autoencoders(folder: Path, settings: Mapping[str, Any], trial: Mapping[str, Any]) -> None:
    """Write a space of autoencoders over the table. settings: the section ``tune``. trial: of its arguments."""
    components: dict[str, Any] = {
        "autoencoder": {"factory": "SingleVariableAutoEncoder", "arguments": {"encoder": {}, "decoder": {}}},
        "reconstruction_loss": {"factory": "AutoEncoderLoss", "arguments": {"reconstruction_loss": {"factory": "MSE"}}},
        "autoencoder_optimizer": {
            "factory": "Adam",
            "arguments": {"parameters": ["autoencoder"], "lr": {"loguniform": [1e-4, 1e-2]}},
        },
    }
    source = {"features": str(folder / "features.npy"), "metadata": str(folder / "metadata.json")}
    data = {
        "source": {"factory": "Npy", "arguments": source},
        "validation_fraction": HELD_OUT,
        "test_fraction": HELD_OUT,
    }
    arguments = {"data": data, "architecture": {"arguments": {"code_size": 8}, "components": components}} | dict(trial)
    space = {"tune": settings, "trial": {"task": "TrainAutoEncoder", "arguments": arguments}}
    (folder / "space.json").write_text(json.dumps(space))
