import pytest
import torch
from torch import Tensor

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.masks import column_variables, compose, draw_mask, generate_mask, inverse_mask

NAN = float("nan")
MASK = torch.tensor([[1.0, 0], [0, 1]])
NINES = torch.full((2, 2), 9.0)


def equal(actual: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_inverse_keeps_the_dtype(dtype: torch.dtype) -> None:
    inverse = inverse_mask(MASK.to(dtype))
    assert inverse.dtype == dtype
    equal(inverse.float(), [[0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_compose_picks_without_spreading_nan(dtype: torch.dtype) -> None:
    mask = MASK.to(dtype)
    equal(compose(mask, NINES, torch.tensor([[NAN, 2], [3, NAN]])), [[9, 2], [3, 9]])
    equal(compose(mask, NINES * NAN, torch.tensor([[1.0, 2], [3, 4]])), [[NAN, 2], [3, NAN]])
    equal(compose(mask, where_one=NINES), [[9, 0], [0, 9]])
    equal(compose(mask, where_zero=NINES), [[0, 9], [9, 0]])


def test_compose_without_sources_is_zeros_of_the_mask() -> None:
    equal(compose(MASK), [[0, 0], [0, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_differentiable_compose_blends(dtype: torch.dtype) -> None:
    composed = compose(MASK.to(dtype), NINES, torch.tensor([[NAN, 2], [3, NAN]]), differentiable=True)
    equal(composed, [[NAN, 2], [3, NAN]])
    equal(compose(MASK.to(dtype), NINES, NINES - 1, differentiable=True), [[9, 8], [8, 9]])


def test_only_differentiable_compose_has_gradients() -> None:
    one, zero = NINES.clone().requires_grad_(), NINES.clone().requires_grad_()
    soft = torch.full((2, 2), 0.25, requires_grad=True)
    compose(soft, one, zero * 3, differentiable=True).sum().backward()
    assert one.grad is not None
    assert zero.grad is not None
    assert soft.grad is not None
    equal(one.grad, [[0.25, 0.25], [0.25, 0.25]])
    equal(zero.grad, [[2.25, 2.25], [2.25, 2.25]])
    equal(soft.grad, [[-18, -18], [-18, -18]])
    assert not compose(MASK, one, zero).requires_grad


def test_differentiable_compose_needs_both_sources() -> None:
    with pytest.raises(ValueError, match="where_zero"):
        compose(MASK, NINES, differentiable=True)


def test_generated_mask_is_the_originals(md7: Metadata) -> None:
    torch.manual_seed(0)
    mask = generate_mask(md7, 4, 0.5)
    wanted = {"n1": "1011", "b1": "1010", "b2": "1011", "c1": "1110", "n2": "0011", "c2": "0010", "b3": "1001"}
    assert mask.dtype == torch.float32
    assert mask.shape == (4, 13)
    for variable, columns in zip(md7.variables, md7.slices, strict=True):
        drawn = torch.tensor([float(digit) for digit in wanted[variable.name]])
        assert torch.equal(mask[:, columns], drawn[:, None].expand(-1, variable.size))


def test_generated_mask_is_one_draw_per_variable(md7: Metadata) -> None:
    torch.manual_seed(3)
    draws = torch.stack([torch.rand(33) for _ in md7.variables])
    torch.manual_seed(3)
    mask = generate_mask(md7, 33, 0.3)
    assert torch.equal(mask[:, [0, 1, 2, 3, 6, 7, 12]], (draws < 0.3).float().T)


def test_generated_mask_has_the_rate(md7: Metadata) -> None:
    torch.manual_seed(1)
    means = generate_mask(md7, 20000, 0.3).mean(dim=0)
    assert (means - 0.3).abs().max() < 0.01  # three standard errors
    assert len(means.unique()) > 3


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_extreme_probabilities(md7: Metadata, probability: float) -> None:
    assert torch.equal(generate_mask(md7, 50, probability), torch.full((50, 13), probability))


def test_a_generator_decides_alone(md7: Metadata) -> None:
    before = torch.get_rng_state()
    one = generate_mask(md7, 20, 0.5, generator=torch.Generator().manual_seed(5))
    two = generate_mask(md7, 20, torch.tensor(0.5), generator=torch.Generator().manual_seed(5))
    assert torch.equal(one, two)
    assert not torch.equal(one, generate_mask(md7, 20, 0.5, generator=torch.Generator().manual_seed(6)))
    assert torch.equal(before, torch.get_rng_state())


def test_probability_may_differ_between_variables(md7: Metadata) -> None:
    probabilities = torch.tensor([[1.0], [0], [1], [0], [1], [0], [1]])
    mask = draw_mask(column_variables(md7), 7, 3, probabilities)
    assert mask[0].tolist() == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
