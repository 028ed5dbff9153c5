"""Optimizers of stacked parameters, each lane with its own rates."""

from typing import Any

import torch

from dgm_ray.nn import WGANOptimizer

_NUMBERS = ("lr", "betas", "eps", "weight_decay", "momentum", "dampening")  # what lanes may have otherwise


def options_of(optimizer: Any) -> dict[str, Any]:
    """Return what must be equal of the optimizers of two lanes."""
    inner = optimizer.optimizer if isinstance(optimizer, WGANOptimizer) else optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        return {}
    left = {name: value for name, value in inner.defaults.items() if name not in _NUMBERS}
    return left | {"kind": f"{type(optimizer).__name__} {type(inner).__name__}"}
