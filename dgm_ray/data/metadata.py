"""What the columns of a table mean: its variables in order, and the classes of its labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata_format import Document, classes_of, load, variables_of
from dgm_ray.data.variable import KINDS, Kind, Variable
from dgm_ray.errors import DataError, nearest

__all__ = ["Block", "Kind", "Metadata", "Variable"]


class Block(NamedTuple):
    """The neighbouring columns ``start:stop`` that one output layer produces."""

    kind: Kind
    start: int
    stop: int


@dataclass(frozen=True)
class Metadata:
    """The variables of a table, in the order of its columns.

    num_samples: rows of the table that the metadata was written for (informative).
    classes: the names of the labels' classes, if they have names.
    num_classes: 0 means that there are no labels, or that they are not classes.
    feature_names: names of the columns; not given: derived from the variables.

    Raises DataError if there is no variable, two share a name, or a length does not fit.
    """

    variables: tuple[Variable, ...]
    num_samples: int = 0
    classes: tuple[str, ...] = ()
    num_classes: int = 0
    feature_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [variable.name for variable in self.variables]
        if not names or len(set(names)) != len(names):
            raise DataError("metadata.variables", "must be one or more variables with different names", names)
        if self.classes and self.num_classes != len(self.classes):
            rule = f"must be the number of classes ({len(self.classes)})"
            raise DataError("metadata.num_classes", rule, self.num_classes)
        if self.feature_names and len(self.feature_names) != self.num_features:
            raise DataError("metadata.feature_names", f"must have {self.num_features} items", len(self.feature_names))

    @classmethod
    def read(cls, path: Path | str) -> "Metadata":
        """Read the original's ``metadata.json``. Raises DataError if it cannot be read or breaks a constraint."""
        return cls.from_dict(load(Path(path)), str(path))

    @classmethod
    def from_dict(cls, content: Any, place: str = "metadata") -> "Metadata":
        """Read the original's format from a parsed JSON object that comes from ``place``.

        Raises DataError for the first constraint of the format that is broken. Unknown keys are left alone: the
        original's pre-processing writes more than its document names.
        """
        if not isinstance(content, Mapping):
            raise DataError(place, "must be a JSON object", content)
        document = Document(place, content)
        variables = variables_of(document)
        classes, num_classes = classes_of(document)
        metadata = cls(variables, document.count("num_samples"), classes, num_classes)
        names = tuple(document.strings("features"))
        return metadata if names == metadata.features else replace(metadata, feature_names=names)

    def to_dict(self) -> dict[str, Any]:
        """Return the original's format; ``from_dict`` reads it back. No classes: their keys are left out."""
        pairs = [[v.name, value] for v in self.variables for value in (v.categories or ("",))]
        starts = {v.name: s.start for v, s in zip(self.variables, self.slices, strict=True)}
        content: dict[str, Any] = {
            "variables": [v.name for v in self.variables],
            "variable_sizes": [v.size for v in self.variables],
            "variable_types": [v.kind for v in self.variables],
            "features": list(self.features),
            "index_to_value": pairs,
            "value_to_index": {
                v.name: {value: starts[v.name] + i for i, value in enumerate(v.categories)}
                for v in self.variables
                if v.categories
            },
            "num_features": self.num_features,
            "num_variables": self.num_variables,
            **{f"num_{kind}_variables": sum(v.kind == kind for v in self.variables) for kind in KINDS},
            "num_samples": self.num_samples,
        }
        if self.num_classes:
            content |= {"num_classes": self.num_classes, "classes": list(self.classes)}
        return content

    @property
    def num_variables(self) -> int:
        """Number of variables."""
        return len(self.variables)

    @cached_property
    def num_features(self) -> int:
        """Number of columns."""
        return sum(variable.size for variable in self.variables)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the columns, num_features of them."""
        return self.feature_names or tuple(name for variable in self.variables for name in variable.features)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The columns of each variable."""
        slices, start = [], 0
        for variable in self.variables:
            slices.append(slice(start, start + variable.size))
            start += variable.size
        return tuple(slices)

    def names_of(self, columns: NDArray[np.bool_]) -> list[str]:
        """Return the names of the variables with a True among their columns; ``columns``: (num_features,)."""
        named = zip(self.variables, self.slices, strict=True)
        return [variable.name for variable, own in named if columns[own].any()]

    @cached_property
    def numerical_columns(self) -> NDArray[np.bool_]:
        """Which columns are those of numerical variables: (num_features,)."""
        return np.array([one.kind == "numerical" for one in self.variables for _ in range(one.size)])

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Each run of numerical or of binary variables is one block, each categorical variable its own."""
        blocks = []
        # The second part of the key parts neighbouring categorical variables from each other.
        keys = [(v.kind, i if v.kind == "categorical" else 0) for i, v in enumerate(self.variables)]
        runs = groupby(range(self.num_variables), key=keys.__getitem__)
        for (kind, _), run in runs:
            members = list(run)
            blocks.append(Block(kind, self.slices[members[0]].start, self.slices[members[-1]].stop))
        return tuple(blocks)

    def index_of(self, name: str) -> int:
        """Return the position of the variable ``name`` in ``variables`` and ``slices``. Raises DataError if unknown."""
        names = [variable.name for variable in self.variables]
        if name not in names:
            raise DataError(f"variable {name!r}", f"is not in the metadata{nearest(name, names)}")
        return names.index(name)
