import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dgm_ray.data import Metadata, MinMaxScaler, Variable
from dgm_ray.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
NUMERICAL = Metadata(tuple(Variable(name, "numerical") for name in "abc"))
CELLS = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))


@given(arrays(np.float32, (6, 3), elements=CELLS).map(lambda x: np.vstack([x, np.zeros((1, 3), np.float32)])))
@settings(deadline=None)
def test_the_inverse_is_the_inverse_and_sklearn_agrees(features: NDArray[np.float32]) -> None:
    from sklearn.preprocessing import MinMaxScaler as Reference

    scaler = MinMaxScaler.fit(NUMERICAL, features)
    scaled = scaler.transform(features)
    assert scaled.dtype == np.float32
    assert np.array_equal(np.isnan(scaled), np.isnan(features))
    assert not ((scaled < 0) | (scaled > 1)).any()
    width = (scaler.maximum - scaler.minimum).max()
    back = scaler.inverse_transform(scaled)
    np.testing.assert_allclose(back, features, rtol=1e-6, atol=1e-6 * width + 1e-30)
    reference = Reference().fit(features.astype(np.float64))
    if (width > 1e-12) and (reference.data_range_[reference.data_range_ > 0] > 1e-12).all():
        np.testing.assert_allclose(scaled, reference.transform(features.astype(np.float64)), atol=1e-6)


def test_only_numerical_columns_are_scaled(md7: Metadata) -> None:
    row = [5.0, 1, 0, 0, 1, 0, -2, 0, 0, 0, 1, 0, 1]
    features = np.array([row, row, row], dtype=np.float32)
    features[1, [0, 6]] = 9, np.nan
    scaler = MinMaxScaler.fit(md7, features)
    scaled = scaler.transform(features)
    expected = features.copy()
    expected[:, 0], expected[:, 6] = [0, 1, 0], [0, np.nan, 0]
    assert np.array_equal(scaled, expected, equal_nan=True)
    assert scaler.minimum.tolist() == [5, 0, 0, 0, 0, 0, -2, 0, 0, 0, 0, 0, 0]
    assert scaler.maximum.tolist() == [9, 1, 1, 1, 1, 1, -2, 1, 1, 1, 1, 1, 1]
    assert features[1, 0] == 9, "the argument was changed"
    assert np.array_equal(scaler.inverse_transform(scaled), features, equal_nan=True)


def test_rows_never_seen_are_not_clipped() -> None:
    scaler = MinMaxScaler(np.array([0.0, 10, 7]), np.array([1.0, 20, 7]))
    scaled = scaler.transform(np.array([[2, 25, 8]], dtype=np.float32))
    assert scaled.tolist() == [[2, 1.5, 1]]
    assert scaler.inverse_transform(scaled).tolist() == [[2, 25, 8]]


def test_a_column_without_a_value_is_named() -> None:
    features = np.zeros((3, 3), dtype=np.float32)
    features[:, 1] = np.nan
    with pytest.raises(
        DataError, match=r"^column 'b': cannot be scaled, all its cells are missing in the training rows$"
    ):
        MinMaxScaler.fit(NUMERICAL, features)


def test_a_scaler_survives_json() -> None:
    scaler = MinMaxScaler.fit(NUMERICAL, np.array([[0.1, 2, 3], [1, 5, 3]], dtype=np.float32))
    again = MinMaxScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert again.minimum.tolist() == scaler.minimum.tolist()
    assert again.maximum.tolist() == scaler.maximum.tolist()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ([], "s"),
        ({"min": [0]}, "s: max"),
        ({"max": [0]}, "s: min"),
        ({"min": [0], "max": ["1"]}, "s: max"),
        ({"min": [0], "max": [float("nan")]}, "s: max"),
        ({"min": [0], "max": [1, 2]}, "s: max"),
        ({"min": [2], "max": [1]}, "s: max"),
        ({"min": [0], "max": [1], "feature_range": [-1, 1]}, "s: feature_range"),
    ],
)
def test_a_broken_scaler_is_named(content: Any, place: str) -> None:
    with pytest.raises(DataError) as caught:
        MinMaxScaler.from_dict(content, "s")
    assert caught.value.place == place


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real tables are not at {SHARED}")
def test_the_scaler_of_a_real_table_is_read() -> None:
    folder = SHARED / "credit"
    scaler = MinMaxScaler.from_dict(json.loads((folder / "scaler.json").read_text()))
    age = Metadata.read(folder / "metadata.json").features.index("AGE")
    ages = scaler.inverse_transform(np.load(folder / "features.npy")[:100])[:, age]
    np.testing.assert_allclose(ages, ages.round(), atol=1e-4)
    assert ages.min() >= 21
