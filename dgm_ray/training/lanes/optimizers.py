"""Optimizers of stacked parameters: each row of a matrix is a lane, with its own rates and its own number of steps.

What they gather lies in matrices too; the lanes' own optimizers have views of it, so that a lane's checkpoint is that
of a training alone, and a lane that leaves goes on with what it has.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dgm_ray.nn import WGANOptimizer

_NUMBERS = ("lr", "betas", "eps", "weight_decay", "momentum", "dampening")  # what lanes may have otherwise


def options_of(optimizer: Any) -> dict[str, Any]:
    """Return what must be equal of the optimizers of two lanes."""
    inner = optimizer.optimizer if isinstance(optimizer, WGANOptimizer) else optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        return {}
    left = {name: value for name, value in inner.defaults.items() if name not in _NUMBERS}
    return left | {"kind": f"{type(optimizer).__name__} {type(inner).__name__}"}


class Part(NamedTuple):
    """A part of the columns of the matrix of parameters, and who has them.

    matrix: (rows, columns), a view: it is stepped in place. lanes: by their rows of the matrix: the lane's optimizer,
    and its parameters in the order of the columns, views of its row.
    """

    matrix: Tensor
    lanes: dict[int, tuple[Any, list[nn.Parameter]]]


Step = Callable[[Sequence[Tensor]], None]  # of the gradients of each part, (rows, columns)


def step_of(parts: Sequence[Part]) -> Step:
    """Return what steps the parts; what their optimizers have gathered is taken over."""
    optimizers = [optimizer for part in parts for optimizer, _ in part.lanes.values()]
    kinds = {type(one) for one in optimizers}
    if len(kinds) != 1 or kinds.isdisjoint(_KINDS) or any(len(one.param_groups) != 1 for one in optimizers):
        return _EachAlone(parts)
    kind = _KINDS[kinds.pop()]
    each = [kind(part) for part in parts]

    def step(gradients: Sequence[Tensor]) -> None:
        for one, gradient in zip(each, gradients, strict=True):
            one.step(gradient)

    return step


class Clamp:
    """What a WGAN's optimizer does after its step, each lane with its own bound.

    matrix: (rows, columns), a view. bounds: by rows.
    """

    def __init__(self, matrix: Tensor, bounds: Mapping[int, float]) -> None:
        self._matrix, self._bound = matrix, _column(bounds, matrix)

    def __call__(self) -> None:
        self._matrix.clamp_(-self._bound, self._bound)


class _EachAlone:
    """An optimizer that is not known here steps each lane alone."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        for part, gradient in zip(self._parts, gradients, strict=True):
            for row, (_, parameters) in part.lanes.items():
                for parameter, own in zip(parameters, _split(gradient[row], parameters), strict=True):
                    parameter.grad = own
        for optimizer, _ in self._parts[0].lanes.values():
            optimizer.step()
            optimizer.zero_grad()


class _Gathered:
    """What the lanes' optimizers have gathered of a part, as matrices like the one that is stepped."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def numbers(self, name: str, place: int | None = None) -> Tensor:
        """Return a hyper-parameter of each lane as a column in float64, (rows, 1)."""
        values = {row: one.param_groups[0][name] for row, (one, _) in self._part.lanes.items()}
        own = {row: value if place is None else value[place] for row, value in values.items()}
        return _column(own, self._part.matrix, torch.float64)

    def take(self, name: str) -> Tensor:
        """Return the matrix (rows, columns) of what is gathered as ``name``, zeros where nothing is yet."""
        whole = torch.zeros_like(self._part.matrix)
        for row, (optimizer, parameters) in self._part.lanes.items():
            for parameter, own in zip(parameters, _split(whole[row], parameters), strict=True):
                found = optimizer.state[parameter].get(name) if parameter in optimizer.state else None
                if found is not None:
                    own.copy_(found)
                optimizer.state[parameter][name] = own
        return whole

    def steps(self) -> Tensor:
        """Return how many steps each parameter of each lane has had, (rows, parameters), as its optimizer has them.

        They are equal in a row; alone, torch counts each for itself.
        """
        most = max(len(parameters) for _, parameters in self._part.lanes.values())
        steps = torch.zeros(len(self._part.matrix), most, device=self._part.matrix.device)
        for row, (optimizer, parameters) in self._part.lanes.items():
            for place, parameter in enumerate(parameters):
                if parameter in optimizer.state and "step" in optimizer.state[parameter]:
                    steps[row, place] = float(optimizer.state[parameter]["step"])
                optimizer.state[parameter]["step"] = steps[row, place]
        return steps

    @property
    def begun(self) -> Tensor:
        """Whether each lane has a momentum, (rows, 1)."""
        begun = {
            row: float(any(_has_momentum(optimizer, one) for one in parameters))
            for row, (optimizer, parameters) in self._part.lanes.items()
        }
        return _column(begun, self._part.matrix) != 0


class StackedAdam:
    """torch.optim.Adam of each lane (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

    def __init__(self, part: Part) -> None:
        gathered, self._matrix = _Gathered(part), part.matrix
        defaults = next(iter(part.lanes.values()))[0].defaults
        self._steps = gathered.steps()
        self._mean, self._square = gathered.take("exp_avg"), gathered.take("exp_avg_sq")
        self._most = gathered.take("max_exp_avg_sq") if defaults["amsgrad"] else None
        self._lr, decay = gathered.numbers("lr"), gathered.numbers("weight_decay")
        self._betas = gathered.numbers("betas", 0), gathered.numbers("betas", 1)
        self._shares = [(1 - beta).to(self._matrix.dtype) for beta in self._betas]
        self._eps = gathered.numbers("eps").to(self._matrix.dtype)
        self._decay = decay.to(self._matrix.dtype) if decay.any() else None

    def step(self, gradient: Tensor) -> None:
        if self._decay is not None:
            gradient = torch.addcmul(gradient, self._matrix, self._decay)
        self._steps += 1
        self._mean.lerp_(gradient, self._shares[0])
        self._square.lerp_(gradient.square(), self._shares[1])
        square = self._square
        if self._most is not None:
            square = torch.maximum(self._most, square, out=self._most)
        # (rows, 1), in float64: 1 - 0.999 is small.
        corrections = [1 - beta ** self._steps[:, :1] for beta in self._betas]
        size = (-self._lr / corrections[0]).to(gradient.dtype)
        below = square.sqrt().div_(corrections[1].sqrt().to(gradient.dtype)).add_(self._eps)
        self._matrix.addcdiv_(self._mean * size, below)


class StackedSGD:
    """torch.optim.SGD of each lane, with momentum as torch has it."""

    def __init__(self, part: Part) -> None:
        gathered, self._matrix = _Gathered(part), part.matrix
        names = ("lr", "momentum", "dampening", "weight_decay")
        lr, momentum, dampening, decay = (gathered.numbers(name).to(part.matrix.dtype) for name in names)
        self._lr, self._decay, self._nesterov = lr, decay, next(iter(part.lanes.values()))[0].defaults["nesterov"]
        self._momentum = momentum if momentum.any() else None
        self._share = 1 - dampening
        if self._momentum is not None:
            self._begun = gathered.begun
            self._buffer = gathered.take("momentum_buffer")

    def step(self, gradient: Tensor) -> None:
        gradient = torch.addcmul(gradient, self._matrix, self._decay)
        if self._momentum is not None:
            later = torch.addcmul(self._buffer * self._momentum, gradient, self._share)
            self._buffer.copy_(torch.where(self._begun, later, gradient))  # the first gradient is not damped
            self._begun.fill_(True)
            moving = gradient + self._momentum * self._buffer if self._nesterov else self._buffer
            gradient = torch.where(self._momentum != 0, moving, gradient)
        self._matrix.sub_(self._lr * gradient)


_KINDS: dict[type, Any] = {torch.optim.Adam: StackedAdam, torch.optim.SGD: StackedSGD}


def _has_momentum(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    return parameter in optimizer.state and optimizer.state[parameter].get("momentum_buffer") is not None


def _split(row: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return a row's part of each parameter, in its shape; views."""
    ends = list(accumulate(parameter.numel() for parameter in parameters))
    starts = [0, *ends[:-1]]
    return [row[start:end].view(one.shape) for start, end, one in zip(starts, ends, parameters, strict=True)]


def _column(values: Mapping[int, float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a number of each lane as a column (rows, 1); rows without a lane have that of another."""
    first = next(iter(values.values()))
    whole = [values[row] if row in values else first for row in range(len(like))]
    return torch.tensor(whole, dtype=dtype or like.dtype, device=like.device)[:, None]
