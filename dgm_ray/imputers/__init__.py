"""Imputers that are no networks."""

from dgm_ray.imputers.miss_forest import MissForest

__all__ = ["MissForest"]
