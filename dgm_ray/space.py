"""A search space is a task configuration in which some values are draws: ``lr: {loguniform: [1e-5, 1e-2]}``.

A draw is a mapping with one key, the name of a distribution. With every draw replaced by a value a search space is a
configuration. Draws live in mappings only: a draw inside a list is refused (searchers cannot name it).

| draw | arguments | values |
|---|---|---|
| uniform, loguniform | [low, high] | numbers from low to high |
| quniform, qloguniform | [low, high, q] | the same, rounded to multiples of q |
| randint, lograndint | [low, high] | integers, BOTH ends included (unlike Ray's, whose upper end is open) |
| qrandint | [low, high, q] | integers that are multiples of q, both ends included |
| normal | [mean, std] | numbers |
| choice | [a, b, ...] | one of the values |
| grid_search | [a, b, ...] | every value in turn, with every other grid |
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from dgm_ray.errors import ConfigurationError

REAL = ("uniform", "quniform", "loguniform", "qloguniform", "normal")
INTEGER = ("randint", "qrandint", "lograndint")
LISTED = ("choice", "grid_search")
DISTRIBUTIONS = (*REAL, *INTEGER, *LISTED)

Place = tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """A distribution and its arguments. Ends of a range belong to it; ``normal`` ends two deviations out."""

    distribution: str
    arguments: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, Any]:
        """The two values that lie farthest apart; the first and the last option of a choice."""
        if self.distribution == "normal":
            mean, std = self.arguments
            return mean - 2 * std, mean + 2 * std
        if self.distribution in LISTED:
            return self.arguments[0], self.arguments[-1]
        return self.arguments[0], self.arguments[1]

    @property
    def tried(self) -> tuple[Any, ...]:
        """What a check of the whole space tries, each value once: both ends, or every option of a choice."""
        values = self.arguments if self.distribution in LISTED else self.ends
        return tuple(value for index, value in enumerate(values) if value not in values[:index])

    def holds(self, value: Any) -> bool:
        """Tell whether the value may be drawn; multiples of q are not looked for."""
        if self.distribution in LISTED:
            return any(type(one) is type(value) and one == value for one in self.arguments)
        numbers = (int,) if self.distribution in INTEGER else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            return False
        return self.distribution == "normal" or bool(self.arguments[0] <= value <= self.arguments[1])

    def nearest(self, value: Any) -> Any:
        """Return the number that may be drawn and is nearest to a number; an option of a choice stays as it is."""
        if self.distribution in LISTED:
            return value
        if self.distribution != "normal":
            low, high, *step = self.arguments
            value = round(value / step[0]) * step[0] if step else value
            value = min(max(value, low), high)
        return round(value) if self.distribution in INTEGER else float(value)

    def __str__(self) -> str:
        return f"{self.distribution}({', '.join(map(str, self.arguments))})"


def read_file(path: Path | str) -> dict[str, Any]:
    """Read a JSON or YAML file, by its ending; numbers such as ``1e-5`` are numbers in both.

    Raises ConfigurationError for a missing file, bad syntax, a key that stands twice, a top level that is no mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(str(path), "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"cannot be read ({error})") from None
    try:
        node = _parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except ValueError as error:
        raise ConfigurationError(str(path), str(error)) from None
    if not isinstance(node, dict):
        raise ConfigurationError(str(path), "the file should hold a mapping", node)
    try:
        _refuse_eval(node, str(path))
    except RecursionError:
        raise ConfigurationError(str(path), "an alias of YAML refers to what it stands in") from None
    return node


def parse_yaml(text: str) -> Any:
    """Parse YAML by YAML 1.2's rules for numbers and booleans. Raises ValueError with line and column."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def read_draws(node: Any, path: str = "") -> Any:
    """Return ``node`` with every one-key mapping named after a distribution replaced by a ``Draw``."""
    if isinstance(node, Mapping):
        if len(node) == 1 and (name := next(iter(node))) in DISTRIBUTIONS:
            return _read_draw(name, node[name], path)
        return {key: read_draws(value, _join(path, key)) for key, value in node.items()}
    if isinstance(node, list):
        _refuse_draws(node, path)
    return node


def draws_of(node: Any, place: Place = ()) -> Iterator[tuple[Place, Draw]]:
    """Yield every draw with its place, in the order of the file."""
    if isinstance(node, Draw):
        yield place, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from draws_of(value, (*place, str(key)))


def fill(node: Any, values: Mapping[Place, Any], place: Place = ()) -> Any:
    """Return ``node`` with each draw replaced by the value of its place. Raises KeyError if one is missing."""
    if isinstance(node, Draw):
        return values[place]
    if isinstance(node, Mapping):
        return {key: fill(value, values, (*place, str(key))) for key, value in node.items()}
    return node


def corners(node: Any) -> Iterator[dict[Place, Any]]:
    """Yield values of all draws: all at their first, then each alone at each of its others, then all at their last."""
    tried = {place: draw.tried for place, draw in draws_of(node)}
    first = {place: values[0] for place, values in tried.items()}
    yield first
    for place, values in tried.items():
        for value in values[1:]:
            yield {**first, place: value}
    if len(tried) > 1:
        yield {place: values[-1] for place, values in tried.items()}


def labels_of(places: list[Place]) -> dict[Place, str]:
    """Return the shortest name of each place that is still its own: ``generator_optimizer.lr``, ``code_size``."""
    steps = {place: [step for step in place if step not in _FILLERS] or list(place) for place in places}
    labels: dict[Place, str] = {}
    for place, own in steps.items():
        others = [other for one, other in steps.items() if one != place]
        lengths = (n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        length = next(lengths, None)
        labels[place] = ".".join(own[-length:] if length else place)
    return labels


def assign(node: dict[str, Any], assignment: str) -> None:
    """Carry out ``a.b.c=value`` (the value as YAML) on a mapping that was read from a file; see ``put``."""
    place, value = assignment_of(assignment)
    put(node, place.split("."), value, f"--set {place}")


def assignment_of(assignment: str) -> tuple[str, Any]:
    """Return the place and the value of ``a.b.c=value``. Raises ConfigurationError if it is none."""
    place, sign, text = assignment.partition("=")
    if not sign or not all(place.split(".")):
        raise ConfigurationError("--set", "should be a.b.c=value", assignment)
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"--set {place}", str(error)) from None
    _refuse_eval({place.split(".")[-1]: value}, f"--set {place}")
    return place, value


def put(node: dict[str, Any], steps: Sequence[str], value: Any, place: str) -> None:
    """Put a value where the steps lead. place: what asks for it.

    Steps that are not there are made; the signatures judge them afterwards. Raises ConfigurationError for a step that
    is no mapping.
    """
    *parents, last = steps
    for depth, step in enumerate(parents):
        below = node[step] if step in node else {}
        if not isinstance(below, dict):
            raise ConfigurationError(place, f"{'.'.join(parents[: depth + 1])} is not a mapping", below)
        node[step] = dict(below)  # a copy: a YAML alias may hold the same mapping at another place
        node = node[step]
    node[last] = value


_FILLERS = ("trial", "arguments", "architecture", "components")


def _read_draw(name: str, arguments: Any, path: str) -> Draw:
    place = _join(path, name)
    if not isinstance(arguments, list) or not arguments:
        raise ConfigurationError(place, "a draw's arguments are a list that is not empty", arguments)
    _refuse_draws(arguments, place)
    if name in LISTED:
        return Draw(name, tuple(arguments))
    wanted = 3 if name.startswith("q") else 2
    if len(arguments) != wanted:
        raise ConfigurationError(place, f"takes {wanted} numbers", arguments)
    kinds = int if name in INTEGER else (int, float)
    for index, value in enumerate(arguments):
        if not isinstance(value, kinds) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            sort = "an integer" if name in INTEGER else "a finite number"
            raise ConfigurationError(f"{place}.{index}", f"should be {sort}", value)
    _check_range(name, arguments, place)
    return Draw(name, tuple(arguments) if name in INTEGER else tuple(map(float, arguments)))


def _check_range(name: str, arguments: list[Any], place: str) -> None:
    low, high, *step = arguments
    if name == "normal":
        if high <= 0:
            raise ConfigurationError(f"{place}.1", "the standard deviation should be above 0", high)
        return
    if low > high:
        raise ConfigurationError(place, "the low end should not be above the high end", arguments)
    if "log" in name and low <= 0:
        raise ConfigurationError(f"{place}.0", "the low end of a logarithmic range should be above 0", low)
    if step and step[0] <= 0:
        raise ConfigurationError(f"{place}.2", "the step should be above 0", step[0])
    if step and not all(_is_multiple(end, step[0]) for end in (low, high)):
        raise ConfigurationError(place, f"both ends should be multiples of the step {step[0]}", [low, high])


def _is_multiple(end: float, step: float) -> bool:
    ratio = end / step
    return math.isinf(ratio) or abs(ratio - round(ratio)) <= 1e-9


def _refuse_draws(node: Any, path: str) -> None:
    for index, item in enumerate(node if isinstance(node, list) else ()):
        inner = read_draws(item, _join(path, index))
        if next(draws_of(inner), None) is not None:
            rule = "a draw cannot stand inside a list (a searcher could not name it); draw the whole list with choice"
            raise ConfigurationError(_join(path, index), rule, item)


def _join(path: str, step: Any) -> str:
    return f"{path}.{step}" if path else str(step)


def _refuse_eval(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "eval" in node:
            rule = "is refused: values are data and are never evaluated"
            raise ConfigurationError(f"{path}: eval", rule, node["eval"])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            _refuse_eval(value, path)


def _parse_json(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None


def _without_twins(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for one, other in pairwise(sorted(keys)):
        if one == other:
            raise ValueError(f"the key {one!r} stands twice")
    return dict(pairs)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-5`` as a string, ``no`` as false and ``12:30`` as 750; YAML 1.2 does not, nor does this."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 (the name is PyYAML's)

    def construct_yaml_int(self, node: Any) -> int:
        return int(self.construct_scalar(node))  # YAML 1.1 reads ``010`` as 8

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Check the keys as they stand in the file, before ``<<`` brings in others that may be overridden."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                problem = "a key should be text" + (f", not {key.value}" if isinstance(key, yaml.ScalarNode) else "")
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
# Integers come first: the float pattern matches them as well.
for _first_character in "-+0123456789":
    _Loader.yaml_implicit_resolvers[_first_character].insert(0, ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$")))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
