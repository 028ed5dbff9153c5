"""A user's own table, as a pandas DataFrame: what its columns are, as features and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.columns import Categories, Column, Dates, Family, Numbers, family_of, row_of, slips_of
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.variable import KINDS, Kind, Variable, kind_error
from dgm_ray.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
MAX_CATEGORIES = 1000
_IDS = 20  # so many texts, no two of them the same, are no categories
_CLASSES: dict[str, Any] = {one.__name__: one for one in (Numbers, Dates, Categories)}


class Described(NamedTuple):
    """What a column was taken for."""

    name: str
    kind: Kind
    detail: str


@dataclass(frozen=True)
class FrameEncoder:
    """How a table's columns become features (rows, num_features) in the user's units, and how those become columns.

    Dates are days since the first one, and numbers whose range is far from 0 are differences to the smallest.
    """

    columns: tuple[Column, ...]

    @classmethod
    def infer(
        cls,
        frame: "pd.DataFrame",
        kinds: Mapping[str, Kind] | None = None,
        place: str = "table",
        *,
        option: str = "",
    ) -> "FrameEncoder":
        """Learn the kinds, types and categories of a table that is to be trained on.

        kinds: by column, where what would be inferred is not meant. Text, booleans and pandas' categories are
        categorical, binary if there are two; numbers are numerical, binary if they are 0 and 1 alone.
        option: of the command line that drops a column, for errors.

        Raises DataError, with the column and what to do, for a table that cannot be learned from.
        """
        _check_shape(frame, place)
        if len(frame) < 2:
            raise DataError(place, "must have more than 1 sample (row)", len(frame))
        return cls.of_columns({name: frame[name] for name in frame.columns}, kinds, place, option=option)

    @classmethod
    def of_columns(
        cls,
        columns: Mapping[Any, "pd.Series"],
        kinds: Mapping[str, Kind] | None = None,
        place: str = "table",
        *,
        option: str = "",
    ) -> "FrameEncoder":
        """Learn from columns that may be of different lengths, as ``infer`` does: cells that decide what a column is.

        columns: by name.
        """
        kinds = {} if kinds is None else kinds
        known = {str(name): name for name in columns}
        for name, kind in kinds.items():
            if str(name) not in known:
                raise DataError(f"{place}: kinds", f"there is no column {name!r}{nearest(str(name), known)}")
            if error := kind_error(f"{place}: kinds.{name}", kind):
                raise error
        by_name = {str(name): kind for name, kind in kinds.items()}
        wanted = {name: by_name[text] if text in by_name else None for text, name in known.items()}
        drops = {name: f"drop it ({option} {quote(str(name))})" if option else "drop it" for name in columns}
        found = (
            _infer(cells, wanted[name], f"{place}: column {name!r}", drops[name]) for name, cells in columns.items()
        )
        return cls(tuple(found))

    @classmethod
    def of_metadata(cls, metadata: Metadata) -> "FrameEncoder":
        """Return the columns of a table that came as features: one for each variable, under its name.

        Binary cells are 0 and 1; categories that are all whole numbers are such numbers, others are text.
        """
        return cls(tuple(_of_variable(one) for one in metadata.variables))

    @cached_property
    def metadata(self) -> Metadata:
        """The variables, one per column."""
        return Metadata(tuple(column.variable for column in self.columns))

    def check_columns(self, frame: "pd.DataFrame", place: str = "rows") -> None:
        """Raise DataError unless a table has the columns that were learned, in any order, and no others."""
        _check_shape(frame, place, rows=0)
        names, given = [column.name for column in self.columns], list(frame.columns)
        for name in names:
            if name not in given:
                others = [one for one in given if one not in names]
                raise DataError(place, f"lacks the column {name!r} of the training table{nearest(str(name), others)}")
        for name in given:
            if name not in names:
                rule = f"has the column {name!r}, which the training table had not{nearest(str(name), names)}"
                raise DataError(place, rule)

    def encode(self, frame: "pd.DataFrame", place: str = "rows") -> Floats:
        """Return features, (rows, num_features), NaN where missing, in the order in which the columns were learned.

        Raises DataError for other columns, cells of another type, or a category that was not there in training.
        """
        self.check_columns(frame, place)
        parts = []
        for column in self.columns:
            series, where = frame[column.name], f"{place}: column {column.name!r}"
            family = family_of(series, where)
            if family is None:
                parts.append(np.full((len(frame), column.variable.size), np.nan, dtype=np.float32))
                continue
            if family != column.family:
                odd = series.dropna()
                if family == "text" and column.family in ("numbers", "dates"):
                    odd = slips if len(slips := slips_of(odd, column.family)) else odd
                cell = odd.iloc[0].item() if isinstance(odd.iloc[0], np.generic) else odd.iloc[0]
                raise DataError(where, f"must hold {column.family}, as in training, not {family} ({cell!r})")
            parts.append(column.encode(series, where))
        return np.hstack(parts)

    def decode(self, features: Floats, like: "pd.DataFrame | None" = None) -> "pd.DataFrame":
        """Return features (rows, num_features) as columns with their own types, categories and units.

        like: a table whose index, and order of columns, the result gets.
        """
        import pandas as pd

        made = {column.name: column.decode(features[:, own]) for column, own in self._own()}
        frame = pd.DataFrame(made)
        if like is None:
            return frame
        return frame.set_axis(like.index)[list(like.columns)]

    def complete(self, frame: "pd.DataFrame", features: Floats) -> "pd.DataFrame":
        """Return the table with its missing cells from features; every observed cell is the table's own.

        Columns get the type that they had in training, unless an observed cell would not fit it.
        """
        import pandas as pd

        parts = {}
        for column, own in self._own():
            series = frame[column.name]
            missing = series.isna().to_numpy()
            dtype = _dtype(column, series)
            if not missing.any():
                parts[column.name] = series if series.dtype == dtype else series.astype(dtype)
                continue
            cells = np.array(series.to_numpy(dtype=object), dtype=object)  # Python's own numbers: nothing is rounded
            cells[missing] = column.decode(features[missing, own]).to_numpy(dtype=object)
            parts[column.name] = pd.Series(cells, index=frame.index, dtype=object).astype(dtype)
        made = pd.DataFrame({name: parts[name] for name in frame.columns}, index=frame.index)
        made.columns = frame.columns
        return made

    def describe(self) -> list[Described]:
        """Return what each column was taken for, for the user to check."""
        return [Described(str(column.name), column.kind, column.detail) for column in self.columns]

    def summary(self, shown: int = 6) -> list[str]:
        """Return a line for each kind: how many columns are of it, and the first of them."""
        lines = []
        for kind in KINDS:
            found = [one for one in self.describe() if one.kind == kind]
            names = [f"{one.name} ({one.detail})" for one in found[:shown]]
            more = [f"and {len(found) - shown} more"] if len(found) > shown else []
            lines += [f"{len(found)} {kind}: {', '.join([*names, *more])}"] if found else []
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; ``from_dict`` reads it."""
        return {"columns": [{"type": type(column).__name__, **asdict(column)} for column in self.columns]}

    @classmethod
    def from_dict(cls, content: Any, place: str = "encoder") -> "FrameEncoder":
        """Read what ``to_dict`` returns. Raises DataError for anything else."""
        try:
            return cls(tuple(_column(item) for item in content["columns"]))
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(place, f"does not describe columns ({type(error).__name__}: {error})") from None

    def _own(self) -> list[tuple[Column, slice]]:
        return list(zip(self.columns, self.metadata.slices, strict=True))


def _check_shape(frame: "pd.DataFrame", place: str, rows: int = 1) -> None:
    if frame.columns.nlevels > 1:
        raise DataError(place, "must have one level of column names")
    names = list(frame.columns)
    if not names or len(frame) < rows:
        raise DataError(place, "must have rows and columns", frame.shape)
    texts = [str(name) for name in names]
    for name, text in zip(names, texts, strict=True):
        if not isinstance(name, str | int | np.integer):
            raise DataError(place, "a column's name must be text or a whole number", name)
        if texts.count(text) > 1:
            raise DataError(place, f"has two columns that are called {text!r}: rename one")


def _infer(series: "pd.Series", kind: Kind | None, place: str, drop: str) -> Column:
    """Return what a column is. Raises DataError, which says how to ``drop`` it, for one that cannot be learned from."""
    from pandas import CategoricalDtype

    series = series.rename(series.name.item()) if isinstance(series.name, np.generic) else series
    family = family_of(series, place, drop)
    if family is None:
        raise DataError(place, f"all its cells are missing, so nothing can be learned from it: {drop}")
    values = series.dropna().unique()
    if len(values) == 1:
        raise DataError(place, f"all its cells are the same ({values[0]}), so nothing can be learned from it: {drop}")
    named = isinstance(series.dtype, CategoricalDtype)
    if kind == "numerical" and (named or family in ("text", "booleans")):
        held = "pandas categories" if named else family
        raise DataError(place, f"cannot be numerical, it holds {held}: convert it to numbers first")
    if family == "dates":
        if kind not in (None, "numerical") or named:
            raise DataError(place, "holds dates, which are numerical: convert it to text for categories")
        return Dates.infer(series, place)
    if family == "text" and kind is None and not named:
        _refuse_slips(series, place)
        if len(values) == series.count() > _IDS:
            rule = f"every cell is different, as of an id, so nothing can be learned from it: {drop}"
            raise DataError(place, f"{rule}, or set its kind to categorical")
    flags = family == "numbers" and kind is None and set(values) == {0, 1}
    if not (named or flags or family != "numbers" or kind in ("binary", "categorical")):
        return Numbers.infer(series, place, given=kind is not None)
    if kind == "binary" and len(values) != 2:
        raise DataError(place, "a binary column must hold two values", len(values))
    if len(values) > MAX_CATEGORIES:
        also = ", or set its kind to numerical" if family == "numbers" and not named else ""
        rule = f"must have at most {MAX_CATEGORIES} categories: {drop}, group rare ones{also}"
        raise DataError(place, rule, len(values))
    if family == "numbers":
        Numbers.infer(series.astype(float), place, given=True)  # infinities are no categories
    return Categories.infer(series, place)


def _refuse_slips(series: "pd.Series", place: str) -> None:
    """Raise for text most of which is numbers, or dates: a slip of the pen would make each of them a category."""
    texts = series.dropna()
    families: tuple[Family, ...] = ("numbers", "dates")
    for family in families:
        slips = slips_of(texts, family)
        if 0 < len(slips) < len(texts) / 2:
            wrong = series.isin(slips).to_numpy()
            found = f"{series.iloc[int(wrong.argmax())]!r} in row {row_of(series, wrong)}"
            rule = f"holds mixed types, {family} and text ({found}): mend it, or set its kind"
            raise DataError(place, f"{rule} to categorical")


def _dtype(column: Column, series: "pd.Series") -> Any:
    """Return the type that a completed column has: that of training, unless an observed cell does not fit it."""
    from pandas import CategoricalDtype
    from pandas.api.types import pandas_dtype

    if isinstance(column, Categories):
        own, dtype = series.dtype, column.pandas_dtype
        # Equal categories may be of two types of text; the table's own is kept.
        same = isinstance(own, CategoricalDtype) and (tuple(own.categories), own.ordered) == (
            column.levels,
            column.ordered,
        )
        return own if same else dtype
    dtype = pandas_dtype(column.dtype)
    if column.holds(series):
        return dtype
    return series.dtype


def _of_variable(variable: Variable) -> Column:
    if variable.kind == "numerical":
        return Numbers(variable.name, "float64")
    if variable.kind == "binary":
        return Categories(variable.name, "int64", (0, 1))
    if all(text.isdecimal() and text == str(int(text)) for text in variable.categories):
        return Categories(variable.name, "int64", tuple(map(int, variable.categories)))
    return Categories(variable.name, "object", variable.categories)


def _column(item: Mapping[str, Any]) -> Any:
    kind = _CLASSES[item["type"]]
    names = {field.name for field in fields(kind)}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items() if key in names}
    return kind(**given)
