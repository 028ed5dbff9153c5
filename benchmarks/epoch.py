"""Seconds per epoch of the original library's Example 1, here and in loops that are written by hand.

    python -m benchmarks.epoch                    # about a minute
    python -m benchmarks.epoch --rounds 9 --batch-size 32

The model: a GAN, noise 50 -> 50 ReLU -> features, features -> 50 LeakyReLU(0.2) -> 1 sigmoid, Adam with lr 1e-3 for
each, one step of the discriminator and one of the generator per batch. The table: Default of Credit Card Clients,
30,000 rows and 89 features, if ../shared/data/credit is there, else random numbers of this shape.

Equal in all: layers and their sizes, float32, one thread, the batch size and so the number of steps, a new order of
rows in every epoch, fake rows drawn anew for each step and without gradient for the discriminator's, binary
cross-entropies, losses summed on the device and read once per epoch. What differs is said by the row's name:

* plain loop: ``nn.Sequential``, ``torch.optim.Adam`` as it comes, ``F.binary_cross_entropy``, ``randperm`` and one
  index per batch.
* plain loop, lean: the same with Adam's fused kernel, and without gradients that nobody uses
  (``backward(inputs=...)``: the generator's loss would give the discriminator some). Both are one argument each, and
  this library has both; the row says how much of its time is due to them.
* DataLoader: the plain loop fed as the original was, by a Dataset that returns row i as a mapping, and no workers.
* dgm_ray: ``training.Loop`` over the model that the grammar builds from the example's architecture. Beside what the
  lean loop does it follows a schedule of phases, and its cross-entropy survives a NaN.

Contestants take turns within a round, in an order that moves on with each; a row is the median of its rounds, and a
ratio the median of the ratios within rounds, so that what else the machine does weighs little.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable
from dgm_ray.models import build_architecture
from dgm_ray.models.gan import GAN
from dgm_ray.training import Loop, TensorRows

CREDIT = Path(__file__).resolve().parents[2] / "shared" / "data" / "credit" / "features.npy"
NOISE = HIDDEN = 50
ARCHITECTURE = {
    "arguments": {"noise_size": NOISE},
    "components": {
        "generator": {"factory": "SingleOutputGenerator", "arguments": {"hidden_layers": {"sizes": [HIDDEN]}}},
        "discriminator": {"factory": "Discriminator", "arguments": {"hidden_layers": {"sizes": [HIDDEN]}}},
        "generator_loss": {"factory": "GANGeneratorLoss"},
        "discriminator_loss": {"factory": "GANDiscriminatorLoss"},
        "generator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["generator"], "lr": 1e-3}},
        "discriminator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["discriminator"], "lr": 1e-3}},
    },
}

Epoch = Callable[[int], object]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each that are timed; one more warms up.")] = 7,
    rows: Annotated[int, typer.Option(min=1, help="The table's first rows, at most these.")] = 30_000,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
) -> None:
    console = Console()
    torch.set_num_threads(1)
    if CREDIT.exists():
        features = torch.from_numpy(np.load(CREDIT)[:rows])
    else:
        console.print(f"{CREDIT} is not there: random numbers instead", highlight=False)
        features = torch.rand(rows, 89)
    contestants = {
        "plain loop": plain(features, batch_size, indexed(features, batch_size)),
        "plain loop, lean": plain(features, batch_size, indexed(features, batch_size), lean=True),
        "DataLoader": plain(features, batch_size, loaded(features, batch_size)),
        "dgm_ray": ours(features, batch_size),
    }
    seconds = timed(contestants, rounds)
    size = f"{features.shape[0]} rows, {features.shape[1]} features"
    table = Table(title=f"{size}, batches of {batch_size}, median of {rounds}")
    table.add_column("loop")
    for name in ("seconds per epoch", "to plain loop", "to lean loop"):
        table.add_column(name, justify="right")
    for name, taken in seconds.items():
        table.add_row(name, f"{median(taken):.3f}", *(ratio(taken, seconds[f"plain loop{x}"]) for x in ("", ", lean")))
    console.print(table)


def timed(contestants: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each round."""
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for epoch in track(range(rounds + 1), description="rounds", transient=True):
        for index in range(len(names)):
            name = names[(index + epoch) % len(names)]
            started = perf_counter()
            contestants[name](epoch)
            if epoch:  # the first warms up
                seconds[name].append(perf_counter() - started)
    return seconds


def ratio(one: list[float], other: list[float]) -> str:
    return f"{median(a / b for a, b in zip(one, other, strict=True)):.2f}"


def ours(features: Tensor, batch_size: int) -> Epoch:
    """Return the epoch of this library."""
    variables = tuple(Variable(f"column_{index}", "numerical") for index in range(features.shape[1]))
    metadata = Metadata(variables, len(features))  # the example does not take the variables' types into account
    torch.manual_seed(0)
    gan = build_architecture(GAN, ARCHITECTURE, {"metadata": metadata}, {})
    return Loop(gan.model, gan.phases, TensorRows(features), batch_size, seed=0)


def plain(features: Tensor, batch_size: int, data: Iterable[Tensor], *, lean: bool = False) -> Epoch:
    """Return an epoch as anyone would write it."""
    torch.manual_seed(0)
    columns = features.shape[1]
    generator = nn.Sequential(nn.Linear(NOISE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, columns))
    discriminator = nn.Sequential(
        nn.Linear(columns, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1), nn.Sigmoid(), nn.Flatten(0)
    )
    of_generator, of_discriminator = list(generator.parameters()), list(discriminator.parameters())
    fused = True if lean else None
    generator_optimizer = torch.optim.Adam(of_generator, lr=1e-3, fused=fused)
    discriminator_optimizer = torch.optim.Adam(of_discriminator, lr=1e-3, fused=fused)

    def epoch(number: int) -> tuple[float, float]:
        discriminator_total, generator_total, steps = torch.zeros(()), torch.zeros(()), 0
        for real in data:
            size = len(real)
            discriminator_optimizer.zero_grad()
            with torch.no_grad():
                fake = generator(torch.randn(size, NOISE))
            on_real, on_fake = discriminator(real), discriminator(fake)
            loss = F.binary_cross_entropy(on_real, torch.ones(size))
            loss = loss + F.binary_cross_entropy(on_fake, torch.zeros(size))
            loss.backward(inputs=of_discriminator if lean else None)
            discriminator_optimizer.step()
            discriminator_total += loss.detach() * size

            generator_optimizer.zero_grad()
            on_fake = discriminator(generator(torch.randn(batch_size, NOISE)))
            loss = F.binary_cross_entropy(on_fake, torch.ones(batch_size))
            loss.backward(inputs=of_generator if lean else None)
            generator_optimizer.step()
            generator_total += loss.detach()
            steps += 1
        return discriminator_total.item() / len(features), generator_total.item() / steps

    return epoch


class indexed:  # noqa: N801
    """Batches by one index each, in a new order whenever it is gone through."""

    def __init__(self, features: Tensor, batch_size: int) -> None:
        self._features, self._batch_size = features, batch_size

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.randperm(len(self._features)).split(self._batch_size):
            yield self._features[rows]


class loaded:  # noqa: N801
    """Batches of a DataLoader whose Dataset returns rows."""

    def __init__(self, features: Tensor, batch_size: int) -> None:
        self._loader = DataLoader(Rows(features), batch_size=batch_size, shuffle=True)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._loader:
            yield batch["features"]


class Rows(Dataset[dict[str, Tensor]]):
    """Row i as a mapping."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"features": self._features[index]}


if __name__ == "__main__":
    typer.run(main)
