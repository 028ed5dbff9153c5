"""``check_imputer`` over every imputer of ours and over scikit-learn's; and each of its checks can fail."""

# ruff: noqa: N803 (a table is X, as scikit-learn calls it)

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes the next importable)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from dgm_ray.errors import ConfigurationError
from dgm_ray.estimator import Imputer
from dgm_ray.tasks.imputers import imputer_configuration, imputer_names
from dgm_ray.testing import CHECKS, CheckResult, check_imputer, imputer_checks, parametrize_with_imputer_checks
from dgm_ray.testing.rules import digest

ROOT = Path(__file__).parents[1]
NOISE = "it draws noise for the rows of a table one after the other"
DRAW_NOISE = {"normal_noise", "gan", "medgan", "arae"}


def quick(name: str, place: str = "imputer") -> dict[str, Any]:
    """Return an imputer's configuration with few trees, or few steps of a search."""
    node = imputer_configuration(name, place)
    arguments = node["arguments"]
    if "noise_search" in arguments:
        arguments["noise_search"] |= {"max_iterations": 3}
    if "imputer" in arguments and arguments["imputer"]["factory"] == "MissForest":
        arguments["imputer"]["arguments"] = {"n_estimators": 5}
    return node


@pytest.mark.parametrize("name", imputer_names())
def test_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.estimator.imputer_configuration", quick)
    reasons = dict.fromkeys(("check_row_order", "check_batch_size"), NOISE) if name in DRAW_NOISE else {}
    skip = {"check_gpu_to_cpu"} if reasons else set()  # a GPU draws other noise
    results = check_imputer(Imputer(name, epochs=1), skip=skip, expected_failures=reasons)
    assert [one.name for one in results] == list(CHECKS)
    skipped = {one.name for one in results if one.status == "skipped"}
    assert skipped == (skip if torch.cuda.is_available() else {"check_gpu_to_cpu"})


@pytest.mark.skipif(find_spec("missingpy") is None, reason="missingpy is not installed")
def test_missingpys() -> None:
    """It learns anew from the rows it completes, as the package it stands for."""
    arguments = {"imputer": {"factory": "MissingpyMissForest", "arguments": {"n_estimators": 5, "max_iterations": 2}}}
    checks = ("row_order", "batch_size", "all_missing_row", "all_missing_column_of_new_rows", "few_rows", "one_row")
    reasons = {f"check_{name}": "it learns from the rows that it completes" for name in (*checks, "bounds")}
    check_imputer(Imputer({"task": "TrainImputer", "arguments": arguments}, epochs=1), expected_failures=reasons)


FOREST = RandomForestRegressor(5, max_depth=4, random_state=0)
SCIKIT_LEARNS = [
    SimpleImputer(),
    SimpleImputer(strategy="most_frequent", keep_empty_features=True),
    KNNImputer(keep_empty_features=True),
    IterativeImputer(max_iter=2, random_state=0),
    IterativeImputer(FOREST, max_iter=2, random_state=0),
]


def failing(imputer: Any) -> dict[str, str]:
    reasons = {} if imputer.keep_empty_features else {"check_all_missing_column": "it drops the column"}
    if isinstance(imputer, IterativeImputer):
        reasons["check_batch_size"] = "an empty row gets means if it is alone, and what regressions make of them if not"
    if isinstance(imputer, IterativeImputer) and imputer.estimator is None:
        reasons["check_bounds"] = "its regressions know no end, unless min_value and max_value are given"
    return reasons


@parametrize_with_imputer_checks(SCIKIT_LEARNS, expected_failures=failing)
def test_scikit_learns(imputer: Any, check: Any) -> None:
    check(imputer)


class Means(BaseEstimator):  # type: ignore[misc]
    """Fills with means and modes, and does all that every imputer must do."""

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        self.seed = seed
        self.device = device

    def fit(self, X: Any, y: Any = None) -> "Means":
        frame = pd.DataFrame(X)
        for name in frame:
            if frame[name].isna().all():
                raise ValueError(f"column {name!r} is all missing")
        self.fills_ = [self.fill(frame[name]) for name in frame]
        return self

    def fill(self, cells: pd.Series) -> Any:
        return cells.mean() if cells.dtype.kind == "f" else cells.mode()[0]

    def transform(self, X: Any) -> Any:
        frame = pd.DataFrame(X)
        columns = [
            cells.where(cells.notna(), fill) for (_, cells), fill in zip(frame.items(), self.fills_, strict=True)
        ]
        done = pd.concat(columns, axis=1)
        return done if isinstance(X, pd.DataFrame) else done.to_numpy(X.dtype)

    def draws(self, X: Any, n: int) -> list[Any]:
        return [self.transform(X)] * n

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.fills_), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Means":
        loaded = cls(device=device)
        loaded.fills_ = json.loads(path.read_text(encoding="utf-8"))
        return loaded


class Broken(Means):
    """Means, but for what ``in_fit`` does, called with (imputer, X), or ``in_transform``, with (imputer, X, done)."""

    def __init__(self, in_fit: Any = None, in_transform: Any = None, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(seed, device)
        self.in_fit = in_fit
        self.in_transform = in_transform

    def fit(self, X: Any, y: Any = None) -> "Broken":
        if self.in_fit:
            self.in_fit(self, X)
        super().fit(X)
        return self

    def transform(self, X: Any) -> Any:
        done = super().transform(X)
        return self.in_transform(self, X, done) if self.in_transform else done


def refuses(when: Any, error: Exception) -> Any:
    """Return what raises an error for such a table, a DataFrame."""

    def hook(imputer: Any, X: Any, done: Any = None) -> Any:
        if when(pd.DataFrame(X)):
            raise error
        return done

    return hook


def fills(values: Any) -> Any:
    """Return what fills numbers with ``values(imputer, table, result)`` instead."""

    def hook(imputer: Any, X: Any, done: Any) -> Any:
        result = pd.DataFrame(done).copy()
        numbers = list(result.select_dtypes("number"))
        table, own = pd.DataFrame(X)[numbers], result[numbers]
        result[numbers] = own.where(table.notna().to_numpy(), values(imputer, table, own))
        return result

    return hook


def counts(imputer: Any, X: Any, done: Any) -> Any:
    imputer.seen_ = len(X)
    return done


def learns(imputer: Any, X: Any, done: Any) -> Any:
    imputer.fills_ = [fill + 1 if isinstance(fill, float) else fill for fill in imputer.fills_]
    return done


def in_place(imputer: Any, X: Any, done: Any) -> Any:
    X[:] = done
    return done


def remember_gaps(imputer: Any, X: Any) -> None:
    imputer.gaps_ = pd.DataFrame(X).isna().any().to_numpy()


def no_text(imputer: Any, X: Any) -> None:
    if "city" in X:
        raise TypeError("no text")


class PromisesText(Broken):
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


class DrawsFewer(Means):
    def draws(self, X: Any, n: int) -> list[Any]:
        return super().draws(X, n - 1)


class DrawsAnew(Means):
    def draws(self, X: Any, n: int) -> list[Any]:
        return [fills(lambda i, X, done: np.random.random(X.shape))(self, X, self.transform(X))] * n  # noqa: NPY002


class Forgets(Means):
    def save(self, path: Path) -> None:
        path.write_text("[0, 0, 0, 0]", encoding="utf-8")


class PicklesLess(Means):
    def __getstate__(self) -> Any:
        return {**super().__getstate__(), "fills_": [0] * 4}


class AnotherOnCPU(Means):
    def save(self, path: Path) -> None:
        assert self.device == "cuda"
        super().save(path)

    @classmethod
    def load(cls, path: Path, device: str = "cuda") -> Any:
        loaded = super().load(path, device)
        loaded.fills_ = [1.01 * fill for fill in loaded.fills_] if device == "cpu" else loaded.fills_
        return loaded


def all_missing(table: pd.DataFrame) -> bool:
    return len(table) > 1 and bool(table.isna().all().any())


def constant(table: pd.DataFrame) -> bool:
    return bool((table.nunique() == 1).any())


def unseen(table: pd.DataFrame) -> bool:
    return "city" in table and "Atlantis" in set(table["city"])


NO, ROW = ValueError("no"), ValueError("a row")
BROKEN = [
    (
        "observed_cells_are_untouched",
        Broken(None, lambda i, X, done: done.astype(np.float32).astype(np.float64)),
        "'height', row 0: an observed cell is another",
    ),
    (
        "observed_cells_are_untouched",
        Broken(None, lambda i, X, done: done + 0.0),
        "'dose', row 0: an observed cell is another",
    ),  # -0.0 becomes 0.0
    (
        "observed_cells_are_untouched",
        Broken(None, lambda i, X, done: done.iloc[:, 1:]),
        "A table of shape .60, 5. came back as .60, 4.",
    ),
    ("input_is_left_alone", Broken(None, in_place), "filled in place"),
    ("transform_never_trains", Broken(None, counts), "What it holds has changed"),
    (
        "transform_never_trains",
        Broken(lambda i, X: None, learns),
        "The same rows twice: column 'height'",
    ),  # cannot be pickled
    (
        "row_order",
        Broken(None, fills(lambda i, X, done: done + 0.1 * np.arange(len(X))[:, np.newaxis])),
        "In another order: column 'height'",
    ),
    (
        "batch_size",
        Broken(None, fills(lambda i, X, done: done + 0.1 * len(X))),
        "At once, and 1 at a time: column 'height'",
    ),
    ("complete_table", Broken(refuses(lambda X: X.notna().all(axis=None), NO)), "It raised ValueError: no"),
    (
        "gaps_where_training_had_none",
        Broken(remember_gaps, fills(lambda i, X, done: np.where(i.gaps_, done, np.nan))),
        "'height', row .*: a cell is still missing",
    ),
    (
        "all_missing_row",
        Broken(None, fills(lambda i, X, done: X.mean(axis=1).to_numpy()[:, np.newaxis] + 0 * done)),
        "'height', row 3: a cell is still missing",
    ),
    ("all_missing_column", Broken(refuses(all_missing, KeyError("weight"))), "It raised KeyError: 'weight'"),
    ("all_missing_column", Broken(refuses(all_missing, NO)), "does not say 'weight': no"),
    (
        "all_missing_column_of_new_rows",
        Broken(None, refuses(all_missing, ValueError("weight"))),
        "It raised ValueError: weight",
    ),
    ("constant_column", Broken(refuses(constant, NO)), "does not say 'weight': no"),
    ("constant_column", Broken(None, fills(lambda i, X, done: done + 1)), "'weight': .71.5. is no cell of it"),
    ("few_rows", Broken(refuses(lambda X: len(X) < 10, ROW)), "does not say 'batch': a row"),
    ("few_rows", Broken(None, refuses(lambda X: len(X) < 10, ROW)), "It raised ValueError: a row"),
    ("one_row", Broken(refuses(lambda X: len(X) == 1, NO)), "does not say 'row': no"),
    ("one_row", Broken(None, refuses(lambda X: len(X) == 1, ROW)), "It raised ValueError: a row"),
    ("one_column", Broken(refuses(lambda X: X.shape[1] == 1, NO)), "does not say 'column': no"),
    ("arrays", Broken(None, lambda i, X, done: pd.DataFrame(done)), "An array came back as DataFrame"),
    ("arrays", Broken(None, lambda i, X, done: done.astype(np.float64)), "float32 came back as float64"),
    ("labels", Broken(None, lambda i, X, done: done.reset_index(drop=True)), "The index is another"),
    ("labels", Broken(None, lambda i, X, done: done.iloc[:, ::-1]), "The columns came back as .'dose', 'glucose'"),
    ("types_of_columns", Broken(None, lambda i, X, done: done.astype(object)), "'height': float64 came back as object"),
    ("bounds", Broken(None, fills(lambda i, X, done: 2 * done)), "'height': .340.* is not within 15.* and 18"),
    (
        "categories",
        Broken(None, lambda i, X, done: X.fillna(dict.fromkeys(X, "none")) if "city" in X else done),
        "'city': .'none'. is no category",
    ),
    ("categories", PromisesText(no_text), "It raised TypeError: no text"),
    ("unseen_category", Broken(None, refuses(unseen, KeyError("city"))), "It raised KeyError: 'city'"),
    ("unseen_category", Broken(None, refuses(unseen, NO)), "does not say 'city': no"),
    (
        "unseen_category",
        Broken(None, lambda i, X, done: done.replace("Atlantis", "Rome")),
        "'city', row 0: an observed cell is another",
    ),
    ("same_seed", Broken(None, fills(lambda i, X, done: np.random.random(X.shape))), "Twice: column 'height'"),  # noqa: NPY002
    ("draws", DrawsFewer(), "Asked for 3, it returned 2"),
    ("draws", DrawsAnew(), "Drawn twice: column 'height'"),
    ("save_and_load", Forgets(), "Before and after: column 'height'"),
    ("pickle", PicklesLess(), "Before and after: column 'height'"),
    ("gpu_to_cpu", AnotherOnCPU(), "GPU and CPU: column 'height'"),
]


def test_what_is_broken_below_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {one.status for one in check_imputer(Means())} == {"passed"}
    assert {f"check_{name}" for name, *_ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize(("name", "imputer", "found"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_each_check_can_fail(name: str, imputer: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(AssertionError, match=rf"^check_{name}: [A-Z`].*\. .*{found}") as caught:
        CHECKS[f"check_{name}"](imputer)
    assert "\n" not in str(caught.value)


def test_the_first_failure_says_what_is_wrong() -> None:
    rule = "check_one_row: A single new row is completed; in fit it is refused by a ValueError about rows .*"
    with pytest.raises(AssertionError, match=rf"^{rule} The error does not say 'row': no$"):
        check_imputer(Broken(refuses(lambda X: len(X) == 1, NO)))


def test_skipped_and_expected() -> None:
    imputer = Broken(refuses(lambda X: len(X) == 1, NO))
    results = check_imputer(imputer, skip=["check_one_row"])
    assert CheckResult("check_one_row", "skipped", "as was asked for") in results
    results = check_imputer(imputer, expected_failures={"check_one_row": "one is none"})
    assert CheckResult("check_one_row", "failed as expected", "one is none") in results
    assert not hasattr(imputer, "fills_"), "it is left as it is"
    with pytest.raises(AssertionError, match=r"^check_few_rows: is expected to fail .so.*, but it passes"):
        check_imputer(Means(), expected_failures={"check_few_rows": "so"})
    for given in ({"skip": ["check_draw"]}, {"expected_failures": {"check_draw": ""}}):
        with pytest.raises(ConfigurationError, match=r"no check has this name; did you mean 'check_draws'"):
            check_imputer(Means(), **given)
    for wrong in (Means, "gain"):
        with pytest.raises(ConfigurationError, match=r"imputer: should be an object with fit\(X\) and transform\(X\)"):
            check_imputer(wrong)
    assert len(list(imputer_checks(imputer, skip=["check_one_row"]))) == len(CHECKS) - 1


class Plain:
    """An imputer that can do nothing else, and is no estimator."""

    def fit(self, X: Any) -> None:
        self.means = X.mean() if isinstance(X, pd.DataFrame) else np.nanmean(X, axis=0)
        if np.isnan(np.asarray(self.means)).any():
            raise ValueError(f"columns {list(X)}: one is all missing")

    def transform(self, X: Any) -> Any:
        return X.fillna(self.means) if isinstance(X, pd.DataFrame) else np.where(np.isnan(X), self.means, X)


def test_what_is_not_there_is_skipped() -> None:
    imputer = Plain()
    imputer.self = imputer  # a cycle, which cannot be digested the quick way
    results = check_imputer(imputer)
    reasons = {one.name: one.reason for one in results if one.status == "skipped"}
    assert set(reasons) == {
        f"check_{name}"
        for name in ("categories", "unseen_category", "same_seed", "draws", "save_and_load", "gpu_to_cpu")
    }
    assert all(reasons.values())
    with pytest.raises(SkipTest, match=r"it has no draws"):
        CHECKS["check_draws"](imputer)


def test_a_digest_is_of_what_is_held() -> None:
    one = {"weights": torch.arange(3.0), "name": "a"}
    assert digest(one) == digest({"weights": torch.arange(3.0), "name": "".join(["a"])})
    assert digest(one) != digest({"weights": torch.arange(3.0) + 1e-6, "name": "a"})
    assert digest(one) != digest({"weights": torch.arange(3), "name": "a"})
    assert digest(lambda: 0) is None


def test_it_needs_neither_pytest_nor_torch() -> None:
    code = "import sys; sys.modules['pytest'] = None; import dgm_ray.testing as t; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"
