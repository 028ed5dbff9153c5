"""What trainings must have in common to be lanes of one pack: everything but the values of weights and of knobs.

A knob is a buffer that is one number and is no state (``persistent=False``): loss weights, dropout rates, temperatures.
What an optimizer has as numbers is one as well. All else, from the sizes of layers to a leaky ReLU's slope, is shape.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dgm_ray.models import Architecture, Phase, parameters_of
from dgm_ray.nn import WGANOptimizer
from dgm_ray.training.lanes.optimizers import options_of

_OWN = frozenset(vars(nn.Module()))  # what every module has


@dataclass(frozen=True)
class Shape:
    """key: two trainings with the same key can be lanes of one pack. reason: why this one has to train alone, or ""."""

    key: str
    reason: str = ""


class Whole(nn.Module):
    """All that a training computes with: the model, and the layer that fills missing cells, if it is one.

    It is called with a function of nothing, so that torch can put other tensors in while the function runs.
    """

    def __init__(self, model: nn.Module, fill: Any) -> None:
        super().__init__()
        self.model = model
        self.fill = fill if isinstance(fill, nn.Module) else None

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def key_of(architecture: Architecture, batch_size: int, *more: Any) -> str:
    """Return what must be equal of two trainings' architectures (on the CPU), batch sizes and of what else is given."""
    whole = Whole(architecture.model, architecture.fill)
    names = {id(parameter): name for name, parameter in whole.named_parameters()}
    modules = [(name, _module(one)) for name, one in whole.named_modules()]
    tensors = [(name, tuple(one.shape), str(one.dtype), one.requires_grad) for name, one in whole.named_parameters()]
    free = knobs_of(whole) | state_of(whole)
    buffers = [(name, _buffer(one, free=name in free)) for name, one in whole.named_buffers()]
    phases = [_phase(phase, names) for phase in architecture.phases]
    text = repr((modules, tensors, buffers, phases, batch_size, [_plain(one) for one in more]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kind_of(architecture: Architecture) -> str:
    """Return what decides whether lanes can be: of which modules and optimizers it is, whatever their sizes."""
    modules = {_name(type(one)) for one in Whole(architecture.model, architecture.fill).modules()}
    steps = [(phase.name, phase.takes_data, repr(options_of(phase.optimizer))) for phase in architecture.phases]
    return repr((_name(type(architecture.model)), sorted(modules), steps))


def knobs_of(module: nn.Module) -> set[str]:
    """Return the names of the buffers that are knobs."""
    persistent = set(module.state_dict(keep_vars=True))
    return {
        name
        for name, one in module.named_buffers()
        if one.ndim == 0 and one.is_floating_point() and name not in persistent
    }


def state_of(module: nn.Module) -> set[str]:
    """Return the names of the buffers that training changes, such as running statistics."""
    persistent = set(module.state_dict(keep_vars=True))
    return {name for name, _ in module.named_buffers() if name in persistent}


def _buffer(one: Tensor, *, free: bool = False) -> Any:
    """Return what is compared of a buffer. free: lanes may have other values."""
    kind = (tuple(one.shape), str(one.dtype))
    return kind if free else (*kind, hashlib.sha256(one.detach().cpu().numpy().tobytes()).hexdigest())


def _phase(phase: Phase, names: Mapping[int, str]) -> Any:
    return phase.name, phase.steps, phase.takes_data, _optimizer(phase.optimizer, names)


def _optimizer(optimizer: Any, names: Mapping[int, str]) -> Any:
    stepped = [names[id(one)] if id(one) in names else "another's" for one in parameters_of(optimizer)]
    return type(optimizer).__name__, len(optimizer.param_groups), stepped, options_of(optimizer)


def _module(module: nn.Module) -> Any:
    own = {name: value for name, value in vars(module).items() if name not in _OWN}
    return _name(type(module)), sorted((name, _plain(value)) for name, value in own.items())


def _plain(value: Any) -> Any:
    """Return a value as what can be compared as text; an object that cannot be looked into equals itself alone."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    if isinstance(value, type) or callable(getattr(value, "__func__", None)):
        return _name(getattr(value, "__func__", value))
    if isinstance(value, torch.optim.Optimizer | WGANOptimizer):
        return "an optimizer"  # compared where a phase has it
    if isinstance(value, Tensor):
        return _buffer(value)
    if isinstance(value, nn.Module):
        return _name(type(value))  # compared where the model has it
    if isinstance(value, Mapping):
        return [(str(key), _plain(one)) for key, one in value.items()]
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    if is_dataclass(value):
        return _name(type(value)), [(one.name, _plain(getattr(value, one.name))) for one in fields(value)]
    if isinstance(value, functools.partial):
        return _plain(value.func), [_plain(one) for one in value.args], _plain(value.keywords)
    return _name(value) if hasattr(value, "__qualname__") else f"{_name(type(value))} {id(value)}"


def _name(one: Any) -> str:
    return f"{one.__module__}.{one.__qualname__}"
