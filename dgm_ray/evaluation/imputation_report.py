"""What is said of an imputation once it is chosen: per variable, in both units, as distributions, and of draws.

Only hidden cells count, except where a name says ``all_cells`` or ``rows``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, MinMaxScaler, Scored
from dgm_ray.evaluation.generation import Floats, wasserstein

Array = NDArray[Any]
PROJECTIONS, FOLDS = 64, 5
TREES = 200  # of a downstream classifier, one a class and round


@dataclass(frozen=True)
class VariableErrors:
    """The errors of one variable's hidden cells; NaN where a figure means nothing for its kind.

    cells: how many were hidden. rmse, mae: in scaled units, over the variable's columns. nrmse: RMSE over the standard
    deviation of the true values. user_rmse, user_mae: in the user's units. accuracy: share of right categories.
    """

    name: str
    kind: str
    cells: int
    rmse: float
    mae: float
    nrmse: float = np.nan
    user_rmse: float = np.nan
    user_mae: float = np.nan
    accuracy: float = np.nan


def by_variable(
    metadata: Metadata, completed: Floats, scored: Scored, scaler: MinMaxScaler | None
) -> list[VariableErrors]:
    """Return the errors of each variable with a hidden cell. completed: (rows, num_features), scaled, valid values."""
    spans = np.ones(metadata.num_features) if scaler is None else scaler.maximum - scaler.minimum
    found = []
    for variable, columns in zip(metadata.variables, metadata.slices, strict=True):
        hidden = scored.hidden_mask[:, columns.start]
        if not hidden.any():
            continue
        truth = scored.truth[hidden, columns].astype(np.float64)  # (cells, columns of the variable)
        errors = completed[hidden, columns] - truth
        rmse, mae = _rms(errors), float(np.abs(errors).mean())
        if variable.kind == "numerical":
            span, deviation = float(spans[columns.start]), float(truth.std())
            own = {"nrmse": rmse / deviation if deviation else np.nan, "user_rmse": rmse * span, "user_mae": mae * span}
        else:
            own = {"accuracy": float((errors == 0).all(axis=1).mean())}
        found.append(VariableErrors(variable.name, variable.kind, int(hidden.sum()), rmse, mae, **own))
    return found


def overall(metadata: Metadata, completed: Floats, scored: Scored) -> dict[str, float]:
    """Return figures of the whole table; those that mean nothing for it are left out.

    rmse, mae: over the hidden cells' columns, scaled (the GAIN paper's RMSE). rmse_all_cells: over all cells that have
    a truth, observed ones too (Camino et al. 2019's: it shrinks with the missing rate, so the two never meet in a
    table). nrmse: of the numerical cells, over the standard deviation of their true values; accuracy: of the binary and
    categorical ones (1 - PFC); both as Stekhoven and Buehlmann 2012. sliced_wasserstein: of completed and true rows.
    """
    hidden, truth = scored.hidden_mask, scored.truth.astype(np.float64)
    errors = completed - truth  # (rows, num_features), NaN where there is no truth
    figures = {"rmse": _rms(errors[hidden]), "mae": float(np.abs(errors[hidden]).mean())}
    figures["rmse_all_cells"] = _rms(errors[~np.isnan(errors)])
    numbers = hidden & metadata.numerical_columns
    if numbers.any() and (deviation := float(truth[numbers].std())):
        figures["nrmse"] = _rms(errors[numbers]) / deviation
    right = [
        (errors[hidden[:, columns.start], columns] == 0).all(axis=1)
        for variable, columns in zip(metadata.variables, metadata.slices, strict=True)
        if variable.kind != "numerical"
    ]
    if right and sum(map(len, right)):
        figures["accuracy"] = float(np.concatenate(right).mean())
    whole = ~np.isnan(truth).any(axis=1)
    if whole.any():
        figures["sliced_wasserstein"] = sliced_wasserstein(completed[whole], scored.truth[whole])
    return figures


def sliced_wasserstein(one: Floats, other: Floats, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Return the mean Wasserstein-1 distance of two samples (rows, columns) on random directions of unit length.

    Source: Bonneel et al. 2015, doi 10.1007/s10851-014-0506-3, with a fixed ``seed`` for the directions.
    """
    directions = np.random.default_rng(seed).normal(size=(one.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    pairs = zip((one @ directions).T, (other @ directions).T, strict=True)
    return float(np.mean([wasserstein(first, second) for first, second in pairs]))


def downstream(completed: Floats, truth: Floats, labels: Array, folds: int = FOLDS, seed: int = 0) -> dict[str, float]:
    """Return what a classifier of the labels is worth: trained on completed rows, tested on complete ones.

    downstream_accuracy: mean over stratified folds; downstream_accuracy_of_truth: the same, trained on true rows.
    completed, truth: (rows, num_features). Rows without a whole truth are left out, and classes with fewer of them than
    there are folds; {} if fewer than two are left. The classifier is scikit-learn's gradient boosting, wherever this is
    run, so that figures can be compared.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    whole = ~np.isnan(truth).any(axis=1)
    classes, counts = np.unique(labels[whole], return_counts=True)
    classes = classes[counts >= folds]
    if len(classes) < 2:
        return {}
    kept = whole & np.isin(labels, classes)
    completed, truth, labels = completed[kept], truth[kept], labels[kept]
    rounds = max(10, TREES // len(classes))
    scores: dict[str, list[float]] = {"downstream_accuracy": [], "downstream_accuracy_of_truth": []}
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(truth, labels):
        for name, rows in zip(scores, (completed, truth), strict=True):
            model = HistGradientBoostingClassifier(max_iter=rounds, random_state=seed)
            model.fit(rows[train], labels[train])
            scores[name].append(float(model.score(truth[test], labels[test])))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def of_draws(metadata: Metadata, draws: Array, scored: Scored, level: float = 0.9) -> dict[str, float]:
    """Return how well several imputations say what is not known, over hidden numerical cells; {} if there are none.

    draws: (draws, rows, num_features), scaled. crps: mean continuous ranked probability score, in scaled units
    (Gneiting and Raftery 2007, equation 21). coverage: share of true values within the central ``level`` interval of
    the draws.
    """
    cells = scored.hidden_mask & metadata.numerical_columns
    if not cells.any():
        return {}
    drawn, truth = draws[:, cells].astype(np.float64), scored.truth[cells].astype(np.float64)
    # Weibull's positions: of 19 draws or more from the truth's own distribution the nominal share covers it.
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    return {
        "crps": float(crps(drawn, truth).mean()),
        "coverage": float(((truth >= low) & (truth <= high)).mean()),
    }


def crps(draws: Array, truth: Array) -> Array:
    """Return E|X - y| - E|X - X'| / 2 of each cell, (cells,). draws: (draws, cells). truth: (cells,)."""
    count = len(draws)
    weights = 2 * np.arange(1, count + 1) - count - 1  # the sum of all |x_i - x_j| / 2 from sorted values
    spread = (weights[:, np.newaxis] * np.sort(draws, axis=0)).sum(axis=0) / count**2
    scores: Array = np.abs(draws - truth).mean(axis=0) - spread
    return scores


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))
