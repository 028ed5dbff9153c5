"""How a study's table gets to its trials: through shared memory, or streamed from its file."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import ByteSize

from dgm_ray.data import Csv, Files, Holdout, Npy, Parquet, Prepared, read_npy
from dgm_ray.data.shards import open_shards
from dgm_ray.data.streaming import STREAMED, TrainParts, prepare_streamed
from dgm_ray.errors import ConfigurationError
from dgm_ray.tasks.train import TrainTask
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.tune.settings import Reading

PLACE = "tune.data.mode"
SHARE = 4  # a table that takes more than this part of the memory is streamed


@dataclass(frozen=True)
class Route:
    """How the table is read, and why."""

    streams: bool
    reason: str

    @property
    def line(self) -> str:
        """What is said of it."""
        return f"table {'streamed from its file' if self.streams else 'in memory'}: {self.reason}"


def route(task: TrainingTask, reading: Reading) -> Route:
    """Choose how the table is read. Raises ConfigurationError if it is to be streamed and cannot be."""
    obstacle = _obstacle(task)
    if reading.mode == "stream" and obstacle:
        raise ConfigurationError(PLACE, f"must be memory, {obstacle}", reading.mode)
    if reading.mode != "auto":
        return Route(reading.mode == "stream", f"{PLACE} says so")
    size, room = _table_bytes(task), available_memory()
    takes = f"it takes {ByteSize(size).human_readable()} of {ByteSize(room).human_readable()}"
    if size * SHARE <= room:
        return Route(False, takes if size else obstacle)
    if obstacle:
        return Route(False, f"{takes}, and {obstacle}")
    return Route(True, f"{takes}, more than a quarter ({PLACE})")


def streamed(task: TrainingTask, reading: Reading) -> Prepared:
    """Read a table once, split it and hide its cells; its training rows stay in their file. Raises as ``prepare``."""
    assert isinstance(task.data, Holdout)
    assert isinstance(task.data.source, Npy | Csv | Parquet)
    return prepare_streamed(task.data, open_shards(task.data.source), partial(_opened, reading.shuffle_rows))


def _opened(shuffle_rows: int, parts: TrainParts, rows: int) -> Callable[[Any, int | None], Any]:
    return partial(_rows, parts, rows, shuffle_rows)


def _rows(parts: TrainParts, rows: int, shuffle_rows: int, device: Any, classes: int | None) -> Any:
    from dgm_ray.tune.streamed_rows import StreamedRows  # Ray Data

    return StreamedRows(parts, rows, device, classes, shuffle_rows)


class Shared:
    """A table in Ray's object store, of which each node has one copy. The driver reads it there as well.

    data: with the test rows, which no trial can look at. for_trials: returns the table without them.
    """

    def __init__(self, data: Prepared) -> None:
        import ray

        stored = ray.put(replace(data, test=None))
        self.for_trials: Callable[[], Prepared] = partial(ray.get, stored)
        self.data: Prepared = replace(self.for_trials(), test=data.test)

    @cached_property
    def content_hash(self) -> str:
        """As ``Prepared.content_hash``, computed once for all the studies of a comparison."""
        return self.data.content_hash()


def _obstacle(task: TrainingTask) -> str:
    """Return why a table cannot be streamed, "" if it can."""
    data = task.data
    if not isinstance(task, TrainTask):
        return f"because {task.label} needs all rows at once"
    if isinstance(data, Files):
        return "because files of features are split beforehand"
    if not isinstance(data, Holdout):
        return f"because {type(data).__name__} hides cells of all rows at once"
    if not isinstance(data.source, Npy | Csv | Parquet):
        return f"because {type(data.source).__name__} is no file"
    if not isinstance(data.missing, STREAMED):
        others = ", ".join(one.__name__ for one in STREAMED)
        return f"because {type(data.missing).__name__} looks at the whole table, unlike {others}"
    return ""


def _table_bytes(task: TrainingTask) -> int:
    """Return what the table takes as float32, about, 0 if there is no telling without reading it."""
    source = None if isinstance(task.data, Files) else task.data.source
    if isinstance(source, Npy):
        return 4 * read_npy(source.features).size
    if not isinstance(source, Csv | Parquet) or not source.path.is_file():
        return 0
    if isinstance(source, Csv):
        return source.path.stat().st_size  # a cell is some characters
    from dgm_ray.data.user_files import readable

    with readable(source.path):
        from pyarrow.parquet import read_metadata

        found = read_metadata(source.path)
    return int(4 * found.num_rows * found.num_columns)


def available_memory() -> int:
    """Return the bytes that processes can still take: of the machine, and of the container where that is less."""
    meminfo, limit, used = (
        Path("/proc/meminfo"),
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
    )
    if meminfo.exists():
        entries = dict(line.split(":") for line in meminfo.read_text(encoding="utf-8").splitlines())
        found = int(entries["MemAvailable"].split()[0]) * 1024
    else:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if limit.exists() and used.exists() and (text := limit.read_text(encoding="utf-8").strip()) != "max":
        found = min(found, int(text) - int(used.read_text(encoding="utf-8")))
    return max(found, 0)
