"""How well hidden cells were imputed. Only hidden cells count, summed over cells, in the scaled units."""

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, Scored, discretize

Floats = NDArray[np.float32]


def complete(metadata: Metadata, proposed: Floats, observed: Floats) -> Floats:
    """Return rows whose observed cells are untouched and whose missing (NaN) cells are the proposed ones.

    Binary and categorical proposals become valid values first: what is scored is what a user would get.
    """
    return np.where(np.isnan(observed), discretize(metadata, proposed), observed)


def score_imputation(completed: Floats, scored: Scored) -> dict[str, float]:
    """Return root mean squared and mean absolute error over the hidden cells (columns of hidden variables).

    Nothing if no cell is hidden.
    """
    if not scored.hidden_mask.any():
        return {}
    errors = completed[scored.hidden_mask].astype(np.float64) - scored.truth[scored.hidden_mask]
    return {"imputation_rmse": float(np.sqrt(np.mean(errors**2))), "imputation_mae": float(np.mean(np.abs(errors)))}


def baseline(metadata: Metadata, means_and_modes: Floats, scored: Scored) -> dict[str, float]:
    """Return the scores of imputing every cell by the training rows' mean or mode."""
    proposed = np.broadcast_to(means_and_modes, scored.features.shape)
    return score_imputation(complete(metadata, proposed, scored.features), scored)
