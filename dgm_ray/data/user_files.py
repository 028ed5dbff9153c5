"""A user's own files: CSV and Parquet, whose columns' kinds are inferred."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.columns import Categories, Numbers, dates_of, row_of
from dgm_ray.data.frames import MAX_CATEGORIES, FrameEncoder
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.table import Table, checked
from dgm_ray.data.variable import Kind
from dgm_ray.errors import ConfigurationError, DataError, nearest
from dgm_ray.registry import build, register

if TYPE_CHECKING:
    import pandas as pd

# Texts that mean a missing cell. "None" is none of them: it is a category as often.
MISSING_TEXTS = ("", "?", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet")
# How pandas reads cells: each column as a whole, and what is missing as above.
CELLS: dict[str, Any] = {"na_values": list(MISSING_TEXTS), "keep_default_na": False, "low_memory": False}


@register
@dataclass(frozen=True)
class Csv:
    """A table in a CSV file with a header; columns' kinds are inferred and shown.

    label: a column with the class of each row, which is no variable then. kinds: "numerical", "binary" or
    "categorical" by column, where another would be inferred. drop: columns to leave out. separator: of cells.
    An empty cell, ?, NA, N/A, NaN and null are missing. Dates are written as 2024-12-31 or 2024-12-31 23:59.
    """

    path: Path
    label: str | None = None
    kinds: dict[str, Kind] | None = None
    drop: list[str] | None = None
    separator: str = ","

    def read(self) -> Table:
        """Return the table in the user's units. Raises DataError for what cannot be read or learned from."""
        return table_of(read_csv(self.path, self.separator), self.path.name, self.label, self.kinds, self.drop)


@register
@dataclass(frozen=True)
class Parquet:
    """A table in a Parquet file; columns' kinds are inferred from their types and shown.

    label, kinds, drop: as in Csv.
    """

    path: Path
    label: str | None = None
    kinds: dict[str, Kind] | None = None
    drop: list[str] | None = None

    def read(self) -> Table:
        """Return the table in the user's units. Raises DataError for what cannot be read or learned from."""
        return table_of(read_parquet(self.path), self.path.name, self.label, self.kinds, self.drop)


def table_of(
    frame: "pd.DataFrame",
    place: str = "table",
    label: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
    drop: Sequence[str] | None = None,
) -> Table:
    """Return a table with its encoder. Raises DataError for what cannot be learned from."""
    names = [str(name) for name in frame.columns]
    check_names(names, place, label, drop)
    left = frame.loc[:, [name not in (*(drop or ()), label) for name in names]]
    encoder = FrameEncoder.infer(left, kinds, place, option="--drop")
    metadata, labels = replace(encoder.metadata, num_samples=len(frame)), None
    if label is not None:
        series = frame.iloc[:, names.index(label)]
        column = classes_of(series, f"{place}: label {label!r}")
        labels, metadata = class_codes(column, series), with_classes(metadata, column)
    return checked(Table(metadata, encoder.encode(left, place), labels, scaled=False, encoder=encoder), place)


def source_node(
    path: Path, label: str | None = None, drop: Sequence[str] = (), kinds: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the configuration of the source that reads a file. Raises DataError for a file of another kind."""
    suffix = checked_suffix(path)
    given = {"label": label, "drop": list(drop) or None, "kinds": dict(kinds) if kinds else None}
    arguments: dict[str, Any] = {"path": str(path)} | {key: one for key, one in given.items() if one is not None}
    if suffix == ".parquet":
        return {"factory": "Parquet", "arguments": arguments}
    separator = {} if SEPARATORS[suffix] == "," else {"separator": SEPARATORS[suffix]}
    return {"factory": "Csv", "arguments": arguments | separator}


def read_kinds(assignments: Sequence[str]) -> dict[str, str]:
    """Return what the option ``--kind COLUMN=KIND`` says. Raises ConfigurationError for anything else."""
    kinds: dict[str, str] = {}
    for assignment in assignments:
        name, sign, kind = assignment.rpartition("=")
        if not sign:
            raise ConfigurationError("--kind", "should be COLUMN=KIND", assignment)
        kinds[name] = kind
    return kinds


def checked_suffix(path: Path) -> str:
    """Return the kind of a table's file by its name. Raises DataError for one that cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        raise DataError(str(path), "a .npy file has no columns' names: use the source Npy, with its metadata.json")
    if suffix not in SUFFIXES:
        raise DataError(str(path), f"must be a table: {', '.join(SUFFIXES)}", suffix)
    return suffix


def read_frame(path: Path, encoder: FrameEncoder | None = None) -> "pd.DataFrame":
    """Return the table of a .csv, .tsv or .parquet file. Raises DataError if it cannot be read.

    encoder: what was learned; its columns of text are text, also where codes look like numbers by chance.
    """
    suffix = checked_suffix(path)
    frame = read_parquet(path) if suffix == ".parquet" else read_csv(path, SEPARATORS[suffix])
    return frame if encoder is None else typed(frame, encoder, path)


def typed(frame: "pd.DataFrame", encoder: FrameEncoder, path: Path) -> "pd.DataFrame":
    """Return the table with text where text was learned: in a CSV file, codes may look like numbers by chance."""
    texts = [one.name for one in encoder.columns if one.family == "text" and one.name in frame]
    other = [name for name in texts if frame[name].dtype.kind in "iufb" and frame[name].notna().any()]
    if not other or path.suffix.lower() not in SEPARATORS:
        return frame
    cells = read_texts(path, SEPARATORS[path.suffix.lower()])
    return frame.assign(**{str(name): cells[name].astype(object).where(frame[name].notna(), None) for name in other})


def read_csv(path: Path, separator: str = ",") -> "pd.DataFrame":
    """Return a CSV file's table, its dates as such. Raises DataError if it cannot be read."""
    frame = _read_csv(path, separator, **CELLS)
    for name in frame.columns:
        frame[name] = with_dates(frame[name])
    return frame


def with_dates(series: "pd.Series") -> "pd.Series":
    """Return dates, if all the cells of a CSV file's column are texts that are dates; else the column itself."""
    import pandas as pd

    texts = series.dropna()
    if len(texts) and pd.api.types.infer_dtype(texts) == "string" and dates_of(texts.head(1)).notna().all():
        dates = dates_of(series)
        if dates[texts.index].notna().all():  # what is no date, as 2023-02-30, is no missing cell
            return dates
    return series


def read_texts(path: Path, separator: str = ",") -> "pd.DataFrame":
    """Return the cells of a CSV file as they stand in it, as text; an empty cell is an empty text."""
    return _read_csv(path, separator, dtype=str, na_filter=False)


def read_parquet(path: Path) -> "pd.DataFrame":
    """Return a Parquet file's table. Raises DataError if it cannot be read."""
    import pandas as pd

    with readable(path):
        return pd.read_parquet(path)


def _read_csv(path: Path, separator: str, **how: Any) -> "pd.DataFrame":
    import pandas as pd

    with readable(path):
        header_of(path, separator)
        return pd.read_csv(path, sep=separator, index_col=False, **how)


def header_of(path: Path, separator: str) -> list[str]:
    """Return the names of a CSV file's columns. Raises DataError for one that pandas would rename."""
    import pandas as pd

    header: list[str] = (
        pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, na_filter=False).iloc[0].tolist()
    )
    for number, name in enumerate(header):
        if not name:
            raise DataError(str(path), f"column {number} has no name: name it, or write the file without an index")
        if header.count(name) > 1:
            raise DataError(str(path), f"has two columns that are called {name!r}: rename one")
    return header


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one line."""
    from pandas.errors import EmptyDataError, ParserWarning

    try:
        with path.open("rb"), warnings.catch_warnings():  # Arrow says nothing of why a file cannot be opened
            warnings.simplefilter("error", ParserWarning)  # a row with too many cells
            yield
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from None
    except EmptyDataError:
        raise DataError(str(path), "is empty") from None
    except UnicodeDecodeError:
        raise DataError(str(path), "must be text in UTF-8") from None
    except (ValueError, ParserWarning) as error:  # also of pandas' and of Arrow's parsers
        raise DataError(str(path), f"cannot be read: {' '.join(str(error).split())}") from None


def check_names(names: Sequence[str], place: str, label: str | None, drop: Sequence[str] | None) -> None:
    """Raise DataError unless a table has the columns that are named, and the label is not dropped."""
    for name in (*(drop or ()), *((label,) if label is not None else ())):
        if name not in names:
            raise DataError(place, f"there is no column {name!r}{nearest(name, names)}")
    if label is not None and label in (drop or ()):
        raise DataError(place, f"the label {label!r} cannot be dropped")


def classes_of(series: "pd.Series", place: str) -> Categories:
    """Return what the classes of labels are. Raises DataError for a row without one, or too few or too many."""
    missing = series.isna().to_numpy()
    if missing.any():
        rule = "is missing: every row needs its class, so give it or remove the row"
        raise DataError(f"{place}, row {row_of(series, missing)}", rule)
    if series.dtype.kind == "f":
        Numbers.infer(series, place, given=True)  # infinities are no classes
    found = series.nunique()
    if not 2 <= found <= MAX_CATEGORIES:
        raise DataError(place, f"must hold 2 to {MAX_CATEGORIES} classes", found)
    return Categories.infer(series, place)


def class_codes(column: Categories, series: "pd.Series") -> NDArray[np.int64]:
    """Return class numbers, (rows,)."""
    numbers = series.astype(object).map({value: number for number, value in enumerate(column.values)})
    codes: NDArray[np.int64] = numbers.to_numpy(np.int64)
    return codes


def with_classes(metadata: Metadata, column: Categories) -> Metadata:
    """Return the metadata of a table whose labels are these classes."""
    return replace(metadata, classes=tuple(map(str, column.values)), num_classes=len(column.values))


def own_source(configuration: Mapping[str, Any], place: str) -> Csv | Parquet | None:
    """Return the user's table that a task's configuration reads, None if it reads another's or none.

    place: of the configuration, for errors. Raises ConfigurationError for one that cannot be.
    """
    node: Any = configuration
    for step in ("arguments", "data", "arguments", "source"):
        if isinstance(node, Mapping) and step in node:
            node = node[step]
    if not isinstance(node, Mapping) or "factory" not in node or node["factory"] not in ("Csv", "Parquet"):
        return None
    source: Csv | Parquet = build(node, Csv | Parquet, path=f"{place}: arguments.data.source")
    return source
