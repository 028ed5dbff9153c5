"""The checks, each a function of an unfitted imputer. The first line of a docstring is the rule."""

import pickle
import random as python_random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd

from dgm_ray.testing.rules import (
    check,
    completed,
    completed_or_refused,
    completion,
    digest,
    fitted,
    fitted_on_text,
    parameters_of,
    promises,
    require,
    require_same,
    skip_unless,
)
from dgm_ray.testing.tables import mixed, numbers, typed

_ROUNDING = 1e-5  # of a column's range: sums in another order


@check
def check_observed_cells_are_untouched(imputer: Any) -> None:
    """Observed cells come back as they were, to the bit."""
    train, unseen = numbers(), numbers(20, seed=1)
    for seed, table in enumerate((train, unseen)):
        seconds = np.random.default_rng(seed).uniform(0, 1e6, len(table))
        table["time"] = 1.7e9 + seconds  # more digits than a float32 has
        table.loc[0, "dose"] = -0.0
    imputer = fitted(imputer, train)
    for table in (train, unseen):
        completed(imputer, table)


@check
def check_input_is_left_alone(imputer: Any) -> None:
    """Neither fit nor transform writes into the table that it is given."""
    for table in (numbers(), numbers().to_numpy()):
        own, given = fitted(imputer, table), table.copy()
        own.fit(given)
        own.transform(given)
        require(np.array_equal(np.asarray(given), np.asarray(table), equal_nan=True), "Cells were filled in place.")


@check
def check_transform_never_trains(imputer: Any) -> None:
    """Transform changes nothing in the imputer: the same rows get the same cells, whatever came between."""
    imputer, tables = _learned(imputer)
    unseen, before = tables(20, seed=1), digest(imputer)
    first = completed(imputer, unseen)
    completed(imputer, tables(20, seed=2, missing=0.5))
    require(digest(imputer) == before, "What it holds has changed.")
    require_same(first, completed(imputer, unseen), "The same rows twice")


@check
def check_row_order(imputer: Any) -> None:
    """What a row gets does not depend on where it stands in the table."""
    imputer, tables = _learned(imputer)
    unseen = tables(30, seed=1)
    shuffled = unseen.iloc[np.random.default_rng(0).permutation(len(unseen))]
    done = completed(imputer, unseen)
    require_same(done.loc[shuffled.index], completed(imputer, shuffled), "In another order", rtol=_ROUNDING)


@check
def check_batch_size(imputer: Any) -> None:
    """What a row gets does not depend on how many rows are transformed with it."""
    imputer, tables = _learned(imputer)
    unseen = tables(16, seed=1, missing=0.4)
    done = completed(imputer, unseen)
    for rows in (1, 7):
        parts = [completed(imputer, unseen.iloc[at : at + rows]) for at in range(0, len(unseen), rows)]
        require_same(done, pd.concat(parts), f"At once, and {rows} at a time", rtol=_ROUNDING)


@check
def check_complete_table(imputer: Any) -> None:
    """A table without a gap is learned from, and comes back as it was."""
    table = numbers(missing=0)
    completed(fitted(imputer, table), table)


@check
def check_gaps_where_training_had_none(imputer: Any) -> None:
    """New rows are completed in columns that had no gap in training, too."""
    train, complete = numbers(), numbers(missing=0)
    train["height"] = complete["height"]
    for table in (train, complete):
        completed(fitted(imputer, table), numbers(20, seed=1, missing=0.5))


@check
def check_all_missing_row(imputer: Any) -> None:
    """A row without an observed cell is completed, in training and in new rows."""
    train, unseen = numbers(), numbers(20, seed=1)
    train.iloc[3] = unseen.iloc[3] = np.nan
    imputer = fitted(imputer, train)
    for table in (train, unseen, unseen.iloc[3:4], unseen.iloc[[3, 3]]):
        completed(imputer, table)


@check
def check_all_missing_column(imputer: Any) -> None:
    """A column without an observed cell is refused in fit by a ValueError that names it, or completed."""
    table = numbers()
    table["weight"] = np.nan
    completed_or_refused(lambda: completed(fitted(imputer, table), table), "weight")


@check
def check_all_missing_column_of_new_rows(imputer: Any) -> None:
    """New rows are completed also if all their cells of a column are missing."""
    unseen = numbers(20, seed=1)
    unseen["weight"] = np.nan
    completed(fitted(imputer, numbers()), unseen)


@check
def check_constant_column(imputer: Any) -> None:
    """A column of one value is refused in fit by a ValueError that names it, or completed with that value."""
    table = numbers()
    table["weight"] = table["weight"].where(table["weight"].isna(), 70.5)
    done = completed_or_refused(lambda: completed(fitted(imputer, table), table), "weight")
    if done is not None:
        wrong = done["weight"][~np.isclose(done["weight"].to_numpy(np.float64), 70.5)]
        require(wrong.empty, f"Column 'weight': {wrong.tolist()[:1]} is no cell of it.")


@check
def check_few_rows(imputer: Any) -> None:
    """Few rows are completed, and in fit learned from or refused by a ValueError about the batch they do not fill."""
    completed(fitted(imputer, numbers()), numbers(3, seed=1))
    train = numbers(6, missing=0)
    train.iloc[1, 0] = train.iloc[4, 2] = np.nan
    completed_or_refused(lambda: completed(fitted(imputer, train), train), "batch")


@check
def check_one_row(imputer: Any) -> None:
    """A single new row is completed; in fit it is refused by a ValueError about rows (samples), or learned from."""
    completed(fitted(imputer, numbers()), numbers(1, seed=1, missing=0.5))
    table = numbers(1, missing=0)
    completed_or_refused(lambda: completed(fitted(imputer, table), table), "row", "sample")


@check
def check_one_column(imputer: Any) -> None:
    """A single column is refused in fit by a ValueError about columns (features), or completed."""
    table = numbers()[["height"]]
    completed_or_refused(lambda: completed(fitted(imputer, table), table), "column", "feature", "height")


@check
def check_arrays(imputer: Any) -> None:
    """An array comes back as an array, and float32 and float64 stay what they are."""
    for dtype in (np.float64, np.float32):
        cells = numbers().to_numpy(dtype)
        result = fitted(imputer, cells).transform(cells.copy())
        require(isinstance(result, np.ndarray), f"An array came back as {type(result).__name__}.")
        require(result.dtype == dtype, f"{dtype.__name__} came back as {result.dtype}.")
        completion(result, pd.DataFrame(cells))


@check
def check_labels(imputer: Any) -> None:
    """A DataFrame that comes back has the names, the index and the order of the one that was given."""
    imputer, unseen = fitted(imputer, numbers()), numbers(20, seed=1)
    unseen.index = pd.Index(["b", "a"] * 10, name="patient")
    done = imputer.transform(unseen)
    skip_unless(isinstance(done, pd.DataFrame), "it returns arrays")
    require(list(done.columns) == list(unseen.columns), f"The columns came back as {list(done.columns)}.")
    require(done.index.equals(unseen.index), "The index is another.")
    completion(done, unseen)


@check
def check_types_of_columns(imputer: Any) -> None:
    """A column of a DataFrame keeps its type: what pandas gives it with its gaps, or what it would without."""
    table, whole = numbers(), numbers(missing=0)
    if promises(imputer, "string", "categorical"):
        table, whole = typed()
    imputer = fitted(imputer, table)
    skip_unless(isinstance(imputer.transform(table.copy()), pd.DataFrame), "it returns arrays")
    done = completed(imputer, table)
    for name in table:
        kinds = (table[name].dtype, whole[name].dtype)
        require(done[name].dtype in kinds, f"Column {name!r}: {kinds[0]} came back as {done[name].dtype}.")


@check
def check_bounds(imputer: Any) -> None:
    """Imputed (and drawn) numbers lie between the smallest and the largest that training observed in their column."""
    train, unseen = numbers(), numbers(20, seed=1)
    unseen[["height", "glucose"]] = [250.0, -10.0]  # far beyond: the others must not follow
    unseen[["weight", "dose"]] = unseen.loc[0] = np.nan
    imputer = fitted(imputer, train)
    pairs = [(table, completed(imputer, table)) for table in (train, unseen)]
    if hasattr(imputer, "draws"):
        pairs += [(unseen, completion(one, unseen)) for one in imputer.draws(unseen.copy(), 2)]
    for table, done in pairs:
        for name in train:
            low, high = train[name].min(), train[name].max()
            cells = done[name][table[name].isna()]
            slack = _ROUNDING * (high - low)
            wrong = cells[(cells < low - slack) | (cells > high + slack)]
            require(wrong.empty, f"Column {name!r}: {wrong.tolist()[:1]} is not within {low} and {high}.")


@check
def check_categories(imputer: Any) -> None:
    """Text is completed with categories that training has seen in the column; observed cells stay."""
    train, unseen = mixed(), mixed(20, seed=1)
    imputer = fitted_on_text(imputer, train)
    for table in (train, unseen):
        done = completed(imputer, table)
        for name in ("city", "smoker"):
            strange = set(done[name]) - set(train[name].dropna())
            require(not strange, f"Column {name!r}: {sorted(map(str, strange))} is no category.")


@check
def check_unseen_category(imputer: Any) -> None:
    """A category that training never saw is refused by a ValueError that names the column, or kept as it is."""
    imputer, unseen = fitted_on_text(imputer, mixed()), mixed(20, seed=1)
    unseen.loc[0, "city"] = "Atlantis"
    completed_or_refused(lambda: completed(imputer, unseen), "city")


@check
def check_same_seed(imputer: Any) -> None:
    """With the same seed, fit and transform give the same, whatever the global random states are."""
    names = [name for name in parameters_of(imputer) if name.rpartition("__")[2] in ("random_state", "seed")]
    skip_unless(names, "it takes no seed (random_state or seed)")
    tables = _learned(imputer)[1]
    train, unseen, seeds = tables(), tables(20, seed=1), dict.fromkeys(names, 3)
    with _global_seed(1):
        done = completed(fitted(imputer, train, **seeds), unseen)
    with _global_seed(2):
        require_same(done, completed(fitted(imputer, train, **seeds), unseen), "Twice")


@check
def check_draws(imputer: Any) -> None:
    """``draws(X, n)`` returns n completed tables, the same at every call."""
    skip_unless(hasattr(imputer, "draws"), "it has no draws(X, n)")
    imputer, tables = _learned(imputer)
    unseen = tables(20, seed=1)
    first, second = ([completion(one, unseen) for one in imputer.draws(unseen.copy(), 3)] for _ in range(2))
    require(len(first) == 3, f"Asked for 3, it returned {len(first)}.")
    for one, other in zip(first, second, strict=True):
        require_same(one, other, "Drawn twice")


@check
def check_save_and_load(imputer: Any) -> None:
    """``save(path)`` writes the fitted imputer, and ``load(path)`` of its class returns one that gives the same."""
    skip_unless(_saves(imputer), "it has no save(path) and load(path)")
    imputer, tables = _learned(imputer)
    table = tables(20, seed=1)
    require_same(completed(imputer, table), completed(_loaded(imputer), table), "Before and after")


@check
def check_pickle(imputer: Any) -> None:
    """A pickled imputer gives the same."""
    imputer, tables = _learned(imputer)
    table = tables(20, seed=1)
    try:
        content = pickle.dumps(imputer)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise SkipTest(f"it cannot be pickled: {error}") from error
    again = pickle.loads(content)  # noqa: S301 (our own)
    require_same(completed(imputer, table), completed(again, table), "Before and after")


@check
def check_gpu_to_cpu(imputer: Any) -> None:
    """Fitted on a GPU, saved, and loaded on a machine without one (``load(path, device="cpu")``), it gives the same."""
    skip_unless("device" in parameters_of(imputer), "it has no parameter 'device'")
    skip_unless(_saves(imputer), "it has no save(path) and load(path)")
    torch = sys.modules["torch"] if "torch" in sys.modules else None
    skip_unless(torch is not None and torch.cuda.is_available(), "there is no GPU here")
    table = numbers(20, seed=1)
    imputer = fitted(imputer, numbers(), device="cuda")
    loaded = _loaded(imputer, device="cpu")
    require_same(completed(imputer, table), completed(loaded, table), "GPU and CPU", rtol=1e-3)


def _learned(imputer: Any) -> tuple[Any, Callable[..., pd.DataFrame]]:
    """Return an imputer that was fitted on a table with text if it takes any, else on numbers; and such tables."""
    try:
        return fitted_on_text(imputer, mixed()), mixed
    except SkipTest:
        return fitted(imputer, numbers()), numbers


def _saves(imputer: Any) -> bool:
    return hasattr(imputer, "save") and hasattr(type(imputer), "load")


def _loaded(imputer: Any, **how: Any) -> Any:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "imputer"
        imputer.save(path)
        return type(imputer).load(path, **how)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed what an imputer that ignores its own seed would draw from; afterwards the states are the caller's again."""
    torch = sys.modules["torch"] if "torch" in sys.modules else None
    states = python_random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002
    python_random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        python_random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(states[2])
