"""An architecture node, ``{"arguments": {...}, "components": {name: {"factory", "arguments"}}}``, becomes a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.models.phase import Model
from dgm_ray.nn import ConditionalLayer, Initialization, initialize
from dgm_ray.registry import FACTORIES, Scope, call, check_keys, parameters


@dataclass(frozen=True)
class Architecture:
    """A model, its components by name, and what the file gives but the model does not use.

    fill: what stands in a missing cell when the model first sees it, called with (features, missing_mask).
    """

    model: nn.Module
    phases: list[Any]
    components: dict[str, Any]
    unused: list[str] = field(default_factory=list)
    conditional: bool = False  # its networks take labels
    fill: Callable[[Tensor, Tensor], Tensor] | None = None


def build_architecture(
    model: Callable[..., Model],
    node: Any,
    shared: Mapping[str, Any],
    arguments: Mapping[str, Any],
    path: str = "architecture",
    also: Sequence[str] = (),
) -> Architecture:
    """Build the components that ``model`` asks for, initialise them, and build the model.

    shared: ``metadata`` and what else signatures may ask for. arguments: the model's own, such as its steps.
    also: components to build as well if they are there, for who judges the model.
    Raises ConfigurationError for a missing component, a cycle, or an argument that no signature knows.
    """
    scope = scope_of(node, shared, path)
    made = call(model, arguments, scope, path)
    for name in also:
        if name in node["components"]:
            scope.get(name, nn.Module, f"{path}.components")
    unused = [f"{path}.arguments.{key}" for key in node["arguments"] if key not in scope.used]
    unused += [f"{path}.components.{name}" for name in node["components"] if name not in scope.used]
    components = {name: scope.built[name] for name in node["components"] if name in scope.built}
    conditional = any(isinstance(module, ConditionalLayer) for module in made.modules())
    return Architecture(made, made.phases(), components, unused, conditional)


def build_components(
    node: Any, shared: Mapping[str, Any], names: Sequence[str] | None, path: str = "architecture"
) -> dict[str, Any]:
    """Build the components ``names`` alone (None: all), with what they need, for who does not train (defect 39)."""
    scope = scope_of(node, shared, path)
    wanted = list(node["components"]) if names is None else names
    return {name: scope.get(name, Any, f"{path}.components") for name in wanted}


def scope_of(node: Any, shared: Mapping[str, Any], path: str) -> Scope:
    """Return the scope of an architecture's components, whose weights are drawn as ``initialization`` says.

    initialization: xavier (the default) or he, of all linear layers; see ``initialize``.
    Raises ConfigurationError for a node that is none.
    """
    parts = ("arguments", "components")
    check_keys(node, parts, path, "an architecture", needed=parts)
    for key in parts:
        if not isinstance(node[key], Mapping):
            raise ConfigurationError(f"{path}.{key}", "should be a mapping", node[key])
    given, known = node["arguments"], shareable() | {"initialization"}
    for key in given:
        if key not in known or key in shared:
            raise ConfigurationError(f"{path}.arguments.{key}", f"no component takes it{nearest(key, known)}")

    def finish(component: Any) -> Any:
        if isinstance(component, nn.Module):
            component.apply(partial(initialize, initialization=scope.get("initialization", Initialization, path)))
        return component

    scope = Scope(
        {"initialization": "xavier", **shared, **given},
        node["components"],
        places={key: f"{path}.arguments.{key}" for key in given},
        path=f"{path}.components",
        finish=finish,
    )
    return scope


def shareable() -> set[str]:
    """Return every name that a registered factory may ask the scope for."""
    return {name for _, entry in FACTORIES.items() for name, parameter in parameters(entry).items() if parameter.shared}


def count_parameters(architecture: Architecture) -> int:
    """Return how many scalars the model's components learn."""
    return sum(parameter.numel() for parameter in architecture.model.parameters() if parameter.requires_grad)
