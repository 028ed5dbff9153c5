"""How well hidden cells were imputed. Only hidden cells count, summed over cells, in the scaled units."""

import numpy as np

from dgm_ray.data import Metadata, Scored, discretize
from dgm_ray.evaluation.generation import Floats, Scores


def complete(metadata: Metadata, proposed: Floats, observed: Floats) -> Floats:
    """Return rows whose observed cells are untouched and whose missing (NaN) cells are the proposed ones.

    Binary and categorical proposals become valid values first: what is scored is what a user would get.
    """
    return np.where(np.isnan(observed), discretize(metadata, proposed), observed)


def score_imputation(completed: Floats, scored: Scored) -> Scores:
    """Return root mean squared and mean absolute error over the hidden cells (columns of hidden variables).

    completed: (..., rows, num_features), of one model or of several. Nothing if no cell is hidden.
    """
    if not scored.hidden_mask.any():
        return {}
    made = completed[..., scored.hidden_mask].astype(np.float64, order="C")  # else sums depend on how many there are
    errors = made - scored.truth[scored.hidden_mask]
    rmse, mae = np.sqrt(np.mean(errors**2, axis=-1)), np.mean(np.abs(errors), axis=-1)
    return {"imputation_rmse": rmse, "imputation_mae": mae}


def baseline(metadata: Metadata, means_and_modes: Floats, scored: Scored) -> Scores:
    """Return the scores of imputing every cell by the training rows' mean or mode."""
    proposed = np.broadcast_to(means_and_modes, scored.features.shape)
    return score_imputation(complete(metadata, proposed, scored.features), scored)
