"""The one loop that trains any model: per cycle, per phase, per step.

An epoch is one pass over the rows in a new order. It ends the moment that a phase asks for a batch and none is left,
wherever the cycle stands. Batches that were taken are trained on and their losses count.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count, islice, repeat
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dgm_ray.models import Batch, Phase, Probed, parameters_of
from dgm_ray.training.rows import Rows, part_sizes

Imputation = Callable[[Tensor, Tensor], Tensor]
Taken = TypeVar("Taken")  # what a phase takes: a batch, or one of each lane


def batches(
    rows: Rows, batch_size: int, *, seed: int, epoch: int, imputation: Imputation | None = None, join_last: bool = False
) -> Iterator[Batch]:
    """Yield the batches of an epoch.

    imputation: fills the missing (NaN) cells of a batch, anew each time; None promises that there are none.
    """
    for features, labels in rows.parts(batch_size, seed=seed, epoch=epoch, join_last=join_last):
        yield batch_of(features, labels, imputation)


def batch_of(features: Tensor, labels: Tensor | None, imputation: Imputation | None) -> Batch:
    """Return rows as a loss sees them. See ``batches``."""
    if imputation is None:
        return Batch(features, labels=labels)
    mask = features.isnan().to(features.dtype)
    return Batch(imputation(features, mask), mask, labels)


def schedule(phases: Sequence[Phase], data: Iterator[Taken], cycles: int, empty: Taken) -> Iterator[tuple[int, Taken]]:
    """Yield (index of the phase, batch) for one epoch.

    cycles: how many there are when no phase takes data (else the data decides). empty: what a phase without data gets.
    """
    endless = any(phase.takes_data and phase.steps for phase in phases)
    for _ in repeat(None) if endless else range(cycles):
        for index, phase in enumerate(phases):
            if not phase.takes_data:
                yield from repeat((index, empty), phase.steps)
                continue
            taken = 0
            for batch in islice(data, phase.steps):
                taken += 1
                yield index, batch
            if taken < phase.steps:
                return


class Loop:
    """Train a model's phases, an epoch a call.

    rows: to train on; their batches come on the device where the model is. batch_size: rows of a batch, and of the
    batches of phases that take no data. seed: of the order of rows. imputation: see ``batches``.
    """

    finished = False  # there is always another epoch

    def __init__(
        self,
        model: nn.Module,
        phases: Sequence[Phase],
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        imputation: Imputation | None = None,
    ) -> None:
        self._model, self.phases, self.rows = model, phases, rows
        self.batch_size, self.seed, self.imputation = batch_size, seed, imputation
        self._parameters = [parameters_of(phase.optimizer) for phase in phases]
        self._empty = Batch(torch.empty(batch_size, 0, device=rows.device))
        self.join_last = any(isinstance(module, nn.BatchNorm1d) for module in model.modules())

    def __call__(self, epoch: int) -> dict[str, float]:
        """Train epoch number ``epoch`` and return each phase's mean loss, weighted by rows, as ``{name}_loss``.

        A phase that had no step in this epoch is left out.
        """
        self._model.train()
        totals = [torch.zeros((), device=self.rows.device) for _ in self.phases]
        counts = [0] * len(self.phases)
        for index, batch in self.steps(epoch):
            loss = self.step(index, batch)
            totals[index].add_(loss, alpha=batch.rows)
            counts[index] += batch.rows
        return {
            f"{phase.name}_loss": total / count
            for phase, total, count in zip(self.phases, torch.stack(totals).tolist(), counts, strict=True)
            if count
        }

    def probe(self, cycles: int) -> Probed:
        """Train so many cycles and one more, over as many epochs as that takes; the median of their times counts."""
        self._model.train()
        if not any(phase.steps for phase in self.phases):
            return Probed(0.0, 0)
        steps = chain.from_iterable(map(self.steps, count(1)))
        seconds = seconds_of_a_step(self.phases, (partial(self.step, *one) for one in steps), cycles)
        held = [part for phase in self.phases for part in tensors_of(phase.optimizer.state_dict())]
        return Probed(seconds * self.num_steps, self.num_steps, sum(part.nbytes for part in held))

    @property
    def sizes(self) -> list[int]:
        """How many rows each batch of an epoch has."""
        return part_sizes(len(self.rows), self.batch_size, join_last=self.join_last)

    @property
    def num_steps(self) -> int:
        """How many steps an epoch has."""
        return sum(1 for _ in schedule(self.phases, iter(self.sizes), len(self.sizes), 0))

    def steps(self, epoch: int) -> Iterator[tuple[int, Batch]]:
        """Yield (index of the phase, batch) for an epoch."""
        data = batches(
            self.rows,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            imputation=self.imputation,
            join_last=self.join_last,
        )
        return schedule(self.phases, data, -(-len(self.rows) // self.batch_size), self._empty)

    def step(self, index: int, batch: Batch) -> Tensor:
        """Do a step of a phase, and return its loss ()."""
        phase = self.phases[index]
        phase.optimizer.zero_grad()
        loss = phase.loss(batch)
        loss.backward(inputs=self._parameters[index])  # what this phase does not step needs no gradient
        phase.optimizer.step()
        return loss.detach()


def seconds_of_a_step(phases: Sequence[Phase], steps: Iterator[Callable[[], Tensor]], cycles: int) -> float:
    """Do the steps of so many cycles and one more; return the median of the cycles' seconds, by their steps.

    steps: each returns its loss, or those of several models.
    """
    cycle, seconds = sum(phase.steps for phase in phases), []
    for _ in range(cycles + 1):
        started = time.perf_counter()
        for step in islice(steps, cycle):
            loss = step()
        loss.sum().item()  # waits for the device
        seconds.append((time.perf_counter() - started) / cycle)
    return median(seconds[1:])


def tensors_of(state: Any) -> Iterator[Tensor]:
    """Yield every tensor in a state dict, however deep it lies."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list):
        for part in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_of(part)
