"""Imputers that are no networks, and how they train, are measured and are saved like models."""

from dgm_ray.imputers.gaussian_em import GaussianEM
from dgm_ray.imputers.imputer import BaseImputer, Change, ImputerModel, Iterations
from dgm_ray.imputers.iterative_ridge import IterativeRidge
from dgm_ray.imputers.k_nearest import KNearest
from dgm_ray.imputers.miss_forest import MissForest
from dgm_ray.imputers.missingpy_engine import MissingpyMissForest

__all__ = [
    "BaseImputer",
    "Change",
    "GaussianEM",
    "ImputerModel",
    "IterativeRidge",
    "Iterations",
    "KNearest",
    "MissForest",
    "MissingpyMissForest",
]
