"""A file of lines that stays open. Nothing heavy is imported: the process that sends to MLflow has little memory."""

import os
from pathlib import Path


class Lines:
    """Add lines to a text file. Each is one write, and is there for others, also if this process dies after it.

    After a line that was cut short a new one begins. The folder is made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+", buffering=0)
        self.size = self._file.seek(0, os.SEEK_END)
        if self.size:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read() != b"\n":
                self.size += self._file.write(b"\n")

    def add(self, text: str) -> int:
        """Add a line; return where it ends."""
        line = text.encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"{self._file.name}: no room for a line")
        self.size += written
        return self.size

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if "_file" in self.__dict__:  # else it could not be opened
            self._file.close()
