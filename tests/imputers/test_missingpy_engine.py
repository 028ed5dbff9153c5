from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from dgm_ray.data import BreastCancer, CellHoldout, Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation import complete
from dgm_ray.imputers import BaseImputer, MissForest, MissingpyMissForest, missingpy_engine

installed = pytest.mark.skipif(find_spec("missingpy") is None, reason="missingpy is not installed")


@pytest.mark.slow
@installed
def test_both_engines_agree() -> None:
    """Breast, 20% of the cells hidden: within 10% of each other's error, as both look at the same columns."""
    data = CellHoldout(BreastCancer(), 0.2, 0.0).prepare()
    assert data.test is not None
    rows, errors = data.train.features, []
    options: dict[str, Any] = {"n_estimators": 20, "max_features": 0.3, "max_iterations": 5}
    engines: list[BaseImputer] = [MissForest(data.metadata, **options), MissingpyMissForest(data.metadata, **options)]
    for imputer in engines:
        list(imputer.iterations(rows, np.isnan(rows)))
        completed = complete(data.metadata, imputer.transform(rows, np.isnan(rows)), rows)
        errors.append(float(np.sqrt(np.mean((completed - data.test.truth)[data.test.hidden_mask] ** 2))))
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


@installed
def test_it_is_the_packages_own() -> None:
    module = missingpy_engine.missforest()
    assert module.MissForest.__module__ == "_missingpy.missforest"
    nan = float("nan")
    rows = [[1, 2, nan], [3, 4, 3], [nan, 6, 5], [8, 8, 7]]  # the example of its document
    found = module.MissForest(random_state=1337).fit_transform(np.array(rows))
    np.testing.assert_allclose(found[[0, 2], [2, 0]], [3.92, 2.71], atol=0.5)


@installed
def test_one_round_is_means_and_modes(md7: Metadata, rows7: Any) -> None:
    """The package returns the round before the last."""
    mask = np.zeros(rows7.shape, np.bool_)
    mask[:30, 3:6] = mask[20:60, :1] = True
    imputer = MissingpyMissForest(md7, n_estimators=2, max_iterations=1)
    list(imputer.iterations(rows7, mask))
    assert imputer.initial_ is not None
    np.testing.assert_array_equal(imputer.transform(rows7, mask), np.where(mask, imputer.initial_, rows7))


def test_the_extra_is_named(md7: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    missingpy_engine.missforest.cache_clear()
    monkeypatch.setattr(missingpy_engine, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"missingpy: needs the extra .*pip install 'dgm-ray\[missingpy\]'"):
        MissingpyMissForest(md7)
