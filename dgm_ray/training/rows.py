"""What a training takes its batches from: each row once an epoch, in another order each time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """The training rows, wherever they are."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""

    def __len__(self) -> int: ...

    def parts(
        self, batch_size: int, *, seed: int, epoch: int, join_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (batch, num_features) features, NaN where missing, and (batch,) labels if the rows have them.

        The order of an epoch depends on ``seed`` and ``epoch`` alone. join_last: a single row that would be left over
        joins the batch before it (batch normalisation cannot train on one).
        """


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Rows in the memory of a device, which may be shared and is never written.

    features: (rows, num_features). labels: (rows,) of a conditional architecture.
    """

    features: Tensor
    labels: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.features.device

    def __len__(self) -> int:
        return len(self.features)

    def parts(
        self, batch_size: int, *, seed: int, epoch: int, join_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        order, start = self.order(seed, epoch), 0
        for size in part_sizes(len(self), batch_size, join_last=join_last):
            yield self.take(order[start : start + size])
            start += size

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of the rows (rows,) in an epoch's order."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(len(self), generator=generator).to(self.device)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a copy of rows and their labels. numbers: of rows (n,)."""
        labels = None if self.labels is None else self.labels.index_select(0, numbers)
        return self.features.index_select(0, numbers), labels


def part_sizes(rows: int, batch_size: int, *, join_last: bool = False) -> list[int]:
    """Return how many rows each batch of an epoch has. join_last: see ``Rows.parts``."""
    sizes = [min(batch_size, rows - start) for start in range(0, rows, batch_size)]
    if join_last and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes
