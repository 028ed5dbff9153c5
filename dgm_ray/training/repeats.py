"""One configuration trained with several seeds: what is reported is their mean, and how much they differ."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dgm_ray.errors import TrainingError
from dgm_ray.training.lanes import Lane, Pack
from dgm_ray.training.training import DIVERGED, Best, Training


def mean_and_std(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure that all rows have, and as ``{name}_std`` its sample standard deviation.

    rows: two at least. A figure that is not finite makes both not finite.
    """
    found: dict[str, float] = {}
    for name in (name for name in rows[0] if all(name in row for row in rows)):
        values = np.array([row[name] for row in rows])
        with np.errstate(invalid="ignore"):
            found |= {name: float(values.mean()), f"{name}_std": float(values.std(ddof=1))}
    return found


class Repeats:
    """Train with several seeds, an epoch of each at a time; a trial uses it as it does a ``Training``.

    starts: of each seed; what starts a training leaves torch's random state as the training needs it. together: train
    them as lanes of one pack; else one after the other. Each has its own best weights, and ends when it would end
    alone. Until all have ended, one that has stands with its last figures. One that diverges ends all.
    """

    def __init__(self, starts: Iterable[Callable[[], Training]], *, together: bool = False) -> None:
        self.lanes = [Lane(start) for start in starts]
        self._trainings = [lane.training for lane in self.lanes]
        self._together = together
        self._packs: list[Pack] = []
        self._last: list[dict[str, float]] = [{} for _ in self._trainings]
        self.train_seconds = 0.0  # of the last epoch of a seed, the mean

    @property
    def epoch(self) -> int:
        """The last epoch of those that train longest."""
        return max(one.epoch for one in self._trainings)

    @property
    def reason(self) -> str:
        """Why it ended: a seed that diverged, or why the last seed ended; empty while it goes on."""
        for one in self._trainings:
            if one.reason.startswith(DIVERGED):
                return f"{DIVERGED}: seed {one.seed}{one.reason.removeprefix(DIVERGED)}"
        if not all(one.done for one in self._trainings):
            return ""
        return max(self._trainings, key=lambda one: one.epoch).reason

    @property
    def done(self) -> bool:
        return bool(self.reason)

    @property
    def best(self) -> Best | None:
        """The means and deviations of what each seed measured in its best epoch, None until each has one.

        The epoch and the states are those of the seed that is best.
        """
        found = [one.best for one in self._trainings if one.best]
        if len(found) < len(self._trainings):
            return None
        first = min(found, key=lambda one: one.metric)
        metric = float(np.mean([one.metric for one in found]))
        return Best(first.epoch, metric, mean_and_std([one.measures for one in found]), first.states)

    @property
    def by_seed(self) -> list[dict[str, Any]]:
        """Return of each seed that has a best epoch: it, its metric and measures, all epochs, and places as a lane."""
        return [
            {
                "seed": one.seed,
                "epochs": one.epoch,
                "best_epoch": one.best.epoch,
                "score": one.best.metric,
                "measures": one.best.measures,
                **({"lanes": lane.places} if lane.places else {}),
            }
            for lane, one in zip(self.lanes, self._trainings, strict=True)
            if one.best
        ]

    def advance(self) -> dict[str, float]:
        """Train one epoch of each seed that has not ended; return the means, the deviations and all the seconds."""
        if not self._packs:
            groups = [self.lanes] if self._together else [[lane] for lane in self.lanes]
            self._packs = [Pack(group) for group in groups]
        return self.after([figures for pack in self._packs for figures in pack.advance()])

    def after(self, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Return what ``advance`` does. found: what an epoch of each seed gave, {} of one that had ended before."""
        seconds = sum(figures["seconds"] for figures in found if figures)
        trained = [one.train_seconds for one, figures in zip(self._trainings, found, strict=True) if figures]
        self.train_seconds, rows = float(np.mean(trained)), []
        for last, figures in zip(self._last, found, strict=True):
            own = {name: value for name, value in figures.items() if name != "seconds"}
            last |= own
            rows.append(own if figures else last)
        return mean_and_std(rows) | {"seconds": seconds}

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs to go on, below ``seeds``.

        Above are the weights of the seed that is best, as in any checkpoint, with the figures of all.
        """
        states = [lane.state() for lane in self.lanes]
        first = min(states, key=lambda one: one["best_metric"] if "best_metric" in one else math.inf)
        above = {name: part for name, part in first.items() if not name.startswith("best_")}
        above |= {"epoch": self.epoch, "reason": self.reason} | (self.best.state() if self.best else {})
        return above | {"seeds": states, "by_seed": self.by_seed, "figures": [dict(one) for one in self._last]}

    def load(self, state: Mapping[str, Any], place: str) -> None:
        """Go on from a state. Raises TrainingError for one of another number of seeds, or that does not fit."""
        states = state["seeds"] if "seeds" in state else [state]
        if len(states) != len(self._trainings):
            raise TrainingError(place, f"should be of {len(self._trainings)} seeds, not of {len(states)}")
        for lane, own in zip(self.lanes, states, strict=True):
            lane.load(own, f"{place}: seed {lane.training.seed}")
        self._packs = []  # they have what the trainings had before
        self._last = [dict(one) for one in state["figures"]]
