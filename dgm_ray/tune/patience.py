"""Stop a study that finds nothing better."""

import math
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.tune.observer import Observer, before_resume
from dgm_ray.tune.settings import NoImprovement


class Patience(Observer):
    """Counts the trials that ended since the best one did. score: of a trial that has ended; NaN if it has none."""

    def __init__(self, stop: NoImprovement, score: Callable[[RayTrial], float]) -> None:
        super().__init__()
        self._stop, self._score = stop, score
        self._ended: set[str] = set()
        self._best, self.without = math.inf, 0

    @property
    def over(self) -> bool:
        return self.without >= self._stop.trials

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        for trial in before_resume(iteration, trials):
            self.on_trial_end(trial)

    def on_trial_end(self, trial: RayTrial) -> None:
        if trial.trial_id in self._ended:
            return
        self._ended.add(trial.trial_id)
        score = self._score(trial)
        if score < self._best - (self._stop.by if math.isfinite(self._best) else 0):
            self._best, self.without = score, 0
        else:
            self.without += 1


class Stopper(tune.Stopper):  # type: ignore[misc]
    """Asks ``Patience``; Tune pickles it as it does an observer."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._patience.over
