"""Lanes: trainings of one shape that advance together, each step of all of them one launch."""

from dgm_ray.training.lanes.check import why_alone
from dgm_ray.training.lanes.pack import AsLane, Lane, Pack, Places
from dgm_ray.training.lanes.shape import Shape, key_of

__all__ = ["AsLane", "Lane", "Pack", "Places", "Shape", "key_of", "why_alone"]
