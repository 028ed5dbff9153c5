"""Activations, and the sampling activations of categorical outputs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm_ray.registry import PositiveFloat, register


@register
class ReLU(nn.Module):
    """max(x, 0), of any shape."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features)


@register
class Sigmoid(nn.Module):
    """1 / (1 + exp(-x)), of any shape; in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(features)


@register
class Tanh(nn.Module):
    """tanh(x), of any shape; in (-1, 1)."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(features)


@register
class LeakyReLU(nn.Module):
    """x where positive, else negative_slope * x, of any shape.

    The slope is a Python number: as a tensor it would cost every step a slower kernel, and it is hardly ever searched.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(features, self.negative_slope)


class CategoricalSampling(nn.Module):
    """Turns the logits of one categorical variable into a (soft or hard) one-hot draw.

    expected: return the probabilities instead, softmax(logits): no draw, differentiable. See ``expectations``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expected = False

    def forward(self, logits: Tensor) -> Tensor:
        """logits: (rows, size). Returns (rows, size); each row is >= 0 and sums to 1."""
        return F.softmax(logits, dim=-1) if self.expected else self.sample(logits)

    def sample(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


@register
class GumbelSoftmaxSampling(CategoricalSampling):
    """Gumbel-softmax (Jang et al. 2017, arXiv:1611.01144, eq. 2): soft draws in training, hard ones in evaluation.

    temperature: > 0; near 0 the soft draws are nearly one-hot.
    """

    temperature: Tensor

    def __init__(self, temperature: PositiveFloat) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(float(temperature)), persistent=False)

    def sample(self, logits: Tensor) -> Tensor:
        soft = F.softmax((logits + _gumbel_noise(logits)) / self.temperature, dim=-1)  # (rows, size)
        return soft if self.training else _straight_through(soft, soft)


@register
class SoftmaxSampling(CategoricalSampling):
    """Softmax in training; in evaluation a one-hot draw from the probabilities, whose gradient is the softmax's."""

    def sample(self, logits: Tensor) -> Tensor:
        soft = F.softmax(logits, dim=-1)  # (rows, size)
        # Differs from the original: the draw keeps a gradient (defect: categorical cells did not drive the noise).
        return soft if self.training else _straight_through(logits + _gumbel_noise(logits), soft)


@contextmanager
def expectations(module: nn.Module) -> Iterator[None]:
    """Inside, each ``CategoricalSampling`` in ``module`` returns probabilities, not draws: to impute or reconstruct."""
    samplers = [one for one in module.modules() if isinstance(one, CategoricalSampling)]
    before = [sampler.expected for sampler in samplers]
    try:
        for sampler in samplers:
            sampler.expected = True
        yield
    finally:
        for sampler, expected in zip(samplers, before, strict=True):
            sampler.expected = expected


def _gumbel_noise(logits: Tensor) -> Tensor:
    return -torch.empty_like(logits).exponential_().log()


def _straight_through(scores: Tensor, soft: Tensor) -> Tensor:
    """The one-hot of the largest score, exactly 0 and 1, with the gradient of ``soft``; all (rows, size)."""
    hard = torch.zeros_like(soft).scatter(-1, scores.argmax(dim=-1, keepdim=True), 1.0)  # (rows, size)
    return hard + (soft - soft.detach())
