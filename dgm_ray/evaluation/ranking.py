"""Which of several methods is better, and whether that could be chance: intervals, ranks and tests over data sets.

Values are errors, (data sets, methods), smaller is better; inf is a method that failed there, the worst of all.
Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006, pages 1-30.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
LEVEL = 0.05  # a smaller p-value is not taken for chance
LEAST_DATA_SETS = LEAST_METHODS = 3  # of Friedman's test


def interval(values: ArrayLike, level: float = 1 - LEVEL) -> tuple[float, float]:
    """Return the mean, and half the width of Student's interval around it: NaN of fewer than two values."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2:
        return float(numbers.mean()) if len(numbers) else math.nan, math.nan
    quantile = stats.t.ppf((1 + level) / 2, len(numbers) - 1)
    return float(numbers.mean()), float(quantile * numbers.std(ddof=1) / math.sqrt(len(numbers)))


def ranks(values: ArrayLike) -> Floats:
    """Return the rank of each method on each data set, (data sets, methods): 1 is best, equals share their mean."""
    found: Floats = stats.rankdata(np.asarray(values, dtype=np.float64), axis=1)
    return found


@dataclass(frozen=True)
class Friedman:
    """Whether methods differ at all. chi_square: with ties counted. f, p: of Iman and Davenport's correction of it."""

    chi_square: float
    f: float
    p: float


def friedman(values: ArrayLike) -> Friedman:
    """Return Friedman's test of values (data sets, methods), two and three of them at least."""
    table = ranks(values)
    cases, methods = table.shape
    if (table == table[0, 0]).all():
        return Friedman(0.0, 0.0, 1.0)
    chi_square = float(stats.friedmanchisquare(*table.T).statistic)
    left = cases * (methods - 1) - chi_square
    f = (cases - 1) * chi_square / left if left > 1e-9 else math.inf  # all data sets agree
    return Friedman(chi_square, f, float(stats.f.sf(f, methods - 1, (methods - 1) * (cases - 1))))


def critical_difference(methods: int, data_sets: int, level: float = LEVEL) -> float:
    """Return by how much two mean ranks must differ at least not to be chance, by Nemenyi's test of all pairs."""
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * data_sets))


def alike(mean_ranks: Sequence[float], difference: float) -> list[list[int]]:
    """Return the largest groups of methods whose mean ranks are all less than ``difference`` apart, best first."""
    order = sorted(range(len(mean_ranks)), key=lambda index: mean_ranks[index])
    groups: list[list[int]] = []
    for position, first in enumerate(order):
        group = [one for one in order[position:] if mean_ranks[one] - mean_ranks[first] < difference]
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups


def signed_rank(one: ArrayLike, other: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of paired values; pairs of equals count half each.

    A pair of which one failed counts as the largest difference, one of which both failed as equals.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (one, other))
    with np.errstate(invalid="ignore"):
        differences = np.where(first == second, 0.0, first - second)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def holm(pvalues: ArrayLike) -> Floats:
    """Return p-values that are corrected for their number, in the same order: Holm's step-down method."""
    numbers = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(numbers, kind="stable")
    stepped = np.maximum.accumulate(numbers[order] * np.arange(len(numbers), 0, -1))
    corrected = np.empty_like(numbers)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def pairwise(values: ArrayLike) -> Floats:
    """Return the p-value of each pair of methods, (methods, methods), Wilcoxon's with Holm's correction for all pairs.

    A method beside itself has NaN.
    """
    table = np.asarray(values, dtype=np.float64)
    pairs = list(combinations(range(table.shape[1]), 2))
    found = np.full((table.shape[1], table.shape[1]), np.nan)
    corrected = holm([signed_rank(table[:, one], table[:, other]) for one, other in pairs])
    for (one, other), p in zip(pairs, corrected, strict=True):
        found[one, other] = found[other, one] = p
    return found


def least_pairs(tests: int = 1, level: float = LEVEL) -> int:
    """Return how many pairs the signed-rank test needs at least to be below ``level`` in the best of ``tests`` tests.

    If all n differences have the same sign, its p-value is 2 / 2^n.
    """
    return math.ceil(math.log2(2 * tests / level))


def front(values: Sequence[float], seconds: Sequence[float]) -> list[int]:
    """Return the methods that no other equals in both value and seconds and excels in one, fastest first."""
    points: list[tuple[Any, ...]] = list(zip(values, seconds, strict=True))

    def beaten(point: tuple[Any, ...]) -> bool:
        return any(one != point and one[0] <= point[0] and one[1] <= point[1] for one in points)

    able = [index for index, point in enumerate(points) if all(map(math.isfinite, point)) and not beaten(point)]
    return sorted(able, key=lambda index: points[index][::-1])
