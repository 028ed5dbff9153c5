"""How cells are hidden once a mechanism of ``missing`` has been fitted: which cell is a function of its row alone.

What a rate needs (a threshold, an intercept) comes from the fitted table, never from the rows at hand, and every draw
from ``uniforms``. So a mask depends neither on shards nor on the order of rows.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.masks import uniforms
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.table import Table
from dgm_ray.errors import DataError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
PLACE = "data.missing"


def known_of(metadata: Metadata, features: NDArray[Any]) -> Bools:
    """Return True where a variable is not missing, (rows, num_variables)."""
    known: Bools = ~np.isnan(features[:, [columns.start for columns in metadata.slices]])
    return known


def of_features(metadata: Metadata, hidden: Bools) -> Bools:
    """Return (rows, num_features) of (rows, num_variables): the columns of a variable are hidden together."""
    return np.repeat(hidden, [variable.size for variable in metadata.variables], axis=1)


def needed(rate: float | None) -> float:
    """Return the rate. Raises DataError unless it is a number within 0 and 1."""
    if rate is None:
        raise DataError(PLACE, "has no rate of its own, as Learned has, so a probability must be given", None)
    if not 0 <= rate <= 1:
        raise DataError("missing probability", "must be within 0 and 1", rate)
    return rate


class _Even:
    """What hides without looking at cells."""

    def among(self, known: Bools) -> Self:
        """Return itself: a share of all cells is the same share of any."""
        return self


@dataclass(frozen=True, eq=False)
class Groups(_Even):
    """Each group of variables is hidden together, whatever the cells hold.

    group_of: of each variable, the number that its group draws with.
    """

    metadata: Metadata
    seed: int
    group_of: tuple[int, ...]

    def mask(self, features: NDArray[Any], row_ids: NDArray[Any], rate: float | None, purpose: str) -> Bools:
        """Return cells to hide, (rows, num_features)."""
        chance = needed(rate)
        hidden = {group: uniforms(row_ids, group, self.seed, purpose) < chance for group in set(self.group_of)}
        return of_features(self.metadata, np.stack([hidden[group] for group in self.group_of], axis=1))


@dataclass(frozen=True, eq=False)
class OneOf(_Even):
    """In a share of the rows one of several patterns is hidden, whatever the cells hold.

    patterns: (patterns, num_variables), True where hidden. weights: (patterns,), their sum 1.
    """

    metadata: Metadata
    seed: int
    patterns: Bools
    weights: Floats

    def mask(self, features: NDArray[Any], row_ids: NDArray[Any], rate: float | None, purpose: str) -> Bools:
        """Return cells to hide, (rows, num_features). Raises DataError for a rate that takes two patterns in a row."""
        rate = needed(rate)
        most = float(self.weights @ self.patterns.sum(axis=1) / self.patterns.any(axis=0).sum())
        if rate > most:
            rule = f"Patterns hides a share of {most:.3g} of its variables' cells at most, when every row has a pattern"
            raise DataError(PLACE, rule, rate)
        draws = uniforms(row_ids, 0, self.seed, f"{purpose}/pattern")
        chosen = np.searchsorted(np.cumsum(self.weights) * (rate / most), draws, side="right")
        nothing = np.zeros_like(self.patterns[:1])
        return of_features(self.metadata, np.vstack([self.patterns, nothing])[chosen])


@dataclass(frozen=True, eq=False)
class Above:
    """The largest cells of each variable are hidden, with the same probability, and no others.

    table, known: what a rate is a share of, and what are the largest; known: (rows, num_variables).
    order: (num_features,), by what a column counts in its variable's value. share: how many are the largest, above 0.
    """

    table: Table
    known: Bools
    seed: int
    order: Floats
    share: float

    def mask(self, features: NDArray[Any], row_ids: NDArray[Any], rate: float | None, purpose: str) -> Bools:
        """Return cells to hide, (rows, num_features). Raises DataError for a rate above the share."""
        rate = needed(rate)
        if rate > self.share + 1e-9:
            rule = f"MNARQuantile hides a share of {self.share:.3g} of the cells at most, those above the quantile"
            raise DataError(PLACE, rule, rate)
        fitted, values = self._values(self.table.features), self._values(features)
        hidden = np.zeros(values.shape, np.bool_)
        for variable, value in enumerate(values.T):
            chance = _among_largest(value, fitted[self.known[:, variable], variable], self.share)
            hidden[:, variable] = uniforms(row_ids, variable, self.seed, purpose) < chance * (rate / self.share)
        return of_features(self.table.metadata, hidden)

    def among(self, known: Bools) -> Self:
        """Return the same mechanism that counts these cells of the table alone, (rows, num_features)."""
        return replace(self, known=known[:, [columns.start for columns in self.table.metadata.slices]])

    def _values(self, features: NDArray[Any]) -> Floats:
        """Return a number for each variable, (rows, num_variables): the cell, or what stands for its category."""
        starts = [columns.start for columns in self.table.metadata.slices]
        return np.asarray(np.add.reduceat(np.nan_to_num(features) * self.order, starts, axis=1))


def _among_largest(value: Floats, fitted: Floats, share: float) -> Floats:
    """Return the probability that values are among the largest ``share`` of the fitted ones; equal ones draw lots."""
    if not len(fitted):
        return np.zeros(len(value))
    threshold = np.quantile(fitted, 1 - share, method="inverted_cdf")
    lots = (share - np.mean(fitted > threshold)) / np.mean(fitted == threshold)
    return np.where(value == threshold, np.clip(lots, 0, 1), value > threshold)
