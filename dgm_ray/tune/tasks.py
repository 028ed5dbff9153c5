"""The tasks that run on Ray; importing this registers them, and does not import ray."""

from dgm_ray.tune import augmentation, parallel

__all__ = ["augmentation", "parallel"]
