"""How close generated rows come to real ones, variable by variable. Every measure: smaller is better, 0 is equal.

Of several models at once: ``generated`` may have axes before its rows, (..., rows, num_features), and what is returned
of it has them, (...).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, discretize

Floats = NDArray[np.float32]
Scores = dict[str, Any]  # of one model numbers, of several arrays of float64


def score_generation(metadata: Metadata, real: Floats, generated: Floats) -> Scores:
    """Return the mean distance of the marginals and the error of the dimension-wise probabilities.

    real: (rows, num_features), NaN where a cell is missing. generated: (..., other rows, num_features).
    """
    generated = discretize(metadata, generated)
    distances = list(marginal_distances(metadata, real, generated).values())
    return {
        "marginal_distance": np.stack(distances, axis=-1).mean(axis=-1),
        "dimension_wise_rmse": dimension_wise_rmse(real, generated),
    }


def marginal_distances(metadata: Metadata, real: Floats, generated: Floats) -> Scores:
    """Return a distance per variable: Wasserstein-1 for numerical, total variation for binary and categorical ones.

    In scaled units both lie in [0, 1] (Wasserstein may exceed 1 where generated values leave the scale). A variable of
    which no real cell is known has none.
    """
    known = ~np.isnan(real)
    distances = np.abs(_gaps(real, generated))
    whole = np.flatnonzero(metadata.numerical_columns & known.all(axis=0))
    others = np.flatnonzero(metadata.numerical_columns & known.any(axis=0) & ~known.all(axis=0))
    distances[..., whole] = wasserstein(real[:, whole].T, np.swapaxes(generated[..., whole], -1, -2))
    for column in others:
        distances[..., column] = wasserstein(real[known[:, column], column], generated[..., column])
    return {
        variable.name: distances[..., own].sum(axis=-1) / (2 if variable.kind == "categorical" else 1)
        for variable, own in zip(metadata.variables, metadata.slices, strict=True)
        if known[:, own].any()
    }


def wasserstein(one: NDArray[Any], other: NDArray[Any]) -> Any:
    """Return the Wasserstein-1 distance of two samples, (..., values) and (..., other values): (...).

    It is the area between their quantile functions, which are steps.
    """
    one, other = (np.sort(values.astype(np.float64, order="C")) for values in (one, other))
    sizes = one.shape[-1], other.shape[-1]
    if sizes[0] == sizes[1]:
        return np.abs(one - other).mean(axis=-1)
    steps = np.unique(np.concatenate([np.arange(size + 1) / size for size in sizes]))
    middles, widths = (steps[1:] + steps[:-1]) / 2, np.diff(steps)
    of_one, of_other = (values.take((middles * values.shape[-1]).astype(int), axis=-1) for values in (one, other))
    return (np.abs(of_one - of_other) * widths).sum(axis=-1)


def dimension_wise_rmse(real: Floats, generated: Floats) -> Any:
    """Return the root mean squared difference of the features' means.

    For binary features a mean is a Bernoulli rate: MedGAN's dimension-wise probability (arXiv 1703.06490, section 4).
    """
    known = ~np.isnan(real).all(axis=0)
    return np.sqrt(np.mean(_gaps(real[:, known], generated[..., known]) ** 2, axis=-1))


def _gaps(real: Floats, generated: Floats) -> NDArray[np.float64]:
    """Return how far the means of features differ: (..., features); NaN where no real cell is known."""
    known = ~np.isnan(real)
    counts = known.sum(axis=0)
    means = np.where(known, real, 0).astype(np.float64).sum(axis=0) / np.where(counts, counts, np.nan)
    by_feature = np.swapaxes(generated, -1, -2).astype(np.float64, order="C")  # else sums depend on how many models
    gaps: NDArray[np.float64] = means - by_feature.mean(axis=-1)
    return gaps
