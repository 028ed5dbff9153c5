"""Layers and losses under ``vmap``, as lanes use them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.activations import GumbelSoftmaxSampling, LeakyReLU, SoftmaxSampling
from dgm_ray.nn.adversarial import (
    GANDiscriminatorLoss,
    GANGeneratorLoss,
    WGANCriticLossWithGradientPenalty,
)
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.hidden import HiddenLayers
from dgm_ray.nn.inputs import SingleInputLayer
from dgm_ray.nn.noise import Dropout
from dgm_ray.nn.outputs import MultiOutputLayer
from dgm_ray.nn.reconstruction import BCE, MSE, RMSE, CrossEntropy, MultiReconstructionLoss


def batch(metadata: Metadata) -> tuple[Tensor, Tensor]:
    features = torch.rand(6, metadata.num_features).round()
    missing_mask = torch.zeros_like(features)
    missing_mask[0, :3] = 1
    features[0, :3] = float("nan")
    return features, missing_mask


def lanes(models: list[nn.Module]) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    parameters, buffers = stack_module_state(models)
    return models[0], parameters, buffers


@pytest.mark.parametrize("training", [True, False])
def test_lanes_of_an_autoencoder_have_finite_gradients(
    md7: Metadata, make_auto: Callable[[float], nn.Module], training: bool
) -> None:
    torch.manual_seed(0)
    base, parameters, buffers = lanes([make_auto(knob).train(training) for knob in (0.1, 0.2, 0.3)])

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Tensor:
        value: Tensor = functional_call(base, (parameters, buffers), data)
        return value

    features, missing_mask = batch(md7)
    run = vmap(loss, in_dims=(0, 0, None, None), randomness="different")
    values = run(parameters, buffers, features, missing_mask)
    values.sum().backward()
    assert values.shape == (3,)
    assert values.isfinite().all()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    tracked = buffers["network.hidden_layers.layers.1.1.num_batches_tracked"]
    assert tracked.tolist() == [int(training)] * 3


def test_lanes_without_draws_equal_single_models(md7: Metadata) -> None:
    models: list[nn.Module] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        hidden = HiddenLayers(13, partial(LeakyReLU, 0.2), sizes=(7, 7), shortcut=False)
        models.append(FeedForward(SingleInputLayer(13), hidden, MultiOutputLayer(7, md7, SoftmaxSampling)))
    base, parameters, buffers = lanes(models)
    features = torch.randn(5, 13)

    def outputs(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(base, (parameters, buffers), (features,))
        return value

    stacked = vmap(outputs, randomness="different")(parameters, buffers)
    torch.testing.assert_close(stacked, torch.stack([model(features) for model in models]))


def test_each_lane_has_its_own_rate() -> None:
    base, _, buffers = lanes([Dropout(p) for p in (0.0, 0.5, 1.0)])

    def outputs(buffers: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(base, buffers, (torch.ones(4000, 3),))
        return value

    torch.manual_seed(0)
    drops = (vmap(outputs, randomness="different")(buffers) == 0).float().mean(dim=(1, 2))
    torch.testing.assert_close(drops, torch.tensor([0.0, 0.5, 1.0]), rtol=0, atol=0.02)


@pytest.mark.parametrize("make", [partial(GumbelSoftmaxSampling, 0.7), SoftmaxSampling])
def test_lanes_draw_one_hots_apart(make: Callable[[], nn.Module]) -> None:
    base = make().eval()
    draws = vmap(base, randomness="different")(torch.zeros(2, 50, 3))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("normalised", [True, False])
def test_gradient_penalty_in_lanes(normalised: bool) -> None:
    def critic(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        norm = [nn.BatchNorm1d(5)] if normalised else []
        return nn.Sequential(nn.Linear(3, 5), *norm, LeakyReLU(0.2), nn.Linear(5, 1), nn.Flatten(0))

    class Model(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.critic, self.loss = critic(seed), WGANCriticLossWithGradientPenalty(float(seed))

        def forward(self, real: Tensor, fake: Tensor) -> Tensor:
            value: Tensor = self.loss(self.critic, real, fake)
            return value

    models: list[nn.Module] = [Model(seed) for seed in (1, 2)]
    base, parameters, buffers = lanes(models)
    rows = torch.randn(6, 3)  # real and fake alike, so that the mixes are no draws

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(base, (parameters, buffers), (rows, rows))
        return value

    values = vmap(loss, randomness="different")(parameters, buffers)
    values.sum().backward()
    singles = [model(rows, rows) for model in models]
    torch.testing.assert_close(values, torch.stack(singles), rtol=1e-4, atol=1e-5)
    for lane, (single, model) in enumerate(zip(singles, models, strict=True)):
        single.backward()
        for name, parameter in model.named_parameters():
            stacked = parameters[name].grad
            assert stacked is not None
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(stacked[lane], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [BCE([1.0] * 13), MSE(), RMSE(), CrossEntropy()])
@pytest.mark.parametrize("masked", [True, False])
def test_losses_in_lanes(loss: nn.Module, masked: bool) -> None:
    prediction, target = torch.rand(3, 4, 13), torch.rand(4, 13)
    keep_mask = torch.ones(4, 13) if masked else None
    values = vmap(lambda lane: loss(lane, target, keep_mask))(prediction)
    torch.testing.assert_close(values, torch.stack([loss(lane, target, keep_mask) for lane in prediction]))


def test_gan_losses_in_lanes() -> None:
    real, fake = torch.randn(2, 4, 1), torch.randn(2, 4, 1)

    def both(real: Tensor, fake: Tensor) -> Tensor:
        def score(rows: Tensor) -> Tensor:
            return rows[:, 0].sigmoid()

        one: Tensor = GANDiscriminatorLoss()(score, real, fake)
        two: Tensor = GANGeneratorLoss()(score, fake)
        return one + two

    values = vmap(both, randomness="different")(real, fake)
    torch.testing.assert_close(values, torch.stack([both(real[0], fake[0]), both(real[1], fake[1])]))


def test_a_lane_of_nan_does_not_touch_its_neighbour(md7: Metadata) -> None:
    losses = [BCE(), MSE(), RMSE(), CrossEntropy(), MultiReconstructionLoss(md7)]
    prediction, target = torch.rand(2, 4, 13), torch.rand(4, 13)
    prediction[0] = float("nan")
    prediction.requires_grad_()
    for loss in losses:
        values = vmap(lambda lane, loss=loss: loss(lane, target))(prediction)
        values.sum().backward()
        assert values.isnan().tolist() == [True, False]
    score = nn.Sequential(nn.Flatten(0))
    values = vmap(lambda lane: GANDiscriminatorLoss()(score, lane, lane) + GANGeneratorLoss()(score, lane))(prediction)
    assert values.isnan().tolist() == [True, False]
    assert prediction.grad is not None
    assert prediction.grad[1].isfinite().all()
