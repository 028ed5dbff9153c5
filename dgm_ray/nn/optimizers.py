"""Optimizers over the components that a configuration names: ``"parameters": ["generator", "autoencoder"]``."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import Fraction, NonNegativeFloat, PositiveFloat, Probability, Shared, register


@runtime_checkable
class Optimizer(Protocol):
    """What a training loop needs of an optimizer: torch's have it, and ``WGANOptimizer``."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@register
def Adam(
    parameters: Shared[list[nn.Module]],
    lr: PositiveFloat = 1e-3,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) over all parameters of the modules; ranges as annotated.

    weight_decay: of the L2 kind, added to the gradient. Raises ConfigurationError if there is nothing to train.
    """
    trained = trained_parameters(parameters)
    fused = can_fuse(trained)
    return torch.optim.Adam(
        trained, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused
    )


@register
def SGD(
    parameters: Shared[list[nn.Module]],
    lr: PositiveFloat = 1e-3,
    momentum: NonNegativeFloat = 0.0,
    dampening: Probability = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent over all parameters of the modules; ranges as annotated.

    dampening: the share of the gradient that does not enter the momentum.
    Raises ConfigurationError if there is nothing to train, or if nesterov comes without momentum or with dampening.
    """
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ConfigurationError("nesterov", "needs a momentum above 0 and no dampening", nesterov)
    trained = trained_parameters(parameters)
    return torch.optim.SGD(
        trained,
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        fused=can_fuse(trained),
    )


@register
class WGANOptimizer:
    """Steps another optimizer, then clamps each parameter of a critic into [-discriminator_clamp, discriminator_clamp].

    Its state is the other optimizer's. Source: WGAN (Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1, line 7).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        discriminator: Shared[nn.Module],
        discriminator_clamp: PositiveFloat,
    ) -> None:
        self.optimizer = optimizer
        self.discriminator_clamp = discriminator_clamp
        self.clamped = trained_parameters([discriminator], "discriminator")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        self.optimizer.step()
        clamped: list[torch.Tensor] = [*self.clamped]
        torch._foreach_clamp_min_(clamped, -self.discriminator_clamp)
        torch._foreach_clamp_max_(clamped, self.discriminator_clamp)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)


def trained_parameters(modules: list[nn.Module], place: str = "parameters") -> list[nn.Parameter]:
    """Return the parameters of the modules, in order, each once. Raises ConfigurationError at ``place`` if none."""
    found = list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
    if not found:
        raise ConfigurationError(place, "none of these components has anything to train")
    return found


def can_fuse(parameters: list[nn.Parameter]) -> bool:
    """Tell whether torch has one kernel for a step over all of these (on a CPU and on CUDA, for float parameters)."""
    return all(one.device.type in ("cpu", "cuda") and one.is_floating_point() for one in parameters)
