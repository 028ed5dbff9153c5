"""How strongly the columns of a table go together, whatever their kinds."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]


def associations(table: pd.DataFrame) -> pd.DataFrame:
    """Return the association of each pair of columns, a square table; rows without one of both cells are left out.

    Two columns of numbers: Pearson's correlation, in [-1, 1]. A column of numbers and another: the correlation ratio,
    in [0, 1]. Two others: Cramér's V, in [0, 1]. NaN where a column has but one value.
    """
    kinds = [pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]
    cells = [
        table[name].to_numpy(np.float64) if number else codes_of(table[name])
        for name, number in zip(table, kinds, strict=True)
    ]
    found = np.eye(len(cells))
    for one in range(len(cells)):
        for other in range(one):
            known = ~np.isnan(cells[one]) & ~np.isnan(cells[other])
            # A column of numbers comes first.
            first, second = (one, other) if kinds[one] or not kinds[other] else (other, one)
            measure = pearson if kinds[one] and kinds[other] else correlation_ratio if kinds[first] else cramers_v
            found[one, other] = found[other, one] = measure(cells[first][known], cells[second][known])
    return pd.DataFrame(found, index=table.columns, columns=table.columns)


def codes_of(cells: pd.Series) -> Array:
    """Return categories as numbers, (rows,), NaN where missing."""
    codes, _ = pd.factorize(cells)
    return np.where(codes < 0, np.nan, codes.astype(np.float64))


def pearson(one: Array, other: Array) -> float:
    """Return Pearson's correlation of two columns of numbers, (rows,); NaN if one is constant."""
    one, other = one - one.mean() if len(one) else one, other - other.mean() if len(other) else other
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else np.nan


def correlation_ratio(numbers: Array, groups: Array) -> float:
    """Return eta: the root of the share of the numbers' variance that is between the groups. Both are (rows,).

    Source: Fisher 1925, Statistical Methods for Research Workers, section 45. NaN if all numbers, or groups, are one.
    """
    _, codes = np.unique(groups, return_inverse=True)
    counts = np.bincount(codes)
    total = float(((numbers - numbers.mean()) ** 2).sum()) if len(numbers) else 0.0
    if len(counts) < 2 or not total > 0:
        return np.nan
    means = np.bincount(codes, weights=numbers) / counts
    return float(np.sqrt((counts * (means - numbers.mean()) ** 2).sum() / total))


def cramers_v(one: Array, other: Array) -> float:
    """Return Cramér's V of two columns of categories, (rows,), without a correction for bias.

    Source: Cramér 1946, Mathematical Methods of Statistics, page 282. NaN if one has but one category.
    """
    (first, rows), (second, columns) = (np.unique(part, return_inverse=True) for part in (one, other))
    smaller = min(len(first), len(second))
    if smaller < 2:
        return np.nan
    counts = np.bincount(rows * len(second) + columns, minlength=len(first) * len(second))
    counts = counts.reshape(len(first), len(second)).astype(np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / len(one)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi_squared / (len(one) * (smaller - 1))))
