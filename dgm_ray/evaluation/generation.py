"""How close generated rows come to real ones, variable by variable. Every measure: smaller is better, 0 is equal."""

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, discretize

Floats = NDArray[np.float32]


def score_generation(metadata: Metadata, real: Floats, generated: Floats) -> dict[str, float]:
    """Return the mean distance of the marginals and the error of the dimension-wise probabilities.

    real: (rows, num_features), NaN where a cell is missing. generated: (other rows, num_features).
    """
    generated = discretize(metadata, generated)
    return {
        "marginal_distance": float(np.mean(list(marginal_distances(metadata, real, generated).values()))),
        "dimension_wise_rmse": dimension_wise_rmse(real, generated),
    }


def marginal_distances(metadata: Metadata, real: Floats, generated: Floats) -> dict[str, float]:
    """Return a distance per variable: Wasserstein-1 for numerical, total variation for binary and categorical ones.

    In scaled units both lie in [0, 1] (Wasserstein may exceed 1 where generated values leave the scale).
    """
    distances = {}
    for variable, columns in zip(metadata.variables, metadata.slices, strict=True):
        known = real[:, columns]
        known = known[~np.isnan(known).any(axis=1)]
        if not len(known):
            continue
        if variable.kind == "numerical":
            distances[variable.name] = wasserstein(known[:, 0], generated[:, columns.start])
        else:
            gaps = np.abs(known.mean(axis=0, dtype=np.float64) - generated[:, columns].mean(axis=0, dtype=np.float64))
            distances[variable.name] = float(gaps.sum() / (2 if variable.kind == "categorical" else 1))
    return distances


def wasserstein(one: Floats, other: Floats) -> float:
    """Return the Wasserstein-1 distance of two samples: the area between their distribution functions."""
    one, other = np.sort(one.astype(np.float64)), np.sort(other.astype(np.float64))
    values = np.sort(np.concatenate([one, other]))
    below_one = np.searchsorted(one, values[:-1], side="right") / len(one)
    below_other = np.searchsorted(other, values[:-1], side="right") / len(other)
    return float(np.sum(np.abs(below_one - below_other) * np.diff(values)))


def dimension_wise_rmse(real: Floats, generated: Floats) -> float:
    """Return the root mean squared difference of the features' means.

    For binary features a mean is a Bernoulli rate: MedGAN's dimension-wise probability (arXiv 1703.06490, section 4).
    """
    known = ~np.isnan(real).all(axis=0)
    gaps = np.nanmean(real[:, known], axis=0, dtype=np.float64) - generated[:, known].mean(axis=0, dtype=np.float64)
    return float(np.sqrt(np.mean(gaps**2)))
