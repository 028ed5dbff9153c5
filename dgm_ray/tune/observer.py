"""Callbacks that hold what cannot be pickled: a console, a thread, signal handlers."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial

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


def _live(name: str) -> Observer:
    return _LIVE[name]
