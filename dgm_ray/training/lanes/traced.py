"""A step without Python: what it computes is noted once, and then done again without autograd, vmap or modules.

The operations are the same, so the numbers are the same, to the bit.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

PAYS = 100  # calls after which noting a function has paid

Function = Callable[..., list[Tensor]]


class Traced:
    """A function of tensors of the same shapes each time. compiled: by torch.compile, at the first call."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled, self._calls = compiled, 0
        self._function: Function | None = None

    def __call__(self, make: Callable[[], Function], tensors: Sequence[Tensor], changed: range) -> list[Tensor]:
        """Return what the function that ``make`` returns gives. changed: which tensors it changes in place."""
        self._calls += 1
        if self._function is None and (self._compiled or self._calls > PAYS):
            copies = [one.clone() if place in changed else one for place, one in enumerate(tensors)]
            self._function = trace(make(), copies, compiled=self._compiled)
        with torch.no_grad():
            return (self._function or make())(*tensors)


def trace(function: Function, tensors: Sequence[Tensor], *, compiled: bool = False) -> Function:
    """Return a function that does the same operations on tensors of the same shapes. The given one is called once."""
    module = make_fx(function)(*tensors)
    module.graph.set_codegen(fx.graph.CodeGen())  # tensors come in and go out one after the other
    module.recompile()
    made: Function = torch.compile(module, dynamic=False) if compiled else module.forward
    return made
