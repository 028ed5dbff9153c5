"""Who stops trials before their last epoch, and who changes them on the way. Ray is imported only when they are made.

Left out: Ray's HyperBandForBOHB and its search, which need hpbandster, abandoned since 2018.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.registry import PositiveFloat, PositiveInt, Probability, register
from dgm_ray.space import LISTED, Draw
from dgm_ray.tune.plan import Plan, encoded

PLACE = "tune.scheduler.arguments"
Half = Annotated[float, Field(gt=0, le=0.5)]


class Scheduler(ABC):
    """What a study asks of a scheduler.

    together: all trials must be known from the beginning, and take turns. checkpoints: how many are kept of a trial.
    """

    together: ClassVar[bool] = False
    checkpoints: ClassVar[int] = 2

    def check(self, epochs: int, trials: int) -> None:  # noqa: B027 (most have nothing to check)
        """Raise ConfigurationError for what cannot work with trials of so many epochs, or so many trials."""

    def warning(self, epochs: int, trials: int) -> str:
        """Return what works but is hardly meant, in one line, or nothing."""
        return ""

    def mutated(self, plan: Plan) -> dict[str, Draw]:
        """Return the draws, by label, whose values change while a trial runs. Raises ConfigurationError."""
        return {}

    def decides(self, epoch: int, decided: int) -> bool:
        """Tell whether it may stop a trial that reports ``epoch``. decided: how often it could have before."""
        return False

    @abstractmethod
    def make(self, plan: Plan, epochs: int) -> Any:
        """Return Ray's scheduler."""


@register
@dataclass(frozen=True)
class FIFO(Scheduler):
    """Every trial runs to its own end."""

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import EveryTrial

        return EveryTrial()


@register
@dataclass(frozen=True)
class ASHA(Scheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), on epochs.

    grace_period: epochs that every trial gets. reduction_factor: one trial in so many goes on at each rung.
    """

    grace_period: PositiveInt = 1
    reduction_factor: PositiveFloat = 3

    def __post_init__(self) -> None:
        _check_factor(self.reduction_factor)

    def check(self, epochs: int, trials: int) -> None:
        """Raise ConfigurationError if no trial could ever be stopped."""
        _check_grace(self.grace_period, epochs)

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import Halving

        return Halving(
            time_attr="epoch",
            metric=f"best_{plan.metric}",
            mode="min",
            max_t=epochs + 1,  # a trial that reaches its last epoch ends by itself and says so
            grace_period=self.grace_period,
            reduction_factor=self.reduction_factor,
        )

    def decides(self, epoch: int, decided: int) -> bool:
        """Tell whether a rung is left: each report stands on the highest that the trial has reached, once."""
        rungs = (self.grace_period * self.reduction_factor**index for index in count())
        return sum(1 for _ in takewhile(lambda rung: rung <= epoch, rungs)) > decided


@register
@dataclass(frozen=True)
class HyperBand(Scheduler):
    """Brackets of successive halving, from a few trials that run long to many that run shortly (Li et al. 2018, JMLR).

    A bracket's trials wait for each other: they are saved, and go on from there. reduction_factor: one trial in so
    many goes on.
    """

    together: ClassVar[bool] = True
    reduction_factor: PositiveFloat = 3

    def __post_init__(self) -> None:
        _check_factor(self.reduction_factor)

    def check(self, epochs: int, trials: int) -> None:
        """Raise ConfigurationError if no trial could ever be stopped."""
        if self.reduction_factor > epochs:
            rule = f"should be at most the {epochs} epochs of a trial"
            raise ConfigurationError(f"{PLACE}.reduction_factor", rule, self.reduction_factor)

    def warning(self, epochs: int, trials: int) -> str:
        """Return a line if the trials do not fill a band: Ray begins with the bracket that stops no trial."""
        wanted = sum(self.brackets(epochs))
        if trials >= wanted:
            return ""
        return f"HyperBand stops few of {trials} trials: {wanted} fill its brackets of {epochs} epochs; or use ASHA"

    def brackets(self, epochs: int) -> list[int]:
        """Return the trials of each bracket, in the order in which they are filled."""
        rungs = round(math.log(epochs) / math.log(self.reduction_factor)) + 1
        return [
            math.ceil(rungs / (halvings + 1) * self.reduction_factor**halvings)
            for halvings in range(rungs)
            if int(epochs * self.reduction_factor**-halvings)
        ]

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import Brackets

        return Brackets(
            time_attr="epoch",
            metric=f"best_{plan.metric}",
            mode="min",
            max_t=epochs,
            reduction_factor=self.reduction_factor,
            stop_last_trials=False,  # a bracket's last rung may lie before the last epoch
        )


@register
@dataclass(frozen=True)
class MedianStopping(Scheduler):
    """Stop a trial whose best measure is worse than the median of the others' means so far (Golovin et al. 2017).

    grace_period: epochs that every trial gets. min_samples: of so many other trials a median is taken, at least.
    """

    grace_period: PositiveInt = 1
    min_samples: PositiveInt = 3

    def check(self, epochs: int, trials: int) -> None:
        """Raise ConfigurationError if no trial could ever be stopped."""
        _check_grace(self.grace_period, epochs)
        if self.min_samples >= trials:
            rule = f"should be below the number of trials, which is {trials}"
            raise ConfigurationError(f"{PLACE}.min_samples", rule, self.min_samples)

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import Median

        return Median(
            time_attr="epoch",
            metric=plan.metric,
            mode="min",
            grace_period=self.grace_period,
            min_samples_required=self.min_samples,
            min_time_slice=math.inf,  # else trials are paused for each other's sake
        )

    def decides(self, epoch: int, decided: int) -> bool:
        return epoch >= self.grace_period


class _Population(Scheduler):
    """What PBT and PB2 have in common."""

    together: ClassVar[bool] = True
    checkpoints: ClassVar[int] = 8  # a trial may be copied some time after it was saved
    mutations: list[str]
    perturbation_interval: int
    quantile_fraction: float

    def check(self, epochs: int, trials: int) -> None:
        """Raise ConfigurationError if nothing could ever be changed."""
        if self.perturbation_interval >= epochs:
            rule = f"should be below the {epochs} epochs of a trial"
            raise ConfigurationError(f"{PLACE}.perturbation_interval", rule, self.perturbation_interval)
        if trials < 2:
            raise ConfigurationError("tune.samples", "trials that copy each other are at least 2", trials)

    def mutated(self, plan: Plan) -> dict[str, Draw]:
        if not self.mutations:
            raise ConfigurationError(f"{PLACE}.mutations", "should name a draw", self.mutations)
        found = {}
        for index, name in enumerate(self.mutations):
            place = f"{PLACE}.mutations.{index}"
            label = plan.label(name)
            if label is None:
                raise ConfigurationError(place, f"there is no draw {name!r}{nearest(name, plan.draws)}")
            found[label] = plan.draws[label][1]
            self._check_draw(place, name, found[label])
        return found

    def _check_draw(self, place: str, name: str, draw: Draw) -> None:
        if draw.distribution == "grid_search":
            raise ConfigurationError(place, f"{name} is a grid, which gives each trial its own value; use choice")

    def _common(self, plan: Plan) -> dict[str, Any]:
        return {
            "time_attr": "epoch",
            "metric": plan.metric,  # of the weights as they are: those are copied, not the best there were
            "mode": "min",
            "perturbation_interval": self.perturbation_interval,
            "quantile_fraction": self.quantile_fraction,
            "custom_explore_fn": partial(_within, self.mutated(plan)),
            "log_config": False,  # the results have it
        }


@register
@dataclass(frozen=True)
class PBT(_Population):
    """Population based training (Jaderberg et al. 2017, arXiv 1711.09846): bad trials go on from good ones, changed.

    A bad trial takes the weights and all values of a good one, and then changes the values of ``mutations``. The trials
    are not the same each time, whatever the seed: who copies whom depends on how fast they run.

    mutations: draws that change, by the name that --check shows or by their place in the file; none that changes
    shapes. perturbation_interval: epochs between two changes. quantile_fraction: share of trials that are bad, and
    that are good. resample_probability: of drawing a value anew; else a number is multiplied by 0.8 or 1.2, and a
    choice goes to the option before or behind.
    """

    mutations: list[str]
    perturbation_interval: PositiveInt = 5
    quantile_fraction: Half = 0.25
    resample_probability: Probability = 0.25

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import Population
        from dgm_ray.tune.search import domain

        mutations = {
            label: [encoded(option) for option in draw.arguments] if draw.distribution in LISTED else domain(draw)
            for label, draw in self.mutated(plan).items()
        }
        return Population(
            hyperparam_mutations=mutations, resample_probability=self.resample_probability, **self._common(plan)
        )


@register
@dataclass(frozen=True)
class PB2(_Population):
    """Population based bandits (Parker-Holder et al. 2020, arXiv 2002.02518): PBT, new values by a Gaussian process.

    The process sees values as they are, so a logarithmic range is searched as if it were not. mutations: as PBT's, but
    ranges of numbers alone. perturbation_interval, quantile_fraction: as PBT's.
    """

    mutations: list[str]
    perturbation_interval: PositiveInt = 5
    quantile_fraction: Half = 0.25

    def _check_draw(self, place: str, name: str, draw: Draw) -> None:
        if draw.distribution in (*LISTED, "normal"):
            raise ConfigurationError(place, f"PB2 needs a range of numbers, which {name} is not; PBT does without")

    def make(self, plan: Plan, epochs: int) -> Any:
        from dgm_ray.tune.ray_schedulers import population_of_bandits

        bounds = {label: [float(end) for end in draw.ends] for label, draw in self.mutated(plan).items()}
        return population_of_bandits(hyperparam_bounds=bounds, **self._common(plan))


def _within(draws: Mapping[str, Draw], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with those of the draws as near as the draws can be: Ray's changes leave their ranges."""
    return values | {label: draw.nearest(values[label]) for label, draw in draws.items()}


def _check_factor(factor: float) -> None:
    if factor <= 1:
        raise ConfigurationError("reduction_factor", "should be above 1", factor)


def _check_grace(grace_period: int, epochs: int) -> None:
    if grace_period >= epochs:
        raise ConfigurationError(
            f"{PLACE}.grace_period", f"should be below the {epochs} epochs of a trial", grace_period
        )
