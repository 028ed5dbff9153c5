"""What a model is: an ``nn.Module`` that owns its components and lists the phases of its training.

Models know nothing of files, Ray, MLflow, epochs or devices. What one can do beside training, Protocols say.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dgm_ray.nn import Optimizer


class Batch(NamedTuple):
    """Rows that a loss sees. A phase that takes no data gets a batch of ``batch_size`` rows without columns."""

    features: Tensor  # (rows, num_features), missing cells filled by the imputation layer
    missing_mask: Tensor | None = None  # (rows, num_features), 1 where missing
    labels: Tensor | None = None  # (rows,), class numbers; None if the architecture is not conditional

    @property
    def rows(self) -> int:
        return self.features.shape[0]

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def condition(self) -> tuple[Tensor, ...]:
        """What a conditional network takes after its first input; nothing for another."""
        return () if self.labels is None else (self.labels,)


class Probed(NamedTuple):
    """What a few steps tell of a training.

    seconds: of an epoch. steps: of an epoch. optimizer: bytes of the optimizers' states. epochs: after how many another
    would change nothing; None if that was not seen.
    """

    seconds: float
    steps: int
    optimizer: int = 0
    epochs: int | None = None


class Phase(NamedTuple):
    """One kind of step: which loss goes down, which optimizer steps, how often per cycle.

    A loss is a pure function of the model's parameters and buffers, the batch, and torch's random generator.
    """

    name: str  # its mean loss is logged as ``{name}_loss``
    optimizer: Optimizer
    loss: Callable[[Batch], Tensor]  # -> ()
    steps: int = 1
    takes_data: bool = True  # False: the phase draws noise only


class Model(Protocol):
    """What can be trained: an ``nn.Module`` with phases."""

    def phases(self) -> list[Phase]: ...


@runtime_checkable
class Samples(Protocol):
    """A model that makes new rows. ``condition``: the labels (rows,) if the model is conditional, else nothing."""

    def sample(self, rows: int, device: torch.device, *condition: Tensor) -> Tensor:
        """Return (rows, num_features) new rows, scaled as the training data."""


@runtime_checkable
class Encodes(Protocol):
    """A model that maps rows to codes."""

    def encode(self, features: Tensor, *condition: Tensor) -> Tensor:
        """Return the (rows, code_size) codes of (rows, num_features) features."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that makes rows of rows."""

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        """Return (rows, num_features), probabilities for categories; ``features`` are filled where the mask is 1."""


@runtime_checkable
class Imputes(Protocol):
    """A model that completes rows."""

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        """Return (rows, num_features) proposals for all cells; ``features`` are filled where the mask is 1."""


@runtime_checkable
class Draws(Protocol):
    """A model that knows several ways to complete rows."""

    def draw(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        """Return one of several proposals for all cells, (rows, num_features); torch's random generator says which."""


def draw_labels(rows: int, num_classes: int, device: torch.device) -> Tensor:
    """Return (rows,) class numbers, each class as likely, as float32."""
    return torch.randint(num_classes, (rows,), device=device).to(torch.float32)


def draw_noise(rows: int, size: int, device: torch.device) -> Tensor:
    """Return standard normal noise of shape (rows, size) from torch's random generator."""
    return torch.randn(rows, size, device=device)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return what an optimizer steps, in its own order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
