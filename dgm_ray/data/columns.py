"""One column of a user's own table: how its cells become features, and how features become its cells again.

Importing this does not import pandas: who has a column has pandas.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.variable import Kind, Variable
from dgm_ray.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Family = Literal["numbers", "text", "booleans", "dates"]

DATE = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?"  # as text
# What pandas.api.types.infer_dtype calls the cells, and what they are to us.
_FAMILIES: dict[str, Family] = {
    "integer": "numbers",
    "floating": "numbers",
    "mixed-integer-float": "numbers",
    "string": "text",
    "boolean": "booleans",
    "datetime64": "dates",
    "datetime": "dates",
}
STEPS = {"D": 1, "h": 24, "min": 24 * 60, "s": 24 * 60 * 60}  # of dates, longest first, and how many make a day
_STEP_NAMES = {"D": "days", "h": "hours", "min": "minutes", "s": "seconds", "": "parts of a second"}
ROW = "row"  # the name of an index that has the numbers of rows
WHOLE = 2.0**53  # up to here a float64 tells neighbouring whole numbers apart
_NARROW = 8  # a column whose numbers are so many times larger than their range is learned as differences


def family_of(series: "pd.Series", place: str, drop: str = "drop it") -> Family | None:
    """Return what the cells are, None if all are missing. Raises DataError for cells of several or of other types.

    drop: how the user leaves a column out.
    """
    from pandas import CategoricalDtype
    from pandas.api.types import infer_dtype

    cells = series.cat.categories if isinstance(series.dtype, CategoricalDtype) else series
    found = infer_dtype(cells, skipna=True)
    if found == "empty" or series.isna().all():
        return None
    if found in _FAMILIES:
        return _FAMILIES[found]
    if not found.startswith("mixed"):
        rule = f"must hold numbers, text, booleans or dates, not {found}: convert it, or {drop}"
        raise DataError(place, rule)
    first = {type(cell).__name__: cell for cell in reversed(list(series.dropna()))}
    shown = " and ".join(f"{kind} ({cell!r})" for kind, cell in list(first.items())[-2:])
    raise DataError(place, f"holds cells of mixed types, {shown}: convert it to one type, or {drop}")


def dates_of(texts: "pd.Series") -> "pd.Series":
    """Return texts as dates, NaT where one is missing or is no date, as 2023-02-30."""
    import pandas as pd

    written = texts.where(texts.str.fullmatch(DATE, na=False))
    return pd.to_datetime(written, format="ISO8601", errors="coerce")


def slips_of(texts: "pd.Series", family: Family) -> "pd.Series":
    """Return the texts that are no numbers, or no dates."""
    import pandas as pd

    read = pd.to_numeric(texts, errors="coerce") if family == "numbers" else dates_of(texts)
    return texts[read.isna()]


def row_of(series: "pd.Series", wrong: NDArray[np.bool_]) -> int:
    """Return the number of the first row where ``wrong``, (rows,). Cells of a part of a table bring their numbers."""
    position = int(wrong.argmax())
    return int(series.index[position]) if series.index.name == ROW else position


@dataclass(frozen=True)
class _Numerical:
    """A column that is one number a cell to a model. dtype: what pandas calls its type."""

    name: str | int
    dtype: str

    kind: ClassVar[Kind] = "numerical"

    @property
    def variable(self) -> Variable:
        """The variable that the cells are to a model."""
        return Variable(str(self.name), "numerical")


@dataclass(frozen=True)
class Numbers(_Numerical):
    """A numerical column.

    whole: only whole numbers fit. offset: is subtracted before float32 rounds, so
    that numbers far from 0 and near each other stay apart.
    """

    whole: bool = False
    offset: float = 0.0

    family: ClassVar[Family] = "numbers"

    @property
    def detail(self) -> str:
        """What was found, for the user to check."""
        return "whole numbers" if self.whole else "numbers"

    @classmethod
    def infer(cls, series: "pd.Series", place: str, *, given: bool) -> "Numbers":
        """Learn from cells. given: the user has said that they are numerical.

        pandas turns whole numbers into floats where cells are missing, so such floats count as whole, unless given.
        """
        values = _numbers(series, place)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        whole, dtype = _is_integer(series), str(series.dtype)
        if dtype == "float64" and not given and np.isnan(values).any() and _all_whole(values):
            whole, dtype = True, "int64"
        largest = max(abs(low), abs(high))
        return cls(series.name, dtype, whole, low if largest > _NARROW * (high - low) else 0.0)

    def encode(self, series: "pd.Series", place: str) -> Floats:
        """Return (rows, 1), NaN where missing."""
        values = _numbers(series, place) - self.offset
        _refuse(np.abs(values) > np.finfo(np.float32).max, series, place, "is too large a number: rescale the column")
        return values.astype(np.float32)[:, np.newaxis]

    def decode(self, features: Floats) -> "pd.Series":
        """Return the cells of features, (rows, 1)."""
        import pandas as pd

        values = features[:, 0].astype(np.float64) + self.offset
        dtype = pd.api.types.pandas_dtype(self.dtype)
        if self.whole:
            values = np.rint(values)
            if not np.isnan(values).any():
                values = _integers(values, getattr(dtype, "numpy_dtype", dtype))
        return pd.Series(values, name=self.name).astype(_able(dtype, values))

    def holds(self, series: "pd.Series") -> bool:
        """Tell whether observed cells can stand in a column of this dtype as they are."""
        return not self.whole or _is_integer(series) or bool(_all_whole(_numbers(series, "")))


@dataclass(frozen=True)
class Dates(_Numerical):
    """A column of points in time: a numerical variable, in days since ``origin``.

    step: the longest of D, h, min and s that fits all cells; what is imputed is rounded to it.
    """

    origin: str
    step: str

    family: ClassVar[Family] = "dates"

    @property
    def detail(self) -> str:
        """What was found, for the user to check."""
        return f"dates, in {_STEP_NAMES[self.step]}"

    @classmethod
    def infer(cls, series: "pd.Series", place: str) -> "Dates":
        """Learn from cells."""
        points = _wall_time(series).dropna()
        step = next((step for step in STEPS if (points.dt.floor(step) == points).all()), "")
        dtype = str(series.dtype if series.dtype != object else _points(series).dtype)
        return cls(series.name, dtype, points.min().isoformat(), step)

    def encode(self, series: "pd.Series", place: str) -> Floats:
        """Return (rows, 1), NaN where missing."""
        import pandas as pd

        days = (_wall_time(series) - pd.Timestamp(self.origin)) / pd.Timedelta(days=1)
        features: Floats = days.to_numpy(np.float64).astype(np.float32)[:, np.newaxis]
        return features

    def decode(self, features: Floats) -> "pd.Series":
        """Return the cells of features, (rows, 1)."""
        import pandas as pd

        days = features[:, 0].astype(np.float64)
        per_day = STEPS[self.step] if self.step else 1
        steps = np.rint(days * per_day) if self.step else days
        points = pd.Series(pd.Timestamp(self.origin) + pd.to_timedelta(steps, unit=self.step or "D"), name=self.name)
        dtype = pd.api.types.pandas_dtype(self.dtype)
        if zone := getattr(dtype, "tz", None):
            later = np.zeros(len(points), dtype=np.bool_)  # of an hour that comes twice, the second
            points = points.dt.tz_localize(zone, ambiguous=later, nonexistent="shift_forward")
        return points.astype(dtype)

    def holds(self, series: "pd.Series") -> bool:
        """Tell whether observed cells can stand in a column of this dtype as they are."""
        return True


@dataclass(frozen=True)
class Categories:
    """A binary or categorical column.

    values: what each code stands for; two make a binary variable. levels: the categories of a pandas ``category``
    column, in its order, with those that no cell has; ordered: it says that they have an order.
    """

    name: str | int
    dtype: str
    values: tuple[Any, ...]
    levels: tuple[Any, ...] | None = None
    ordered: bool = False

    @property
    def family(self) -> Family:
        """What the cells are."""
        if isinstance(self.values[0], bool):
            return "booleans"
        return "text" if isinstance(self.values[0], str) else "numbers"

    @property
    def kind(self) -> Kind:
        """Two values are binary."""
        return "binary" if len(self.values) == 2 else "categorical"

    @property
    def variable(self) -> Variable:
        """The variable that the cells are to a model."""
        if self.kind == "binary":
            return Variable(str(self.name), "binary")
        return Variable(str(self.name), "categorical", len(self.values), tuple(map(str, self.values)))

    @property
    def detail(self) -> str:
        """What was found, for the user to check."""
        shown = [*map(str, self.values[:4]), *(["..."] if len(self.values) > 4 else [])]
        return (f"{len(self.values)} categories: " if self.kind == "categorical" else "") + ", ".join(shown)

    @classmethod
    def infer(cls, series: "pd.Series", place: str) -> "Categories":
        """Learn from cells: the order of a ``category`` column is its own, others are sorted."""
        from pandas import CategoricalDtype

        dtype, observed = series.dtype, series.dropna()
        if isinstance(dtype, CategoricalDtype):
            seen = set(observed.unique())
            levels = tuple(map(_plain, dtype.categories))
            return cls(series.name, "category", tuple(one for one in levels if one in seen), levels, dtype.ordered)
        values = sorted(map(_plain, observed.unique()))
        name = str(dtype)
        if name == "float64" and series.isna().any() and all(float(value).is_integer() for value in values):
            values, name = [int(value) for value in values], "int64"  # floats only because cells are missing
        return cls(series.name, name, tuple(values))

    def encode(self, series: "pd.Series", place: str) -> Floats:
        """Return (rows, 1) or one-hot (rows, categories). Raises DataError for a category that was not learned."""
        cells = series.astype(object).map({value: code for code, value in enumerate(self.values)})
        codes: NDArray[np.float64] = cells.to_numpy(np.float64, na_value=np.nan)
        unknown = np.isnan(codes) & ~series.isna().to_numpy()
        if unknown.any():
            value = series.iloc[int(unknown.argmax())]
            known = nearest(str(value), self.values) or f"; there are {self.detail.removesuffix(', ...')}"
            raise DataError(place, f"has the category {value!r}, which was not there in training{known}")
        if self.kind == "binary":
            return codes.astype(np.float32)[:, np.newaxis]
        one_hot: Floats = (codes[:, np.newaxis] == np.arange(len(self.values))).astype(np.float32)
        one_hot[np.isnan(codes)] = np.nan
        return one_hot

    def decode(self, features: Floats) -> "pd.Series":
        """Return the cells of features, (rows, size): the category that is nearest."""
        import pandas as pd

        missing = np.isnan(features[:, 0])
        codes = np.where(features[:, 0] > 0.5, 1, 0) if self.kind == "binary" else features.argmax(axis=1)
        values = np.array([*self.values, None], dtype=object)[np.where(missing, len(self.values), codes)]
        return pd.Series(values, name=self.name, dtype=object).astype(_able(self.pandas_dtype, features[:, 0]))

    @property
    def pandas_dtype(self) -> Any:
        """The type of the column."""
        import pandas as pd

        if self.levels is not None:
            return pd.CategoricalDtype(list(self.levels), self.ordered)
        return pd.api.types.pandas_dtype(self.dtype)

    def holds(self, series: "pd.Series") -> bool:
        """Tell whether observed cells can stand in a column of this dtype as they are."""
        return True


Column = Numbers | Dates | Categories


def _numbers(series: "pd.Series", place: str) -> NDArray[np.float64]:
    """Return (rows,), NaN where missing. Raises DataError for an infinite cell."""
    import pandas as pd

    values: NDArray[np.float64] = pd.to_numeric(series).to_numpy(np.float64, na_value=np.nan)
    _refuse(np.isinf(values), series, place, "must be finite, or empty where missing")
    return values


def _refuse(wrong: NDArray[np.bool_], series: "pd.Series", place: str, rule: str) -> None:
    if wrong.any():
        raise DataError(f"{place}, row {row_of(series, wrong)}", rule, _plain(series.iloc[int(wrong.argmax())]))


def _points(series: "pd.Series") -> "pd.Series":
    import pandas as pd

    return pd.to_datetime(series) if series.dtype == object else series


def _wall_time(series: "pd.Series") -> "pd.Series":
    """Return points in time as the clock of their zone shows them: there, a day begins at midnight."""
    return _points(series).dt.tz_localize(None)


def _is_integer(series: "pd.Series") -> bool:
    from pandas.api.types import infer_dtype, is_integer_dtype

    return bool(is_integer_dtype(series.dtype) or (series.dtype == object and infer_dtype(series) == "integer"))


def _all_whole(values: NDArray[np.float64]) -> bool:
    observed = values[~np.isnan(values)]
    return bool(((observed == np.rint(observed)) & (np.abs(observed) < WHOLE)).all())


def _integers(values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    """Return whole numbers as integers, at most what the type can hold."""
    kind = dtype if dtype.kind in "iu" else np.dtype(np.int64)
    limits = np.iinfo(kind)
    return np.clip(values, float(limits.min), np.nextafter(float(limits.max), 0)).astype(kind)


def _able(dtype: Any, values: NDArray[Any]) -> Any:
    """Return a type that can also hold what is missing, if anything is."""
    if values.dtype.kind == "f" and np.isnan(values).any() and getattr(dtype, "kind", "O") in "iub":
        return dtype if hasattr(dtype, "na_value") else object if dtype.kind == "b" else np.dtype(np.float64)
    return dtype


def _plain(value: Any) -> Any:
    """Return a cell as JSON can hold it, if it can."""
    return value.item() if isinstance(value, np.generic) else value
