"""Imputation by a generator: search the noise whose output agrees with the observed cells of each row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dgm_ray.nn import MSE, expectations
from dgm_ray.nn.together import together
from dgm_ray.registry import NonNegativeFloat, PositiveFloat, PositiveInt, register

_SQUARES = MSE()


@register
class NoiseSearch(nn.Module):
    """Adam on the noise alone, the generator fixed in evaluation mode.

    learning_rate: step size of Adam. max_iterations: steps at most. tolerance: stop when the mean squared error of the
    observed cells falls below it; 0 never stops early and never waits for the device. restarts: searches for each row,
    from noise drawn anew; what they find is averaged.

    Source: Camino et al. 2019, arXiv 1902.10666 ("backpropagation" imputation of the noise).
    Differs from the paper: it has one search (restarts 1), which ends in one of many rows that agree with the observed
    cells. The mean of several is nearer to the expected row; its squared error is at most the mean of theirs. After few
    iterations they are still near to where they started, and so their mean is near to that of all generated rows.
    """

    learning_rate: Tensor

    def __init__(
        self,
        learning_rate: PositiveFloat = 0.1,
        max_iterations: PositiveInt = 50,
        tolerance: NonNegativeFloat = 1e-5,
        restarts: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("learning_rate", torch.tensor(float(learning_rate)), persistent=False)
        self.max_iterations, self.tolerance, self.restarts = max_iterations, tolerance, restarts

    def forward(
        self,
        generator: nn.Module,
        noise: Tensor,
        features: Tensor,
        mask: Tensor,
        *condition: Tensor,
        loss: nn.Module = _SQUARES,
        report: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Return (rows, num_features) generated from the last noise of the search, the mean over its restarts.

        generator: noise (rows, noise_size), condition -> features; its categorical outputs are probabilities while
        searching. noise: where the first search starts. mask: 1 where a cell is missing; what stands there, NaN too,
        has no influence. loss: what compares generated with observed cells, a mean over cells. report: called in each
        iteration with its number, the loss and what is generated, (restarts * rows, num_features).
        """
        rows = len(noise)
        noise = torch.cat([noise, *(torch.randn_like(noise) for _ in range(self.restarts - 1))])
        features, mask = features.repeat(self.restarts, 1), mask.repeat(self.restarts, 1)
        condition = tuple(labels.repeat(self.restarts) for labels in condition)  # (restarts * rows,)
        keep = (mask == 0).to(noise.dtype)
        cells = keep.sum().clamp(min=1)

        def error_of(noise: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            generated = generator(noise, *condition)
            error = loss(generated, features, keep)
            # Differs from the original: the gradient of the sum, not of the mean over all cells of all rows, so that
            # Adam's epsilon does not slow the search down as the table grows. The argument is the same.
            return error * cells, (error, generated)

        found = torch.zeros((), dtype=torch.bool, device=noise.device)  # whether the error is below the tolerance
        mean, square = torch.zeros_like(noise), torch.zeros_like(noise)
        with torch.enable_grad(), expectations(generator):
            for iteration in range(1, self.max_iterations + 1):
                gradient, error, generated = _slope(error_of, noise)
                if report:
                    report(iteration, error.detach(), generated.detach())
                if self.tolerance and together():
                    found = found | (error < self.tolerance)
                elif self.tolerance and error < self.tolerance:
                    break
                mean = torch.lerp(mean, gradient, 1 - _BETAS[0])
                square = torch.addcmul(square * _BETAS[1], gradient, gradient, value=1 - _BETAS[1])
                first, second = (1 - beta**iteration for beta in _BETAS)
                below = (square.sqrt() / second**0.5) + _EPS
                noise = torch.where(found, noise, noise - self.learning_rate * mean / (below * first))
            made: Tensor = generator(noise, *condition)
        return made.detach().reshape(self.restarts, rows, made.shape[1]).mean(dim=0)


_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's


def _slope(
    function: Callable[[Tensor], tuple[Tensor, tuple[Tensor, Tensor]]], inputs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of a function's first result, and the two behind it."""
    if together():
        gradient, (one, other) = torch.func.grad(function, has_aux=True)(inputs)
        return gradient, one, other
    inputs = inputs.detach().requires_grad_()
    value, (one, other) = function(inputs)
    (gradient,) = torch.autograd.grad(value, inputs)
    return gradient, one, other
