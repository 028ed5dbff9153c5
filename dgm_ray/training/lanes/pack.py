"""A pack: trainings of one shape that advance together."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dgm_ray.models import Probed
from dgm_ray.training.lanes.noise import Random
from dgm_ray.training.lanes.stack import Stack
from dgm_ray.training.loop import schedule, seconds_of_a_step
from dgm_ray.training.training import Training, random_states, set_random_states

# From which epoch on a lane was one of how many rows of a stack, and which: what repeating it to the bit needs.
Places = list[list[int]]
Run = Callable[[str, Callable[[], Tensor]], Tensor]


@runtime_checkable
class MeasuresLanes(Protocol):
    """What scores several models at once."""

    def of_lanes(self, model: nn.Module, run: Run, rows: Sequence[int]) -> list[dict[str, float]]:
        """Return the scores of each of these rows of a stack.

        run: returns what a function of ``model`` gives of every row, (rows, ...); see ``Stack.run``.
        """


class Lane:
    """A training that is one of a pack, with torch's random state to itself.

    start: what starts a training leaves torch's random state as the training needs it.
    """

    def __init__(self, start: Callable[[], Training]) -> None:
        self.training = start()
        self.places: Places = []
        self.random = Random(random_states())

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs to go on, in a pack or alone."""
        with self.alone():
            return self.training.state() | ({"lanes": self.places} if self.places else {})

    def load(self, state: Mapping[str, Any], place: str) -> None:
        """Go on from a state; a pack that has the lane must be made anew. Raises as ``Training.load``."""
        with self.alone():
            self.training.load(state, place)
        self.places = [list(one) for one in state["lanes"]] if "lanes" in state else []

    def stop(self, reason: str) -> None:
        """Train no more, though it keeps its row. One that has ended keeps its reason."""
        self.training.reason = self.training.reason or reason

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, torch's random state is the lane's."""
        before = random_states()
        set_random_states(self.random.states())
        try:
            yield
        finally:
            self.random.set(random_states())
            set_random_states(before)


class Together:
    """An epoch of all lanes of a stack, and their measures. lanes: by their rows."""

    def __init__(
        self, lanes: Mapping[int, Training], rows: int, random: Mapping[int, Random], *, compiled: bool = False
    ) -> None:
        self._lanes, self._measure = lanes, next(iter(lanes.values())).measure
        self._stack = Stack(lanes, rows, random, compiled=compiled)
        self._empty = self._stack.table.features.new_empty(rows, self._stack.loop.batch_size, 0)

    def epoch(self, epochs: Mapping[int, int]) -> dict[int, dict[str, float]]:
        """Train an epoch and return the losses of each lane, by rows, as ``Loop`` does. epochs: their numbers."""
        self.train()
        phases = self._stack.loop.phases
        totals = torch.zeros(len(phases), self._stack.rows, device=self._stack.device)
        counts = [0] * len(phases)
        for index, (features, labels) in self.steps(epochs):
            totals[index].add_(self.step(index, features, labels), alpha=features.shape[1])
            counts[index] += features.shape[1]
        found = totals.tolist()
        return {
            row: {
                f"{phase.name}_loss": found[index][row] / counts[index]
                for index, phase in enumerate(phases)
                if counts[index]
            }
            for row in epochs
        }

    def train(self) -> None:
        """Let the models be as they are when they learn."""
        self._stack.train()

    def probe(self, cycles: int) -> float:
        """Return the seconds of an epoch, without measures: so many cycles are timed, and one more before them."""
        self.train()
        steps = chain.from_iterable(self.steps(dict.fromkeys(self._lanes, epoch)) for epoch in count(1))
        loop = self._stack.loop
        return loop.num_steps * seconds_of_a_step(
            loop.phases, (partial(self.step, index, *given) for index, given in steps), cycles
        )

    def step(self, index: int, features: Tensor, labels: Tensor | None) -> Tensor:
        """Do a step of a phase; return the loss of each row of the stack. See ``Stack.step``."""
        return self._stack.step(index, features, labels)

    def measures(self, rows: Sequence[int]) -> dict[int, dict[str, float]]:
        """Return the measures of lanes, by their rows."""
        if not isinstance(self._measure, MeasuresLanes):
            return {row: self._lanes[row].evaluate() for row in rows}
        random = {row: Random.seeded(self._lanes[row].seed) for row in rows}

        def run(name: str, function: Callable[[], Tensor]) -> Tensor:
            return self._stack.run(name, function, random)

        return dict(zip(rows, self._measure.of_lanes(self._stack.model, run, rows), strict=True))

    def steps(self, epochs: Mapping[int, int]) -> Iterator[tuple[int, tuple[Tensor, Tensor | None]]]:
        """Yield (index of the phase, features and labels of all rows) for an epoch. epochs: by rows."""
        cycles = -(-len(self._stack.table) // self._stack.loop.batch_size)
        return schedule(self._stack.loop.phases, self._batches(epochs), cycles, (self._empty, None))

    def _batches(self, epochs: Mapping[int, int]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of all rows of the stack, each lane's in its own order."""
        table, rows = self._stack.table, self._stack.rows
        own = {row: table.order(self._lanes[row].seed, epoch) for row, epoch in epochs.items()}
        other = next(iter(own.values()))
        orders = torch.stack([own[row] if row in own else other for row in range(rows)])  # (rows, rows of the table)
        start = 0
        for size in self._stack.loop.sizes:
            features, labels = table.take(orders[:, start : start + size].reshape(-1))
            yield features.view(rows, size, -1), None if labels is None else labels.view(rows, size)
            start += size


class Pack:
    """Trainings of one shape (``key_of``) that advance together; each is what it would be alone, to rounding.

    lanes: at least one. rows: of the stack, at least as many; the others compute nothing that is looked at. A lane's
    bits depend on ``rows`` and on which one it has, on nothing else. Lanes are taken out or put in by making another
    pack of them. compiled: by torch.compile. A single row is trained by its own loop.
    """

    def __init__(self, lanes: Sequence[Lane], rows: int | None = None, *, compiled: bool = False) -> None:
        self.lanes = list(lanes)
        self.rows = rows or len(self.lanes)
        self._compiled = compiled
        self._together: Together | None = None
        for row, lane in enumerate(self.lanes):
            place = [lane.training.epoch + 1, self.rows, row]
            if (self.rows > 1 or lane.places) and (not lane.places or lane.places[-1][1:] != place[1:]):
                lane.places.append(place)

    def advance(self) -> list[dict[str, float]]:
        """Train an epoch of each lane that has not ended; return what ``Training.advance`` does, {} of the others."""
        if self.rows == 1:
            with self.lanes[0].alone():
                return [{} if lane.training.done else lane.training.advance() for lane in self.lanes]
        live = {row: lane.training for row, lane in enumerate(self.lanes) if not lane.training.done}
        if not live:
            return [{} for _ in self.lanes]
        started = time.perf_counter()
        together = self._made()
        losses = together.epoch({row: one.epoch + 1 for row, one in live.items()})
        took = (time.perf_counter() - started) / len(live)
        due = [row for row, one in live.items() if one.trained(losses[row], took)]
        measures = together.measures(due) if due else {}
        for row, one in live.items():
            one.measured(losses[row], measures[row] if row in measures else None)
        took = (time.perf_counter() - started) / len(live)
        found = {row: losses[row] | (measures[row] if row in measures else {}) | {"seconds": took} for row in live}
        return [found[row] if row in found else {} for row in range(len(self.lanes))]

    def probe(self, cycles: int) -> float:
        """Return the seconds of an epoch of all lanes; afterwards they are spoilt. See ``Together.probe``."""
        return self.lanes[0].training.probe(cycles).seconds if self.rows == 1 else self._made().probe(cycles)

    def _made(self) -> Together:
        if self._together is None:
            trainings = {row: lane.training for row, lane in enumerate(self.lanes)}
            random = {row: lane.random for row, lane in enumerate(self.lanes)}
            self._together = Together(trainings, self.rows, random, compiled=self._compiled)
        return self._together


class AsLane:
    """The loop and the measure of a training that computes as it did as a lane, to the bit.

    places: as ``Lane.places``. The other rows of the stacks have its own weights.
    """

    finished = False

    def __init__(self, training: Training, places: Sequence[Sequence[int]]) -> None:
        self._training, self._places = training, places
        self._alone, self._measure = training.loop, training.measure
        self._random = Random(random_states())
        self._made: dict[tuple[int, int], Together] = {}  # the last one, by its place

    @classmethod
    def of(cls, training: Training, places: Sequence[Sequence[int]]) -> Training:
        """Return the training, which is changed, with this loop and this measure."""
        made = cls(training, places)
        training.loop, training.measure = made, made.measure
        return training

    def __call__(self, epoch: int) -> dict[str, float]:
        rows, row = self._place(epoch)
        if rows == 1:
            return self._alone(epoch)
        self._random.set(random_states())
        self._made.clear()  # since the last epoch, a checkpoint may have been loaded
        losses = self._together(rows, row).epoch({row: epoch})[row]
        set_random_states(self._random.states())
        return losses

    def measure(self, model: nn.Module) -> dict[str, float]:
        rows, row = self._place(self._training.epoch)
        return self._measure(model) if rows == 1 else self._together(rows, row).measures([row])[row]

    def probe(self, cycles: int) -> Probed:
        return self._alone.probe(cycles)

    def _place(self, epoch: int) -> tuple[int, int]:
        passed = [place for place in self._places if place[0] <= max(epoch, 1)]
        return (passed[-1][1], passed[-1][2]) if passed else (1, 0)

    def _together(self, rows: int, row: int) -> Together:
        if (rows, row) not in self._made:
            with self._plainly():
                self._made = {(rows, row): Together({row: self._training}, rows, {row: self._random})}
        return self._made[rows, row]

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Inside, the training has its own loop and measure, of which a stack is made."""
        given = self._training.loop, self._training.measure
        self._training.loop, self._training.measure = self._alone, self._measure
        try:
            yield
        finally:
            self._training.loop, self._training.measure = given
