"""What a study says of its winner: validation, test (once) and their gap, beside means and modes on the same cells."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dgm_ray.data import Prepared, Scored
from dgm_ray.evaluation.evaluation import Seen, can_draw, draw_rows, imputed, sampled
from dgm_ray.evaluation.generation import Floats, score_generation
from dgm_ray.evaluation.imputation import complete
from dgm_ray.evaluation.imputation_report import VariableErrors, by_variable, downstream, of_draws, overall
from dgm_ray.models import Imputes, Samples
from dgm_ray.training import Training, mean_and_std

Figures = dict[str, float]
# The cost has a bound: draws, rows that are drawn for or that classifiers learn, hidden cells that are drawn for.
DRAWS, ROWS, CELLS = 20, 1000, 5000

# What trackers call the figures of ``overall``: RMSE over hidden cells and over all cells never look alike.
METRICS = {
    "rmse": "imputation_rmse",
    "mae": "imputation_mae",
    "nrmse": "imputation_nrmse",
    "accuracy": "imputation_accuracy",
    "rmse_all_cells": "all_cells_rmse",
    "sliced_wasserstein": "sliced_wasserstein",
}
_GAPS = ("rmse", "mae", "accuracy")


@dataclass(frozen=True, eq=False)
class ShownRows:
    """Some test rows for people to look at, scaled: each array is (rows, num_features).

    row_ids: (rows,). truth: NaN where naturally missing. hidden_mask: what the model had to fill and has a truth, the
    validation's cells too where these rows have some. completed, generated: None where the model cannot.
    """

    row_ids: NDArray[np.int64]
    truth: Floats
    hidden_mask: NDArray[np.bool_]
    completed: Floats | None
    generated: Floats | None


@dataclass(frozen=True)
class FinalReport:
    """Figures of one set of weights; empty where the model cannot impute, or no cell is hidden.

    validation, test: as ``overall`` names them. baseline_validation, baseline_test: means and modes on the same cells.
    more: of the test rows alone: generation, downstream, draws. variables: of the test cells, largest RMSE first.
    baseline_variables: the same of means and modes, in the same order. seeds: the test figures of each seed of the
    same configuration, if there are several; all else is of one of them. rows: at most ROWS of the test rows.
    """

    validation: Figures = field(default_factory=dict)
    test: Figures = field(default_factory=dict)
    baseline_validation: Figures = field(default_factory=dict)
    baseline_test: Figures = field(default_factory=dict)
    more: Figures = field(default_factory=dict)
    variables: list[VariableErrors] = field(default_factory=list)
    baseline_variables: list[VariableErrors] = field(default_factory=list)
    seeds: list[Figures] = field(default_factory=list)
    rows: ShownRows | None = field(default=None, compare=False)

    @property
    def over_seeds(self) -> Figures:
        """The test figures' means over seeds, and as ``{name}_std`` their deviations; {} of one seed."""
        return mean_and_std(self.seeds) if self.seeds else {}

    @property
    def gap(self) -> Figures:
        """How much larger the figures of the test are than those of the validation."""
        both = self.validation.keys() & self.test.keys()
        return {name: self.test[name] - self.validation[name] for name in _GAPS if name in both}

    def metrics(self) -> Figures:
        """Return all but the variables under the names that a tracker keeps; the test's begin with ``test_``."""
        parts = {
            "best_val_": self.validation,
            "baseline_val_": self.baseline_validation,
            "test_": self.test,
            "test_baseline_": self.baseline_test,
            "test_gap_": self.gap,
        }
        named = {f"{prefix}{METRICS[name]}": one for prefix, part in parts.items() for name, one in part.items()}
        for name in METRICS.keys() & self.over_seeds.keys():
            for kind, key in (("mean", name), ("std", f"{name}_std")):
                named[f"test_{METRICS[name]}_{kind}"] = self.over_seeds[key]
        return named | {f"test_{name}": one for name, one in self.more.items()}


def final_report(training: Training, data: Prepared, device: torch.device) -> FinalReport:
    """Measure the weights that a training holds, on the validation and on the test rows."""
    assert data.test is not None
    architecture, metadata, test = training.architecture, data.metadata, data.test
    model, seen = architecture.model, _seen(training, data, data.test, device)
    model.eval()
    made, generated, more = None, None, Figures()
    with training.aside():
        if isinstance(model, Imputes) and test.hidden_mask.any():
            made = imputed(model, seen)
        if isinstance(model, Samples) and len(test.features):
            generated = sampled(model, seen)
            more |= score_generation(metadata, test.truth, generated)
    rows = _rows(test, made, generated, training.seed)
    if made is None:
        return FinalReport(more=more, rows=rows)
    assert isinstance(model, Imputes)
    more |= _downstream(data, made, training.seed) | _of_draws(training, data, device)
    means = _means(data, test)
    variables = sorted(by_variable(metadata, made, test, data.scaler), key=lambda one: -one.rmse)
    beside = {one.name: one for one in by_variable(metadata, means, test, data.scaler)}
    validation: list[Figures] = [{}, {}]
    if data.validation.hidden_mask.any():
        with training.aside():
            own = imputed(model, _seen(training, data, data.validation, device))
        validation = [overall(metadata, one, data.validation) for one in (own, _means(data, data.validation))]
    return FinalReport(
        validation=validation[0],
        test=overall(metadata, made, test),
        baseline_validation=validation[1],
        baseline_test=overall(metadata, means, test),
        more=more,
        variables=variables,
        baseline_variables=[beside[one.name] for one in variables],
        rows=rows,
    )


def _rows(test: Scored, made: Floats | None, generated: Floats | None, seed: int) -> ShownRows:
    chosen = _some(np.arange(len(test.features)), ROWS, seed)
    parts = (None if part is None else part[chosen] for part in (made, generated))
    truth = test.truth[chosen]
    return ShownRows(test.row_ids[chosen], truth, np.isnan(test.features[chosen]) & ~np.isnan(truth), *parts)


def score_test_cells(training: Training, data: Prepared, device: torch.device) -> Figures:
    """Return the ``test`` figures of the report alone."""
    model, test = training.architecture.model, data.test
    assert test is not None
    if not isinstance(model, Imputes) or not test.hidden_mask.any():
        return {}
    model.eval()
    with training.aside():
        made = imputed(model, _seen(training, data, test, device))
    return overall(data.metadata, made, test)


def _seen(training: Training, data: Prepared, scored: Scored, device: torch.device) -> Seen:
    architecture = training.architecture
    assert architecture.fill is not None
    return Seen(data.metadata, scored, architecture.fill, device, architecture.conditional)


def _means(data: Prepared, scored: Scored) -> Floats:
    return complete(data.metadata, np.broadcast_to(data.means_and_modes, scored.features.shape), scored.features)


def _downstream(data: Prepared, made: Floats, seed: int) -> Figures:
    """Return the downstream figures of at most ROWS test rows, {} where rows have no classes."""
    assert data.test is not None
    labels = data.test.labels
    if labels is None or not data.metadata.num_classes or (labels.dtype.kind == "f" and not np.isfinite(labels).all()):
        return {}
    chosen = _some(np.arange(len(labels)), ROWS, seed)
    return downstream(made[chosen], data.test.truth[chosen], labels[chosen], seed=seed)


def _of_draws(training: Training, data: Prepared, device: torch.device) -> Figures:
    """Return what several imputations of some test rows are worth, {} where the model knows but one."""
    test, architecture = data.test, training.architecture
    assert test is not None
    if not can_draw(architecture.model):
        return {}
    hidden = test.hidden_mask.sum(axis=1)
    most = max(1, round(CELLS / hidden[hidden > 0].mean()))
    chosen = _some(np.flatnonzero(hidden), min(ROWS, most), training.seed)
    labels = None if test.labels is None else test.labels[chosen]
    some = Scored(test.row_ids[chosen], test.features[chosen], labels, test.hidden_mask[chosen], test.truth[chosen])
    with training.aside():
        draws = [
            draw_rows(
                architecture, data.metadata, some.features, device, np.random.default_rng([training.seed, i]), labels
            )
            for i in range(DRAWS)
        ]
    found = of_draws(data.metadata, np.stack(draws), some)
    return {"crps": found["crps"], "coverage_of_90": found["coverage"]} if found else {}


def _some(rows: NDArray[Any], most: int, seed: int) -> NDArray[Any]:
    """Return at most so many of the row numbers, drawn at random, in order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
