"""Old pickles become files that run no code. This is the only place that unpickles anything, and only if told to."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from dgm_ray.data import MinMaxScaler
from dgm_ray.errors import DataError
from dgm_ray.training import write_json


def convert(old: Path, new: Path, trust: bool) -> None:
    """Write the scaler that ``old`` holds as JSON. Raises DataError for anything that is no column-wise scaler."""
    if not trust:
        raise DataError(str(old), "unpickling runs code from the file: add --trust if you know where it comes from")
    try:
        model = pickle.loads(old.read_bytes())  # noqa: S301 (the user said that the file can be trusted)
    except OSError as error:
        raise DataError(str(old), f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # unpickling raises whatever the file makes it raise
        raise DataError(str(old), f"is no pickle that can be read here ({type(error).__name__}: {error})") from None
    write_json(new, scaler_of(model, str(old)).to_dict())


def scaler_of(model: Any, place: str) -> MinMaxScaler:
    """Return a scikit-learn scaler of columns, x -> (x - low) / width, as the minimum and maximum of [0, 1]."""
    if type(model).__name__ == "IterativeImputer":
        rule = "is a MissForest of the original, one tree per column: train it again with TrainMissForest"
        raise DataError(place, rule)
    count = getattr(model, "n_features_in_", 0)
    if not hasattr(model, "inverse_transform") or not count:
        raise DataError(place, "should be a fitted scaler of scikit-learn", type(model).__name__)
    low, high, middle = (model.inverse_transform(np.full((1, count), value))[0] for value in (0.0, 1.0, 0.5))
    if not np.allclose((low + high) / 2, middle) or not (high > low).all():
        raise DataError(place, "scales in another way than by a factor and a shift", type(model).__name__)
    return MinMaxScaler(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
