"""Cross-entropies of probabilities, cell by cell.

Differs from torch's ``binary_cross_entropy``, which raises an error (on a GPU: ends the process) where a prediction is
NaN: here the NaN goes on into the loss, so that one diverged model among many trained at once ends nobody else's step.
"""

import torch
from torch import Tensor

FLOOR = 1e-18  # added under the logarithm: a loss is at most 41.4; the square of 1 / FLOOR is still a float32


def binary_cross_entropies(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return -t log p - (1 - t) log(1 - p) of probabilities and targets in [0, 1], all of one shape."""
    return -torch.lerp((1 - probabilities + FLOOR).log(), (probabilities + FLOOR).log(), targets)


def cross_entropies(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return -t log p of probabilities and targets in [0, 1]; its sum over the classes is the cross-entropy."""
    return -targets * (probabilities + FLOOR).log()
