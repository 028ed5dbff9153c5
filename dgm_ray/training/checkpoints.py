"""Checkpoints: written whole or not at all, read without unpickling anything but tensors and plain data.

The keys are the original library's (``architecture``, ``epoch``, ``best_architecture``, ``best_epoch``,
``best_metric``), with what it lacked: random states, the configuration, versions.
"""

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgm_ray.errors import TrainingError
from dgm_ray.models import parameters_of
from dgm_ray.nn import Optimizer
from dgm_ray.training.files import atomic


def copy_states(components: Mapping[str, Any]) -> dict[str, Any]:
    """Return a COPY of every component's state dict: training goes on without changing it."""
    return {name: copy.deepcopy(component.state_dict()) for name, component in components.items()}


def load_states(components: Mapping[str, Any], states: Mapping[str, Any], place: str) -> None:
    """Load a state dict into every component. Raises TrainingError for one that is missing or does not fit."""
    for name, component in components.items():
        if name not in states:
            raise TrainingError(f"{place}: {name}", "the checkpoint has no such component")
        try:
            # A copy, because an optimizer keeps the tensors that it is given.
            state = copy.deepcopy(states[name])
            if isinstance(component, nn.Module):
                component.load_state_dict(state)
            else:
                _load_optimizer(component, state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = " ".join(str(error).split())
            raise TrainingError(f"{place}: {name}", f"the checkpoint does not fit: {problem}") from None


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimizer has gathered, not its hyper-parameters: the configuration's count (defect 38)."""
    given = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, given, strict=True):
        group.update(own)
    gathered = list(state["state"].items())
    parameters = parameters_of(optimizer)
    for index, values in gathered:
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameters[index].shape:
                raise ValueError(f"{name} of parameter {index} is {tuple(value.shape)}")


def modules_of(components: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Return the components that are modules: all that inference needs."""
    return {name: component for name, component in components.items() if isinstance(component, nn.Module)}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: if this is interrupted, the one before stays whole."""
    with atomic(path) as temporary:
        torch.save(dict(state), temporary)


def packed(state: Mapping[str, Any]) -> bytes:
    """Return a checkpoint's state as bytes, for another process."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the state that ``packed`` packed, in CPU memory."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to CPU memory. Raises TrainingError if it is missing, damaged, or holds other objects."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(str(path), "there is no such checkpoint") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        rule = f"is not a checkpoint that can be read safely ({type(error).__name__})"
        raise TrainingError(str(path), rule) from None
    kinds = {"architecture": dict, "epoch": int}
    if not isinstance(state, dict) or any(key not in state or not isinstance(state[key], kinds[key]) for key in kinds):
        raise TrainingError(str(path), "is not a checkpoint of this library or of deep_generative_models")
    return state
