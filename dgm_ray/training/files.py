"""Files are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it takes the place of ``path``.

    When the block raises, what stood at ``path`` before stands there still. The folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, node: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically. Raises ValueError for a number that JSON does not have."""
    write_text(path, json.dumps(node, indent=2, allow_nan=False) + "\n")


def append_line(path: Path, text: str) -> None:
    """Add a line to a text file; after a line that was cut short it begins a new one."""
    with path.open("ab+") as file:
        if file.tell() and not _ends_a_line(path):
            file.write(b"\n")
        file.write(text.encode() + b"\n")


def read_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON of each line of a file, nothing if there is none. A line that was cut short is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
