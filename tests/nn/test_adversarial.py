import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.activations import LeakyReLU
from dgm_ray.nn.adversarial import (
    GANDiscriminatorLoss,
    GANGeneratorLoss,
    WGANCriticLoss,
    WGANCriticLossWithGradientPenalty,
    WGANGeneratorLoss,
    gradient_penalty,
    smooth_labels,
)
from dgm_ray.nn.noise import Dropout
from dgm_ray.registry import build

REAL, FAKE = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 1], [2, 0]])


def critic_stub(rows: Tensor) -> Tensor:
    return rows[:, 0] - rows[:, 1]


def discriminator_stub(rows: Tensor) -> Tensor:
    return critic_stub(rows).sigmoid()


def critic(normalised: bool) -> nn.Module:
    torch.manual_seed(0)
    norm = [nn.BatchNorm1d(6)] if normalised else []
    layers = [nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), *norm, LeakyReLU(0.2), nn.Linear(6, 1), nn.Flatten(0)]
    return nn.Sequential(*layers)


def gradients(model: nn.Module, penalty: Callable[[nn.Module, Tensor], Tensor], rows: Tensor) -> list[Tensor]:
    model.zero_grad()
    penalty(model, rows).backward()
    return [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in model.parameters()]


def penalty_by_autograd(model: nn.Module, rows: Tensor) -> Tensor:
    inputs = rows.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
    return ((slopes.square().sum(dim=1).sqrt() - 1) ** 2).mean()


def test_gan_losses() -> None:
    assert GANDiscriminatorLoss()(discriminator_stub, REAL, FAKE).item() == pytest.approx(1.7232993, abs=1e-6)
    assert GANGeneratorLoss()(discriminator_stub, FAKE).item() == pytest.approx(0.7200948, abs=1e-6)


def test_wgan_losses_are_scalars() -> None:
    critic_loss, generator_loss = WGANCriticLoss()(critic_stub, REAL, FAKE), WGANGeneratorLoss()(critic_stub, FAKE)
    assert critic_loss.shape == generator_loss.shape == ()
    assert [critic_loss.item(), generator_loss.item()] == [0.0, -0.5]
    assert WGANCriticLoss()(critic_stub, REAL, FAKE - 1).item() == 0.0
    assert WGANCriticLoss()(lambda rows: rows[:, 0], REAL, FAKE).item() == 0.5


def test_smooth_labels() -> None:
    torch.manual_seed(0)
    labels = smooth_labels(torch.zeros(100000))
    assert labels.min() >= 0.9
    assert labels.max() < 1
    assert labels.mean().item() == pytest.approx(0.95, abs=0.0005)


def test_smoothing_is_of_positive_labels_alone() -> None:
    rows, other = torch.zeros(20000, 2), torch.tensor([[0.0, 1.0]]).expand(20000, 2)
    torch.manual_seed(0)
    value = GANDiscriminatorLoss(smooth_positive_labels=True)(discriminator_stub, other, rows).item()
    on_real, on_fake = 1 / (1 + math.e), 0.5
    expected = -(0.95 * math.log(on_real) + 0.05 * math.log(1 - on_real)) - math.log(1 - on_fake)
    assert value == pytest.approx(expected, abs=2e-3)
    value = GANGeneratorLoss(smooth_positive_labels=True)(discriminator_stub, other).item()
    assert value == pytest.approx(expected + math.log(0.5), abs=2e-3)
    assert value != GANGeneratorLoss()(discriminator_stub, other).item()


def test_gradient_penalty_of_a_linear_critic() -> None:
    loss = build({"factory": "WGANCriticLossWithGradientPenalty", "arguments": {"weight": 10}})
    value = loss(critic_stub, REAL, FAKE)
    assert value.shape == ()
    assert value.item() == pytest.approx(10 * (math.sqrt(2) - 1) ** 2, abs=1e-5)
    default = WGANCriticLossWithGradientPenalty()(critic_stub, REAL, FAKE)
    assert default.item() == pytest.approx(0.1715729, abs=1e-6)
    assert not loss.state_dict()


def test_penalty_is_taken_between_real_and_fake() -> None:
    seen: list[Tensor] = []

    def remember(rows: Tensor) -> Tensor:
        seen.append(rows)
        return rows.square().sum(dim=1) / 2  # its gradient is the row itself

    torch.manual_seed(0)
    real, fake = torch.full((5000, 1), 3.0), torch.full((5000, 1), 1.0)
    value = WGANCriticLossWithGradientPenalty()(remember, real, fake).item()
    # Rows x ~ U[1, 3): E[(x - 1)^2] = 4/3; mean D(fake) - mean D(real) = 1/2 - 9/2.
    assert value == pytest.approx(4 / 3 - 4, abs=0.06)
    assert len(seen) == 3


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_penalty_has_the_gradients_of_autograd(normalised: bool, training: bool) -> None:
    rows = torch.randn(16, 3)
    model = critic(normalised).train(training)
    own = gradients(model, gradient_penalty, rows)
    expected = gradients(model, penalty_by_autograd, rows)
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
    assert max(one.abs().max().item() for one in own) > 1e-3


def test_penalty_leaves_running_statistics_alone() -> None:
    model = critic(normalised=True)
    real, fake = torch.randn(16, 3), torch.randn(16, 3)
    reference = critic(normalised=True)
    WGANCriticLossWithGradientPenalty()(model, real, fake).backward()
    WGANCriticLoss()(reference, real, fake).backward()
    for (name, own), expected in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(own, expected), name
    assert model.get_buffer("3.num_batches_tracked").item() == 2


def test_penalty_of_a_flat_critic_has_finite_gradients() -> None:
    model = critic(normalised=False)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    values = gradients(model, gradient_penalty, torch.randn(4, 3))
    assert all(one.isfinite().all() for one in values)
    assert gradient_penalty(model, torch.randn(4, 3)).item() == 1.0


def test_penalty_through_dropout() -> None:
    model = nn.Sequential(nn.Linear(3, 8), Dropout(0.5), nn.Linear(8, 1), nn.Flatten(0))
    torch.manual_seed(0)
    one = gradient_penalty(model, torch.ones(4, 3))
    assert one.requires_grad
    assert one.isfinite()
    assert one.item() != gradient_penalty(model, torch.ones(4, 3)).item()


def test_weight_is_not_negative() -> None:
    with pytest.raises(ConfigurationError, match="weight"):
        build({"factory": "WGANCriticLossWithGradientPenalty", "arguments": {"weight": -1}})
