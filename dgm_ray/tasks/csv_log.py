"""Logs in CSV files: a row is on disk before the next thing begins, so that whatever happens leaves a whole file."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COLUMNS = ("epoch", "metric_name", "metric_value", "time")


class RowLog:
    """A header and rows. The file is begun anew, with the rows ``kept``."""

    def __init__(self, path: Path, columns: Sequence[str], kept: Iterable[Sequence[Any]] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self.write(columns, *kept)

    def write(self, *rows: Sequence[Any]) -> None:
        self._writer.writerows(rows)
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class CSVLog(RowLog):
    """The original library's training log: a row per metric and epoch. ``time``: seconds that the epoch took.

    after: the epoch that a training goes on from. Rows up to it are kept, later ones were lost with their weights.
    """

    def __init__(self, path: Path, *, after: int = 0) -> None:
        kept = _rows(path, after) if after and path.exists() else []
        super().__init__(path, COLUMNS, kept)

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Write the metrics of an epoch."""
        self.write(*((epoch, name, value, seconds) for name, value in metrics.items()))


def _rows(path: Path, after: int) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= after]
