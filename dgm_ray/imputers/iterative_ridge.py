"""Imputation by chained equations: each variable is regressed on all others, again and again.

Source: van Buuren and Groothuis-Oudshoorn 2011, "mice: Multivariate Imputation by Chained Equations in R",
doi 10.18637/jss.v045.i03; the regression: MacKay 1992, "Bayesian Interpolation", as in scikit-learn's BayesianRidge.

Differs from the paper: the regressions are kept, those of every round, so that rows that were not there walk the same
way without another (the last round's alone, applied to means, can run away where columns tell nearly the same). A
categorical variable is one linear regression for each of its columns, and the category expected most: not as good as a
logistic regression where categories have an order, and many times as fast. Imputed numbers stay within those observed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, means_and_modes
from dgm_ray.imputers.columns import Shapes, change_of, check_arrays, check_observed, described, missing_cells
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.registry import NonNegativeFloat, PositiveFloat, PositiveInt, Shared, register

Doubles = NDArray[Any]  # of float64
LEAST = 1e-9  # of a column's variance: what two columns that tell the same do not share, and noise is never below
SWEEPS = 300  # rounds of the evidence, at most, as in scikit-learn


class Regression(NamedTuple):
    """A linear regression on centred columns.

    slopes: (predictors, outputs). noise: (outputs,), the variance left. uncertainty: (predictors, predictors), the
    covariance of the first output's slopes.
    """

    slopes: Doubles
    noise: Doubles
    uncertainty: Doubles


def regress(gram: Doubles, moments: Doubles, squares: Doubles, rows: int, ridge: float | None) -> Regression:
    """Return the ridge regression of outputs y on predictors x, all centred, from their sums over rows alone.

    gram: x'x, (predictors, predictors). moments: x'y, (predictors, outputs). squares: y'y, (outputs,).
    ridge: the penalty, per row; None: of all, the one that makes the outputs likeliest.
    """
    values, vectors = np.linalg.eigh(gram)
    values, turned = np.maximum(values, 0)[:, np.newaxis], vectors.T @ moments  # (predictors, 1 and outputs)
    penalty = np.full(len(squares), LEAST * rows if ridge is None else ridge * rows)
    for _ in range(1 if ridge is not None else SWEEPS):
        slopes = turned / (values + penalty)
        left = np.maximum(squares - 2 * (slopes * turned).sum(axis=0) + (values * slopes**2).sum(axis=0), LEAST * rows)
        used = (values / (values + penalty)).sum(axis=0)  # slopes that the rows decide, (outputs,)
        noise = left / np.maximum(rows - used, 1)
        if ridge is not None:
            break
        before, penalty = penalty, noise * used / np.maximum((slopes**2).sum(axis=0), LEAST)
        penalty = np.maximum(penalty, LEAST * rows)
        if np.abs(penalty - before).max() <= 1e-3 * penalty.max():
            break
    uncertainty = (vectors * (noise[0] / (values[:, 0] + penalty[0]))) @ vectors.T
    return Regression(vectors @ (turned / (values + penalty)), noise, uncertainty)


@register
@dataclass
class IterativeRidge(BaseImputer):
    """Impute mixed tables with a ridge regression of each variable on the others (MICE, or ICE).

    ridge: the penalty on the slopes of scaled columns, per row; null: each regression finds its own (Bayesian ridge).
    max_iterations: rounds over all variables at most. tolerance: a round that changes numbers
    by no more than this (a share of their squares), and categories not at all, is the last.
    """

    metadata: Shared[Metadata]
    ridge: PositiveFloat | None = None
    max_iterations: PositiveInt = 10
    tolerance: NonNegativeFloat = 1e-6
    state_: Arrays = field(default_factory=dict, init=False)

    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Fit, yielding after each round. Raises DataError for a variable without an observed cell."""
        mask = missing_cells(self.metadata, features, missing_mask)
        check_observed(self.metadata, mask)
        self._begin(features, mask)
        rows = self._start(features, mask)
        for _ in range(self.max_iterations):
            before = rows.copy()
            self._add_round()
            for number in self.state_["order"]:
                hidden = mask[:, self.metadata.slices[number].start]
                self._learn(number, rows[~hidden])
                self._fill(rows, number, hidden, self._expect)
            change = self._change(before, rows, mask)
            yield change
            if not mask.any() or self._settled(change):
                break

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features); every round's regressions are applied in their order."""
        mask = missing_cells(self.metadata, features, missing_mask)
        rows = self._start(features, mask)
        for turn in range(len(self.state_["slopes"])):
            self._round(rows, mask, partial(self._expect, turn=turn))
        return np.where(missing_mask | np.isnan(features), self._unscaled(rows), features)

    def draw(self, features: Floats, missing_mask: Mask, random: np.random.Generator) -> Floats:
        """Return (rows, num_features): rounds of draws from what the regressions leave likely (Gibbs sampling).

        Numbers come from the posterior predictive normal distribution, categories by what is expected of them.
        """
        mask = missing_cells(self.metadata, features, missing_mask)
        rows = self._start(self.transform(features, missing_mask), np.zeros_like(mask))

        def drawn(number: int, rows: Doubles) -> Doubles:
            return self._draw(number, rows, random)

        for _ in range(self.max_iterations if mask.any() else 0):
            self._round(rows, mask, drawn)
        return np.where(missing_mask | np.isnan(features), self._unscaled(rows), features)

    def to_arrays(self) -> Arrays:
        """Return the regressions, and the units they are in."""
        return {"format": np.array(1), "names": described(self.metadata), **self.state_}

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        check_arrays(arrays, "IterativeRidge", 1, self.metadata, self._shapes, place)
        self.state_ = {name: arrays[name] for name in self._shapes}

    @property
    def _shapes(self) -> Shapes:
        """What is learnt: the variables' order; initial values, centres, scales and bounds of the columns; regressions.

        means: of the rows that each variable's regression was learnt from. slopes: a column is the regression of one
        column on all, 0 for those of its own variable. Both are of every round; noise and uncertainty are of the last
        round's numerical variables, in their order.
        """
        variables, columns, numerical = self.metadata.num_variables, self.metadata.num_features, len(self._numerical)
        return {
            "order": (variables,),
            **dict.fromkeys(("initial", "center", "scale", "low", "high"), (columns,)),
            "means": (None, variables, columns),
            "slopes": (None, columns, columns),
            "noise": (numerical,),
            "uncertainty": (numerical, columns, columns),
        }

    @property
    def _numerical(self) -> list[int]:
        """The numbers of the numerical variables."""
        return [number for number, one in enumerate(self.metadata.variables) if one.kind == "numerical"]

    def _begin(self, features: Floats, mask: Mask) -> None:
        """Take what the observed cells tell without a regression; the fewest missing come first."""
        known = np.where(mask, np.nan, features.astype(np.float64))
        # Bits and one-hot columns stay what they are: scaled there and back, they would not be 0 and 1.
        numerical = self.metadata.numerical_columns
        deviation = np.nanstd(known, axis=0)
        missing = [mask[:, columns.start].sum() for columns in self.metadata.slices]
        self.state_ = {
            "order": np.argsort(missing, kind="stable"),
            "initial": means_and_modes(self.metadata, features, mask),
            "center": np.where(numerical, np.nanmean(known, axis=0), 0.0),
            "scale": np.where(numerical & (deviation > 0), deviation, 1.0),
            "low": np.nanmin(known, axis=0),
            "high": np.nanmax(known, axis=0),
        }
        lengths = {name: [length or 0 for length in shape] for name, shape in self._shapes.items()}  # of no round yet
        self.state_ = {name: np.zeros(shape) for name, shape in lengths.items()} | self.state_

    def _add_round(self) -> None:
        for name in ("means", "slopes"):
            old = self.state_[name]
            self.state_[name] = np.concatenate([old, np.zeros((1, *old.shape[1:]))])

    def _start(self, features: Floats, mask: Mask) -> Doubles:
        """Return scaled rows with means and modes in missing cells."""
        state = self.state_
        assert state, "not fitted"
        rows: Doubles = (np.where(mask, state["initial"], features) - state["center"]) / state["scale"]
        return rows

    def _unscaled(self, rows: Doubles) -> Floats:
        return (rows * self.state_["scale"] + self.state_["center"]).astype(np.float32)

    def _learn(self, number: int, rows: Doubles) -> None:
        """Regress a variable on the others of the rows that know it."""
        own, state = self.metadata.slices[number], self.state_
        others = np.delete(np.arange(rows.shape[1]), own)
        means = rows.mean(axis=0)
        centered = rows - means
        sums = centered.T @ centered  # of all columns at once: nothing is copied without the variable's own
        gram, moments = sums[np.ix_(others, others)], sums[others, own]
        found = regress(gram, moments, np.diag(sums)[own], len(rows), self.ridge)
        state["means"][-1, number] = means
        state["slopes"][-1][others, own] = found.slopes
        if number in self._numerical:
            place = self._numerical.index(number)
            state["noise"][place] = found.noise[0]
            state["uncertainty"][place][np.ix_(others, others)] = found.uncertainty

    def _round(self, rows: Doubles, mask: Mask, value: Callable[[int, Doubles], Doubles]) -> None:
        for number in self.state_["order"]:
            self._fill(rows, number, mask[:, self.metadata.slices[number].start], value)

    def _fill(self, rows: Doubles, number: int, hidden: Mask, value: Callable[[int, Doubles], Doubles]) -> None:
        if hidden.any():
            rows[hidden, self.metadata.slices[number]] = value(number, rows[hidden])

    def _predicted(self, number: int, rows: Doubles, turn: int = -1) -> Doubles:
        """Return what a round's regression says of scaled rows, (rows, size)."""
        own, means = self.metadata.slices[number], self.state_["means"][turn, number]
        predicted: Doubles = means[own] + (rows - means) @ self.state_["slopes"][turn][:, own]
        return predicted

    def _expect(self, number: int, rows: Doubles, turn: int = -1) -> Doubles:
        """Return the likeliest valid values, (rows, size), scaled."""
        predicted, kind = self._predicted(number, rows, turn), self.metadata.variables[number].kind
        if kind == "numerical":
            return self._bounded(number, predicted)
        likeliest: Doubles = (
            predicted > 0.5 if kind == "binary" else np.eye(predicted.shape[1])[predicted.argmax(axis=1)]
        )
        return likeliest

    def _draw(self, number: int, rows: Doubles, random: np.random.Generator) -> Doubles:
        """Return values drawn from what is likely, (rows, size), scaled."""
        predicted, kind = self._predicted(number, rows), self.metadata.variables[number].kind
        if kind == "numerical":
            place, away = self._numerical.index(number), rows - self.state_["means"][-1, number]
            slopes = np.einsum("ri,ij,rj->r", away, self.state_["uncertainty"][place], away, optimize=True)
            deviation = np.sqrt(self.state_["noise"][place] + np.maximum(slopes, 0))
            return self._bounded(number, predicted + (deviation * random.standard_normal(len(rows)))[:, np.newaxis])
        if kind == "binary":
            drawn: Doubles = random.random(predicted.shape) < predicted
            return drawn
        shares = np.maximum(predicted, 0).cumsum(axis=1)  # they add up to 1 before what is below 0 is cut off
        chosen = (shares > random.random((len(rows), 1)) * shares[:, -1:]).argmax(axis=1)
        one_hot: Doubles = np.eye(predicted.shape[1])[chosen]
        return one_hot

    def _bounded(self, number: int, values: Doubles) -> Doubles:
        """Keep numbers within those observed: a line knows no end, and rounds upon rounds could run away on it."""
        own, state = self.metadata.slices[number], self.state_
        low, high = ((state[end][own] - state["center"][own]) / state["scale"][own] for end in ("low", "high"))
        return np.clip(values, low, high)

    def _change(self, old: Doubles, new: Doubles, mask: Mask) -> Change:
        return change_of(self.metadata, self._unscaled(old), self._unscaled(new), mask)

    def _settled(self, change: Change) -> bool:
        return not (change.numerical > self.tolerance or change.categorical > 0)  # NaN: there are none
