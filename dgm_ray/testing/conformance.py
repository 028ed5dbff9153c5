"""All checks over one imputer, or over many as the cases of a test."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple
from unittest import SkipTest

from sklearn.base import clone

from dgm_ray.errors import ConfigurationError, nearest
from dgm_ray.testing.rules import CHECKS, Check

Reasons = Mapping[str, str]


class CheckResult(NamedTuple):
    """How a check ended. reason: why it was skipped, or why it was expected to fail; empty if it passed."""

    name: str
    status: Literal["passed", "skipped", "failed as expected"]
    reason: str = ""


def imputer_checks(imputer: Any, *, skip: Iterable[str] = ()) -> Iterator[tuple[Any, Check]]:
    """Yield pairs of a copy of the imputer and a check to call with it: all checks but those to skip, by name.

    Raises ConfigurationError for a name that no check has, or for what is no imputer.
    """
    left_out = set(skip)
    _require_known("skip", left_out)
    if isinstance(imputer, type) or not (hasattr(imputer, "fit") and hasattr(imputer, "transform")):
        raise ConfigurationError("imputer", "should be an object with fit(X) and transform(X)", imputer)
    for name, check in CHECKS.items():
        if name not in left_out:
            yield clone(imputer, safe=False), check


def check_imputer(
    imputer: Any, *, skip: Iterable[str] = (), expected_failures: Reasons | None = None
) -> list[CheckResult]:
    """Check that an imputer does what every imputer must; return how each check ended.

    imputer: unfitted, with ``fit(X)`` and ``transform(X)`` on a DataFrame or an array of floats in which NaN is
        missing; it is left as it is. What is not there is skipped with a reason: text (scikit-learn's tags may promise
        it), a seed (``random_state`` or ``seed``), ``draws(X, n)``, ``save(path)`` and ``load(path)``, a ``device``.
    skip: names of checks to leave out.
    expected_failures: by a check's name, the reason why it fails; one that passes fails: the list stays true.

    The first failure raises AssertionError in one line: the check's name, its rule, what was found. The rules are the
    docstrings of ``dgm_ray.testing.checks``. Two answers are right where a table cannot be learned from (a column that
    is all missing or constant, a single row or column) or holds a category that training never saw: it is refused by a
    ValueError that names the column (the row), or completed. Another exception, or a cell left missing, is not.
    Raises ConfigurationError for a name that no check has, or for what is no imputer.
    """
    expected = {} if expected_failures is None else dict(expected_failures)
    _require_known("expected_failures", expected)
    results = {name: CheckResult(name, "skipped", "as was asked for") for name in CHECKS}
    for copy, check in imputer_checks(imputer, skip=skip):
        name = check.__name__
        results[name] = _result(copy, check, expected[name] if name in expected else None)
    return list(results.values())


def parametrize_with_imputer_checks(
    imputers: Iterable[Any],
    *,
    skip: Iterable[str] = (),
    expected_failures: Callable[[Any], Reasons] | None = None,
) -> Any:
    """Return a mark that runs a pytest test, a function of ``imputer`` and ``check``, over all imputers and checks.

    skip: names of checks to leave out. expected_failures: returns the reasons, by a check's name, for an imputer. Needs
    pytest. Raises ConfigurationError for a name that no check has.
    """
    import pytest

    left_out, cases = set(skip), []
    for imputer in imputers:
        expected = {} if expected_failures is None else dict(expected_failures(imputer))
        _require_known("expected_failures", expected)
        for copy, check in imputer_checks(imputer, skip=left_out):
            name = check.__name__
            marks = [pytest.mark.xfail(reason=expected[name], raises=AssertionError)] if name in expected else []
            shown = "".join(str(imputer).split())
            cases.append(pytest.param(copy, check, marks=marks, id=f"{shown}-{name}"))
    return pytest.mark.parametrize(("imputer", "check"), cases)


def _result(imputer: Any, check: Check, expected: str | None) -> CheckResult:
    name = check.__name__
    try:
        check(imputer)
    except SkipTest as reason:
        return CheckResult(name, "skipped", str(reason))
    except AssertionError:
        if expected is None:
            raise
        return CheckResult(name, "failed as expected", expected)
    if expected is not None:
        raise AssertionError(f"{name}: is expected to fail ({expected}), but it passes.")
    return CheckResult(name, "passed")


def _require_known(place: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in CHECKS:
            raise ConfigurationError(place, f"no check has this name{nearest(name, CHECKS)}", name)
