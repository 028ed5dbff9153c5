"""Every imputer by its name: configurations that work on any table, without their data."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.space import read_file

FILE = Path(__file__).with_name("imputers.yaml")
BASELINE = "means_and_modes"  # what any imputer should beat


def imputer_names() -> list[str]:
    """Return the names of all imputers."""
    return list(_configurations())


def imputer_configuration(name: str, place: str = "imputer") -> dict[str, Any]:
    """Return a task's configuration without ``data``, a copy. Raises ConfigurationError for an unknown name."""
    known = _configurations()
    if name not in known:
        raise ConfigurationError(place, f"no imputer is called {name!r}{nearest(name, known)}; there are {list(known)}")
    return deepcopy(known[name])


def fitting(arguments: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return a task's arguments with batches that are at most as large as ``largest_batch`` says."""
    if "batch_size" not in arguments:
        return arguments
    return arguments | {"batch_size": min(arguments["batch_size"], largest_batch(arguments, rows))}


def largest_batch(arguments: Mapping[str, Any], rows: int) -> int:
    """Return the batch size at which an epoch has a batch for each of the steps that a task's arguments name.

    In an epoch of fewer batches, the phase that comes last would never have a step. Of steps that are drawn, the most
    count.
    """
    cycle = sum(_most(value) for name, value in arguments.items() if name.endswith("_steps"))
    return max(rows // max(cycle, 1), 1)


def _most(steps: Any) -> int:
    """Return the most that a number of steps, or a draw of it, can be; 0 for what is neither."""
    values = next(iter(steps.values()), 0) if isinstance(steps, Mapping) else steps
    numbers = values if isinstance(values, list) else [values]
    return max((one for one in numbers if isinstance(one, int)), default=0)


@cache
def _configurations() -> dict[str, dict[str, Any]]:
    return read_file(FILE)
