"""``check_imputer``: what every imputer must do, as checks that anyone can run over theirs.

An imputer is an unfitted object with ``fit(X)`` and ``transform(X)``, as scikit-learn's ``SimpleImputer`` and
``dgm_ray.Imputer``. In a test suite::

    @parametrize_with_imputer_checks([KNNImputer(), Imputer("gain", epochs=2)])
    def test_imputers(imputer, check):
        check(imputer)
"""

from dgm_ray.testing import checks  # noqa: F401 (registers them)
from dgm_ray.testing.conformance import (
    CheckResult,
    check_imputer,
    imputer_checks,
    parametrize_with_imputer_checks,
)
from dgm_ray.testing.rules import CHECKS

__all__ = ["CHECKS", "CheckResult", "check_imputer", "imputer_checks", "parametrize_with_imputer_checks"]
