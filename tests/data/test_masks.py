import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from dgm_ray.data import Metadata, Variable, mcar_mask, uniforms
from dgm_ray.errors import DataError

MIXED = Metadata((Variable("n", "numerical"), Variable("c", "categorical", 3), Variable("b", "binary")))


@given(
    seed=st.integers(0, 2**32),
    probability=st.floats(0, 1),
    order=st.permutations(range(12)),
    cut=st.integers(0, 12),
)
@settings(deadline=None, max_examples=50)
def test_a_mask_depends_on_the_row_and_not_on_order_or_shard(
    seed: int, probability: float, order: list[int], cut: int
) -> None:
    row_ids = np.arange(100, 112)
    mask = mcar_mask(MIXED, row_ids, probability, seed)
    assert np.array_equal(mcar_mask(MIXED, row_ids[order], probability, seed), mask[order])
    shards = [mcar_mask(MIXED, part, probability, seed) for part in (row_ids[:cut], row_ids[cut:])]
    assert np.array_equal(np.vstack(shards), mask)
    assert (mask[:, 1:4] == mask[:, 1:2]).all()


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.5, 0.9])
def test_rates_are_within_binomial_bounds(md7: Metadata, probability: float) -> None:
    rows = 20_000
    mask = mcar_mask(md7, np.arange(rows), probability, seed=1)
    assert mask.shape == (rows, 13)
    assert mask.dtype == np.bool_
    low, high = binom.interval(1 - 1e-6, rows, probability)
    counts = mask.sum(axis=0)
    assert ((counts >= low) & (counts <= high)).all(), counts


def test_none_and_all(md7: Metadata) -> None:
    assert not mcar_mask(md7, np.arange(500), 0, seed=3).any()
    assert mcar_mask(md7, np.arange(500), 1, seed=3).all()


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_out_of_range_is_an_error(md7: Metadata, probability: float) -> None:
    with pytest.raises(DataError, match="must be within 0 and 1"):
        mcar_mask(md7, np.arange(5), probability, seed=0)


def test_numbers_are_uniform() -> None:
    draws = uniforms(np.arange(50_000), 0, 0, "x")
    assert draws.dtype == np.float64
    assert ((draws >= 0) & (draws < 1)).all()
    assert len(np.unique(draws)) == 50_000
    assert kstest(draws, "uniform").pvalue > 1e-3


def test_seeds_variables_purposes_and_neighbours_are_unrelated() -> None:
    ids = np.arange(20_000)
    first = uniforms(ids, 0, 0, "x")
    others = [
        uniforms(ids, 1, 0, "x"),
        uniforms(ids, 0, 1, "x"),
        uniforms(ids, 0, 0, "y"),
        uniforms(ids + 1, 0, 0, "x"),
    ]
    correlations = np.corrcoef([first, *others])
    np.fill_diagonal(correlations, 0)
    # the standard error of a correlation of 20000 pairs is 0.007; `others` holds no pair that is equal by design
    assert np.abs(correlations).max() < 5 * 0.0071


def test_row_ids_of_any_integer_type_are_the_same_rows() -> None:
    draws = uniforms(np.arange(9, dtype=np.int64), 2, 7, "x")
    for dtype in (np.uint64, np.int32, np.uint8):
        assert np.array_equal(uniforms(np.arange(9, dtype=dtype), 2, 7, "x"), draws)
    assert len(uniforms(np.arange(0), 2, 7, "x")) == 0


def test_numbers_are_the_same_in_another_process_and_release() -> None:
    """A study that is resumed must hide the same cells: these are written down, not computed."""
    code = "import numpy; from dgm_ray.data import uniforms; print(uniforms(numpy.arange(3), 1, 42, 'mcar').tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "123"},
    )
    assert done.stdout.strip() == "[0.4344747785297711, 0.5599572799533005, 0.5564178760406732]"
