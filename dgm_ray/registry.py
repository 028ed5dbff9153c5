"""A configuration node ``{"factory": NAME, "arguments": {...}}`` is a call. This module makes the call.

The signature is the schema: names, annotations and defaults of a registered class or function say what a configuration
may hold. Two marks say where an argument comes from:

* ``Shared[T]``: from the scope, by the argument's own name (``metadata``, ``noise_size``), or from the sibling
  components that the configuration names (``parameters: ["generator"]``).
* ``Lazy[T]``: built later by its owner. It arrives as a ``functools.partial``; the owner adds what only it knows.
* ``Node``: handed over as it stands in the file, for an owner that builds it in a scope of its own.

A positional-only parameter is the owner's to give, so no configuration can set it.
"""

import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dgm_ray.errors import ConfigurationError, nearest

T = TypeVar("T")
Shared = Annotated[T, "shared"]
Lazy = Annotated[Callable[..., T], "lazy"]
Node = Annotated[Any, "node"]

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]

MISSING = inspect.Parameter.empty
_PLAIN = (bool, int, float, str, list, tuple, dict, Path, type(None), Literal, object)


@dataclass(frozen=True)
class Parameter:
    """One argument of a factory: its name, its annotation, its default (``MISSING`` if it has none)."""

    name: str
    hint: Any
    default: Any

    @property
    def shared(self) -> bool:
        return "shared" in marks(self.hint)


class Registry:
    """Names and what they call. ``kind`` is what an error message calls an entry."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., Any]] = {}

    def register(self, entry: Any, name: str = "") -> Any:
        """Register a class or function under its own name, or under another; return it."""
        name = name or entry.__name__
        if self._entries.setdefault(name, entry) is not entry:
            raise ValueError(f"two entries of kind {self.kind!r} are called {name!r}")
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def items(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return the names, in order, and what they call."""
        return sorted(self._entries.items())

    def __contains__(self, entry: object) -> bool:
        """Tell whether a class or function, or a name, is registered."""
        return entry in self._entries if isinstance(entry, str) else entry in self._entries.values()

    def get(self, name: Any, path: str) -> Callable[..., Any]:
        """Return what is registered as ``name``; ``path`` is the place in the file that asks."""
        if not isinstance(name, str) or name not in self._entries:
            hint = nearest(str(name), self) or f"; there are {', '.join(self)}"
            raise ConfigurationError(path, f"no {self.kind} is called {name!r}{hint}")
        return self._entries[name]


FACTORIES = Registry("factory")
TASKS = Registry("task")


def register(entry: Any) -> Any:
    """Make a class or function a factory that a configuration can name. As a decorator: ``@register``."""
    return FACTORIES.register(entry)


class Scope:
    """What signatures share: plain values, and components, each built when it is first asked for.

    Asking builds, so no build order has to be worked out; a cycle names itself.
    Raises ConfigurationError for a component that is no mapping with a factory, whether anything asks for it or not.
    """

    def __init__(
        self,
        shared: Mapping[str, Any] = types.MappingProxyType({}),
        components: Mapping[str, Any] = types.MappingProxyType({}),
        *,
        places: Mapping[str, str] = types.MappingProxyType({}),
        path: str = "components",
        finish: Callable[[Any], Any] = lambda component: component,
    ) -> None:
        self._ready, self._nodes, self._places = dict(shared), components, places
        self._path, self._finish = path, finish
        for name, node in components.items():
            if not (isinstance(node, Mapping) and "factory" in node):
                raise ConfigurationError(f"{path}.{name}", "a component is a mapping with a factory", node)
        self._asking: list[str] = []
        self.built: dict[str, Any] = {}
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._ready or name in self._nodes

    def get(self, name: str, hint: Any, path: str) -> Any:
        """Return what is shared as ``name`` and check that it fits ``hint``; ``path`` is the place that asks."""
        self.used.add(name)
        if name in self._nodes and name not in self._ready:
            self._ready[name] = self.built[name] = self._build(name)
        if name not in self._ready:
            known = sorted({*self._ready, *self._nodes})
            rule = f"a component or shared argument {name!r} is needed"
            raise ConfigurationError(path, f"{rule}{nearest(name, known) or f'; there are {known}'}")
        value = self._ready[name]
        if isinstance(value, Mapping) and any(option in FACTORIES for option in options(hint)):
            value = self._ready[name] = build(value, hint, self, self._places[name] if name in self._places else name)
        return _checked(value, hint, self._places[name] if name in self._places else f"{self._path}.{name}")

    def _build(self, name: str) -> Any:
        path = f"{self._path}.{name}"
        if name in self._asking:
            raise ConfigurationError(path, "components need each other: " + " -> ".join([*self._asking, name]))
        self._asking.append(name)
        try:
            return self._finish(build(self._nodes[name], Any, self, path))
        finally:
            self._asking.pop()


def build(node: Any, hint: Any = Any, scope: Scope | None = None, path: str = "") -> Any:
    """Return the object that ``node`` describes, in the form that the annotation ``hint`` asks for.

    Raises ConfigurationError with the place in the file, the rule and the value.
    """
    scope = scope or Scope()
    if "node" in marks(hint):
        return node
    if "shared" in marks(hint) and _names(node):
        return _from_scope(node, hint, scope, path)
    if isinstance(node, Mapping):
        wanted = [option for option in options(hint) if option in FACTORIES]
        if "factory" in node:
            return _build_named(node, hint, scope, path)
        if wanted:  # {"sizes": [50]} where a HiddenLayers is wanted
            return call(_meant(wanted, node), node, scope, path, lazy="lazy" in marks(hint))
        inner = _inner(hint, dict)
        return _checked({key: build(value, inner, scope, _join(path, key)) for key, value in node.items()}, hint, path)
    if isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        inner = _inner(hint, list)
        return _checked([build(item, inner, scope, _join(path, index)) for index, item in enumerate(node)], hint, path)
    return _checked(node, hint, path)


def call(
    entry: Callable[..., Any], given: Any, scope: Scope | None = None, path: str = "", *, lazy: bool = False
) -> Any:
    """Call ``entry`` with the arguments that ``given`` describes; ``lazy`` returns the partial instead."""
    scope, known = scope or Scope(), parameters(entry)
    check_keys(given, known, path, entry.__name__)
    arguments: dict[str, Any] = {}
    for name, parameter in known.items():
        if name in given:
            arguments[name] = build(given[name], parameter.hint, scope, _join(path, name))
        elif parameter.shared and name in scope:
            arguments[name] = scope.get(name, parameter.hint, path)
        elif parameter.default is MISSING and parameter.shared:
            scope.get(name, parameter.hint, f"{path} ({entry.__name__})")
        elif parameter.default is MISSING:
            raise ConfigurationError(path, f"{entry.__name__} needs the argument {name!r}")
    if lazy:
        return partial(entry, **arguments)
    try:
        return entry(**arguments)
    except ConfigurationError as error:  # its place is relative to these arguments
        raise error.under(path) from None
    except ValueError as error:
        raise ConfigurationError(path, f"{entry.__name__}: {error}") from error


def preset(entry: Callable[..., T], name: str, **given: Any) -> Callable[..., T]:
    """Return ``entry`` under another name, with arguments that are given here and that no configuration can set."""

    def make(**arguments: Any) -> T:
        return entry(**given, **arguments)

    signature = inspect.signature(entry, eval_str=True)
    left = [one.replace(kind=one.KEYWORD_ONLY) for key, one in signature.parameters.items() if key not in given]
    made = entry if inspect.isclass(entry) else signature.return_annotation
    make.__signature__ = inspect.Signature(left, return_annotation=made)  # type: ignore[attr-defined]
    make.__name__, make.__doc__ = name, entry.__doc__
    return make


def check_keys(given: Any, known: Any, path: str, owner: str, *, needed: tuple[str, ...] = ()) -> None:
    """Raise ConfigurationError unless ``given`` is a mapping with keys ``known`` to ``owner``, the ``needed`` there."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(path, f"the arguments of {owner} are a mapping", given)
    for key in given:
        if key not in known:
            has = f"; it has {', '.join(known)}" if known else "; it has none"
            hint = nearest(str(key), known) or has
            raise ConfigurationError(_join(path, key), f"{owner} has no argument {key!r}{hint}")
    for key in needed:
        if key not in given:
            raise ConfigurationError(path, f"{owner} needs {key!r}")


def arguments_of(node: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], str]:
    """Return the arguments of a node ``{"factory", "arguments"?}`` and the place where they stand."""
    check_keys(node, ("factory", "arguments"), path, "a factory's node")
    return (node["arguments"] if "arguments" in node else {}), _join(path, "arguments")


def absolute_paths(arguments: Mapping[str, Any], entry: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of ``entry`` with every relative path in them made absolute, however deep it stands."""
    return _with_paths(arguments, entry, lambda path: str(Path(path).absolute()))


def paths_in(arguments: Mapping[str, Any], entry: Callable[..., Any]) -> list[str]:
    """Return every path in the arguments of ``entry``, however deep it stands."""
    found: list[str] = []

    def keep(path: str) -> str:
        found.append(path)
        return path

    _with_paths(arguments, entry, keep)
    return found


def _with_paths(
    arguments: Mapping[str, Any], entry: Callable[..., Any], changed: Callable[[str], str]
) -> dict[str, Any]:
    def change(node: Any, hint: Any) -> Any:
        if isinstance(node, str) and Path in options(hint):
            return changed(node)
        if isinstance(node, list):  # of a draw, or of a list[Path]
            inner = _inner(hint, list)
            return [change(item, hint if inner is Any else inner) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "factory" in node and node["factory"] in list(FACTORIES) and isinstance(node.get("arguments"), Mapping):
            return {**node, "arguments": _with_paths(node["arguments"], FACTORIES.get(node["factory"], ""), changed)}
        known = [option for option in options(hint) if option in FACTORIES]
        if known and "factory" not in node:
            return _with_paths(node, _meant(known, node), changed)
        return {key: change(value, hint) for key, value in node.items()}

    hints = {name: parameter.hint for name, parameter in parameters(entry).items()}
    return {name: change(value, hints[name] if name in hints else Any) for name, value in arguments.items()}


@cache
def parameters(entry: Callable[..., Any]) -> dict[str, Parameter]:
    """Return what a configuration may give to ``entry``: its parameters without the positional-only ones."""
    signature = inspect.signature(entry, eval_str=True)
    return {
        name: Parameter(name, parameter.annotation, parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def marks(hint: Any) -> set[str]:
    """Return the marks ("shared", "lazy") that stand anywhere in an annotation."""
    own = {mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, str)}
    return own.union(*map(marks, get_args(hint))) if get_args(hint) else own


def options(hint: Any) -> list[Any]:
    """Return the alternatives of an annotation, without marks and ``None``: ``Lazy[A] | B | None`` -> ``[A, B]``."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        if "lazy" in notes:
            return options(get_args(inner)[1])
        return options(inner) if "shared" in notes or get_origin(inner) in (Union, types.UnionType) else [inner]
    if get_origin(hint) in (Union, types.UnionType):
        return [option for one in get_args(hint) for option in options(one)]
    return [] if hint is type(None) else [hint]


def is_plain(option: Any) -> bool:
    """Tell whether an alternative of an annotation is plain data: numbers, strings, paths, lists of them."""
    origin = get_origin(option) or option
    inner = () if origin is Literal else (one for one in get_args(option) if one is not ...)
    return option is Any or (origin in _PLAIN and all(is_plain(each) for one in inner for each in options(one)))


def fits(entry: Callable[..., Any], hint: Any) -> bool:
    """Tell whether what ``entry`` makes can be what an annotation asks for; True where annotations do not say."""

    def can_be(option: Any) -> bool:
        wanted = _made_by(option) if option in FACTORIES else option
        if made is None or wanted is Any or not inspect.isclass(wanted):
            return True
        try:
            return issubclass(made, wanted) or (vague and issubclass(wanted, made))
        except TypeError:  # a protocol with members that are no methods
            return True

    made, vague = _made_by(entry), not inspect.isclass(entry)  # a function may make a subclass of what it says
    return any(map(can_be, options(hint)))


def _made_by(entry: Any) -> type | None:
    made = entry if inspect.isclass(entry) else inspect.signature(entry, eval_str=True).return_annotation
    return made if inspect.isclass(made) and made is not MISSING else None


def _meant(entries: list[Any], node: Mapping[str, Any]) -> Any:
    """Return which of several a mapping without a factory describes: the one that knows most of its keys, or nearly."""

    def known(entry: Any) -> tuple[int, int]:
        names = parameters(entry)
        return sum(key in names for key in node), sum(bool(nearest(str(key), names)) for key in node)

    return entries[0] if len(entries) == 1 else max(entries, key=known)


def _build_named(node: Mapping[str, Any], hint: Any, scope: Scope, path: str) -> Any:
    entry = FACTORIES.get(node["factory"], _join(path, "factory"))
    given, place = arguments_of(node, path)
    lazy = "lazy" in marks(hint)
    made = call(entry, given, scope, place, lazy=lazy)
    if not (fits(entry, hint) if lazy else _is_instance(made, hint)):
        raise ConfigurationError(path, f"should be {_describe(hint)}", node["factory"])
    return made


def _from_scope(node: Any, hint: Any, scope: Scope, path: str) -> Any:
    inner = _inner(hint, list)
    if isinstance(node, str):
        if inner is not Any:
            raise ConfigurationError(path, "should be a list of names", node)
        return scope.get(node, hint, path)
    return _checked([scope.get(name, inner, _join(path, index)) for index, name in enumerate(node)], hint, path)


def _inner(hint: Any, kind: type) -> Any:
    """Return the annotation of what stands in a list or in a dict; Any if it is not said."""
    return next((get_args(option)[-1] for option in options(hint) if get_origin(option) is kind), Any)


def _names(node: Any) -> bool:
    return isinstance(node, str) or (isinstance(node, list) and all(isinstance(name, str) for name in node))


def _checked(value: Any, hint: Any, path: str) -> Any:
    """Return ``value`` as ``hint`` wants it: plain data through pydantic, an object if it is an instance."""
    if not is_data(value) or not any(map(is_plain, options(hint))):
        if _is_instance(value, hint):
            return value
        shown = value if is_data(value) else type(value).__name__
        raise ConfigurationError(path, f"should be {_describe(hint)}", shown)
    plain = without_marks(hint)
    try:
        return _adapter(plain).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        inner = ".".join(str(step) for step in first["loc"] if isinstance(step, int))
        place = _join(path, inner) if inner else path
        raise ConfigurationError(place, first["msg"], first["input"]) from None


def without_marks(hint: Any) -> Any:
    """Return an annotation that pydantic can check: its plain alternatives, with their ranges, without our marks."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        ranges = tuple(note for note in notes if not isinstance(note, str))
        return Annotated[(without_marks(inner), *ranges)] if ranges else without_marks(inner)
    if get_origin(hint) in (Union, types.UnionType):
        kept = [without_marks(one) for one in get_args(hint) if any(map(is_plain, options(one))) or one is type(None)]
        return Union[tuple(kept)]  # noqa: UP007
    return hint


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(hint)
    except TypeError:  # an annotation that cannot be hashed
        return _cached_adapter.__wrapped__(hint)


@cache
def _cached_adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def is_data(value: Any) -> bool:
    """Tell whether a value is plain data, such as a file holds."""
    if isinstance(value, list | tuple):
        return all(map(is_data, value))
    if isinstance(value, Mapping):
        return all(map(is_data, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def _is_instance(value: Any, hint: Any) -> bool:
    def holds(option: Any) -> bool:
        if get_origin(option) is list:
            return isinstance(value, list) and all(_is_instance(one, get_args(option)[0]) for one in value)
        if get_origin(option) is not None:  # Callable[...], a subscripted generic: its origin says enough
            option = get_origin(option)
        return option is Any or (inspect.isclass(option) and isinstance(value, option))

    return (value is None and type(None) in get_args(hint)) or any(map(holds, options(hint)))


def _describe(hint: Any) -> str:
    names = [getattr(option, "__name__", str(option)) for option in options(hint)]
    return ("an " if names[0][0] in "AEIOU" else "a ") + " or ".join(names)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path and str(key) else path or str(key)
