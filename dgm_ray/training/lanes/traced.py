"""A step without Python: what it computes is noted once, and then done again without autograd, vmap or modules.

The operations are the same, so the numbers are the same, to the bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

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
        function = make() if self._function is None else self._function
        with torch.no_grad():
            return function(*tensors)


def trace(function: Function, tensors: Sequence[Tensor], *, compiled: bool = False) -> Function:
    """Return a function that does the same operations on tensors of the same shapes. The given one is called once."""
    module = make_fx(function)(*tensors)
    simplify(module.graph)
    module.graph.set_codegen(fx.graph.CodeGen())  # tensors come in and go out one after the other
    module.recompile()
    if not compiled:
        forward: Function = module.forward
        return forward
    graphs = (
        "reduce-overhead" if any(one.is_cuda for one in tensors) else None
    )  # CUDA graphs: not run here, without a GPU
    made: Function = torch.compile(module, dynamic=False, mode=graphs)
    return made


_ATEN = torch.ops.aten
_SAME = (_ATEN.detach.default, _ATEN.alias.default)
_PRODUCTS = (_ATEN.mul.Scalar, _ATEN.mul.Tensor)
_RESHAPES = (_ATEN.expand.default, _ATEN.view.default, _ATEN._unsafe_view.default)


def simplify(graph: fx.Graph) -> None:
    """Leave out what changes nothing, reshapes to the same shape and products with 1, and what nobody looks at.

    The rules of vmap and of autograd leave many of them; each costs as much as a small operation.
    """
    changed = {_root(one) for node in graph.nodes for one in _changed_by(node)}
    for node in list(graph.nodes):
        if node.op == "call_function" and _needless(node, changed):
            node.replace_all_uses_with(node.args[0])
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not _changed_by(node):
            graph.erase_node(node)


def _needless(node: fx.Node, changed: set[fx.Node]) -> bool:
    if node.target in _SAME:
        return True
    if node.target in _RESHAPES:
        return bool(_kind(node) == _kind(node.args[0]))
    # A product with 1 is a copy: it is needed if one of both is written to.
    one = node.target in _PRODUCTS and isinstance(node.args[1], int | float) and node.args[1] == 1
    copy = one and _kind(node) == _kind(node.args[0])
    return copy and _root(node.args[0]) not in changed and node not in changed


def _changed_by(node: fx.Node) -> list[Any]:
    """Return what a node writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    pairs = zip(schema.arguments, node.args, strict=False)
    return [given for one, given in pairs if one.alias_info is not None and one.alias_info.is_write]


def _root(node: Any) -> fx.Node:
    """Return what a view is a view of, or what was written to in place."""
    while node.op == "call_function" and _shares(node):
        node = node.args[0]
    made: fx.Node = node
    return made


def _shares(node: fx.Node) -> bool:
    """Tell whether a node's result has the memory of its first argument."""
    schema = getattr(node.target, "_schema", None)
    unsafe = node.target == _ATEN._unsafe_view.default
    return unsafe or (schema is not None and any(one.alias_info is not None for one in schema.returns))


def _kind(node: Any) -> Any:
    return (node.meta["val"].shape, node.meta["val"].dtype) if "val" in node.meta else node
