"""What an editor needs to check and complete a file while it is written: its JSON Schema (draft 2020-12).

It is made from the registries as they are when ``schema`` is called, by the rules of ``registry.build``. It knows less
than the reader: which components a model asks for, and which values fit each other, only building can tell.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter

from dgm_ray.registry import (
    FACTORIES,
    MISSING,
    TASKS,
    Parameter,
    Registry,
    fits,
    is_data,
    is_plain,
    marks,
    options,
    parameters,
    without_marks,
)
from dgm_ray.space import DISTRIBUTIONS, INTEGER, LISTED

Schema = dict[str, Any]
DRAW = {"$ref": "#/$defs/draw"}
INITIALIZATIONS = ("xavier", "he")  # dgm_ray.nn.Initialization, which is of a higher floor; no component asks for it


def schema(tune: Callable[..., Any], imputers: Sequence[str] = ()) -> Schema:
    """Return the schema of configurations, search spaces and comparisons.

    tune: the class of a space's ``tune`` section. imputers: the names that a comparison may use.
    """
    settled, drawn = _Grammar(draws=False), _Grammar(draws=True)
    remark = {"not_repeated": {"type": "string"}}
    figures = {"type": "object", "properties": remark, "additionalProperties": {"type": "number"}}
    space = {"tune": settled.arguments(tune), "trial": drawn.call("task", TASKS)}
    changes = {"type": "object", "description": "arguments of its task, by their path, with a value or a draw"}
    compared = {
        "tune": space["tune"],
        "data": settled.ref("CellHoldout"),
        "repeats": {"type": "integer", "minimum": 1, "default": 5},
        "imputers": _mapping(dict.fromkeys(imputers, changes), []) | {"minProperties": 1},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dgm_ray: a task's configuration, a search space, or a comparison",
        "oneOf": [
            settled.call("task", TASKS, expected=figures),
            _mapping(space, ["trial"]),
            _mapping(compared, ["data", "imputers"]),
        ],
        "$defs": {"draw": _draw(), **settled.definitions(), **drawn.definitions()},
    }


@dataclass(frozen=True)
class _Grammar:
    """Writes values with draws (a search space's), or without (a configuration's, and whatever stands in a list)."""

    draws: bool

    def definitions(self) -> Schema:
        """Return the arguments of every factory and task, any call of a factory, and an architecture."""
        made = {name: self.arguments(entry) for name, entry in FACTORIES.items()}
        made |= {f"task.{name}": self.arguments(entry) for name, entry in TASKS.items()}  # a factory may be called so
        named = [one for _, entry in FACTORIES.items() for one in parameters(entry).values() if one.shared]
        shared = {one.name: self.or_draw(_plain(one.hint)) for one in named if any(map(is_plain, options(one.hint)))}
        for one in named:  # a shared object that a file describes, such as how labels condition a model
            for name, entry in FACTORIES.items():
                if entry in options(one.hint):
                    shared[one.name] = self.ref(name)
        shared["initialization"] = self.or_draw({"enum": list(INITIALIZATIONS)})
        components = {"type": "object", "additionalProperties": self.or_draw(self.ref("call"))}
        made["call"] = self.call("factory", FACTORIES)
        both = {"arguments": _mapping(shared, []), "components": components}
        made["architecture"] = _mapping(both, list(both))
        return {self.name(key): value for key, value in made.items()}

    def name(self, of: str) -> str:
        return f"{of}.drawn" if self.draws else of

    def ref(self, to: str) -> Schema:
        return {"$ref": f"#/$defs/{self.name(to)}"}

    def or_draw(self, *forms: Schema) -> Schema:
        """Return the schema of a value in one of these forms, or drawn."""
        forms = (*forms, DRAW) if self.draws else forms
        return forms[0] if len(forms) == 1 else {"anyOf": list(forms)}

    def call(self, key: str, registry: Registry, **more: Schema) -> Schema:
        """Return the schema of ``{key: NAME, "arguments": {...}}``, its arguments as NAME says. No task is drawn."""
        either = self.or_draw if registry is FACTORIES else _Grammar(draws=False).or_draw
        cases = []
        for name, entry in registry.items():
            needed = ["arguments"] if registry is TASKS or _needed(entry) else []
            to = f"task.{name}" if registry is TASKS else name
            then = {"properties": {"arguments": either(self.ref(to))}, "required": needed}
            cases.append({"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then})
        named = {key: either({"enum": list(registry)}), "arguments": {"type": "object"}}
        return _mapping(named | more, [key]) | {"allOf": cases}

    def arguments(self, entry: Callable[..., Any]) -> Schema:
        """Return the schema of the arguments of a class or function."""
        summary, notes = documentation(entry)
        properties: Schema = {}
        for name, parameter in parameters(entry).items():
            about = {"description": notes[name]} if name in notes else {}
            default = {"default": parameter.default} if is_data(parameter.default) else {}
            properties[name] = about | default | self.value(parameter)
        return {"description": summary} | _mapping(properties, _needed(entry))

    def value(self, parameter: Parameter) -> Schema:
        """Return the schema of one argument."""
        if "node" not in marks(parameter.hint):
            return self.or_draw(*self.forms(parameter.hint))
        if parameter.name == "architecture":  # or the path of its file
            return self.or_draw({"type": "string"}, self.ref("architecture"))
        return self.or_draw(self.ref("call"), {"type": "null"})

    def forms(self, hint: Any) -> list[Schema]:
        """Return the forms that a value may take where an annotation stands: data, names, calls, bare arguments."""
        objects = [option for option in options(hint) if not is_plain(option)]
        lists = [option for option in objects if get_origin(option) is list]
        forms = [_plain(hint)] if len(objects) < len(options(hint)) else []
        if not forms and type(None) in get_args(hint):
            forms.append({"type": "null"})
        if "shared" in marks(hint):
            forms.append({"type": "array", "items": {"type": "string"}} if lists else {"type": "string"})
        for option in lists:
            forms.append({"type": "array", "items": {"anyOf": _Grammar(draws=False).forms(get_args(option)[0])}})
        single = [option for option in objects if option not in lists]
        if fitting := [name for name, entry in FACTORIES.items() if any(fits(entry, option) for option in single)]:
            forms.append(self.ref("call") | {"properties": {"factory": self.or_draw({"enum": fitting})}})
        return forms + [self.ref(name) for name, entry in FACTORIES.items() if entry in single]


def _plain(hint: Any) -> Schema:
    return TypeAdapter(without_marks(hint)).json_schema()


def _mapping(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _needed(entry: Callable[..., Any]) -> list[str]:
    return [name for name, one in parameters(entry).items() if one.default is MISSING and not one.shared]


def _draw() -> Schema:
    def arguments(name: str) -> Schema:
        if name in LISTED:
            return {"type": "array", "minItems": 1, "items": {"not": DRAW}}
        length = 3 if name.startswith("q") else 2
        number = {"type": "integer" if name in INTEGER else "number"}
        return {"type": "array", "items": number, "minItems": length, "maxItems": length}

    return {"oneOf": [_mapping({name: arguments(name)}, [name]) for name in DISTRIBUTIONS]}


def documentation(entry: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return a docstring's first paragraph, and what it says of each argument: ``one: text. another, third: text``."""
    head, *parts = re.split(r"(?:^ *|(?<=\. ))(\w+(?:, \w+)*): ", inspect.getdoc(entry) or "", flags=re.MULTILINE)
    summary, *texts = (" ".join(text.split("\n\n")[0].split()) for text in (head, *parts[1::2]))
    return summary, {name: text for names, text in zip(parts[::2], texts, strict=True) for name in names.split(", ")}
