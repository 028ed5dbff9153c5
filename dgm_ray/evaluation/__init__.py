"""Measures: what a model is worth on rows that it was not trained on. For every one smaller is better."""

from dgm_ray.evaluation.evaluation import (
    Evaluation,
    Seen,
    ValidationLoss,
    can_draw,
    draw_rows,
    impute_rows,
    imputed,
    measures_of,
    sample_rows,
    sampled,
)
from dgm_ray.evaluation.generation import Floats, marginal_distances, score_generation, wasserstein
from dgm_ray.evaluation.imputation import baseline, complete, score_imputation

__all__ = [
    "Evaluation",
    "Floats",
    "Seen",
    "ValidationLoss",
    "baseline",
    "can_draw",
    "complete",
    "draw_rows",
    "impute_rows",
    "imputed",
    "marginal_distances",
    "measures_of",
    "sample_rows",
    "sampled",
    "score_generation",
    "score_imputation",
    "wasserstein",
]
