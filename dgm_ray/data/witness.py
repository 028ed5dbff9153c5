"""The few cells of a large table that decide what its columns are: what is inferred from them is inferred from all.

A witness of a column is a part of its cells; that of two parts of a table is the witness of the witnesses of both.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.columns import STEPS, WHOLE, Family, dates_of, slips_of
from dgm_ray.data.frames import MAX_CATEGORIES

if TYPE_CHECKING:
    import pandas as pd


class Witnesses:
    """The witnesses of all columns. texts: those whose cells are read as text; more are found while parts are added."""

    def __init__(self, texts: frozenset[str]) -> None:
        self.texts = texts
        self._columns: dict[Any, _Witness] = {}

    def add(self, frame: "pd.DataFrame") -> None:
        """Take another part of the table, whose index has the numbers of its rows."""
        for name in frame.columns:
            if name not in self._columns:
                self._columns[name] = _Witness()
            if not self._columns[name].add(frame[name]):
                self.texts |= {str(name)}

    def columns(self) -> dict[Any, "pd.Series"]:
        """Return the witness of each column, by name."""
        return {name: one.cells() for name, one in self._columns.items()}


class _Witness:
    def __init__(self) -> None:
        self._known: pd.Series | None = None  # what was observed
        self._missing: pd.Series | None = None  # one cell that was not
        self._sizes = np.zeros(3)  # cells of text that are numbers, that are dates, and others

    def add(self, part: "pd.Series") -> bool:
        """Take the cells of a part. Return False if they are of another kind than those before."""
        import pandas as pd

        missing = part.isna().to_numpy()
        if missing.any() and self._missing is None:
            self._missing = part[missing].iloc[:1]
        observed = part[~missing]
        if not len(observed):
            return True
        if _is_text(observed):
            self._sizes += _sizes(observed)
        before = self._known
        if before is not None and _kind(before) != _kind(observed):
            return False
        joined = observed if before is None else pd.concat([before, observed])
        self._known = _decisive(joined)
        return True

    def cells(self) -> "pd.Series":
        import pandas as pd

        if self._known is None:
            assert self._missing is not None
            return self._missing
        known = self._known
        if _is_text(known):
            known = pd.concat([known, self._more(known)])
        if self._missing is None:
            return known
        # A part of a CSV file with no observed cell does not know that they are text.
        missing = self._missing.astype(known.dtype) if _is_text(known) else self._missing
        return pd.concat([known, missing])

    def _more(self, texts: "pd.Series") -> "pd.Series":
        """Return cells again, so that what is most of the column's texts, numbers or dates, is most of these."""
        kinds = _text_kinds(texts)
        counts = np.bincount(kinds, minlength=3)
        if self._sizes.sum() == counts.sum() or len(texts) > MAX_CATEGORIES + 1:
            return texts.iloc[:0]  # these are all, or too many to be categories
        most = np.flatnonzero(self._sizes > self._sizes.sum() / 2)
        if len(most) or counts[2]:
            kind, copies = (int(most[0]) if len(most) else 2), int(counts.sum())
        else:  # numbers and dates, as many of the one as of the other
            kind, copies = int(counts[:2].argmin()), int(abs(counts[0] - counts[1]))
        return texts[kinds == kind].iloc[np.zeros(copies, int)]


def _kind(observed: "pd.Series") -> str:
    """Return what cells are as far as a CSV file's readers care: a number is not text, whole or not."""
    if observed.dtype.kind in "iuf":
        return "number"
    return "boolean" if isinstance(observed.iloc[0], bool | np.bool_) else str(observed.dtype)


def _is_text(observed: "pd.Series") -> bool:
    return isinstance(observed.iloc[0], str)


def _text_kinds(texts: "pd.Series") -> NDArray[np.int64]:
    """Return 0 for a text that is a number, 1 for one that is a date, else 2."""
    kinds = np.full(len(texts), 2)
    families: tuple[Family, ...] = ("numbers", "dates")
    for kind, family in enumerate(families):
        slips = slips_of(texts.reset_index(drop=True), family)
        kinds[np.setdiff1d(np.arange(len(texts)), slips.index)] = kind
    return kinds


def _sizes(texts: "pd.Series") -> NDArray[np.float64]:
    counts = texts.value_counts()
    return np.bincount(_text_kinds(counts.index.to_series()), counts.to_numpy(np.float64), 3).astype(np.float64)


def _decisive(cells: "pd.Series") -> "pd.Series":
    """Return the observed cells that decide: all values, if they are few enough for categories, and one again."""
    import pandas as pd

    values = cells.drop_duplicates()
    again = cells[cells.duplicated()].iloc[:1]
    chosen = [values.iloc[: MAX_CATEGORIES + 1], again]
    if len(values) > MAX_CATEGORIES:
        points = dates_of(values) if _is_text(values) else values
        if points.dtype.kind in "iuf":
            numbers = values.to_numpy(np.float64)
            chosen.append(values[(numbers != np.rint(numbers)) | (np.abs(numbers) >= WHOLE)].iloc[:1])
        elif points.dtype.kind == "M":
            chosen.append(values[points.isna()].iloc[:1])
            clock = points.dt.tz_localize(None)
            chosen += [values[clock.dt.floor(step) != clock].iloc[:1] for step in STEPS]
        if points.dtype.kind in "iufM" and points.notna().any():
            chosen += [values.loc[[points.idxmin()]], values.loc[[points.idxmax()]]]
    return pd.concat([one for one in chosen if len(one)])
