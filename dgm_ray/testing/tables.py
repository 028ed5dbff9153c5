"""The tables that imputers are checked on: small, with columns that tell of each other, the same at every call."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Random = np.random.Generator

NUMBERS = ("height", "weight", "glucose", "dose")
CITIES = ("Rome", "Oslo", "Bonn")


def numbers(rows: int = 60, seed: int = 0, missing: float = 0.15) -> pd.DataFrame:
    """Return columns of float64 in units of their own; cells are missing (NaN) at random, with that probability."""
    frame, level, random = _columns(rows, seed)
    frame["glucose"] = 5 - level + 0.3 * random.normal(size=rows)
    frame["dose"] = 1e-3 * (1 + level**2 + 0.3 * random.random(rows))
    return _with_gaps(frame[list(NUMBERS)], missing, random)


def mixed(rows: int = 60, seed: int = 0, missing: float = 0.15) -> pd.DataFrame:
    """Return two columns of numbers, and two of text: a city of three, and yes or no."""
    frame, level, random = _columns(rows, seed)
    frame["city"] = np.array(CITIES)[np.clip(level + 1.5, 0, 2).astype(int)]
    frame["smoker"] = np.where(random.random(rows) < 0.5, "yes", "no")
    return _with_gaps(frame, missing, random)


def typed(rows: int = 60, seed: int = 0, missing: float = 0.15) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a table whose columns are of every type, with gaps, and the same table without any."""
    frame, level, random = _columns(rows, seed)
    frame["age"] = random.integers(18, 90, rows)
    frame["visits"] = pd.array(random.integers(0, 300, rows), dtype="Int64")
    frame["member"] = level > 0
    frame["city"] = pd.Categorical(random.choice(CITIES, rows), categories=["Paris", *CITIES])
    frame["since"] = pd.Timestamp("2001-01-01") + pd.to_timedelta(random.integers(0, 5000, rows), unit="D")
    return _with_gaps(frame, missing, random), frame


def _columns(rows: int, seed: int) -> tuple[pd.DataFrame, NDArray[np.float64], Random]:
    random = np.random.default_rng(seed)
    level = random.uniform(-1.5, 1.5, rows)
    height = 170 + 10 * level + random.normal(size=rows)
    return pd.DataFrame({"height": height, "weight": 70 + 12 * level + random.normal(size=rows)}), level, random


def _with_gaps(frame: pd.DataFrame, missing: float, random: Random) -> pd.DataFrame:
    return frame.mask(random.random(frame.shape) < missing)
