"""Callbacks that hold what cannot be pickled: a console, a thread, signal handlers."""

import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.tune.outcomes import number_of

PUBLISH_SECONDS = 5.0  # a driver that is killed loses at most so much of its journal, unless there is much to bring
PUBLISH_SHARE = 0.05  # of the time, at most
_LIVE: dict[str, "Observer"] = {}


class Observer(tune.Callback):  # type: ignore[misc]
    """A callback of the driver. Tune pickles callbacks into a study's state, and unpickles them when it is resumed.

    What is pickled is the name alone; what comes back is the observer of that name that this process has made.
    """

    def __init__(self) -> None:
        _LIVE[type(self).__name__] = self

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self.on_trial_end(trial)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self.on_trial_end(trial)

    def on_trial_end(self, trial: RayTrial) -> None:
        """Called once for a trial, however it ended."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _live, (type(self).__name__,)


class Publisher(Observer):
    """Brings a study's files to where they are kept, now and then, while it runs."""

    def __init__(self, publish: Callable[[], None]) -> None:
        super().__init__()
        self._publish, self._next = publish, time.monotonic() + PUBLISH_SECONDS

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        if time.monotonic() > self._next:
            started = time.monotonic()
            self._publish()
            ended = time.monotonic()
            self._next = ended + max(PUBLISH_SECONDS, (ended - started) / PUBLISH_SHARE)


def before_resume(iteration: int, trials: list[RayTrial]) -> list[RayTrial]:
    """Return the trials, by number, that had ended before a study was resumed: observers are not told of them."""
    return sorted((one for one in trials if one.is_finished()), key=number_of) if iteration < 2 else []


def _live(name: str) -> Observer:
    return _LIVE[name]
