from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dgm_ray.data import Metadata, discretize, means_and_modes
from dgm_ray.errors import DataError

NAN = float("nan")


def test_means_and_modes_of_the_contract(md7: Metadata) -> None:
    features = np.array(
        [
            # n1  b1 b2 c1       n2   c2             b3
            [0.1, 1, 0, 0, 0, 1, 0.5, 0, 0, 0, 0, 1, 0],
            [0.3, 0, 0, 0, 1, 0, 0.5, 0, 0, 0, 0, 1, 0],
            [0.9, 1, 1, 1, 0, 0, 0.5, 0, 0, 0, 0, 1, 1],
            [0.9, 0, 0, 0, 0, 1, 0.5, 0, 0, 0, 0, 1, 1],
        ],
        dtype=np.float32,
    )
    mask = np.zeros_like(features)
    mask[2:, 0] = 1  # n1: the mean of 0.1 and 0.3; b1: two to two
    mask[3, 3:6] = 1  # c1: one each, so the first
    mask[:, 6:12] = 1  # n2, c2: none observed
    mask[:2, 12] = 1  # b3: only ones observed
    result = means_and_modes(md7, features, mask)
    np.testing.assert_allclose(result, [0.2, 1, 0, 1, 0, 0, NAN, 1, 0, 0, 0, 0, 1], rtol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.bool_, np.float32, np.int64])
def test_a_mask_of_any_type_hides_the_majority(md7: Metadata, dtype: type) -> None:
    features = np.zeros((5, 13), dtype=np.float64)
    features[:, 7] = [0, 0, 0, 1, 0]
    features[:, 8] = [1, 1, 1, 0, 0]
    features[:, 10] = [0, 0, 0, 0, 1]
    features[3:, 12] = 1
    mask: NDArray[Any] = np.zeros((5, 13), dtype=dtype)
    mask[:3] = 1
    result = means_and_modes(md7, features, mask)
    assert result[7:13].tolist() == [1, 0, 0, 0, 0, 1]
    assert result.dtype == np.float64


def test_missing_cells_are_left_out_even_where_the_mask_forgets_them(md7: Metadata) -> None:
    features = np.full((3, 13), np.nan, dtype=np.float32)
    features[0, :3] = 0.5, 0, 1
    result = means_and_modes(md7, features, np.zeros((3, 13)))
    assert result[:3].tolist() == [0.5, 0, 1]
    assert result[12] == 1, "a tie of none"


def test_shapes_must_match(md7: Metadata) -> None:
    with pytest.raises(DataError, match="the same shape"):
        means_and_modes(md7, np.zeros((3, 13)), np.zeros((2, 13)))
    with pytest.raises(DataError, match="13"):
        means_and_modes(md7, np.zeros((3, 12)), np.zeros((3, 12)))


def test_discretize_golden(md7: Metadata) -> None:
    row = np.array([[0.3, 0.5, 0.51, 0.2, 0.2, 0.1, 0.9, 0, 0, 0, 0, 0, 0.7]], dtype=np.float32)
    before = row.copy()
    result = discretize(md7, row)
    expected = np.array([[0.3, 0, 1, 1, 0, 0, 0.9, 1, 0, 0, 0, 0, 1]], dtype=np.float32)
    assert np.array_equal(result, expected)
    assert result.dtype == np.float32
    assert np.array_equal(row, before), "the argument was changed"
    assert np.array_equal(discretize(md7, np.stack([row, row])), np.stack([expected, expected]))


def test_discretize_makes_up_no_value_for_a_missing_cell(md7: Metadata) -> None:
    row = np.array([[NAN, NAN, 1, NAN, NAN, NAN, 0.5, 0.1, 0.2, 0.7, 0, 0, 0]], dtype=np.float32)
    expected = np.array([[NAN, NAN, 1, NAN, NAN, NAN, 0.5, 0, 0, 1, 0, 0, 0]], dtype=np.float32)
    assert np.array_equal(discretize(md7, row), expected, equal_nan=True)
