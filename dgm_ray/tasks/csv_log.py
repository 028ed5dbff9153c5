"""The original library's training log: ``epoch,metric_name,metric_value,time``, a row per metric and epoch."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

COLUMNS = ("epoch", "metric_name", "metric_value", "time")


class CSVLog:
    """Append an epoch at a time; each is on disk before the next begins. ``time``: seconds that the epoch took."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        append = append and path.exists() and path.stat().st_size > 0
        self._file = path.open("a" if append else "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if not append:
            self._writer.writerow(COLUMNS)

    def write(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        self._writer.writerows((epoch, name, value, seconds) for name, value in metrics.items())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
