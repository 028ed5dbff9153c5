"""What a study tells MLflow, kept in its folder until it is sent: a line of JSON for each request, and for each answer.

The file is the queue: whoever writes does not wait, memory stays as it is, and what was written is sent, if need be
later and by another process. ``tracking.jsonl`` has the requests, in their order:

    {"do": "study", "name": "medgan", "key": "5c0...", "params": {...}, "tags": {...}, ...}     its run is started
    {"do": "trial", "trial": "a1b2", "number": 3, "name": "medgan 003", "params": {...}}       one of a trial
    {"do": "metrics", "trial": "a1b2", "epochs": [{"epoch": 1, "autoencoder_loss": 0.4, ...}]}
    {"do": "end", "trial": "a1b2", "status": "FINISHED", "metrics": {...}, "tags": {...}, "trace": ""}
    {"do": "figures", "metrics": {...}, "tags": {...}, "step": 0}                              of the study
    {"do": "file", "path": "best.json", "trial": null, "folder": null}
    {"do": "model", "path": "models/trial_0003", "trial": "a1b2"}
    {"do": "text", "text": "...", "name": "notes.txt", "trial": null}
    {"do": "full", "trials": ["a1b2"]}                          all that was said of these, where the rest has no run
    {"do": "close", "status": "FINISHED"}

Each has its ``time`` in milliseconds since 1970. ``tracking.sent.jsonl`` says up to which byte that was sent.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dgm_ray.tasks.lines import Lines

REQUESTS, SENT = "tracking.jsonl", "tracking.sent.jsonl"

Request = dict[str, Any]


class Outbox:
    """The requests of a study. folder: the study's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = Lines(folder / REQUESTS)
        self.seconds = 0.0  # that writing took

    def add(self, do: str, **content: Any) -> int:
        """Write a request; return where it ends."""
        started = time.perf_counter()
        end = self._lines.add(json.dumps({"do": do, "time": milliseconds(), **content}))
        self.seconds += time.perf_counter() - started
        return end

    def close(self) -> None:
        self._lines.close()


class Sent:
    """What of a study's requests an MLflow has got. uri: of the MLflow; what others have got does not count.

    offset: the byte up to which that was sent. runs: their ids by trial, the study's own under "". refused: how many
    requests were; refusal: the first of the reasons. waiting: why sending does not go on at the moment, or "".
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._path, self._uri, self._read = folder / SENT, without_password(uri), 0
        self._forget()
        self.update()

    def _forget(self) -> None:
        self.offset, self.runs, self.refused = 0, dict[str, str](), 0
        self.refusal = self.waiting = ""

    def update(self) -> bool:
        """Take in what was written since; tell whether more was sent."""
        before = self.offset
        for end, line in lines_of(self._path, self._read):
            self._read = end
            if line["uri"] == self._uri:
                self._take(line)
        return self.offset != before

    def _take(self, line: dict[str, Any]) -> None:
        if "anew" in line:
            self._forget()
        if "waiting" in line:
            self.waiting = line["waiting"]
        if "refused" in line:
            self.refused, self.refusal = self.refused + 1, self.refusal or line["refused"]
        if "offset" in line:
            self.offset, self.waiting = line["offset"], ""
            self.runs |= line["runs"]


def requests_of(folder: Path, start: int = 0) -> Iterator[tuple[int, Request]]:
    """Yield each request from a byte on, with the byte where it ends."""
    return lines_of(folder / REQUESTS, start)


def lines_of(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON of each line from a byte on, with the byte where it ends; nothing if there is no file.

    What was cut short is left out: the end of the file, or a line that another follows.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield start, found


def without_password(uri: str) -> str:
    """Return an URI as it may be written into a file."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")))


def milliseconds() -> int:
    """Return the time as MLflow has it, since 1970."""
    return int(time.time() * 1000)
