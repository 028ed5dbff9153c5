import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from dgm_ray import data
from dgm_ray.convert import convert
from dgm_ray.errors import DataError

ROWS = np.random.default_rng(0).normal(3, 2, (50, 4))


@pytest.mark.parametrize(
    "scaler",
    [MinMaxScaler(), MinMaxScaler((-1, 1)), StandardScaler(), MaxAbsScaler(), RobustScaler()],
    ids=lambda scaler: str(scaler),
)
def test_a_scaler_keeps_its_meaning(scaler: Any, tmp_path: Path) -> None:
    (tmp_path / "old.pickle").write_bytes(pickle.dumps(scaler.fit(ROWS)))
    convert(tmp_path / "old.pickle", tmp_path / "new.json", trust=True)
    made = data.MinMaxScaler.from_dict(json.loads((tmp_path / "new.json").read_text()))
    scaled = scaler.transform(ROWS)
    np.testing.assert_allclose(made.inverse_transform(scaled), scaler.inverse_transform(scaled), rtol=1e-5)


def test_without_trust_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "old.pickle").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="add --trust"):
        convert(tmp_path / "old.pickle", tmp_path / "new.json", trust=False)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x", "is no pickle"),
        (pickle.dumps({"a": 1}), "should be a fitted scaler of scikit-learn, not 'dict'"),
        (pickle.dumps(StandardScaler()), "should be a fitted scaler"),
        (pickle.dumps(QuantileTransformer(n_quantiles=10).fit(ROWS)), "another way than by a factor and a shift"),
    ],
)
def test_what_is_no_scaler(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "old.pickle").write_bytes(content)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "old.pickle", tmp_path / "new.json", trust=True)
    assert not (tmp_path / "new.json").exists()
