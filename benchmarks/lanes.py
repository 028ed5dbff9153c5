"""Configurations trained per second: as lanes, one after the other, and as Ray Tune's trials, a process per core.

    python -m benchmarks.lanes                                     # about half an hour on 2 cores
    python -m benchmarks.lanes --model GAN --batch-size 128 --lanes 16
    python -m benchmarks.lanes --device cuda --lanes 16,64         # on a GPU
    python -m benchmarks.lanes --model GAN --profile               # where the time of a step goes

GAN (Example 1's sizes: noise and one hidden layer of 50), MedGAN, VAE and GAIN on the credit table (30,000 rows, 89
features; random numbers of this shape where it is missing), as benchmarks.tasks has them: single-variable networks with
one hidden layer of 50, Adam with a rate of its own for each configuration, one step of each kind per cycle. An epoch is
``--cycles`` cycles, each batch drawn from all rows; measures and checkpoints are not part of it. One thread a process.

* (a) one after the other: one process, one configuration at a time, the plain loop.
* (b) a process per core, each with one configuration at a time, at the same time: what Ray Tune does, without Ray.
* (c) as (b), by a loop written by hand that is fed by a DataLoader which indexes row by row, as the original was.
* lanes: a process per core, each with a pack of so many configurations; ``tune.lanes`` does this. On a GPU one process.

Contestants take turns within a round; the first epochs of each warm up (a step is traced after 100 calls). A figure is
the median of the rounds, a ratio the median of the ratios within rounds.
"""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.epoch import CREDIT, loaded
from benchmarks.tasks import PLAIN, by_hand, components
from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable
from dgm_ray.models import GAIN, GAN, VAE, MedGAN, build_architecture
from dgm_ray.nn import ZeroImputation
from dgm_ray.training import Loop, TensorRows, Training
from dgm_ray.training.lanes import Lane, Pack, traced

MODELS: dict[str, Any] = {"GAN": GAN, "MedGAN": MedGAN, "VAE": VAE, "GAIN": GAIN}
ALONE, CORES, LOADER = "(a) one after the other", "(b) a process per core", "(c) row by row, per core"


def main(
    model: Annotated[str, typer.Option(help="GAN, MedGAN, VAE, GAIN, separated by commas.")] = ",".join(MODELS),
    batch_size: Annotated[str, typer.Option(help="Separated by commas.")] = "32,128",
    lanes: Annotated[str, typer.Option(help="Lanes of a pack, separated by commas.")] = "1,4,8,16,32",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    cycles: Annotated[int, typer.Option(min=1, help="Cycles of phases that are timed, for each configuration.")] = 100,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compile", help="Lanes by torch.compile as well.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a step goes.")] = False,
) -> None:
    console = Console(width=100)
    for name in model.split(","):
        for size in map(int, batch_size.split(",")):
            counts = [int(one) for one in lanes.split(",")]
            if profile:
                console.print(profiled(name, size, counts[-1], cycles, device))
            else:
                console.print(compared(name, size, counts, rounds, cycles, device, compiled))


def compared(name: str, size: int, counts: list[int], rounds: int, cycles: int, device: str, compiled: bool) -> Table:
    """Return the table of one model and batch size."""
    cores = 1 if device != "cpu" else len(os.sched_getaffinity(0))
    makers: dict[str, tuple[int, Callable[[int], Any]]] = {ALONE: (1, partial(alone, name, size, cycles, device))}
    if device == "cpu":
        makers[CORES] = cores, partial(alone, name, size, cycles, device)
        makers[LOADER] = cores, partial(by_row, name, size, cycles)
    for lanes in counts:
        together = partial(packed, name, size, cycles, device, lanes)
        makers[f"{lanes} lanes"] = cores, partial(together, False)
        if compiled:
            makers[f"{lanes} lanes, compiled"] = cores, partial(together, True)
    each = {label: int(label.split()[0]) if " lanes" in label else 1 for label in makers}
    rates: dict[str, list[float]] = {label: [] for label in makers}
    teams = {label: Team(processes, make) for label, (processes, make) in makers.items()}
    for number in range(rounds + 1):
        for label, team in teams.items():
            found = team.epoch()
            if number:  # the first warms up
                rates[label].append(sum(each[label] * cycles / seconds for seconds in found))
    for team in teams.values():
        team.end()
    table = Table(title=f"{name}, batches of {size}, {device}, {cycles} cycles, median of {rounds}")
    table.add_column("")
    for head in ("cycles per second, all configurations", f"against {ALONE[:3]}", f"against {CORES[:3]}"):
        table.add_column(head, justify="right")
    for label, own in rates.items():
        ratios = [
            f"{median(a / b for a, b in zip(own, rates[other], strict=True)):.2f}" if other in rates else ""
            for other in (ALONE, CORES)
        ]
        table.add_row(label, f"{median(own):.0f}", *ratios)
    return table


class Team:
    """Processes that do the same at the same time. make: called in each, with its number; returns an epoch."""

    def __init__(self, processes: int, make: Callable[[int], Callable[[], None]]) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(processes)]
        self._here = [here for here, _ in pipes]
        self._workers = [
            context.Process(target=work, args=(make, index, there)) for index, (_, there) in enumerate(pipes)
        ]
        for worker in self._workers:
            worker.start()
        for here in self._here:
            here.recv()  # it is ready

    def epoch(self) -> list[float]:
        """Return the seconds that each takes for an epoch."""
        for here in self._here:
            here.send(True)
        return [here.recv() for here in self._here]

    def end(self) -> None:
        for here in self._here:
            here.send(False)
        for worker in self._workers:
            worker.join()


def work(make: Callable[[int], Callable[[], None]], index: int, there: Connection) -> None:
    torch.set_num_threads(1)
    epoch = make(index)
    there.send(True)
    while there.recv():
        started = perf_counter()
        epoch()
        there.send(perf_counter() - started)


def table_of(name: str, rows: int) -> torch.Tensor:
    """Return the credit table's first rows; GAIN's have a fifth of their cells hidden."""
    whole = torch.from_numpy(np.load(CREDIT)[:rows]) if CREDIT.exists() else torch.rand(rows, 89)
    hidden = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    return whole.masked_fill(hidden, torch.nan) if name == "GAIN" else whole


@dataclass(frozen=True, eq=False)
class Some(TensorRows):
    """Rows of which an epoch takes some only, drawn from all."""

    taken: int = 0

    def __len__(self) -> int:
        return self.taken

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randint(len(self.features), (self.taken,), generator=generator).to(self.device)


def training(name: str, size: int, cycles: int, device: str, seed: int) -> Training:
    """Return a training of so many cycles an epoch, without measures."""
    features = table_of(name, 30_000)
    metadata = Metadata(tuple(Variable(f"column_{index}", "numerical") for index in range(features.shape[1])))
    node = components(MODELS[name])
    for part in node["components"].values():
        if "lr" in part.get("arguments", {}):
            part["arguments"] = part["arguments"] | {"lr": 1e-4 * (1 + seed)}
    if name == "GAN":
        node["arguments"]["noise_size"] = 50
    torch.manual_seed(seed)
    made = build_architecture(MODELS[name], node, {"metadata": metadata}, {})
    made.model.to(device)
    taken = sum(phase.steps for phase in made.phases if phase.takes_data)
    rows = Some(_there(features, device), taken=cycles * taken * size)
    fill = ZeroImputation() if name == "GAIN" else None
    loop = Loop(made.model, made.phases, rows, size, seed=seed, imputation=fill)
    return Training(replace(made, fill=fill), loop, lambda model: {}, epochs=10**6, seed=seed, evaluate_every=10**6)


_THERE: dict[str, torch.Tensor] = {}


def _there(features: torch.Tensor, device: str) -> torch.Tensor:
    """Return the one copy of the table on a device."""
    return _THERE.setdefault(device, features.to(device))


def alone(name: str, size: int, cycles: int, device: str, index: int) -> Callable[[], None]:
    one = training(name, size, cycles, device, index)

    def epoch() -> None:
        one.advance()

    return epoch


def packed(
    name: str, size: int, cycles: int, device: str, lanes: int, compiled: bool, index: int
) -> Callable[[], None]:
    starts = [partial(training, name, size, cycles, device, index * lanes + lane) for lane in range(lanes)]
    pack = Pack([Lane(start) for start in starts], compiled=compiled)
    for _ in range(-(-traced.PAYS // cycles)):
        pack.advance()

    def epoch() -> None:
        pack.advance()

    return epoch


def by_row(name: str, size: int, cycles: int, index: int) -> Callable[[], None]:
    torch.manual_seed(index)
    features, phases = table_of(name, 30_000), PLAIN[MODELS[name]](89)
    taken = sum(takes_data for _, _, takes_data in phases)
    epoch = by_hand(phases, loaded(features[: cycles * taken * size], size), size)
    numbers = count()

    def one() -> None:
        epoch(next(numbers))

    return one


def profiled(name: str, size: int, lanes: int, cycles: int, device: str) -> Table:
    """Return how much of a pack's time each kind of work takes."""
    torch.set_num_threads(1)
    epoch = packed(name, size, cycles, device, lanes, False, 0)
    epoch()
    activities = [torch.profiler.ProfilerActivity.CPU]
    started = perf_counter()
    epoch()
    seconds = perf_counter() - started
    with torch.profiler.profile(activities=activities) as found:
        epoch()
    groups: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(one in event.key for one in names)), "elementwise")
        groups[kind] = groups.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    whole = sum(groups.values())
    title = f"{name}, batches of {size}, {lanes} lanes: {seconds / cycles * 1e3:.2f} ms a cycle, all lanes"
    table = Table(title=title)
    table.add_column("kind of work")
    table.add_column("share", justify="right")
    for kind, share in sorted(groups.items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{share / whole:.0%}")
    return table


KINDS = {
    "matrix products": ("bmm", "mm"),
    "random numbers": ("normal_", "uniform_", "random_", "randint", "bernoulli_", "exponential_"),
    "rows gathered": ("index_select", "gather"),
    "sums and means": ("sum", "mean"),
    "views and allocations": (
        "view",
        "empty",
        "expand",
        "transpose",
        "as_strided",
        "select",
        "slice",
        "reshape",
        "detach",
    ),
}

if __name__ == "__main__":
    typer.run(main)
