"""``SerialTaskRunner``: tasks one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dgm_ray.errors import ConfigurationError, DGMError, UnfinishedError
from dgm_ray.registry import TASKS
from dgm_ray.tasks.configuration import read_task


@dataclass(frozen=True)
class SerialTaskRunner:
    """Run configuration files one after the other; the first that fails ends it.

    Every file that is there is checked before the first one starts.

    tasks: the paths of the files.
    """

    tasks: list[Path]

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check, then run. Raises what a task raises, with the path of its file before the place."""
        self.check(())
        agree = True
        for number, path in enumerate(self.tasks, 1):
            try:
                ready = read_task(path)
                console.print(f"{number}/{len(self.tasks)} {path}: {ready.name}", highlight=False, soft_wrap=True)
                agree &= ready.run(console)
            except DGMError as error:
                raise _within(path, error) from None
        if not agree:
            raise UnfinishedError("tasks", "figures differ from what their files expect")
        return {"tasks": len(self.tasks)}

    def check(self, outer: tuple[Path, ...]) -> None:
        """Check the files that are there (an earlier task may write a later one's) and what those run in turn."""
        for path in self.tasks:
            if path.resolve() in outer:
                raise ConfigurationError("tasks", "a file cannot run itself", str(path))
            if path.exists():
                try:
                    ready = read_task(path)
                    if isinstance(ready.task, SerialTaskRunner):
                        ready.task.check((*outer, path.resolve()))
                except DGMError as error:
                    raise _within(path, error) from None


def _within(path: Path, error: DGMError) -> DGMError:
    known = error.place.startswith(str(path))
    return error if known else type(error)(f"{path}: {error.place}", error.rule, error.value)


TASKS.register(SerialTaskRunner)
