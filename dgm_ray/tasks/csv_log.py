"""The original library's training log: ``epoch,metric_name,metric_value,time``, a row per metric and epoch."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

COLUMNS = ("epoch", "metric_name", "metric_value", "time")


class CSVLog:
    """Append an epoch at a time; each is on disk before the next begins. ``time``: seconds that the epoch took.

    after: the epoch that a training goes on from. Rows up to it are kept, later ones were lost with their weights.
    """

    def __init__(self, path: Path, *, after: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _rows(path, after) if after and path.exists() else []
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerows([COLUMNS, *kept])
        self._file.flush()

    def write(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        self._writer.writerows((epoch, name, value, seconds) for name, value in metrics.items())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _rows(path: Path, after: int) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= after]
