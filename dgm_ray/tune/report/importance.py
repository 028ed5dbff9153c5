"""Which knobs of a search mattered: what a forest that foretells trials' scores loses without each of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dgm_ray.space import LISTED, Draw
from dgm_ray.tune.plan import encoded

LEAST_TRIALS = 10
TREES, SHUFFLES = 100, 5


class Importance(NamedTuple):
    """values: by the label of the draw, largest first, a sum of 1. foretold: R² of the forest, out of bag."""

    values: dict[str, float]
    foretold: float


def position(draw: Draw, value: Any) -> float:
    """Return where a value stands in its draw: 0 at the first end, 1 at the last; by logarithm where it is drawn so."""
    if draw.distribution in LISTED:
        options = [encoded(option) for option in draw.arguments]
        return options.index(value) / max(len(options) - 1, 1) if value in options else np.nan
    low, high = draw.ends
    if "log" in draw.distribution:
        low, high, value = (float(np.log(max(one, low))) for one in (low, high, value))  # rounding may end below
    return float((value - low) / (high - low)) if high > low else 0.0


def importance(draws: Mapping[str, Draw], values: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> Importance:
    """Return how much each draw decides about the rank of a trial. values: of each trial, by label.

    A random forest foretells ranks from the draws' positions; a draw's importance is how much of its R² is lost when
    the draw's values are shuffled (Breiman 2001, doi 10.1023/A:1010933404324). Of ranks, so that a trial that diverged
    does not outweigh all others. All shuffles are foretold at once: scikit-learn's own function takes a second.
    """
    from sklearn.ensemble import RandomForestRegressor

    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable") / max(len(scores) - 1, 1)
    features = np.array([[position(draw, one[label]) for label, draw in draws.items()] for one in values])
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0, min_samples_leaf=2).fit(features, ranks)
    random = np.random.default_rng(0)
    shuffled = np.tile(features, (len(draws), SHUFFLES, 1, 1))  # (draws, shuffles, trials, draws)
    for index in range(len(draws)):
        shuffled[index, :, :, index] = random.permuted(shuffled[index, :, :, index], axis=1)
    foretold = forest.predict(shuffled.reshape(-1, len(draws))).reshape(len(draws), -1)
    errors = ((foretold - np.tile(ranks, SHUFFLES)) ** 2).mean(axis=1)  # (draws,)
    lost = np.clip(errors - ((forest.predict(features) - ranks) ** 2).mean(), 0, None)
    shares = lost / (lost.sum() or 1.0)
    order = sorted(zip(draws, map(float, shares), strict=True), key=lambda pair: -pair[1])
    return Importance(dict(order), float(forest.oob_score_))
