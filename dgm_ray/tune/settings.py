"""What the ``tune`` section of a search space may say. Ray is imported only when its objects are made.

Left out: BOHB, whose hpbandster is abandoned since 2018, and what Ray 2.60 offers but cannot run (Ax, HEBO, ZOOpt).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import ByteSize, TypeAdapter, ValidationError

from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, register
from dgm_ray.tune.schedulers import ASHA, FIFO, PB2, PBT, HyperBand, MedianStopping


class Search(ABC):
    """What a study asks of a search."""

    @property
    def others(self) -> tuple[str, ...]:
        """The metrics that it looks at beside the study's."""
        return ()

    def check(self) -> None:  # noqa: B027 (most have nothing to check)
        """Raise ConfigurationError if a package is missing."""

    @abstractmethod
    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher.

        metric: the study's; what is looked at is the best epoch's. first: what the first trial has, by the labels of
        draws.
        """


_SIZE = TypeAdapter(ByteSize)


@register
@dataclass(frozen=True)
class RandomSearch(Search):
    """Independent draws; the only search that takes grids."""

    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher. first: what is not in it is drawn."""
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator([dict(first)] if first else None, random_state=seed)


@register
@dataclass(frozen=True)
class OptunaSearch(Search):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna.

    startup_trials: random draws before the model of the space is used.
    """

    startup_trials: PositiveInt = 10

    def check(self) -> None:
        _check_optuna(self)

    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher. first: a value of each draw; {}: the first trial is drawn as the others are."""
        return _optuna(f"best_{metric}", "min", self.startup_trials, seed, first)


@register
@dataclass(frozen=True)
class OptunaMultiObjective(Search):
    """Two metrics at once, by a Parzen estimator that looks for their Pareto front (Ozaki et al. 2020), by Optuna.

    other: the second metric, of the epoch that is best by the first, ``tune.metric``; smaller is better. The first
    alone ranks trials; the column ``pareto`` of the results, and the summary, show the front. startup_trials: random
    draws before the model of the space is used.
    """

    other: str
    startup_trials: PositiveInt = 10

    @property
    def others(self) -> tuple[str, ...]:
        return (self.other,)

    def check(self) -> None:
        _check_optuna(self)

    def make(self, metric: str, seed: int, first: Mapping[str, Any]) -> Any:
        """Return Ray's searcher. first: a value of each draw; {}: the first trial is drawn as the others are."""
        metrics = [f"best_{name}" for name in (metric, self.other)]
        return _optuna(metrics, ["min", "min"], self.startup_trials, seed, first)


def _check_optuna(search: Search) -> None:
    if find_spec("optuna") is None:
        rule = f"{type(search).__name__} needs Optuna, which is not installed: pip install 'dgm-ray[optuna]'"
        raise ConfigurationError("tune.search", rule)


def _optuna(metric: Any, mode: Any, startup_trials: int, seed: int, first: Mapping[str, Any]) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch as RayOptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=startup_trials, seed=seed)
    return RayOptunaSearch(
        metric=metric, mode=mode, sampler=sampler, points_to_evaluate=[dict(first)] if first else None
    )


@register
@dataclass(frozen=True)
class NoImprovement:
    """Stop the study when the metric has not improved for some time. Trials that run then are stopped, and can win.

    trials: so many that ended, whatever their end, since the one that is best. by: what counts as better; any amount
    by default.
    """

    trials: PositiveInt
    by: NonNegativeFloat = 0.0


@register
@dataclass(frozen=True)
class Resources:
    """What one trial holds.

    cpu: may be a fraction; a trial computes with as many threads as whole CPUs. gpu: a fraction, or whole GPUs; of a
    fraction PyTorch gives no more than its share of the memory, and a trial that needs more is started once again with
    twice the fraction, if max_failures allows it.
    memory: bytes of the node, or text with a unit as 2GiB; Ray starts no trial that would exceed what a node has.
    gpu_memory: of one GPU, instead of gpu, likewise; becomes a fraction of the smallest GPU there is.
    workers: processes, on one node or several, that train a trial together: each takes its part of every batch, and
        gradients are averaged, with the result of one process. All the others are of each worker. A loss that is no
        mean over rows (batch normalisation, a mean over the missing cells of a batch) is refused.
    """

    cpu: PositiveFloat = 1.0
    gpu: NonNegativeFloat = 0.0
    memory: PositiveInt | str | None = None
    gpu_memory: PositiveInt | str | None = None
    workers: PositiveInt = 1

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


@register
@dataclass(frozen=True)
class Reading:
    """How trials read the table.

    mode: memory: one copy on each node, which all its trials share. stream: training rows stay in their file, and every
    epoch reads it; of validation rows, and of test rows, at most 50000 are in memory. auto: stream if the table takes
    more than a quarter of the memory and can be streamed.
    shuffle_rows: of a streamed table, so many are in memory to draw a batch from.
    """

    mode: Literal["auto", "memory", "stream"] = "auto"
    shuffle_rows: PositiveInt = 20_000


@register
@dataclass(frozen=True)
class BestTrials:
    """The best trials alone. best: how many."""

    best: PositiveInt


@register
@dataclass(frozen=True)
class MLflow:
    """What MLflow gets of a study. Its folder has all of it in any case: results.parquet, history.parquet.

    log: all: a run for each trial, by epoch, while it trains. {best: 50}: for the best 50, at the end; until then the
    study's own run tells how many trials have ended and the best so far. none: that run alone.
    wait: seconds without progress after the study's end until what is not sent is left to `dgm-ray sync`.
    """

    log: Literal["all", "none"] | BestTrials = "all"
    wait: NonNegativeFloat = 60.0


@dataclass(frozen=True)
class Settings:
    """How a space is searched.

    metric: what selects trials, by its best epoch; smaller is better. samples: draws (times the grid, if there is one).
    seeds: with so many each configuration is trained, by one trial: its own and those after it. The metric is their
    mean; the standard deviation stands beside it. best.json has the seed that is best.
    search, scheduler: who proposes and who stops. resources: of one trial. seed: of the search. data: how the table is
    read.
    concurrent: trials at a time at most; as many as fit by default. time_budget: seconds until the study stops.
    stop: what else stops it.
    max_failures: how often a trial whose process died, or whose share of a GPU was too small, is started again.
    lanes: so many configurations of one shape are trained as one model by each process, which gives the same, faster;
    auto: as many as it pays. compile: such models by torch.compile, which takes a minute for each shape.
    keep: of how many best trials the checkpoint is kept, and logged.
    experiment: the MLflow experiment. mlflow: what it gets.
    """

    metric: str = "val_imputation_rmse"
    samples: PositiveInt = 16
    seeds: PositiveInt = 1
    search: RandomSearch | OptunaSearch | OptunaMultiObjective = field(default_factory=RandomSearch)
    scheduler: FIFO | ASHA | HyperBand | MedianStopping | PBT | PB2 = field(default_factory=FIFO)
    resources: Resources = field(default_factory=Resources)
    data: Reading = field(default_factory=Reading)
    seed: NonNegativeInt = 0
    concurrent: PositiveInt | None = None
    lanes: PositiveInt | Literal["auto"] = 1
    compile: bool = False
    time_budget: PositiveFloat | None = None
    stop: NoImprovement | None = None
    max_failures: NonNegativeInt = 1
    keep: PositiveInt = 3
    experiment: str = "dgm_ray"
    mlflow: MLflow = field(default_factory=MLflow)
