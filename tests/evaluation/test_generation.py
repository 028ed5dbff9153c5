import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import wasserstein_distance

from dgm_ray.data import Metadata, Variable
from dgm_ray.evaluation import marginal_distances, score_generation, wasserstein
from dgm_ray.evaluation.generation import dimension_wise_rmse

NAN = np.nan
# steps of 1/64: exact in float32, and with many ties
samples = st.integers(1, 40).flatmap(
    lambda rows: hnp.arrays(np.float32, rows, elements=st.integers(-128, 192).map(lambda step: step / 64))
)


def array(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


@given(one=samples, other=samples)
def test_wasserstein_is_scipys(one: np.ndarray, other: np.ndarray) -> None:
    assert wasserstein(one, other) == pytest.approx(wasserstein_distance(one, other), abs=1e-9)
    assert wasserstein(one, one[::-1]) == 0
    assert wasserstein(one, one + np.float32(0.5)) == pytest.approx(0.5)


def test_marginal_distances_by_hand(s3: Metadata) -> None:
    real = array([[0, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 1]])
    generated = array([[0.5, 1, 0, 1, 0], [0.5, 1, 0, 1, 0]])
    distances = marginal_distances(s3, real, generated)
    # n: each half of the mass goes 0.5 far. b: 0.5 against 1. c: (0.5, 0.25, 0.25) against (0, 1, 0).
    assert distances == pytest.approx({"n": 0.5, "b": 0.5, "c": (0.5 + 0.75 + 0.25) / 2})
    assert all(value == 0 for value in marginal_distances(s3, real, real).values())


def test_the_farthest_is_one(s3: Metadata) -> None:
    zeros, ones = array([[0, 0, 1, 0, 0]] * 2), array([[1, 1, 0, 0, 1]] * 3)
    assert marginal_distances(s3, zeros, ones) == {"n": 1, "b": 1, "c": 1}


def test_missing_cells_are_left_out(s3: Metadata) -> None:
    real = array([[0, NAN, 1, 0, 0], [NAN, 1, NAN, NAN, NAN], [1, NAN, 0, 1, 0]])
    generated = array([[0, 1, 1, 0, 0], [1, 1, 0, 1, 0]])
    assert marginal_distances(s3, real, generated) == {"n": 0, "b": 0, "c": 0}
    assert dimension_wise_rmse(real, generated) == 0
    real[:, 0] = NAN
    assert marginal_distances(s3, real, generated).keys() == {"b", "c"}
    assert dimension_wise_rmse(real, generated) == 0


def test_dimension_wise_rmse_by_hand() -> None:
    real, generated = array([[0, 1], [1, 1], [1, 1], [NAN, 1]]), array([[0, 0], [1, 0]])
    # means 2/3 and 1 against 1/2 and 0
    assert dimension_wise_rmse(real, generated) == pytest.approx((((2 / 3 - 1 / 2) ** 2 + 1) / 2) ** 0.5)


@given(data=st.data())
def test_several_models_at_once_score_as_each_alone_to_the_bit(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["numerical", "binary", "categorical"]), min_size=1, max_size=5))
    variables = [Variable(f"v{i}", kind, 3 if kind == "categorical" else 1) for i, kind in enumerate(kinds)]
    metadata = Metadata(tuple(variables), 99)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, others, models = (data.draw(st.integers(1, most)) for most in (40, 40, 5))
    real = random.random((rows, metadata.num_features), dtype=np.float32)
    holes = random.random((rows, len(kinds))) < data.draw(st.sampled_from([0.0, 0.3]))
    holes[0] = False
    real[np.repeat(holes, [one.size for one in variables], axis=1)] = NAN
    generated = random.random((models, others, metadata.num_features), dtype=np.float32)
    together = score_generation(metadata, real, generated)
    for index, own in enumerate(generated):
        alone = score_generation(metadata, real, own)
        assert {name: values[index] for name, values in together.items()} == alone
        assert {name: values[0] for name, values in score_generation(metadata, real, own[None]).items()} == alone


def test_generated_rows_are_made_valid_first(s3: Metadata) -> None:
    real = array([[0.25, 1, 0, 0, 1]])
    soft = array([[0.25, 0.51, 0.1, 0.2, 0.3]])
    assert score_generation(s3, real, soft) == {"marginal_distance": 0, "dimension_wise_rmse": 0}
    wrong = score_generation(s3, real, array([[0.25, 0.5, 0.1, 0.2, 0.3]]))
    assert wrong["marginal_distance"] == pytest.approx(1 / 3), "a mean over variables, not over columns"
    assert wrong["dimension_wise_rmse"] == pytest.approx((1 / 5) ** 0.5)
    assert soft[0, 1] == np.float32(0.51), "what was given is left alone"


@pytest.fixture
def s3() -> Metadata:
    return Metadata((Variable("n", "numerical"), Variable("b", "binary"), Variable("c", "categorical", 3)))
