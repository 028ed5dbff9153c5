"""Ray's schedulers, each with a journal; a trial that ran out of its share of a GPU comes back with a larger one."""

import math
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from dgm_ray.tune.journal import Journaled, enlarge, share_of
from dgm_ray.tune.outcomes import last_error
from dgm_ray.tune.shares import OUT_OF_SHARE, larger_share


class LargerShare:
    """Doubles the share of a trial that Tune starts again because it ran out of it.

    Tune asks the scheduler just before the trial waits for its resources: later they could not be changed.
    """

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Called by Tune for every failure; the trial's status is ERROR if it is started again."""
        super().on_trial_error(tune_controller, trial)  # type: ignore[misc]
        if trial.status == RayTrial.ERROR and OUT_OF_SHARE in last_error(trial):
            enlarge(trial, larger_share(share_of(trial)))


class EveryTrial(Journaled, LargerShare, FIFOScheduler):  # type: ignore[misc]
    """Stops no trial."""

    decides = False


class Halving(Journaled, LargerShare, ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving."""


class _NeverWaiting(HyperBandScheduler):  # type: ignore[misc]
    """Ray's HyperBand waits for ever where a trial ends by itself, as it may here: it stops early, or diverges."""

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        worst = {self._metric: math.inf} if math.isnan(result[self._metric]) else {}
        return str(super().on_trial_result(tune_controller, trial, result | worst))

    def _process_bracket(self, tune_controller: Any, bracket: Any) -> str:
        try:
            return str(super()._process_bracket(tune_controller, bracket))
        finally:
            bracket.is_being_processed = False  # Ray's own never is, so that the last trial to end wakes no other


class Brackets(Journaled, LargerShare, _NeverWaiting):
    """HyperBand."""

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        super().on_trial_error(tune_controller, trial)
        if trial.status == RayTrial.ERROR:  # it comes into another bracket, which has seen nothing of it
            self._decided[trial] = {}


class Median(Journaled, LargerShare, MedianStoppingRule):  # type: ignore[misc]
    """Stops trials below the median."""


class Population(Journaled, LargerShare, PopulationBasedTraining):  # type: ignore[misc]
    """Population based training. Who copies whom depends on how fast trials run."""

    decides = False


def population_of_bandits(**arguments: Any) -> Any:
    """Return Ray's PB2, whose module imports scikit-learn."""
    from ray.tune.schedulers.pb2 import PB2

    class Bandits(Journaled, LargerShare, PB2):  # type: ignore[misc]
        """Population based bandits."""

        decides = False

    return Bandits(**arguments)
