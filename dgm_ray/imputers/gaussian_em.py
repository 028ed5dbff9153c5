"""Imputation by a multivariate normal distribution: what is expected of the missing cells, given the observed ones.

Source: Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm"; for the normal
distribution: Little and Rubin 2002, "Statistical Analysis with Missing Data", section 11.2.

Differs from the books: tables are mixed. A binary variable is its number; a categorical one its one-hot columns without
the last, hidden together, and completed by the category that is expected most. Numbers stay within those observed:
a line knows no end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, discretize
from dgm_ray.imputers.columns import Shapes, change_of, check_arrays, check_observed, described, missing_cells
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.registry import NonNegativeFloat, PositiveInt, Shared, register

Doubles = NDArray[Any]  # of float64
CELLS = 4_000_000  # numbers of the rows' own matrices that are in memory at a time: 32 MB
LEAST = 1e-9  # variance, in the scaled units, of a column that does not vary: the covariance can always be inverted


class Part(NamedTuple):
    """Rows whose missing cells are worked on together, because they are nearly as many.

    rows: (rows,), their numbers. pattern: (rows,), the pattern of each. columns: (patterns, most), the missing columns
    of each pattern, then others, so that all are as long. missing: (patterns, most), which of them are missing.
    """

    rows: NDArray[np.int64]
    pattern: NDArray[np.int64]
    columns: NDArray[np.int64]
    missing: Mask


def parts(mask: Mask) -> Iterator[Part]:
    """Yield the incomplete rows of a mask (rows, columns), the emptiest first, so many that memory stays bounded."""
    _, first, pattern = np.unique(np.packbits(mask, axis=1), axis=0, return_index=True, return_inverse=True)
    pattern, counts = pattern.reshape(-1), mask.sum(axis=1)
    order = np.lexsort((pattern, -counts))
    order = order[counts[order] > 0]
    while len(order):
        most = int(counts[order[0]])
        rows, order = np.split(order, [max(1, CELLS // most**2)])
        numbers, own = np.unique(pattern[rows], return_inverse=True)
        masks = mask[first[numbers]]  # (patterns, columns)
        columns = np.argsort(~masks, axis=1, kind="stable")[:, :most]
        yield Part(rows, own.reshape(-1), columns, np.take_along_axis(masks, columns, axis=1))


@dataclass(frozen=True)
class Normal:
    """A normal distribution of rows. mean: (columns,). covariance: (columns, columns), positive definite."""

    mean: Doubles
    covariance: Doubles

    def expect(self, rows: Doubles, mask: Mask) -> tuple[Doubles, Doubles]:
        """Return rows (rows, columns) with what is expected in missing cells, given the others of the row.

        And the sum over rows of their missing cells' covariance, (columns, columns).
        """
        size, precision = len(self.mean), self._precision()
        completed, spread = np.where(mask, self.mean, rows), np.zeros(size * size)
        pull = (completed - self.mean) @ precision
        for part in parts(mask):
            covariances = np.linalg.inv(_inner(precision, part))  # (patterns, most, most)
            self._add(completed, pull, part, covariances)
            cells = (part.columns[:, :, np.newaxis] * size + part.columns[:, np.newaxis]).reshape(-1)
            weights = np.bincount(part.pattern)[:, np.newaxis, np.newaxis] * _both(part) * covariances
            spread += np.bincount(cells, weights.reshape(-1), size * size)
        return completed, spread.reshape(size, size)

    def draw(self, rows: Doubles, mask: Mask, random: np.random.Generator) -> Doubles:
        """Return rows (rows, columns) whose missing cells are drawn, given the others of the row."""
        precision = self._precision()
        completed = np.where(mask, self.mean, rows)
        pull = (completed - self.mean) @ precision
        for part in parts(mask):
            inner = _inner(precision, part)
            self._add(completed, pull, part, np.linalg.inv(inner))
            roots = np.linalg.cholesky(inner).swapaxes(1, 2)[part.pattern]
            noise = np.linalg.solve(roots, random.standard_normal((*roots.shape[:2], 1)))[:, :, 0]
            _add_to(completed, part, noise)
        return completed

    def _precision(self) -> Doubles:
        inverse = np.linalg.inv(self.covariance)
        precision: Doubles = (inverse + inverse.T) / 2
        return precision

    def _add(self, completed: Doubles, pull: Doubles, part: Part, covariances: Doubles) -> None:
        """Move missing cells from the mean to what is expected: E[m | o] = mean - (P_mm)^-1 P_mo (o - mean)."""
        pulled = pull[part.rows[:, np.newaxis], part.columns[part.pattern]] * part.missing[part.pattern]
        _add_to(completed, part, -(covariances[part.pattern] @ pulled[:, :, np.newaxis])[:, :, 0])


def _inner(precision: Doubles, part: Part) -> Doubles:
    """Return each pattern's block of the precision, (patterns, most, most): its inverse is the cells' covariance.

    A block has the size of the missing cells: to invert it costs less than to solve for the observed ones.
    """
    block = precision[part.columns[:, :, np.newaxis], part.columns[:, np.newaxis]]
    return np.where(_both(part), block, np.eye(block.shape[1]))


def _both(part: Part) -> Mask:
    return part.missing[:, :, np.newaxis] & part.missing[:, np.newaxis]


def _add_to(completed: Doubles, part: Part, values: Doubles) -> None:
    """Add values (rows, most) to the missing cells of the part."""
    completed[part.rows[:, np.newaxis], part.columns[part.pattern]] += values * part.missing[part.pattern]


@register
@dataclass
class GaussianEM(BaseImputer):
    """Impute with the normal distribution that makes the observed cells likeliest.

    ridge: added to the variance of each column, in units of its observed one; above 0 it steadies tables with few rows
    or with columns that tell the same; 0 is maximum likelihood. max_iterations: of EM, at most. tolerance: the largest
    change of a mean or of a covariance that ends it, in the same units.
    """

    metadata: Shared[Metadata]
    ridge: NonNegativeFloat = 1e-3
    max_iterations: PositiveInt = 100
    tolerance: NonNegativeFloat = 1e-3
    center_: Doubles = field(default_factory=lambda: np.empty(0), init=False)  # (kept columns,), observed means
    scale_: Doubles = field(default_factory=lambda: np.empty(0), init=False)  # observed standard deviations
    low_: Doubles = field(
        default_factory=lambda: np.empty(0), init=False
    )  # (kept columns,), of numbers the least observed
    high_: Doubles = field(default_factory=lambda: np.empty(0), init=False)  # the largest
    normal_: Normal | None = field(default=None, init=False)  # of the scaled columns

    @property
    def mean_(self) -> Doubles:
        """The mean, (kept columns,): all but the last of each categorical variable."""
        mean: Doubles = self.center_ + self.scale_ * self._normal().mean
        return mean

    @property
    def covariance_(self) -> Doubles:
        """The covariance, (kept columns, kept columns)."""
        covariance: Doubles = self._normal().covariance * np.outer(self.scale_, self.scale_)
        return covariance

    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Fit, yielding after each iteration of EM. Raises DataError for a variable without an observed cell."""
        mask = missing_cells(self.metadata, features, missing_mask)
        check_observed(self.metadata, mask)
        hidden = mask[:, self._kept]
        observed = np.where(hidden, np.nan, features[:, self._kept].astype(np.float64))
        self.center_, self.scale_ = np.nanmean(observed, axis=0), np.nanstd(observed, axis=0)
        bounded = self.metadata.numerical_columns[
            self._kept
        ]  # shares of a category are compared with each other as they are
        self.low_ = np.where(bounded, np.nanmin(observed, axis=0), -np.inf)
        self.high_ = np.where(bounded, np.nanmax(observed, axis=0), np.inf)
        rows = self._scaled(observed)
        self.normal_ = Normal(np.zeros(rows.shape[1]), np.diag((self.scale_ > 0) + LEAST))
        before = self._finished(np.zeros_like(rows), features, mask)
        self._step(rows, hidden)  # from uncorrelated columns: the rows completed by means, which is where EM starts
        for _ in range(self.max_iterations):
            completed, moved = self._step(rows, hidden)
            now = self._finished(completed, features, mask)
            yield change_of(self.metadata, before, now, mask)
            before = now
            if moved <= self.tolerance or not mask.any():
                break

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features) with what is expected of missing cells, given the observed ones of the row."""
        rows, mask = self._seen(features, missing_mask)
        completed, _ = self._normal().expect(rows, mask)
        return self._finished(completed, features, missing_mask | np.isnan(features))

    def draw(self, features: Floats, missing_mask: Mask, random: np.random.Generator) -> Floats:
        """Return (rows, num_features) with missing cells drawn from what the observed ones of the row leave likely."""
        rows, mask = self._seen(features, missing_mask)
        drawn = self._normal().draw(rows, mask, random)
        return self._finished(drawn, features, missing_mask | np.isnan(features))

    def to_arrays(self) -> Arrays:
        """Return the normal distribution and the units it is in."""
        return {
            "format": np.array(2),
            "names": described(self.metadata),
            "center": self.center_,
            "scale": self.scale_,
            "low": self.low_,
            "high": self.high_,
            "mean": self._normal().mean,
            "covariance": self._normal().covariance,
        }

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        size = len(self._kept)
        shapes: Shapes = {
            **dict.fromkeys(("center", "scale", "low", "high", "mean"), (size,)),
            "covariance": (size, size),
        }
        check_arrays(arrays, "GaussianEM", 2, self.metadata, shapes, place)
        numbers = {name: arrays[name].astype(np.float64) for name in shapes}
        self.center_, self.scale_, self.low_, self.high_ = (numbers[key] for key in ("center", "scale", "low", "high"))
        self.normal_ = Normal(numbers["mean"], numbers["covariance"])

    @property
    def _kept(self) -> NDArray[np.int64]:
        """The columns without the last of each categorical variable, which the others tell."""
        variables = zip(self.metadata.variables, self.metadata.slices, strict=True)
        last = [columns.stop - 1 for variable, columns in variables if variable.kind == "categorical"]
        return np.delete(np.arange(self.metadata.num_features), last)

    def _normal(self) -> Normal:
        assert self.normal_ is not None, "not fitted"
        return self.normal_

    def _step(self, rows: Doubles, mask: Mask) -> tuple[Doubles, float]:
        """Do an iteration of EM; return the rows as they were expected to be, and how far the parameters moved."""
        old = self._normal()
        completed, spread = old.expect(rows, mask)
        mean = completed.mean(axis=0)
        centered = completed - mean
        covariance = (centered.T @ centered + (spread + spread.T) / 2) / len(rows)
        covariance[np.diag_indices_from(covariance)] += self.ridge + LEAST
        self.normal_ = Normal(mean, covariance)
        return completed, float(max(np.abs(mean - old.mean).max(), np.abs(covariance - old.covariance).max()))

    def _seen(self, features: Floats, missing_mask: Mask) -> tuple[Doubles, Mask]:
        """Return scaled rows (rows, kept columns) and where they are missing."""
        mask = missing_cells(self.metadata, features, missing_mask)[:, self._kept]
        return self._scaled(np.where(mask, 0, features[:, self._kept])), mask

    def _scaled(self, rows: Doubles) -> Doubles:
        # A column that does not vary has scale 0: it comes back as it was, whatever the ridge and a draw add to it.
        scaled: Doubles = (rows - self.center_) / np.where(self.scale_ > 0, self.scale_, 1)
        return scaled

    def _finished(self, completed: Doubles, features: Floats, mask: Mask) -> Floats:
        """Return valid features (rows, num_features) of scaled rows (rows, kept columns) where the mask is True."""
        expected = np.ones((len(completed), self.metadata.num_features), np.float32)
        unscaled = completed * self.scale_ + self.center_
        expected[:, self._kept] = np.clip(unscaled, self.low_, self.high_)
        for variable, columns in zip(self.metadata.variables, self.metadata.slices, strict=True):
            if variable.kind == "categorical":
                expected[:, columns.stop - 1] -= expected[:, columns.start : columns.stop - 1].sum(axis=1)
        return np.where(mask, discretize(self.metadata, expected), features)
