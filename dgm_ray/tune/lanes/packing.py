"""Which trials are trained together, and how many: nothing here knows Ray."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

One = TypeVar("One")


class Waiting(Generic[One]):
    """What waits for a place in a pack, by shape, each shape in the order in which it came."""

    def __init__(self) -> None:
        self._by_shape: dict[str, list[One]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_shape.values()))

    def __iter__(self) -> Iterator[One]:
        return (one for found in self._by_shape.values() for one in found)

    def add(self, shape: str, one: One) -> None:
        self._by_shape.setdefault(shape, []).append(one)

    def add_first(self, shape: str, ones: list[One]) -> None:
        """Let some wait before the others, in their order: they had a place already."""
        self._by_shape[shape] = [*ones, *self._by_shape.pop(shape, [])]

    def take(self, shape: str, most: int) -> list[One]:
        """Return as many as there are, at most ``most``; they wait no longer."""
        found = self._by_shape.pop(shape, [])
        if found[max(most, 0) :]:
            self._by_shape[shape] = found[max(most, 0) :]
        return found[: max(most, 0)]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each shape."""
        return {shape: len(found) for shape, found in self._by_shape.items()}


def largest(counts: Mapping[str, int]) -> str:
    """Return the shape that most wait of; of several the one that came first. counts: not empty."""
    return max(counts, key=lambda shape: counts[shape])


def size_of(shape: str, counts: Mapping[str, int], workers: int, most: int) -> int:
    """Return how many of a shape a new pack begins with, at most ``most``.

    workers: that have no pack yet; a shape is spread over its part of them, so that all end at the same time.
    """
    parts = max(1, round(workers * counts[shape] / sum(counts.values())))
    return min(most, -(-counts[shape] // parts))


def resized(size: int, live: int, waiting: int, most: int) -> int:
    """Return for how many places a pack goes on: a step is traced anew for each number, so it seldom changes.

    live: places that are taken. waiting: of the pack's shape. most: places there may be.
    """
    if live == size and waiting >= size:
        return min(most, 2 * size)
    while not waiting and size > 1 and 2 * live <= size:
        size = -(-size // 2)
    return size
