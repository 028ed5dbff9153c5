"""Lanes against the same trainings alone, step by step: same weights, rows and noise."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, count, islice
from typing import NamedTuple

import torch

from dgm_ray.models import parameters_of
from dgm_ray.training.lanes.pack import Lane, Together
from dgm_ray.training.lanes.stack import loop_of
from dgm_ray.training.loop import Loop
from dgm_ray.training.training import Training

ROUNDING = 1e-5  # of the largest gradient of a step


class Difference(NamedTuple):
    """How far lanes are from the same trainings alone after a step: the largest over all lanes.

    loss: relative to the loss, or to 1 if that is larger. parameters: the norm of what a weight or a bias differs by,
    relative to its own. Those that have had no gradient but rounding, such as a bias before batch normalisation, are
    left out: Adam makes steps of full size of it.
    """

    step: int
    phase: str
    loss: float
    parameters: float


def differences(starts: Sequence[Callable[[], Training]], steps: int) -> Iterator[Difference]:
    """Train so many steps together and alone, and yield how far they are from each other after each.

    starts: of trainings of one shape; each is called twice.
    """
    alone, lanes = [Lane(start) for start in starts], [Lane(start) for start in starts]
    rows = dict(enumerate(lanes))
    together = Together(
        {row: lane.training for row, lane in rows.items()}, len(rows), {row: lane.random for row, lane in rows.items()}
    )
    together.train()
    loops = [loop_of(lane.training) for lane in alone]
    for lane in alone:
        lane.training.architecture.model.train()
    each = [chain.from_iterable(map(loop.steps, count(1))) for loop in loops]
    stacked = chain.from_iterable(together.steps(dict.fromkeys(rows, epoch)) for epoch in count(1))
    learning: list[set[str]] = [set() for _ in alone]
    for step, (index, given) in enumerate(islice(stacked, steps), start=1):
        losses = together.step(index, *given).tolist()
        own = []
        for lane, loop, mine, learn in zip(alone, loops, each, learning, strict=True):
            with lane.alone():
                own.append(loop.step(*next(mine)).item())
            learn |= _learning(lane.training, loop, index)
        away = [abs(one - other) / max(abs(one), 1.0) for one, other in zip(own, losses, strict=True)]
        apart = [
            _distance(one.training, other.training, learn)
            for one, other, learn in zip(alone, lanes, learning, strict=True)
        ]
        yield Difference(step, loops[0].phases[index].name, max(away), max(apart))


def _learning(training: Training, loop: Loop, index: int) -> set[str]:
    """Return the parameters that the last step of a phase has changed by more than rounding."""
    names = {id(parameter): name for name, parameter in training.architecture.model.named_parameters()}
    stepped = [one for one in parameters_of(loop.phases[index].optimizer) if one.grad is not None]
    sizes = {names[id(one)]: float(one.grad.square().mean().sqrt()) for one in stepped if one.grad is not None}
    return {name for name, size in sizes.items() if size > ROUNDING * max(sizes.values())}


@torch.no_grad()
def _distance(one: Training, other: Training, learning: Collection[str]) -> float:
    """Return the largest relative distance of some parameters of two trainings, infinite if one alone is not finite."""
    others, found = dict(other.architecture.model.named_parameters()), [0.0]
    for name, own in one.architecture.model.named_parameters():
        if name in learning and (own.isfinite().all() or others[name].isfinite().all()):
            found.append(float((own - others[name]).norm() / own.norm().clamp_min(1e-12)))
    return max(math.inf if value != value else value for value in found)
