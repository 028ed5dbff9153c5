"""The errors that a user can cause. Each is one line: the place, the rule, the value.

DGMError
├── ConfigurationError   a file, a key or a value that breaks the grammar or a signature
├── DataError            a table or its metadata that breaks a constraint
├── TrainingError        a run that cannot go on (a loss that is not finite, a checkpoint that does not fit)
├── StudyError           a study that cannot start (its name is taken, more resources than there are)
├── UnfinishedError      a task that gave up, with what it has saved (exit code 1)
└── ImputerError         a table or a configuration that does not fit an imputer; a ValueError as well
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Self

_NO_VALUE = object()


class DGMError(Exception):
    """Something that the user can mend. ``str(error)`` is ``place: rule, not value``."""

    def __init__(self, place: str, rule: str, value: Any = _NO_VALUE) -> None:
        self.place, self.rule, self.value = place, rule, value
        shown = "" if value is _NO_VALUE else f", not {_short(value)}"
        super().__init__(f"{place}: {rule}{shown}" if place else f"{rule}{shown}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how another process makes this error again: it knows no other ``_NO_VALUE``."""
        return type(self), (self.place, self.rule, *(() if self.value is _NO_VALUE else (self.value,)))

    def under(self, path: str) -> Self:
        """Return this error with its place below ``path``: who raised it did not know where it stood."""
        return type(self)(f"{path}.{self.place}" if path and self.place else path or self.place, self.rule, self.value)


class ConfigurationError(DGMError):
    """A configuration breaks the grammar, or does not fit the signature of what it names."""


class DataError(DGMError):
    """A table or its metadata breaks a constraint."""


class TrainingError(DGMError):
    """A run cannot go on."""


class StudyError(DGMError):
    """A study cannot start."""


class UnfinishedError(DGMError):
    """A task ended before it was done, and what it has is saved."""


class ImputerError(DGMError, ValueError):
    """A table or a configuration does not fit; also a ValueError, which scikit-learn's users expect."""


def nearest(name: str, known: Any) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name that is nearest to ``name``, or nothing."""
    close = get_close_matches(name, [str(one) for one in known], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of the user's into one line on standard error and exit code 2 (1 if there are results)."""
    try:
        yield
    except DGMError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, UnfinishedError) else 2) from None


def _short(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
