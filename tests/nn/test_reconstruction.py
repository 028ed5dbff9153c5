import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata, Variable
from dgm_ray.nn.reconstruction import BCE, MSE, RMSE, MultiReconstructionLoss
from dgm_ray.registry import Scope, build

NAN = float("nan")
N, B, C = Variable("n", "numerical"), Variable("b", "binary"), Variable("c", "categorical", 3)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))


def near(actual: Tensor, expected: float | Tensor) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=2e-5, atol=1e-6)


def drawn(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, targets of 0 and 1, and a keep mask, (rows, columns) each."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.rand(rows, columns, generator=generator) * 0.98 + 0.01
    target = (torch.rand(rows, columns, generator=generator) < 0.5).float()
    return prediction, target, (torch.rand(rows, columns, generator=generator) < 0.6).float()


def test_defect_10_multi_reconstruction_has_no_second_softmax(s3: Metadata, prediction: Tensor, target: Tensor) -> None:
    categorical = -(math.log(0.7) + math.log(0.6))
    near(MultiReconstructionLoss(s3)(prediction, target), 0.03125 + 0.3669846 + categorical / 2)
    near(MultiReconstructionLoss(s3, "sum")(prediction, target), 0.0625 + 2 * 0.3669846 + categorical)


def test_blocks_weigh_one_whatever_their_width() -> None:
    two = Metadata((Variable("m", "numerical"), N))
    near(MultiReconstructionLoss(two)(torch.ones(1, 2), torch.zeros(1, 2)), 1.0)
    apart = Metadata((Variable("m", "numerical"), B, N))
    near(MultiReconstructionLoss(apart)(torch.tensor([[1.0, 0, 1]]), torch.zeros(1, 3)), 2.0)


def test_a_right_category_costs_nothing_and_a_wrong_one_is_finite() -> None:
    loss = MultiReconstructionLoss(Metadata((C,)))
    right, wrong = torch.tensor([[0.0, 1, 0]]), torch.tensor([[1.0, 0, 0]], requires_grad=True)
    assert loss(right, right).item() == 0
    loss(wrong, right).backward()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()
    assert loss(wrong, right).item() > 40


def test_multi_reconstruction_trains_through_a_softmax() -> None:
    logits = torch.tensor([[2.0, -1, 0.5]], requires_grad=True)
    loss = MultiReconstructionLoss(Metadata((C,)))
    loss(logits.softmax(dim=1), torch.tensor([[0.0, 1, 0]])).backward()
    assert logits.grad is not None
    near(logits.grad, logits.detach().softmax(dim=1) - torch.tensor([[0.0, 1, 0]]))


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_soft_categorical_targets_have_the_cross_entropy(shape: tuple[int, int, int]) -> None:
    rows, _, seed = shape
    generator = torch.Generator().manual_seed(seed)
    p, t = (torch.rand(rows, 3, generator=generator).softmax(dim=1) for _ in range(2))
    entropy = -(t * t.log()).sum()
    divergence = float(rel_entr(t.numpy(), p.numpy()).sum())
    near(MultiReconstructionLoss(Metadata((C,)), "sum")(p, t), divergence + entropy)


def test_mse_and_rmse(prediction: Tensor, target: Tensor) -> None:
    near(RMSE()(prediction, target), 0.2573907)
    near(RMSE("sum")(prediction, target), 0.8139410)
    near(RMSE("none")(torch.tensor([[1.0, 3]]), torch.tensor([[0.0, 5]])), torch.tensor([[1.0, 2]]))
    near(MSE()(prediction, target), 0.2573907**2)
    near(MSE("sum")(prediction, target), 0.8139410**2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rmse_has_a_finite_gradient_at_zero(reduction: str) -> None:
    loss = build({"factory": "RMSE", "arguments": {"reduction": reduction}})
    prediction = torch.ones(2, 2, requires_grad=True)
    value = loss(prediction, torch.ones(2, 2)).sum()
    value.backward()
    assert value.item() == 0
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros(2, 2))


def test_rmse_has_its_gradient_elsewhere() -> None:
    prediction = torch.tensor([3.0, 4.0], requires_grad=True)
    RMSE("sum")(prediction, torch.zeros(2)).backward()
    assert prediction.grad is not None
    near(prediction.grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_defect_14_masked_values(reduction: str, prediction: Tensor, target: Tensor, keep_mask: Tensor) -> None:
    arguments = {"arguments": {"reduction": reduction}}
    for mask in (keep_mask, keep_mask.bool(), keep_mask.long()):
        near(build({"factory": "MSE", **arguments})(prediction, target, mask), 0.0870833)
        near(build({"factory": "RMSE", **arguments})(prediction, target, mask), 0.2950989)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_defect_11_a_missing_categorical_costs_nothing(
    reduction: str, s3: Metadata, prediction: Tensor, target: Tensor, keep_mask: Tensor
) -> None:
    node = {"factory": "MultiReconstructionLoss", "arguments": {"reduction": reduction}}
    loss = build(node, scope=Scope({"metadata": s3}))
    near(loss(prediction, target, keep_mask), (0.0625 + 0.2231436 + 0.5108256 + 0.5108256) / 6)


@pytest.mark.parametrize("name", ["BCE", "MSE", "RMSE", "MultiReconstructionLoss", "CrossEntropy"])
def test_nan_under_the_mask_is_harmless(
    name: str, s3: Metadata, prediction: Tensor, target: Tensor, keep_mask: Tensor
) -> None:
    loss = build({"factory": name}, scope=Scope({"metadata": s3}))
    if name == "CrossEntropy":
        keep_mask = torch.tensor([[0.0] * 5, [1.0] * 5])
    expected = loss(prediction, target, keep_mask)
    for source in (prediction, target):
        source[keep_mask == 0] = NAN
    prediction.requires_grad_()
    value = loss(prediction, target, keep_mask)
    value.backward()
    near(value, expected)
    assert value.item() > 0
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[keep_mask == 0] == 0).all()
    assert (prediction.grad[keep_mask == 1] != 0).any()


@pytest.mark.parametrize("name", ["BCE", "MSE", "RMSE", "MultiReconstructionLoss", "CrossEntropy"])
def test_nothing_kept_costs_nothing(name: str, s3: Metadata, prediction: Tensor) -> None:
    loss = build({"factory": name}, scope=Scope({"metadata": s3}))
    prediction.requires_grad_()
    value = loss(prediction, torch.full((2, 5), NAN), torch.zeros(2, 5))
    value.backward()
    assert value.item() == 0
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros(2, 5))


@settings(max_examples=50, deadline=None)
@given(SHAPES)
def test_losses_against_numpy(shape: tuple[int, int, int]) -> None:
    prediction, target, _ = drawn(*shape)
    p, t = prediction.double().numpy(), target.double().numpy()
    entropies = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    near(BCE()(prediction, target), float(entropies.mean()))
    near(BCE(None, "sum")(prediction, target), float(entropies.sum()))
    near(MSE("none")(prediction, target), torch.from_numpy((p - t) ** 2))
    near(RMSE()(prediction, target), float(np.sqrt(((p - t) ** 2).mean())))


@settings(max_examples=50, deadline=None)
@given(SHAPES)
def test_a_masked_loss_is_the_loss_of_the_kept_cells(shape: tuple[int, int, int]) -> None:
    prediction, target, keep_mask = drawn(*shape)
    keep_mask[0, 0] = 1
    kept_prediction, kept_target = prediction[keep_mask == 1], target[keep_mask == 1]
    losses: list[nn.Module] = [BCE(), MSE(), RMSE()]
    for loss in losses:
        near(loss(prediction, target, keep_mask), loss(kept_prediction, kept_target))
    run = Metadata(tuple(Variable(f"b{i}", "binary") for i in range(shape[1])))
    near(MultiReconstructionLoss(run)(prediction, target, keep_mask), BCE()(kept_prediction, kept_target))
