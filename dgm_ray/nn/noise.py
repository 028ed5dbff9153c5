"""Layers that disturb their input while training, and are the identity in evaluation."""

import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.masks import column_variables, draw_mask
from dgm_ray.registry import NonNegativeFloat, Probability, Shared, register


@register
class Dropout(nn.Module):
    """Zeroes each cell with probability p and divides the others by 1 - p; any shape. As torch's, p in a buffer.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    p: Tensor

    def __init__(self, p: Probability = 0.5) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(float(p)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        scale = 1 / (1 - self.p).clamp_min(1e-8)  # at p = 1 nothing is kept, so any finite scale will do
        return features * ((torch.rand_like(features) >= self.p) * scale)


@register
class MultiInputDropout(nn.Module):
    """Zeroes whole variables, each with ``drop_probability`` in [0, 1], and rescales nothing: (rows, num_features)."""

    columns: Tensor
    drop_probability: Tensor

    def __init__(self, metadata: Shared[Metadata], drop_probability: Probability = 0.5) -> None:
        super().__init__()
        self._num_variables = len(metadata.variables)
        self.register_buffer("columns", column_variables(metadata), persistent=False)
        self.register_buffer("drop_probability", torch.tensor(float(drop_probability)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        dropped = draw_mask(self.columns, self._num_variables, features.shape[0], self.drop_probability)
        return features.masked_fill(dropped != 0, 0.0)  # (rows, num_features)


@register
class AdditiveNormalNoise(nn.Module):
    """Adds N(noise_mean, noise_std) to each cell; any shape. noise_std >= 0."""

    noise_mean: Tensor
    noise_std: Tensor

    def __init__(self, noise_mean: float = 0.0, noise_std: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.register_buffer("noise_mean", torch.tensor(float(noise_mean)), persistent=False)
        self.register_buffer("noise_std", torch.tensor(float(noise_std)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        # Differs from the original: in evaluation nothing is added (defect 17).
        if not self.training:
            return features
        return features + (self.noise_mean + self.noise_std * torch.randn_like(features))
