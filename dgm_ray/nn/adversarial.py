"""Losses of two players. The discriminator is any function from rows (rows, columns) to scores (rows,).

``condition``: nothing, or the (rows,) labels that a conditional discriminator takes as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dgm_ray.nn.entropies import FLOOR, binary_cross_entropies
from dgm_ray.registry import NonNegativeFloat, register

Discriminator = Callable[..., Tensor]
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@register
class GANDiscriminatorLoss(nn.Module):
    """BCE(D(real), positive) + BCE(D(fake), 0), both means over the rows; D gives probabilities. Returns ().

    smooth_positive_labels: draw positive from U[0.9, 1) for each row, instead of 1.
    Source: Goodfellow et al. 2014 (arXiv:1406.2661); smoothing: Salimans et al. 2016 (arXiv:1606.03498, section 3.4).
    """

    def __init__(self, smooth_positive_labels: bool = False) -> None:
        super().__init__()
        self.smooth_positive_labels = smooth_positive_labels

    def forward(self, discriminator: Discriminator, real: Tensor, fake: Tensor, *condition: Tensor) -> Tensor:
        on_real, on_fake = discriminator(real, *condition), discriminator(fake, *condition)  # (rows,)
        return passing(on_real, self.smooth_positive_labels) + passing(1 - on_fake, smooth=False)


@register
class GANGeneratorLoss(nn.Module):
    """BCE(D(fake), positive), a mean over the rows (the non-saturating loss). Returns (). See GANDiscriminatorLoss."""

    def __init__(self, smooth_positive_labels: bool = False) -> None:
        super().__init__()
        self.smooth_positive_labels = smooth_positive_labels

    def forward(self, discriminator: Discriminator, fake: Tensor, *condition: Tensor) -> Tensor:
        return passing(discriminator(fake, *condition), self.smooth_positive_labels)


@register
class WGANCriticLoss(nn.Module):
    """mean D(fake) - mean D(real); D gives unbounded scores. Returns () (the original: (1,)).

    Source: Arjovsky et al. 2017 (arXiv:1701.07875, algorithm 1).
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, discriminator: Discriminator, real: Tensor, fake: Tensor, *condition: Tensor) -> Tensor:
        return discriminator(fake, *condition).mean() - discriminator(real, *condition).mean()


@register
class WGANGeneratorLoss(nn.Module):
    """-mean D(fake). Returns () (the original: (1,)). Source: as WGANCriticLoss."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, discriminator: Discriminator, fake: Tensor, *condition: Tensor) -> Tensor:
        return -discriminator(fake, *condition).mean()


@register
class WGANCriticLossWithGradientPenalty(nn.Module):
    """mean D(fake) - mean D(real) + weight * mean (|grad D(mix)| - 1)^2, with random mixes of real and fake rows.

    weight: >= 0. Differs from the paper: 1 by default, as in the original, where the paper has 10.
    Returns (). Source: Gulrajani et al. 2017 (arXiv:1704.00028, algorithm 1).
    """

    weight: Tensor

    def __init__(self, weight: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(float(weight)), persistent=False)

    def forward(self, discriminator: Discriminator, real: Tensor, fake: Tensor, *condition: Tensor) -> Tensor:
        loss = discriminator(fake, *condition).mean() - discriminator(real, *condition).mean()  # ()
        share = torch.rand(real.shape[0], 1, dtype=real.dtype, device=real.device)  # (rows, 1)
        return loss + self.weight * gradient_penalty(discriminator, share * real + (1 - share) * fake, *condition)


def gradient_penalty(discriminator: Discriminator, rows: Tensor, *condition: Tensor) -> Tensor:
    """Return the mean of (|gradient of D at each row| - 1)^2, of shape (); differentiable in D's parameters.

    A module's batch normalisation uses the statistics of these rows, but does not remember them.
    """

    def total(inputs: Tensor) -> Tensor:
        scores: Tensor
        if isinstance(discriminator, nn.Module):
            named = discriminator.named_buffers()
            # torch.func.grad refuses to update a tensor from outside in place, so the update falls on copies.
            copies = {name: buffer.clone() for name, buffer in named if name.rpartition(".")[2] in _RUNNING}
            arguments = (inputs, *condition)
            scores = functional_call(discriminator, copies, arguments) if copies else discriminator(*arguments)
        else:
            scores = discriminator(inputs, *condition)  # (rows,)
        return torch.sum(scores)

    gradients: Tensor = torch.func.grad(total)(rows)  # (rows, columns)
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)  # (rows,)
    return (norms - 1).square().mean()


def passing(probabilities: Tensor, smooth: bool) -> Tensor:
    """Return the mean binary cross-entropy, of shape (), of (rows,) probabilities of what should pass for real.

    smooth: against labels drawn from U[0.9, 1) for each row, instead of 1.
    """
    if not smooth:  # of the two terms one is left
        return -(probabilities + FLOOR).log().mean()
    return binary_cross_entropies(probabilities, smooth_labels(probabilities)).mean()


def smooth_labels(probabilities: Tensor) -> Tensor:
    """Return a draw from U[0.9, 1) for each of the probabilities."""
    return 0.9 + 0.1 * torch.rand_like(probabilities)
