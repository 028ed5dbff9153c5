"""Run one task from a configuration file: ``python -m dgm_ray.tasks.runner configuration.json``."""

from pathlib import Path
from typing import Annotated

import typer

from dgm_ray.errors import one_line_errors

Configuration = Annotated[
    Path, typer.Argument(help='JSON or YAML: {"task": NAME, "arguments": {...}}, such as a study\'s best.json.')
]


def run(configuration: Configuration) -> None:
    """Run the task that CONFIGURATION describes.

    A study's best.json is such a file: running it repeats the winner and says whether the figures agree.
    Relative paths in the file are relative to the working directory.
    """
    with one_line_errors():
        from rich.console import Console

        import dgm_ray.tune.tasks  # noqa: F401 (registers the tasks that run on Ray)
        from dgm_ray.tasks.configuration import read_task

        if not read_task(configuration).run(Console()):
            raise SystemExit(1)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(run)

if __name__ == "__main__":
    app(prog_name="python -m dgm_ray.tasks.runner")
