"""The original's ``metadata.json``: every constraint that its document states, checked one by one.

Two forms of ``index_to_value`` are read: the documented one (a pair per feature, ``[variable, ""]`` where there are no
categories) and that of the companion pre-processing repository (pairs for categorical features alone, and a plain index
instead of a mapping in ``value_to_index`` for the other variables).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

from dgm_ray.data.variable import KINDS, Kind, Variable, kind_error, size_error
from dgm_ray.errors import DataError, nearest


def load(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError if there is none, or if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(str(path), f"must be JSON: {error}") from None


@dataclass(frozen=True)
class Document:
    """A JSON object and the place it comes from, read with its types checked."""

    place: str
    content: Mapping[str, Any]

    def at(self, key: str) -> str:
        """Return the place of a key."""
        return f"{self.place}: {key}"

    def value(self, key: str) -> Any:
        """Return what is at ``key``. Raises DataError if nothing is."""
        if key not in self.content:
            raise DataError(self.at(key), f"this key is missing{nearest(key, self.content)}")
        return self.content[key]

    def count(self, key: str) -> int:
        """Return the integer of 0 or above at ``key``."""
        value = self.value(key)
        if not _is_integer(value) or value < 0:
            raise DataError(self.at(key), "must be an integer of 0 or above", value)
        return int(value)

    def integers(self, key: str) -> list[int]:
        """Return the list of integers at ``key``."""
        values = self._list(key)
        for i, value in enumerate(values):
            if not _is_integer(value):
                raise DataError(self.at(f"{key}.{i}"), "must be an integer", value)
        return values

    def strings(self, key: str) -> list[str]:
        """Return the list of strings at ``key``."""
        values = self._list(key)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise DataError(self.at(f"{key}.{i}"), "must be a string", value)
        return values

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Return the list of ``[variable, value]`` pairs at ``key``; a value that is a number becomes its text."""
        pairs = self._list(key)
        for i, pair in enumerate(pairs):
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or not _is_plain(pair[1]):
                raise DataError(self.at(f"{key}.{i}"), "must be a pair [variable, value]", pair)
        return [(name, str(value)) for name, value in pairs]

    def _list(self, key: str) -> list[Any]:
        values = self.value(key)
        if not isinstance(values, list):
            raise DataError(self.at(key), "must be a list", values)
        return values


def variables_of(document: Document) -> tuple[Variable, ...]:
    """Return the variables of a metadata document. Raises DataError for the first constraint that is broken."""
    variables = _described_variables(document)
    for kind in KINDS:
        key, wanted = f"num_{kind}_variables", sum(variable.kind == kind for variable in variables)
        if document.count(key) != wanted:
            raise DataError(document.at(key), f"must be the number of {kind} variables ({wanted})", document.value(key))
    total = sum(variable.size for variable in variables)
    if document.count("num_features") != total:
        rule = f"must be the sum of variable_sizes ({total})"
        raise DataError(document.at("num_features"), rule, document.value("num_features"))
    if len(document.strings("features")) != total:
        rule = f"must have num_features ({total}) items"
        raise DataError(document.at("features"), rule, len(document.value("features")))
    values = _feature_values(document, variables)
    _check_value_to_index(document, variables, values)
    return tuple(
        replace(variable, categories=tuple(value or "" for value in values[start : start + variable.size]))
        if variable.kind == "categorical"
        else variable
        for variable, start in zip(variables, _starts(variables), strict=True)
    )


def classes_of(document: Document) -> tuple[tuple[str, ...], int]:
    """Return the names of the classes and their number; both keys are optional: no names and 0 mean no classes."""
    names = tuple(document.strings("classes")) if "classes" in document.content else ()
    if "num_classes" not in document.content:
        return names, len(names)
    number = document.count("num_classes")
    if number == 0:
        raise DataError(document.at("num_classes"), "must be above 0 (leave the key out if there are no classes)", 0)
    if names and len(names) != number:
        raise DataError(document.at("classes"), f"must have num_classes ({number}) items", len(names))
    return names, number


def _described_variables(document: Document) -> list[Variable]:
    names, kinds = document.strings("variables"), document.strings("variable_types")
    sizes, number = document.integers("variable_sizes"), document.count("num_variables")
    if number == 0:
        raise DataError(document.at("num_variables"), "must be above 0", number)
    for key, length in {"variables": len(names), "variable_types": len(kinds), "variable_sizes": len(sizes)}.items():
        if length != number:
            raise DataError(document.at(key), f"must have num_variables ({number}) items", length)
    repeated = [i for i, name in enumerate(names) if Counter(names)[name] > 1]
    if repeated:
        place = document.at(f"variables.{repeated[-1]}")
        raise DataError(place, f"a variable must be named once, but {names[repeated[-1]]!r} is named again")
    for i, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        error = kind_error(document.at(f"variable_types.{i}"), kind)
        error = error or size_error(document.at(f"variable_sizes.{i}"), kind, size)
        if error:
            raise error
    return [Variable(name, cast(Kind, kind), size) for name, kind, size in zip(names, kinds, sizes, strict=True)]


def _feature_values(document: Document, variables: Sequence[Variable]) -> list[str | None]:
    """Return the value that ``index_to_value`` names for each feature, None where it does not name the feature."""
    pairs = document.pairs("index_to_value")
    owners = [variable for variable in variables for _ in range(variable.size)]
    categorical = [i for i, variable in enumerate(owners) if variable.kind == "categorical"]
    if len(pairs) not in (len(owners), len(categorical)):
        rule = f"must have num_features ({len(owners)}) items, or one per categorical feature ({len(categorical)})"
        raise DataError(document.at("index_to_value"), rule, len(pairs))
    values: list[str | None] = [None] * len(owners)
    features = range(len(owners)) if len(pairs) == len(owners) else categorical
    for i, (feature, (name, value)) in enumerate(zip(features, pairs, strict=True)):
        if name != owners[feature].name:
            place = document.at(f"index_to_value.{i}.0")
            raise DataError(place, f"must be {owners[feature].name!r}, the variable of this feature", name)
        values[feature] = value
    return values


def _check_value_to_index(document: Document, variables: Sequence[Variable], values: Sequence[str | None]) -> None:
    mapping = document.value("value_to_index")
    if not isinstance(mapping, dict):
        raise DataError(document.at("value_to_index"), "must be an object", mapping)
    starts = {variable.name: start for variable, start in zip(variables, _starts(variables), strict=True)}
    sizes = {variable.name: variable.size for variable in variables}
    for name, indices in mapping.items():
        place = document.at(f"value_to_index.{name}")
        if name not in starts:
            raise DataError(place, f"is not one of the variables{nearest(name, starts)}")
        start, stop = starts[name], starts[name] + sizes[name]
        if sizes[name] == 1 and _is_integer(indices):
            if indices != start:
                raise DataError(place, f"must be the index of the variable's feature ({start})", indices)
            continue
        if not isinstance(indices, dict):
            raise DataError(place, "must be an object of indices by value", indices)
        for value, index in indices.items():
            known = _is_integer(index) and start <= index < stop and values[index] in (value, None)
            if not known:
                raise DataError(f"{place}.{value}", f"index_to_value at this index must be {[name, value]}", index)


def _starts(variables: Sequence[Variable]) -> list[int]:
    return [0, *accumulate(variable.size for variable in variables)][:-1]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
