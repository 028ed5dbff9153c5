"""Ray's HyperBand, which waits for ever where a trial ends by itself; this one does not."""

import math
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import HyperBandScheduler as RayHyperBand


class HyperBandScheduler(RayHyperBand):  # type: ignore[misc]
    """As Ray's, but trials may stop early, diverge, or have ended before the study was resumed."""

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        if not trial.is_finished():  # its bracket would wait for a result of it
            super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        worst = {self._metric: math.inf} if math.isnan(result[self._metric]) else {}
        return str(super().on_trial_result(tune_controller, trial, result | worst))

    def _process_bracket(self, tune_controller: Any, bracket: Any) -> str:
        try:
            return str(super()._process_bracket(tune_controller, bracket))
        finally:
            bracket.is_being_processed = False  # Ray's own never is, so that the last trial to end wakes no other
