"""Deep generative models and imputers for tables, each one a Ray Tune trial over a declarative search space."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the estimator, or what loads models, when it is first asked for: torch comes with it."""
    if name == "Imputer":
        return import_module("dgm_ray.estimator").Imputer
    if name == "load":
        return import_module("dgm_ray.tasks.exported").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
