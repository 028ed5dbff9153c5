"""Tables in files, read a shard at a time: those that do not fit in memory.

A shard is a range of rows that is read without the rest of the file: rows of a ``.npy`` file, a row group of a Parquet
file, whole lines of a CSV file. Each row has its number in the table, whichever shard it comes from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.columns import ROW, Categories
from dgm_ray.data.frames import FrameEncoder
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.sources import Npy, floats_of, read_mask
from dgm_ray.data.table import Table, checked, read_npy
from dgm_ray.data.user_files import (
    CELLS,
    Csv,
    Parquet,
    check_names,
    class_codes,
    classes_of,
    header_of,
    readable,
    with_classes,
    with_dates,
)
from dgm_ray.data.witness import Witnesses
from dgm_ray.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SHARD_BYTES = 16 * 2**20  # of features, or of a CSV file
PART_ROWS = 20_000  # of a row group are decoded at a time


class Shard(NamedTuple):
    """Rows ``start`` to ``stop`` of a table. where: in its file: rows, bytes, or the number of a row group."""

    start: int
    stop: int
    where: tuple[int, ...]


class Part(NamedTuple):
    """Some neighbouring rows.

    start: the number of the first. features: float32, (rows, num_features), in the table's units. labels: (rows,) or
    None.
    """

    start: int
    features: NDArray[np.float32]
    labels: NDArray[Any] | None

    @property
    def row_ids(self) -> NDArray[np.int64]:
        """Their numbers in the table."""
        return np.arange(self.start, self.start + len(self.features))


class Shards(Protocol):
    """A table that is read a shard at a time. scaled, encoder: as in Table."""

    @property
    def metadata(self) -> Metadata: ...

    @property
    def shards(self) -> tuple[Shard, ...]: ...

    @property
    def scaled(self) -> bool: ...

    @property
    def encoder(self) -> FrameEncoder | None: ...

    def read(self, shard: Shard) -> Iterator[Part]:
        """Yield the rows of a shard, in order. Raises DataError for what cannot be read or breaks a table's rules."""
        ...


@dataclass(frozen=True)
class NpyShards:
    """The files of an ``Npy``."""

    source: Npy
    metadata: Metadata
    shards: tuple[Shard, ...]

    scaled = True
    encoder = None

    @classmethod
    def of(cls, source: Npy) -> "NpyShards":
        """Look at the files' headers. Raises DataError for shapes that do not fit."""
        metadata, features = Metadata.read(source.metadata), read_npy(source.features)
        checked(Table(metadata, floats_of(features[:1], source.features)), str(source.features))
        rows = len(features)
        if source.missing_mask is not None:
            read_mask(source.missing_mask, features.shape, 0, 1)
        if source.labels is not None and (shape := read_npy(source.labels).shape)[:1] != (rows,):
            raise DataError(f"{source.features}: labels", f"must have one item per row ({rows})", shape)
        step = max(1, SHARD_BYTES // (4 * metadata.num_features))
        ends = [(start, min(start + step, rows)) for start in range(0, rows, step)]
        return cls(source, metadata, tuple(Shard(start, stop, (start, stop)) for start, stop in ends))

    def read(self, shard: Shard) -> Iterator[Part]:
        source, rows = self.source, slice(shard.start, shard.stop)
        # A map of its own for each shard: pages that were read are given back with it.
        array = read_npy(source.features)
        features = np.array(floats_of(array[rows], source.features))
        if source.missing_mask is not None:
            features[read_mask(source.missing_mask, array.shape, shard.start, shard.stop)] = np.nan
        labels = None if source.labels is None else np.array(read_npy(source.labels)[rows])
        checked(Table(self.metadata, features, labels), str(source.features), shard.start)
        yield Part(shard.start, features, labels)


@dataclass(frozen=True)
class FileShards:
    """A user's own file, CSV or Parquet. encoder, labels: how cells become features, and class numbers."""

    source: Csv | Parquet
    metadata: Metadata
    encoder: FrameEncoder
    labels: Categories | None
    shards: tuple[Shard, ...]

    scaled = False

    @classmethod
    def of(cls, source: Csv | Parquet) -> "FileShards":
        """Read the file once, to learn what its columns are. Raises DataError as reading the whole table would."""
        place = source.path.name
        witnesses, shards = _learn(source, place)
        if source.label is not None:
            label: Categories | None = classes_of(witnesses.pop(source.label), f"{place}: label {source.label!r}")
        else:
            label = None
        encoder = FrameEncoder.of_columns(witnesses, source.kinds, place, option="--drop")
        metadata = replace(encoder.metadata, num_samples=shards[-1].stop)
        return cls(source, metadata if label is None else with_classes(metadata, label), encoder, label, shards)

    def read(self, shard: Shard) -> Iterator[Part]:
        place, label, start = self.source.path.name, self.source.label, shard.start
        own = [*self.encoder.columns, *([self.labels] if self.labels else [])]
        texts = frozenset(str(column.name) for column in own if column.family in ("text", "dates"))
        for frame in _frames(self.source, shard.where, texts):
            frame.index = _numbered(start, len(frame))
            cells = frame[[column.name for column in self.encoder.columns]]
            if isinstance(self.source, Csv):
                dates = [column.name for column in self.encoder.columns if column.family == "dates"]
                cells = cells.assign(**{str(name): with_dates(cells[name]) for name in dates})
            features = self.encoder.encode(cells, place)
            labels = class_codes(self.labels, frame[label]) if self.labels else None
            checked(Table(self.metadata, features, labels, scaled=False), place, start)
            yield Part(start, features, labels)
            start += len(frame)


def open_shards(source: Npy | Csv | Parquet) -> Shards:
    """Return a source's table in shards. Raises DataError for what cannot be read or learned from."""
    return NpyShards.of(source) if isinstance(source, Npy) else FileShards.of(source)


def _learn(source: Csv | Parquet, place: str) -> tuple[dict[Any, "pd.Series"], tuple[Shard, ...]]:
    """Return the cells that decide what each column is, and the file's shards."""
    texts: frozenset[str] = frozenset()
    while True:
        found = Witnesses(texts)
        shards, start = [], 0
        for where in _places(source):
            rows = 0
            for frame in _frames(source, where, texts):
                if not start + rows:
                    check_names([str(name) for name in frame.columns], place, source.label, source.drop)
                frame = frame.drop(columns=source.drop or [])
                frame.index = _numbered(start + rows, len(frame))
                found.add(frame)
                rows += len(frame)
            shards.append(Shard(start, start + rows, where))
            start += rows
        if found.texts == texts:
            break
        texts = found.texts  # of a column that is numbers here and text there, every cell is text
    if start < 2:
        raise DataError(place, "must have more than 1 sample (row)", start)
    columns = found.columns()
    if isinstance(source, Csv):
        columns = {name: with_dates(cells) for name, cells in columns.items()}
    return columns, tuple(shards)


def _places(source: Csv | Parquet) -> Iterator[tuple[int, ...]]:
    """Yield where in its file each shard is."""
    with readable(source.path):
        if isinstance(source, Parquet):
            from pyarrow.parquet import ParquetFile
            from pyarrow.types import is_dictionary

            with ParquetFile(source.path) as file:
                for field in file.schema_arrow:
                    if is_dictionary(field.type):  # each row group has its own
                        rule = "pandas categories cannot be streamed: store text, or read the whole table into memory"
                        raise DataError(f"{source.path.name}: column {field.name!r}", rule)
                yield from [(group,) for group in range(file.num_row_groups)]
        else:
            header_of(source.path, source.separator)  # or there is nothing to read
            yield from _lines(source.path)


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Yield ranges of bytes that end where a line does that is not within quotation marks."""
    start, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while start < end:
            length, stop = SHARD_BYTES, 0
            while not stop:
                file.seek(start)
                text = np.frombuffer(file.read(length), np.uint8)
                outside = ~np.logical_xor.accumulate(text == ord('"'))
                breaks = np.flatnonzero((text == ord("\n")) & outside)
                if start + length >= end:
                    stop = end
                elif len(breaks):
                    stop = start + int(breaks[-1]) + 1
                length *= 2
            yield start, stop
            start = stop


def _frames(source: Csv | Parquet, where: tuple[int, ...], texts: frozenset[str]) -> Iterator["pd.DataFrame"]:
    """Yield the cells of a shard as the whole file's reader gives them. texts: columns of a CSV file that are text."""
    with readable(source.path):
        if isinstance(source, Csv):
            yield _csv_frame(source, where, texts)
            return
        from pyarrow import Table as ArrowTable
        from pyarrow.parquet import ParquetFile

        with ParquetFile(source.path) as file:
            for batch in file.iter_batches(PART_ROWS, row_groups=list(where)):
                yield ArrowTable.from_batches([batch]).to_pandas()


def _csv_frame(source: Csv, where: tuple[int, ...], texts: frozenset[str]) -> "pd.DataFrame":
    import pandas as pd

    names, (start, stop) = header_of(source.path, source.separator), where
    with source.path.open("rb") as file:
        file.seek(start)
        text = file.read(stop - start)
    if not text.strip(b"\r\n"):
        return pd.DataFrame(columns=names)
    return pd.read_csv(
        BytesIO(text),
        sep=source.separator,
        names=names,
        header=None if start else 0,
        index_col=False,
        dtype=dict.fromkeys(texts, str),
        **CELLS,
    )


def _numbered(start: int, rows: int) -> "pd.Index":
    import pandas as pd

    return pd.RangeIndex(start, start + rows, name=ROW)
