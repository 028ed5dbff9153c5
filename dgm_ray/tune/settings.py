"""What the ``tune`` section of a search space may say. Ray is imported only when its objects are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, register

_SIZE = TypeAdapter(ByteSize)


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
class FIFO:
    """Every trial runs to its own end."""

    def check(self, epochs: int) -> None:
        """Nothing can be amiss."""

    def make(self, metric: str, epochs: int) -> Any:
        """Return Ray's scheduler."""
        from dgm_ray.tune.ray_schedulers import EveryTrial

        return EveryTrial()


@register
@dataclass(frozen=True)
class ASHA:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), on epochs.

    grace_period: epochs that every trial gets. reduction_factor: one trial in so many goes on at each rung.
    """

    grace_period: PositiveInt = 1
    reduction_factor: PositiveFloat = 3

    def __post_init__(self) -> None:
        if self.reduction_factor <= 1:
            raise ConfigurationError("reduction_factor", "should be above 1", self.reduction_factor)

    def check(self, epochs: int) -> None:
        """Raise ConfigurationError if no trial could ever be stopped."""
        if self.grace_period >= epochs:
            rule = f"should be below the {epochs} epochs of a trial"
            raise ConfigurationError("tune.scheduler.arguments.grace_period", rule, self.grace_period)

    def make(self, metric: str, epochs: int) -> Any:
        """Return Ray's scheduler."""
        from dgm_ray.tune.ray_schedulers import Halving

        return Halving(
            time_attr="epoch",
            metric=metric,
            mode="min",
            max_t=epochs + 1,  # a trial that reaches its last epoch ends by itself and says so
            grace_period=self.grace_period,
            reduction_factor=self.reduction_factor,
        )


@register
@dataclass(frozen=True)
class Resources:
    """What one trial holds.

    cpu: may be a fraction; a trial computes with as many threads as whole CPUs. gpu: a fraction, or whole GPUs; of a
    fraction PyTorch gives no more than its share of the memory, and a trial that needs more is started once again with
    twice the fraction, if max_failures allows it.
    memory: bytes of the node, or text with a unit as 2GiB; Ray starts no trial that would exceed what a node has.
    gpu_memory: of one GPU, instead of gpu, likewise; becomes a fraction of the smallest GPU there is.
    """

    cpu: PositiveFloat = 1.0
    gpu: NonNegativeFloat = 0.0
    memory: PositiveInt | str | None = None
    gpu_memory: PositiveInt | str | None = None

    def __post_init__(self) -> None:
        for name in ("memory", "gpu_memory"):
            bytes_of(getattr(self, name), name)
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ConfigurationError("gpu", "should be a fraction of a GPU, or a whole number of GPUs", self.gpu)
        if self.gpu and self.gpu_memory is not None:
            raise ConfigurationError("gpu_memory", "does not go with gpu: give one of both", self.gpu_memory)

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))

    @property
    def on_gpu(self) -> bool:
        return bool(self.gpu) or self.gpu_memory is not None


def bytes_of(size: int | str | None, place: str) -> int:
    """Return a size such as 2GiB in bytes, 0 for None. Raises ConfigurationError for what is none."""
    try:
        found = 0 if size is None else int(_SIZE.validate_python(size))
    except ValidationError:
        found = 0
    if size is not None and found <= 0:
        raise ConfigurationError(place, "should be a number of bytes, or text with a unit, such as 2GiB", size)
    return found


@dataclass(frozen=True)
class Settings:
    """How a space is searched.

    metric: what selects trials, by its best epoch; smaller is better. samples: draws (times the grid, if there is one).
    search, scheduler: who proposes and who stops. resources: of one trial. seed: of the search.
    concurrent: trials at a time at most; as many as fit by default. time_budget: seconds until the study stops.
    max_failures: how often a trial whose process died, or whose share of a GPU was too small, is started again.
    keep: of how many best trials the checkpoint is logged. experiment: the MLflow experiment.
    """

    metric: str = "val_imputation_rmse"
    samples: PositiveInt = 16
    search: RandomSearch | OptunaSearch = field(default_factory=RandomSearch)
    scheduler: FIFO | ASHA = field(default_factory=FIFO)
    resources: Resources = field(default_factory=Resources)
    seed: NonNegativeInt = 0
    concurrent: PositiveInt | None = None
    time_budget: PositiveFloat | None = None
    max_failures: NonNegativeInt = 1
    keep: PositiveInt = 3
    experiment: str = "dgm_ray"
