"""Layers that fill the missing cells of a batch before a model sees it.

Each is called with features (rows, num_features), which may hold NaN where missing, and missing_mask of the same shape,
1 where missing; it returns (rows, num_features) in which observed cells are the features'.

differentiable: let gradients flow to the observed cells (and so to whatever made the features).
# Differs from the original: NaN under the mask never survives, whatever ``differentiable`` (defect 16).
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.nn.masks import compose
from dgm_ray.registry import NonNegativeFloat, Shared, register

FloatVector = NDArray[np.float64]


class ImputationLayer(nn.Module):
    """What may stand where a configuration says ``imputation``. random: it draws what it fills."""

    random: ClassVar[bool] = False


@register
class ZeroImputation(ImputationLayer):
    """Fills with 0."""

    def __init__(self, differentiable: bool = True) -> None:
        super().__init__()
        self.differentiable = differentiable

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        return _filled(features, missing_mask, torch.zeros_like(features), self.differentiable)


@register
class NormalNoiseImputation(ImputationLayer):
    """Fills each cell with a draw from N(noise_mean, noise_std), in training and evaluation. noise_std >= 0."""

    random = True
    noise_mean: Tensor
    noise_std: Tensor

    def __init__(self, noise_mean: float = 0.0, noise_std: NonNegativeFloat = 1.0, differentiable: bool = True) -> None:
        super().__init__()
        self.differentiable = differentiable
        self.register_buffer("noise_mean", torch.tensor(float(noise_mean)), persistent=False)
        self.register_buffer("noise_std", torch.tensor(float(noise_std)), persistent=False)

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        noise = self.noise_mean + self.noise_std * torch.randn_like(features)  # (rows, num_features)
        return _filled(features, missing_mask, noise, self.differentiable)


@register
class UniformNoiseImputation(ImputationLayer):
    """Fills each cell with a draw from [low, high), in training and evaluation; GAIN's authors take [0, 0.01)."""

    random = True
    low: Tensor
    high: Tensor

    def __init__(self, low: float = 0.0, high: float = 0.01, differentiable: bool = True) -> None:
        super().__init__()
        if high < low:
            raise ConfigurationError("high", f"should be {low:g} (low) at least", high)
        self.differentiable = differentiable
        self.register_buffer("low", torch.tensor(float(low)), persistent=False)
        self.register_buffer("high", torch.tensor(float(high)), persistent=False)

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        noise = self.low + (self.high - self.low) * torch.rand_like(features)  # (rows, num_features)
        return _filled(features, missing_mask, noise, self.differentiable)


@register
class MeanAndModesImputation(ImputationLayer):
    """Fills each column with its own value: the mean of a numerical variable, the mode of a binary or categorical one.

    path: a ``.npy`` file with the values (num_features,); it goes before ``means_and_modes``.
    means_and_modes: the values, shared by who has the data.
    Raises ConfigurationError if neither is there, DataError if a file's values are not a finite vector.
    """

    means_and_modes: Tensor

    def __init__(
        self,
        path: Path | None = None,
        means_and_modes: Shared[Tensor] | None = None,
        differentiable: bool = True,
    ) -> None:
        super().__init__()
        self.differentiable = differentiable
        if path is None and means_and_modes is None:
            raise ConfigurationError("path", "means and modes are needed: give the path of a .npy file")
        values = means_and_modes if path is None else _load_vector(path)
        self.register_buffer("means_and_modes", torch.as_tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        return _filled(features, missing_mask, self.means_and_modes, self.differentiable)


def _filled(features: Tensor, missing_mask: Tensor, values: Tensor, differentiable: bool) -> Tensor:
    if differentiable:
        return torch.where(missing_mask != 0, values, features)  # (rows, num_features)
    return compose(missing_mask, values, features)  # (rows, num_features)


def _load_vector(path: Path) -> FloatVector:
    try:
        values: FloatVector = np.load(path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError) as error:
        raise ConfigurationError("path", f"cannot read means and modes ({error})", str(path)) from error
    if values.ndim != 1 or not np.isfinite(values).all():
        raise DataError(str(path), "means and modes are one finite number for each feature")
    return values
