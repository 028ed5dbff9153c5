"""The random numbers of a step: which it draws, and the same for every lane from a generator of its own.

A lane gets the numbers that it would get alone, in the same order, so that a step of several can be compared with the
steps of each, and what a lane computes does not depend on its neighbours.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dgm_ray.training.draws import IN_PLACE


class Draw(NamedTuple):
    """Random numbers that a function asks for. fill: writes them into a tensor, with a generator."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    fill: Callable[[Tensor, torch.Generator], Any]


class Recording(TorchFunctionMode):
    """Inside, notes every draw, and lets it happen."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if fill := _fill_of(function, args, kwargs or {}):
            self.draws.append(Draw(tuple(found.shape), found.dtype, found.device, fill))
        return found


class Replaying(TorchFunctionMode):
    """Inside, the draws are those that are given, in their order."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self._drawn = iter(drawn)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _fill_of(function, args, kwargs or {}) is None:
            return function(*args, **(kwargs or {}))
        drawn = next(self._drawn)
        if function is F.dropout:
            return args[0] * drawn
        return args[0].copy_(drawn) if function in IN_PLACE else drawn


class Random:
    """torch's random generators of one lane, by the kind of device, as ``random_states`` gives their states."""

    def __init__(self, states: Mapping[str, Any]) -> None:
        self._by = {"cpu": torch.Generator()}
        if torch.cuda.is_initialized():
            self._by["cuda"] = torch.Generator("cuda")
        self.set(states)

    def set(self, states: Mapping[str, Any]) -> None:
        self._others = dict(states)
        self._by["cpu"].set_state(states["cpu"])
        if "cuda" in self._by and "cuda" in states:
            self._by["cuda"].set_state(states["cuda"][torch.cuda.current_device()])

    @classmethod
    def seeded(cls, seed: int) -> "Random":
        """Return generators as ``torch.manual_seed`` leaves them."""
        states: dict[str, Any] = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        if torch.cuda.is_initialized():
            state = torch.Generator("cuda").manual_seed(seed).get_state()
            states["cuda"] = [state] * torch.cuda.device_count()
        return cls(states)

    def of(self, device: torch.device) -> torch.Generator:
        return self._by[device.type]

    def states(self) -> dict[str, Any]:
        states = self._others | {"cpu": self._by["cpu"].get_state()}
        if "cuda" in self._by:
            states["cuda"] = list(states["cuda"])
            states["cuda"][torch.cuda.current_device()] = self._by["cuda"].get_state()
        return states


class Noise:
    """The draws of a step of all lanes: ``tensors``, (rows of the stack, *shape) each, written anew for every step."""

    def __init__(self, draws: Sequence[Draw], rows: int) -> None:
        self.tensors = [torch.zeros(rows, *draw.shape, dtype=draw.dtype, device=draw.device) for draw in draws]
        self._fills = [
            [(draw.fill, tensor[row], draw.device) for draw, tensor in zip(draws, self.tensors, strict=True)]
            for row in range(rows)
        ]

    def draw(self, lanes: Mapping[int, Random]) -> None:
        """Draw anew. lanes: by their rows; what other rows have stays."""
        for row, random in lanes.items():
            for fill, own, device in self._fills[row]:
                fill(own, random.of(device))


def _uniform(row: Tensor, generator: torch.Generator) -> None:
    row.uniform_(generator=generator)


def _normal(row: Tensor, generator: torch.Generator) -> None:
    row.normal_(generator=generator)


_MADE = {torch.rand: _uniform, torch.rand_like: _uniform, torch.randn: _normal, torch.randn_like: _normal}
_INTEGERS = (torch.randint, torch.randint_like)


def _fill_of(function: Any, args: Any, kwargs: Any) -> Callable[[Tensor, torch.Generator], Any] | None:
    """Return what draws the numbers of a call into a tensor; None of a function that draws none, or in another way.

    torch makes the numbers of ``rand`` and its like with the methods that are called here, so they are the same.
    """
    if function in _MADE:
        return _MADE[function]
    if function in _INTEGERS:
        ends = [one for one in (args[1:] if function is torch.randint_like else args) if isinstance(one, int)]
        ends += [kwargs["high"]] if "high" in kwargs else []
        low, high = ends if len(ends) == 2 else (kwargs["low"] if "low" in kwargs else 0, *ends)
        return partial(_random, low=low, high=high)
    if function in IN_PLACE and not any(isinstance(one, Tensor) for one in (*args[1:], *kwargs.values())):
        more = {name: value for name, value in kwargs.items() if name != "generator"}
        return lambda row, generator: function(row, *args[1:], generator=generator, **more)
    if function is F.dropout:
        share, training = (*args[1:], *_rest(("p", "training"), len(args) - 1, kwargs, (0.5, True)))[:2]
        return partial(_kept, share=share) if training and 0 < share < 1 else None
    return None


def _rest(names: Sequence[str], given: int, kwargs: Any, otherwise: Sequence[Any]) -> list[Any]:
    """Return the arguments that were not given by place."""
    pairs = list(zip(names, otherwise, strict=True))[given:]
    return [kwargs[name] if name in kwargs else value for name, value in pairs]


def _random(row: Tensor, generator: torch.Generator, *, low: int, high: int) -> None:
    row.random_(low, high, generator=generator)


def _kept(row: Tensor, generator: torch.Generator, *, share: float) -> None:
    """Write what dropout multiplies by."""
    row.bernoulli_(1 - share, generator=generator).div_(1 - share)
