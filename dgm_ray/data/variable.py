"""One variable of a table: its name, its kind and how many columns (features) it takes."""

from dataclasses import dataclass
from typing import Literal, get_args

from dgm_ray.errors import DataError, nearest

Kind = Literal["numerical", "binary", "categorical"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_error(place: str, kind: str) -> DataError | None:
    """Return the error of a kind that is not one of ``KINDS``."""
    if kind in KINDS:
        return None
    return DataError(place, f"must be 'numerical', 'binary' or 'categorical', not {kind!r}{nearest(kind, KINDS)}")


def size_error(place: str, kind: str, size: int) -> DataError | None:
    """Return the error of a size that does not fit its kind."""
    if kind == "categorical":
        return None if size > 2 else DataError(place, "a categorical variable must have a size above 2", size)
    return None if size == 1 else DataError(place, f"a {kind} variable must have size 1", size)


@dataclass(frozen=True)
class Variable:
    """A variable of a table.

    kind: ``numerical`` (a real number), ``binary`` (0 or 1) or ``categorical`` (one-hot).
    size: number of columns, above 2 for a categorical variable, else 1.
    categories: what each column of a categorical variable stands for; not given: "0", "1", ...

    Raises DataError if kind, size and categories do not fit each other.
    """

    name: str
    kind: Kind
    size: int = 1
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        place = f"variable {self.name!r}"
        error = kind_error(f"{place}.kind", self.kind) or size_error(f"{place}.size", self.kind, self.size)
        if error:
            raise error
        wanted = self.size if self.kind == "categorical" else 0
        if self.categories and len(self.categories) != wanted:
            raise DataError(f"{place}.categories", f"must have {wanted} items", len(self.categories))
        # Filled here, so that a variable equals itself after a round trip through a file.
        object.__setattr__(self, "categories", self.categories or tuple(str(i) for i in range(wanted)))

    @property
    def features(self) -> tuple[str, ...]:
        """Default names of the columns: the variable's name, or one ``name_category`` each."""
        if self.kind != "categorical":
            return (self.name,)
        return tuple(f"{self.name}_{category}" for category in self.categories)
