"""The process that sends what studies have written down: ``python -m dgm_ray.tune.tracking.sender``.

It has MLflow, so that the study's process needs none, and is of low priority. On standard input it gets lines of JSON:
``{"uri": ...}``, which may have a password that no list of processes should show; ``{"folder": ...}`` for each study;
and ``{}`` when there is reason to hurry. When that ends, because the study's process has, it sends what is left.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from dgm_ray.tune.tracking.delivery import Delivery, one_line

PERIOD = 1.0  # seconds between two looks; what was said meanwhile goes in as few calls as there can be
LONGEST = 10.0  # seconds between two attempts
LOST = 60.0  # seconds without progress until a process whose study's died gives up
PRIORITY = 5  # the trials go first


class Sender:
    """The process, as the study's has it. It starts at once, since importing MLflow takes seconds."""

    def __init__(self, uri: str) -> None:
        line = [sys.executable, "-m", "dgm_ray.tune.tracking.sender"]
        nowhere = subprocess.DEVNULL
        # In a session of its own: Ctrl-C is not meant for it.
        self._process = subprocess.Popen(  # noqa: S603
            line, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, text=True, start_new_session=True
        )
        self._say({"uri": uri})

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, folder: Path) -> None:
        """Begin to send what a study writes down in its folder."""
        self._say({"folder": str(folder)})

    def hurry(self) -> None:
        """Let it look at once."""
        self._say({})

    def end(self) -> None:
        """End it without waiting for what is not sent."""
        self._process.terminate()
        self._process.wait()

    def _say(self, what: dict[str, str]) -> None:
        assert self._process.stdin
        with suppress(OSError):  # it has ended: what was written down stays
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()


_SENDERS: dict[str, Sender] = {}


def sender_of(uri: str) -> Sender:
    """Return the process that sends to an MLflow; there is one for all studies of this process."""
    if uri not in _SENDERS or not _SENDERS[uri].running:
        _SENDERS[uri] = Sender(uri)
    return _SENDERS[uri]


def set_up() -> None:
    """Set what MLflow reads from the environment; a user's own value wins. What fails is repeated here, not by it."""
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(name, value)


@cache
def connect(uri: str) -> Any:
    """Return MLflow's client."""
    set_up()
    import logging

    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


class Round:
    """What a process sends to one MLflow, study by study."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._deliveries: dict[str, Delivery] = {}
        self._failures, self._progress = 0, time.monotonic()
        self._alone = False  # the study's process has ended

    def add(self, folder: str) -> None:
        if folder not in self._deliveries:
            self._deliveries[folder] = Delivery(Path(folder), self._uri, lambda: connect(self._uri))

    def finish(self) -> None:
        """Take it that nothing more will come."""
        self._alone, self._progress = True, time.monotonic()

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return min(LONGEST, PERIOD / 2 * 2**self._failures) if self._failures else PERIOD

    @property
    def over(self) -> bool:
        """Whether nothing more will come, or can be sent."""
        return self._alone and (not self._deliveries or time.monotonic() - self._progress > LOST)

    def go(self) -> None:
        """Send what there is."""
        failed = False
        for folder, one in list(self._deliveries.items()):
            if not one.folder.exists():  # its study was removed
                self._leave(folder)
                continue
            try:
                while one.deliver():
                    self._progress = time.monotonic()
                if self._alone:
                    one.kill()
                if self._alone or one.closed:
                    self._leave(folder)
            except Exception as error:
                failed = True
                with suppress(OSError):
                    one.say(one_line(error))
        self._failures = self._failures + 1 if failed else 0

    def _leave(self, folder: str) -> None:
        self._deliveries.pop(folder).release()


def step_back() -> None:
    """Let the trials go first."""
    os.nice(PRIORITY)
    # Where Linux shares the processors between sessions, nice only counts within one, and this has its own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(PRIORITY), encoding="ascii")


def main() -> None:
    """Send until standard input ends, and then what is left."""
    step_back()
    told = Queue[str | None]()

    def listen() -> None:
        for line in sys.stdin:
            told.put(line)
        told.put(None)

    Thread(target=listen, daemon=True).start()
    set_up()
    import mlflow  # noqa: F401  # meanwhile; nothing is written yet
    from mlflow.store.db import utils  # noqa: F401

    first = told.get()
    if first is None:
        return
    round_ = Round(json.loads(first)["uri"])
    while not round_.over:
        try:
            line = told.get(timeout=round_.pause)
        except Empty:
            line = ""
        if line is None:
            round_.finish()
        elif line:
            said = json.loads(line)
            if "folder" in said:
                round_.add(said["folder"])
        round_.go()


if __name__ == "__main__":
    main()
