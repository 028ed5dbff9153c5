"""Every imputer by its name: configurations that work on any table, without their data."""

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
    """Return a task's arguments with batches so small that an epoch has one for each of the steps that are named.

    In an epoch of fewer batches, the phase that comes last would never have a step.
    """
    if "batch_size" not in arguments:
        return arguments
    cycle = sum(steps for name, steps in arguments.items() if name.endswith("_steps")) or 1
    return arguments | {"batch_size": min(arguments["batch_size"], max(rows // cycle, 1))}


@cache
def _configurations() -> dict[str, dict[str, Any]]:
    return read_file(FILE)
