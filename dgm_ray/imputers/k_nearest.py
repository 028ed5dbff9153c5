"""Imputation by the nearest rows: the mean, or the vote, of those that know the cell.

Source: Troyanskaya et al. 2001, "Missing value estimation methods for DNA microarrays" (KNNimpute),
doi 10.1093/bioinformatics/17.6.520.

Differs from the paper: rows with missing cells lend their observed ones too, as in scikit-learn's KNNImputer; tables
are mixed. A numerical variable differs by its share of the observed range, another by 0 or 1, so each weighs at most
1, however many columns it has (as in Gower 1971, squared).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, discretize, means_and_modes
from dgm_ray.imputers.columns import check_arrays, check_observed, described, missing_cells
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.registry import PositiveInt, Shared, register

Doubles = NDArray[np.float64]
Pick = Callable[[Doubles], Doubles]  # weights (rows, candidates) -> those that count
CELLS = 4_000_000  # distances that are in memory at a time: 32 MB
EQUAL = 1e-12  # squared distances below are rounding errors of equal rows


@register
@dataclass
class KNearest(BaseImputer):
    """Impute mixed tables with the nearest rows. What is learnt are the rows themselves: a saved one contains them.

    The distance of two rows is Euclidean, over the variables that both know and scaled up to all of them; rows that
    know nothing in common are no neighbours. A cell that has none gets the mean or the mode.

    neighbours: rows that know the cell, at most. weights: "uniform", or "distance": by its inverse, and rows at
    distance 0 alone.
    """

    metadata: Shared[Metadata]
    neighbours: PositiveInt = 5
    weights: Literal["uniform", "distance"] = "uniform"
    rows_: Floats | None = field(default=None, init=False)  # (rows, num_features), NaN where missing

    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Keep the rows; nothing changes after that. Raises DataError for a variable without an observed cell."""
        mask = missing_cells(self.metadata, features, missing_mask)
        check_observed(self.metadata, mask)
        self.rows_ = np.where(mask, np.float32(np.nan), features)
        yield from ()

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features) with the neighbours' mean or vote in missing cells."""
        return self._complete(features, missing_mask, lambda weights: weights)

    def draw(self, features: Floats, missing_mask: Mask, random: np.random.Generator) -> Floats:
        """Return (rows, num_features); each missing cell is that of a neighbour, as likely as its weight."""

        def one(weights: Doubles) -> Doubles:
            reached = weights.cumsum(axis=1)
            chosen = (reached > random.random((len(weights), 1)) * reached[:, -1:]).argmax(axis=1)
            return np.where(np.arange(weights.shape[1]) == chosen[:, np.newaxis], weights, 0.0)

        return self._complete(features, missing_mask, one)

    def to_arrays(self) -> Arrays:
        """Return the rows that were learnt from, and what tells them apart."""
        assert self.rows_ is not None, "not fitted"
        return {"format": np.array(1), "names": described(self.metadata), "rows": self.rows_}

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        shapes = {"rows": (None, self.metadata.num_features)}
        check_arrays(arrays, "KNearest", 1, self.metadata, shapes, place)
        self.rows_ = arrays["rows"].astype(np.float32)

    def _complete(self, features: Floats, missing_mask: Mask, pick: Pick) -> Floats:
        assert self.rows_ is not None, "not fitted"
        mask, known = missing_cells(self.metadata, features, missing_mask), ~np.isnan(self.rows_)
        initial = means_and_modes(self.metadata, self.rows_, ~known)
        completed = np.where(mask, initial, features)
        donors, incomplete = self._placed(self.rows_, known), np.flatnonzero(mask.any(axis=1))
        size = max(1, CELLS // len(self.rows_))
        for start in range(0, len(incomplete), size):
            rows = incomplete[start : start + size]
            distances = self._distances(self._placed(features[rows], ~mask[rows]), ~mask[rows], donors, known)
            self._lend(completed, rows, mask[rows], distances, pick)
        return np.where(missing_mask | np.isnan(features), discretize(self.metadata, completed), features)

    def _placed(self, features: Floats, known: Mask) -> Doubles:
        """Return coordinates whose squared difference is that of the variables, 0 where unknown."""
        assert self.rows_ is not None
        low, high = np.nanmin(self.rows_, axis=0).astype(np.float64), np.nanmax(self.rows_, axis=0)
        scale = np.ones(self.metadata.num_features)
        for block in self.metadata.blocks:
            own = slice(block.start, block.stop)
            if block.kind == "numerical":
                scale[own] = np.where(high[own] > low[own], high[own] - low[own], 1)
            elif block.kind == "categorical":
                scale[own] = np.sqrt(2)  # two columns differ between two categories
        placed: Doubles = (np.where(known, features, low) - low) / scale
        return placed

    def _distances(self, rows: Doubles, known: Mask, donors: Doubles, lent: Mask) -> Doubles:
        """Return the distance of each row to each donor, (rows, donors); infinite if they know nothing in common."""
        first = [columns.start for columns in self.metadata.slices]
        own, theirs = known.astype(np.float64), lent.astype(np.float64)
        # (a - b)^2 over what both know, by three products of matrices: nothing is (rows, donors, columns)
        squares = np.square(rows) @ theirs.T - 2 * (rows * own) @ (donors * theirs).T + own @ np.square(donors).T
        common = own[:, first] @ theirs[:, first].T
        squares[squares < EQUAL] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(common > 0, np.sqrt(squares * len(first) / common), np.inf)

    def _lend(self, completed: Floats, rows: NDArray[Any], mask: Mask, distances: Doubles, pick: Pick) -> None:
        """Write the neighbours' values into the missing cells of these rows of ``completed``."""
        near = _nearest(distances, 4 * self.neighbours + 16)  # most cells find their neighbours among these
        for columns in self.metadata.slices:
            hidden = np.flatnonzero(mask[:, columns.start])
            values, found = self._values(columns, near[hidden], distances[hidden], pick)
            few = found < self.neighbours
            if few.any():
                everyone = _nearest(distances[hidden[few]], distances.shape[1])
                values[few], found[few] = self._values(columns, everyone, distances[hidden[few]], pick)
            completed[rows[hidden[found > 0]], columns] = values[found > 0]

    def _values(
        self, columns: slice, candidates: NDArray[Any], distances: Doubles, pick: Pick
    ) -> tuple[Doubles, NDArray[Any]]:
        """Return what the nearest candidates (rows, candidates) lend, (rows, size), and how many they are, (rows,)."""
        assert self.rows_ is not None
        lent, apart = self.rows_[:, columns][candidates], np.take_along_axis(distances, candidates, axis=1)
        can = ~np.isnan(lent[:, :, 0]) & np.isfinite(apart)
        used = can & (can.cumsum(axis=1) <= self.neighbours)
        weights = used.astype(np.float64)
        if self.weights == "distance":
            same = used & (apart == 0)
            inverse = np.divide(1.0, apart, out=np.zeros_like(apart), where=used & (apart > 0))
            weights = np.where(same.any(axis=1, keepdims=True), same, inverse)
        weights = pick(weights)
        total = np.einsum("rc,rcs->rs", weights, np.where(used[:, :, np.newaxis], lent, 0.0))
        return total / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny), used.sum(axis=1)


def _nearest(distances: Doubles, count: int) -> NDArray[Any]:
    """Return the numbers of the nearest donors, nearest first, (rows, count)."""
    if count >= distances.shape[1]:
        return distances.argsort(axis=1, kind="stable")
    near = np.argpartition(distances, count - 1, axis=1)[:, :count]
    return np.take_along_axis(near, np.take_along_axis(distances, near, axis=1).argsort(axis=1, kind="stable"), axis=1)
