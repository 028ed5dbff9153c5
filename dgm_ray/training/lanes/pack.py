"""A pack: trainings of one shape that advance together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dgm_ray.training.training import Training, random_states, set_random_states

# From which epoch on a lane was one of how many rows of a stack, and which: what repeating it to the bit needs.
Places = list[list[int]]


class Lane:
    """A training that is one of a pack, with torch's random state to itself.

    start: what starts a training leaves torch's random state as the training needs it.
    """

    def __init__(self, start: Callable[[], Training]) -> None:
        self.training = start()
        self.places: Places = []
        self._random = random_states()

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs to go on, in a pack or alone."""
        with self.alone():
            return self.training.state() | ({"lanes": self.places} if self.places else {})

    def load(self, state: Mapping[str, Any], place: str) -> None:
        """Go on from a state; a pack that has the lane must be made anew. Raises as ``Training.load``."""
        with self.alone():
            self.training.load(state, place)
        self.places = [list(one) for one in state["lanes"]] if "lanes" in state else []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, torch's random state is the lane's."""
        set_random_states(self._random)
        try:
            yield
        finally:
            self._random = random_states()


class Pack:
    """Trainings of one shape (``shape_of``) that advance together; each is what it would be alone, to rounding.

    lanes: at least one. rows: of the stack, at least as many; the others compute nothing that is looked at. A lane's
    bits depend on ``rows`` and on which one it has, on nothing else. Lanes are taken out or put in by making another
    pack of them.
    """

    def __init__(self, lanes: Sequence[Lane], rows: int | None = None) -> None:
        self.lanes = list(lanes)
        self.rows = rows or len(self.lanes)

    def advance(self) -> list[dict[str, float]]:
        """Train an epoch of each lane that has not ended; return what ``Training.advance`` does, {} of the others."""
        found: list[dict[str, float]] = []
        for lane in self.lanes:
            with lane.alone():
                found.append({} if lane.training.done else lane.training.advance())
        return found
