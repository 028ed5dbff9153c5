"""What the checks are made of: how one is registered and fails, and how tables before and after are compared."""

import io
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.base import clone
from sklearn.utils import get_tags

Check = Callable[[Any], None]

CHECKS: dict[str, Check] = {}


def check(one: Check) -> Check:
    """Register a check: a function of an unfitted imputer whose docstring's first line is the rule that it checks.

    Called, it raises AssertionError in one line, ``name: rule. What was found``, for whatever goes wrong, and
    unittest.SkipTest (pytest skips, too) where the imputer lacks what the rule is about.
    """
    name, rule = one.__name__, (one.__doc__ or "").partition("\n")[0]

    @wraps(one)
    def checked(imputer: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an imputer may warn
                one(imputer)
        except SkipTest:
            raise
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"It raised {type(error).__name__}: "
            raise AssertionError(" ".join(f"{name}: {rule} {kind}{error}".split())) from error

    CHECKS[name] = checked
    return checked


def require(holds: bool, found: str) -> None:
    """Raise AssertionError with what was found, unless the rule holds."""
    if not holds:
        raise AssertionError(found)


def fitted(imputer: Any, table: Any, **parameters: Any) -> Any:
    """Return a copy of an imputer that was fitted on a table. parameters: to set in the copy."""
    copy = clone(imputer, safe=False)  # what is no estimator of scikit-learn's is deep-copied
    if parameters:
        copy.set_params(**parameters)
    copy.fit(table.copy())
    return copy


def completed(imputer: Any, table: pd.DataFrame) -> pd.DataFrame:
    """Return what a fitted imputer makes of a table, with the table's labels.

    Raises AssertionError for another shape, a cell that is still missing, or an observed one that is another.
    """
    return completion(imputer.transform(table.copy()), table)


def completion(result: Any, table: pd.DataFrame) -> pd.DataFrame:
    """Return a result, a DataFrame or an array, as ``completed`` does."""
    frame = result if isinstance(result, pd.DataFrame) else pd.DataFrame(np.asarray(result))
    require(frame.shape == table.shape, f"A table of shape {table.shape} came back as {frame.shape}.")
    done = frame.set_axis(table.columns, axis=1).set_axis(table.index, axis=0)
    for name in table:
        observed = table[name].notna().to_numpy()
        _require_none(done[name].isna().to_numpy(), name, "a cell is still missing")
        before, after = table[name][observed], done[name][observed]
        differs = np.zeros(len(table), dtype=np.bool_)
        if is_numeric_dtype(table[name]):
            differs[observed] = _bits(before) != _bits(after)
        else:
            differs[observed] = before.to_numpy(dtype=object) != after.to_numpy(dtype=object)
        _require_none(differs, name, "an observed cell is another")
    return done


def require_same(first: pd.DataFrame, second: pd.DataFrame, what: str, *, rtol: float = 0.0) -> None:
    """Raise AssertionError with the first column in which two completed tables differ.

    rtol: how far numbers may be apart, as a share of the column's range.
    """
    for name in first:
        one, other = first[name].to_numpy(), second[name].to_numpy()
        if is_numeric_dtype(first[name]):
            one, other = one.astype(np.float64), other.astype(np.float64)
            differs = np.abs(one - other) > rtol * (one.max() - one.min())
        else:
            differs = one.astype(object) != other.astype(object)
        if differs.any():
            row = int(differs.argmax())
            raise AssertionError(f"{what}: column {name!r}, row {row}: {one[row]} and {other[row]}.")


def completed_or_refused(action: Callable[[], pd.DataFrame], *names: str) -> pd.DataFrame | None:
    """Return a completed table, or None if it is refused by a ValueError whose message has one of the names."""
    try:
        return action()
    except ValueError as error:
        require(any(name in str(error) for name in names), f"The error does not say {names[0]!r}: {error}")
        return None


def skip_unless(holds: Any, reason: str) -> None:
    """Raise SkipTest with the reason, unless there is something to check."""
    if not holds:
        raise SkipTest(reason)


def parameters_of(imputer: Any) -> set[str]:
    """Return the names of an imputer's parameters, its parts' (``estimator__random_state``) as well."""
    return set(imputer.get_params()) if hasattr(imputer, "get_params") else set()


def fitted_on_text(imputer: Any, table: pd.DataFrame) -> Any:
    """Return an imputer that was fitted on a table with text. Raises SkipTest for one that refuses it.

    One whose tags promise text, by scikit-learn's ``input_tags.string``, may not refuse.
    """
    try:
        return fitted(imputer, table)
    except (TypeError, ValueError) as error:
        if promises(imputer, "string"):
            raise
        raise SkipTest(f"it takes no text: {' '.join(str(error).split())}") from error


def promises(imputer: Any, *tags: str) -> bool:
    """Tell whether scikit-learn's input tags of an imputer say that it takes such columns; False if it has none."""
    return hasattr(imputer, "__sklearn_tags__") and all(getattr(get_tags(imputer).input_tags, tag) for tag in tags)


def digest(imputer: Any) -> str | None:
    """Return a digest of all that an imputer holds, None if it cannot be pickled."""
    for fast in (True, False):  # fast: equal content, equal digest, whatever is shared; but it takes no cycles
        file = io.BytesIO()
        pickler = _Pickler(file, protocol=4)
        pickler.fast = fast
        try:
            pickler.dump(imputer)
        except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError):
            continue
        return sha256(file.getvalue()).hexdigest()
    return None


class _Pickler(pickle.Pickler):
    """Pickles tensors as their numbers: torch writes where in memory they are."""

    def reducer_override(self, one: Any) -> Any:
        torch = sys.modules["torch"] if "torch" in sys.modules else None
        if torch is not None and isinstance(one, torch.Tensor):
            array = one.detach().cpu().numpy()
            return bytes, (f"{array.dtype}{array.shape}".encode() + array.tobytes(),)
        return NotImplemented


def _bits(cells: pd.Series) -> Any:
    """Return numbers as the integers that their 64 bits are: -0.0 is not 0.0."""
    return cells.to_numpy(dtype=np.float64).view(np.int64)


def _require_none(wrong: Any, name: Any, what: str) -> None:
    require(not wrong.any(), f"Column {name!r}, row {int(wrong.argmax())}: {what}.")
