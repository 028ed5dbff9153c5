"""What a study does now: a header, a row for each trial that runs, and the best so far; or all that in one line."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from dgm_ray.tasks.progress import short, some
from dgm_ray.tune.outcomes import Outcome, best_first

BEST = 3  # trials that are shown of those that ended
GAP, LABEL = 2, 14  # columns between two of the table; of a draw's name
RUNNING, AROUND = 12, 8  # rows at most, and lines of a terminal that are not for them


@dataclass
class Row:
    """A trial that runs. of: its epochs at most. now, best: its metric, NaN before the first measure."""

    number: int
    of: int
    values: Mapping[str, Any]
    epoch: int = 0
    now: float = math.nan
    best: float = math.nan


class Now:
    """The state of a study, of so many trials, by a clock in seconds.

    name: of the study, if it is one of several. running: by a trial's id. A renderable of rich: it is rendered by
    another thread than the one that changes it, so rows are copied before they are read.
    """

    def __init__(self, metric: str, total: int, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._metric, self._total, self._name, self._clock = metric, total, name, clock
        self._started = clock()
        self.running: dict[str, Row] = {}
        self.best: list[Outcome] = []
        self.ended = self._before = 0

    def end(self, outcome: Outcome, *, before: bool = False) -> bool:
        """Count a trial that has ended; tell whether it is the best so far. before: the study was resumed."""
        self.running.pop(outcome.trial_id, None)
        self.ended += 1
        self._before += before
        better = outcome.ranked and not (self.best and self.best[0].score <= outcome.score)
        self.best = best_first([*self.best, outcome])[:BEST]
        return better

    @property
    def header(self) -> str:
        """How far it is, the best so far, and the time: what a line has room for."""
        parts = [f"{self.ended} of {some(self._total, 'trial')}"]
        parts += [f"best {figure(self.best[0].score)} ({self.best[0].number:03d})"] if self.best else []
        elapsed = self._clock() - self._started
        parts.append(clock_time(elapsed))
        rows = list(self.running.values())
        here = self.ended - self._before + sum(row.epoch / row.of for row in rows if row.of)
        if here > 0 and (left := self._total - self._before - here) > 0:
            parts.append(f"about {clock_time(elapsed * left / here)} left")
        return ", ".join([*([self._name] if self._name else []), *parts])

    @property
    def line(self) -> str:
        """All of it, for a log."""
        rows = [f"{row.number:03d} at epoch {row.epoch} of {row.of}" for row in list(self.running.values())]
        more = f", and {len(rows) - BEST} more" if len(rows) > BEST else ""
        return f"{self.header}{'; running: ' if rows else ''}{', '.join(rows[:BEST])}{more}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, min(RUNNING, options.size.height - AROUND))
        rows, best = list(self.running.values()), self.best
        cells = [_cells("", one.number, one.epoch, one.of, one.now, one.best) for one in rows[:room]]
        cells += [["", f"+{len(rows) - room}", "", "", ""]] if len(rows) > room else []
        cells += [
            _cells("*" * (one is best[0]), one.number, one.best_epoch, one.epochs, math.nan, one.score) for one in best
        ]
        values = [one.values for one in rows[:room]] + [{}] * (len(rows) > room) + [one.values for one in best]
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for name in _HEADS:
            table.add_column(name, justify="right", no_wrap=True)
        left = options.max_width - sum(max(map(len, column)) + GAP for column in zip(_HEADS, *cells, strict=True))
        for label in dict.fromkeys(label for of_trial in values for label in of_trial):
            shown = [figure(of_trial[label]) if label in of_trial else "" for of_trial in values]
            head = short(label, max(LABEL, *map(len, shown)))
            if (left := left - max(map(len, (head, *shown))) - GAP) < 0:
                break
            table.add_column(head, justify="right", no_wrap=True)
            for own, text in zip(cells, shown, strict=True):
                own.append(text)
        for place, own in enumerate(cells):
            table.add_row(*map(Text, own), style="dim" if place >= len(cells) - len(best) else "")
        yield Group(Text(self.header, style="bold", no_wrap=True, overflow="ellipsis"), table)


_HEADS = ["", "trial", "epoch", "now", "best"]


def _cells(mark: str, number: int, epoch: int, of: int, now: float, best: float) -> list[str]:
    return [mark, f"{number:03d}", f"{epoch}/{of}", *(figure(one) if one == one else "" for one in (now, best))]


def clock_time(seconds: float) -> str:
    """Return seconds as ``1:05``, or ``1:02:05``."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def figure(value: Any) -> str:
    """Return a value as a table shows it: three digits of a number, nothing for none."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
