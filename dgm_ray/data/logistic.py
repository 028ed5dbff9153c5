"""Cells that are hidden with a probability that depends on their row: logistic models, and the scale that they use."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.hiding import Bools, Floats, needed, of_features
from dgm_ray.data.masks import uniforms
from dgm_ray.data.table import Table

# Cells and weights are multiples of this. Then their sums of products are exact, and a matrix product, which adds in an
# order that depends on the number of rows, gives the same for every shard.
_GRID = 2.0**-16
_CONSTANT = 1e-9  # a standard deviation below this is rounding


@dataclass(frozen=True, eq=False)
class Standard:
    """Cells on a scale where those of each column have mean 0 and standard deviation 1; a missing cell is 0."""

    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, features: NDArray[Any]) -> Self:
        """Fit on the cells that are not NaN; a column without two different ones is 0 everywhere."""
        mean, deviation = _moments(features.astype(np.float64), ~np.isnan(features))
        return cls(mean, np.where(deviation > _CONSTANT * np.abs(mean), deviation, np.inf))  # in any unit

    def __call__(self, features: NDArray[Any]) -> Floats:
        return _on_grid(np.nan_to_num((features - self.mean) / self.deviation))


@dataclass(frozen=True, eq=False)
class Logistic:
    """The log odds that a cell is hidden are linear in the standardised cells of its row.

    table, known: what a rate is a share of; known: (rows, num_variables).
    weights: (num_features, num_variables). odds: (num_variables,), log odds of the variables' own rates; a rate that
        is given moves them together; -inf: never hidden. own_rate: they mean something if no rate is given.
    chain: (num_variables, num_variables), what a hidden cell adds to the log odds of the later cells of its row.
    """

    table: Table
    known: Bools
    seed: int
    standard: Standard
    weights: Floats
    odds: Floats
    own_rate: bool = False
    chain: Floats | None = None

    def mask(self, features: NDArray[Any], row_ids: NDArray[Any], rate: float | None, purpose: str) -> Bools:
        """Return cells to hide, (rows, num_features). The intercepts are found on the fitted table each time."""
        from scipy.special import expit

        fitted = self.table.rows
        ids = np.concatenate([np.arange(fitted), row_ids])
        cells = self.standard(np.vstack([self.table.features, features]))
        scores = cells @ _on_grid(self.weights)  # (fitted + rows, num_variables)
        hidden = np.zeros(scores.shape)
        for variable, target in enumerate(self._rates(rate)):
            score = scores[:, variable]
            if self.chain is not None:
                score = score + hidden[:, :variable] @ _on_grid(self.chain[:variable, variable])
            shift = intercept(score[:fitted][self.known[:, variable]], target)
            hidden[:, variable] = uniforms(ids, variable, self.seed, purpose) < expit(shift + score)
        return of_features(self.table.metadata, hidden[fitted:] == 1)

    def among(self, known: Bools) -> Self:
        """Return the same mechanism whose rate is a share of these cells of the table, (rows, num_features)."""
        return replace(self, known=known[:, [columns.start for columns in self.table.metadata.slices]])

    def of_strength(self, strength: float) -> Self:
        """Return the same mechanism whose log odds have this standard deviation over the known cells."""
        scores = self.standard(self.table.features) @ self.weights
        _, deviation = _moments(scores, self.known)
        return replace(self, weights=self.weights * (strength / np.where(deviation > _CONSTANT, deviation, np.inf)))

    def _rates(self, rate: float | None) -> Floats:
        from scipy.special import expit

        can_be, rates = np.isfinite(self.odds), np.zeros(len(self.odds))
        shift = 0.0 if self.own_rate and rate is None else intercept(self.odds[can_be], needed(rate))
        rates[can_be] = expit(self.odds[can_be] + shift)
        return rates


def intercept(scores: Floats, rate: float) -> float:
    """Return what to add to log odds, (cells,), so that the mean probability is ``rate``; any will do for no cells."""
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    wanted = float(logit(rate))
    if not np.isfinite(wanted) or not len(scores):
        return wanted
    # The probabilities are all below the rate at one end, all above it at the other.
    low, high = wanted - float(scores.max()) - 1, wanted - float(scores.min()) + 1
    return float(brentq(lambda shift: expit(shift + scores).mean() - rate, low, high))


def _moments(values: Floats, known: Bools) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of the known values of each column; 0 where there are none."""
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    return mean, np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count)


def _on_grid(values: Floats) -> Floats:
    return np.round(values / _GRID) * _GRID
