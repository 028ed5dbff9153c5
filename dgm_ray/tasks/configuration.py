"""A configuration file, ``{"task": NAME, "arguments": {...}}``, becomes a task and runs.

It may also hold ``logging`` (what Python's ``logging.basicConfig`` takes; the original allows it in the arguments as
well) and ``expected`` (figures by name, which are compared with those found, or ``not_repeated``, which is shown).
"""

import importlib
import logging
import pkgutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console

import dgm_ray.tasks
from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.registry import TASKS, call
from dgm_ray.space import draws_of, read_draws, read_file

KEYS = ("task", "arguments", "logging", "expected")
NOT_REPEATED = "not_repeated"  # in place of figures: why the task will not reach them
# Of a figure, or of 1 if it is smaller. On one machine with the same versions a training repeats to the bit, whatever
# process it is in; another processor or version adds in another order.
TOLERANCE = 1e-6
LOG = logging.getLogger("dgm_ray")


class Task(Protocol):
    """What a task's name stands for."""

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Do it, and return figures by name."""


@dataclass(frozen=True)
class Logging:
    """Where Python's logging goes; see logging.basicConfig.

    filename: a file instead of standard error. filemode: "a" appends, "w" begins anew. encoding: of the file.
    format, datefmt, style: of a line. level: a name such as "INFO", or its number. force: replace what was set before.
    """

    filename: Path | None = None
    filemode: Literal["a", "w"] = "a"
    format: str | None = None
    datefmt: str | None = None
    style: Literal["%", "{", "$"] = "%"
    level: str | int | None = None
    force: bool = False
    encoding: str | None = None
    errors: str | None = None

    def begin(self) -> None:
        """Set logging up. Raises ConfigurationError for a level or a format that there is not."""
        if isinstance(self.level, str) and self.level not in (levels := logging.getLevelNamesMapping()):
            raise ConfigurationError("logging.level", f"should be one of {', '.join(levels)}", self.level)
        given = {key: value for key, value in vars(self).items() if value is not None}
        try:
            logging.basicConfig(**given)
        except (ValueError, TypeError, OSError) as error:
            raise ConfigurationError("logging", str(error)) from None


@dataclass(frozen=True)
class Ready:
    """A task that was read and checked, and what the file says beside it."""

    path: Path
    name: str
    task: Task
    node: dict[str, Any]
    logging: Logging | None
    expected: dict[str, Any]
    ignored: list[str]

    def run(self, console: Console) -> bool:
        """Run the task; tell whether what the file expects was found (True if it expects nothing)."""
        for key in self.ignored:
            console.print(f"has no effect: {key}", highlight=False)
        if self.logging:
            self.logging.begin()
        LOG.info("%s: starting", self.name)
        started = time.monotonic()
        found = self.task.run(console, self.node)
        LOG.info("%s: ended in %s", self.name, duration(time.monotonic() - started))
        return _compare(self.expected, found, console)


def load_tasks() -> None:
    """Import every module of this package but the command: a task registers itself."""
    for module in pkgutil.iter_modules(dgm_ray.tasks.__path__):
        if module.name != "runner":
            importlib.import_module(f"dgm_ray.tasks.{module.name}")


def read_task(path: Path) -> Ready:
    """Read a configuration file and check it. Raises ConfigurationError for whatever does not fit."""
    return checked(read_file(path), path)


def checked(node: dict[str, Any], path: Path) -> Ready:
    """Check what a configuration file says. path: of the file, for errors, which are those of ``read_task``."""
    load_tasks()
    if "trial" in node:
        raise ConfigurationError(str(path), f"is a search space; run it with: python -m dgm_ray.tune {path}")
    ignored = [key for key in node if key not in KEYS]
    for key in ignored:  # the original ignores what it does not know; a slip of the pen is not meant so
        if hint := nearest(key, KEYS):
            raise ConfigurationError(key, f"{path.name} has no argument {key!r}{hint}")
    for key in ("task", "arguments"):
        if key not in node:
            raise ConfigurationError(str(path), f"a configuration needs {key!r}")
    expected = node["expected"] if "expected" in node else {}
    kinds = {NOT_REPEATED: str}
    if not isinstance(expected, dict) or not all(
        isinstance(value, kinds[name] if name in kinds else int | float) for name, value in expected.items()
    ):
        raise ConfigurationError("expected", "should be a mapping of names to figures", expected)
    for place, draw in draws_of(read_draws(node)):
        raise ConfigurationError(".".join(place), "a configuration has no draws (a search space has)", str(draw))
    arguments, wanted = _without_logging(node)
    begin = None if wanted is None else call(Logging, wanted, path="logging")
    task: Task = call(TASKS.get(node["task"], "task"), arguments, path="arguments")
    return Ready(path, node["task"], task, node, begin, expected, ignored)


def agrees(one: float, other: float) -> bool:
    """Tell whether two figures are the same, but for ``TOLERANCE``."""
    return bool(one == other or abs(one - other) <= TOLERANCE * max(1.0, abs(one)) or (one != one and other != other))


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which there is one."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{seconds:.2f} seconds"


def _without_logging(node: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the arguments of the task alone, and what is said of logging; the file's own key goes first."""
    arguments, wanted = node["arguments"], None
    if isinstance(arguments, Mapping) and "logging" in arguments:
        wanted = arguments["logging"]
        arguments = {key: value for key, value in arguments.items() if key != "logging"}
    return arguments, node["logging"] if "logging" in node else wanted


def _compare(expected: dict[str, Any], found: dict[str, Any], console: Console) -> bool:
    """Print each expected figure beside the one found; tell whether all agree to 6 digits."""
    agree = True
    for name, value in expected.items():
        if name == NOT_REPEATED:
            console.print(f"{name}: {value}", highlight=False, markup=False)
            continue
        same = name in found and agrees(value, found[name])
        agree &= same
        verdict = "reproduced" if same else "DIFFERS"
        figure = found[name] if name in found else "nothing"
        console.print(f"{verdict}: {name} expected {value:.6g}, found {figure}", highlight=False)
    return agree
