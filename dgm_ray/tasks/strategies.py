"""How rows are drawn from a generator: as they come, only those that fit, or for a given label."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.evaluation import Floats
from dgm_ray.registry import FACTORIES, PositiveInt

Draw = Callable[..., Floats]  # draw(label=None) -> (batch_size, num_features) finished rows


@runtime_checkable
class Strategy(Protocol):
    """What a Sample task's ``strategy`` can do."""

    def check(self, metadata: Metadata, conditional: bool) -> None:
        """Raise ConfigurationError if it does not fit the table or the model."""

    def draw(self, metadata: Metadata, draw: Draw) -> Floats:
        """Return the rows of one batch, (rows, columns): all, some, or none of what is drawn."""

    def gives_up(self, empty: int) -> bool:
        """Tell whether to stop after so many empty batches in a row."""


@dataclass(frozen=True)
class Default:
    """Take every row that an unconditional model makes."""

    def check(self, metadata: Metadata, conditional: bool) -> None:
        if conditional:
            rule = "the model is conditional: use the strategy 'conditional', which says the label"
            raise ConfigurationError("strategy", rule)

    def draw(self, metadata: Metadata, draw: Draw) -> Floats:
        return draw()

    def gives_up(self, empty: int) -> bool:
        return False


@dataclass(frozen=True)
class Rejection:
    """Keep the rows that have given values.

    keep_values: the value by variable: 0 or 1 of a binary one, the index of the category of a categorical one.
    max_iterations: give up after so many batches in a row without a row to keep; what was kept is saved.
    drop_columns: leave the columns of these variables out of the result, as in the original library: they are
        constant. false keeps all columns.
    """

    keep_values: dict[str, int]
    max_iterations: PositiveInt
    drop_columns: bool = True

    def check(self, metadata: Metadata, conditional: bool) -> None:
        Default().check(metadata, conditional)
        known = {variable.name: variable for variable in metadata.variables}
        for name, value in self.keep_values.items():
            place = f"strategy.arguments.keep_values.{name}"
            if name not in known:
                raise ConfigurationError(place, f"is no variable of the table{nearest(name, known)}")
            if known[name].kind == "numerical":
                raise ConfigurationError(place, "is numerical; rows are kept by binary and categorical variables")
            largest = max(known[name].size - 1, 1)
            if not 0 <= value <= largest:
                raise ConfigurationError(place, f"should be 0 to {largest}", value)

    def draw(self, metadata: Metadata, draw: Draw) -> Floats:
        rows = draw()
        fits = np.ones(len(rows), dtype=np.bool_)
        for columns, kind, value in self._wanted(metadata):
            cells = rows[:, columns]
            fits &= cells[:, value] == 1 if kind == "categorical" else cells[:, 0] == value
        kept: Floats = rows[np.ix_(fits, self._columns(metadata))]
        return kept

    def gives_up(self, empty: int) -> bool:
        return empty >= self.max_iterations

    def _columns(self, metadata: Metadata) -> NDArray[np.bool_]:
        """Return which columns stay. Differs from the original, whose offsets were wrong (defect 8)."""
        stays = np.ones(metadata.num_features, dtype=np.bool_)
        for columns, _, _ in self._wanted(metadata) if self.drop_columns else ():
            stays[columns] = False
        return stays

    def _wanted(self, metadata: Metadata) -> list[tuple[slice, str, int]]:
        pairs = zip(metadata.variables, metadata.slices, strict=True)
        places: Mapping[str, tuple[slice, str]] = {one.name: (columns, one.kind) for one, columns in pairs}
        return [(*places[name], value) for name, value in self.keep_values.items()]


@dataclass(frozen=True)
class ForLabel:
    """Draw every row for one label of a conditional model; the label is not part of the result.

    condition: the number of the class.
    """

    condition: float

    def check(self, metadata: Metadata, conditional: bool) -> None:
        place = "strategy.arguments.condition"
        if not conditional:
            raise ConfigurationError(place, "the model is not conditional: it takes no label", self.condition)
        whole = metadata.num_classes == 2 or self.condition == int(self.condition)
        if not whole or not 0 <= self.condition <= metadata.num_classes - 1:
            raise ConfigurationError(place, f"should be a class, 0 to {metadata.num_classes - 1}", self.condition)

    def draw(self, metadata: Metadata, draw: Draw) -> Floats:
        return draw(self.condition)

    def gives_up(self, empty: int) -> bool:
        return False


for _name, _strategy in {"default": Default, "rejection": Rejection, "conditional": ForLabel}.items():
    FACTORIES.register(_strategy, _name)
