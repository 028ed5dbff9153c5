"""What a person sees while a training runs: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 5.0


class Report(Protocol):
    """Called after every epoch, or other step."""

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None: ...


@contextmanager
def steps_shown(total: int, console: Console, unit: str = "epoch", every: float = QUIET_SECONDS) -> Iterator[Report]:
    """Yield what shows each step (``unit``) of ``total``; without a terminal it is a line ``every`` so many seconds."""
    if console.is_terminal:
        bar = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bar, TextColumn("{task.description}"), console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda epoch, metrics: progress.update(task, completed=epoch, description=shown(metrics))
        return
    last = time.monotonic()

    def line(epoch: int, metrics: Mapping[str, float]) -> None:
        nonlocal last
        if (metrics and epoch in (1, total)) or time.monotonic() - last >= every:
            console.print(f"{unit} {epoch}/{total}  {shown(metrics)}", soft_wrap=True, highlight=False)
            last = time.monotonic()

    yield line


def shown(metrics: Mapping[str, float]) -> str:
    """Return metrics as ``name 0.1234`` pairs."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "seconds")


def some(count: int, what: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def short(text: str, most: int) -> str:
    """Return a text of at most so many characters, whose beginning is left out if it is longer."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
