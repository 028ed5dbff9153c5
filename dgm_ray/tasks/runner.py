"""Run one task from a configuration file: ``python -m dgm_ray.tasks.runner configuration.json``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dgm_ray.errors import ConfigurationError, one_line_errors

Configuration = Annotated[
    Path, typer.Argument(help='JSON or YAML: {"task": NAME, "arguments": {...}}, such as a study\'s best.json.')
]


def run(configuration: Configuration) -> None:
    """Run the task that CONFIGURATION describes.

    A study's best.json is such a file: running it repeats the winner and says whether the figures agree.
    Relative paths in the file are relative to the working directory.
    """
    with one_line_errors():
        if not run_file(configuration):
            raise SystemExit(1)


def run_file(path: Path) -> bool:
    """Run a configuration file; tell whether what it expects was reached (True if it expects nothing)."""
    from rich.console import Console

    from dgm_ray.registry import TASKS, call, check_keys
    from dgm_ray.space import draws_of, read_draws, read_file
    from dgm_ray.tasks import train  # noqa: F401 (registers its tasks)

    node = read_file(path)
    if "trial" in node:
        raise ConfigurationError(str(path), f"is a search space; run it with: python -m dgm_ray.tune {path}")
    check_keys(node, ("task", "arguments", "expected"), "", f"{path.name}")
    for key in ("task", "arguments"):
        if key not in node:
            raise ConfigurationError(str(path), f"a configuration needs {key!r}")
    expected = node["expected"] if "expected" in node else {}
    if not (isinstance(expected, dict) and all(isinstance(value, int | float) for value in expected.values())):
        raise ConfigurationError("expected", "should be a mapping of names to figures", expected)
    for place, draw in draws_of(read_draws(node)):
        raise ConfigurationError(".".join(place), "a configuration has no draws (a search space has)", str(draw))
    task = call(TASKS.get(node["task"], "task"), node["arguments"], path="arguments")
    console = Console()
    return _compare(expected, task.run(console, node), console)


def _compare(expected: dict[str, Any], found: dict[str, Any], console: Any) -> bool:
    """Print each expected figure beside the one found; tell whether all agree to 6 digits."""
    agree = True
    for name, value in expected.items():
        same = name in found and abs(found[name] - value) <= 1e-6 * max(1.0, abs(value))
        agree &= same
        verdict = "reproduced" if same else "DIFFERS"
        figure = found[name] if name in found else "nothing"
        console.print(f"{verdict}: {name} expected {value:.6g}, found {figure}", highlight=False)
    return agree


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(run)

if __name__ == "__main__":
    app(prog_name="python -m dgm_ray.tasks.runner")
