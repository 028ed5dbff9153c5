"""Ray's schedulers; a trial that ran out of its share of a GPU comes back with a larger one."""

from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

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
            held = trial.placement_group_factory.required_resources
            more = {"cpu": held["CPU"], "gpu": larger_share(held["GPU"])}
            trial.update_resources(more | ({"memory": held["memory"]} if "memory" in held else {}))


class EveryTrial(LargerShare, FIFOScheduler):  # type: ignore[misc]
    """Stops no trial."""


class Halving(LargerShare, ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving."""
