"""What the ``tune`` section of a search space may say. Ray is imported only when its objects are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, register
from dgm_ray.tune.schedulers import ASHA, FIFO, PB2, PBT, HyperBand, MedianStopping


@register
@dataclass(frozen=True)
class RandomSearch:
    """Independent draws; the only search that takes grids."""

    def check(self) -> None:
        """Nothing can be amiss."""

    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher. first: what the first trial has; what is not in it is drawn."""
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator([dict(first)] if first else None, random_state=seed)


@register
@dataclass(frozen=True)
class OptunaSearch:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna.

    startup_trials: random draws before the model of the space is used.
    """

    startup_trials: PositiveInt = 10

    def check(self) -> None:
        """Raise ConfigurationError if Optuna is not installed."""
        if find_spec("optuna") is None:
            rule = "OptunaSearch needs Optuna, which is not installed: pip install 'dgm-ray[optuna]'"
            raise ConfigurationError("tune.search", rule)

    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher. first: what the first trial has, a value of each draw; {}: it is drawn."""
        import optuna
        from ray.tune.search.optuna import OptunaSearch as RayOptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=seed)
        points = [dict(first)] if first else None
        return RayOptunaSearch(metric=metric, mode="min", sampler=sampler, points_to_evaluate=points)


@register
@dataclass(frozen=True)
class Resources:
    """What one trial holds. cpu, gpu: may be fractions; a trial computes with as many threads as whole CPUs."""

    cpu: PositiveFloat = 1.0
    gpu: NonNegativeFloat = 0.0

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))


@dataclass(frozen=True)
class Settings:
    """How a space is searched.

    metric: what selects trials, by its best epoch; smaller is better. samples: draws (times the grid, if there is one).
    search, scheduler: who proposes and who stops. resources: of one trial. seed: of the search.
    concurrent: trials at a time at most; as many as fit by default. time_budget: seconds until the study stops.
    max_failures: how often a trial whose process died is started again. keep: of how many best trials the checkpoint
    is logged. experiment: the MLflow experiment.
    """

    metric: str = "val_imputation_rmse"
    samples: PositiveInt = 16
    search: RandomSearch | OptunaSearch = field(default_factory=RandomSearch)
    scheduler: FIFO | ASHA | HyperBand | MedianStopping | PBT | PB2 = field(default_factory=FIFO)
    resources: Resources = field(default_factory=Resources)
    seed: NonNegativeInt = 0
    concurrent: PositiveInt | None = None
    time_budget: PositiveFloat | None = None
    max_failures: NonNegativeInt = 1
    keep: PositiveInt = 3
    experiment: str = "dgm_ray"
