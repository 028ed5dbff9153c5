"""What holds for all of the floor: it registers itself, and it builds and runs on the meta device."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import dgm_ray.nn
from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.activations import Sigmoid
from dgm_ray.nn.adversarial import (
    GANDiscriminatorLoss,
    GANGeneratorLoss,
    WGANCriticLoss,
    WGANCriticLossWithGradientPenalty,
    WGANGeneratorLoss,
)
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.hidden import HiddenLayers
from dgm_ray.nn.imputation import MeanAndModesImputation, ZeroImputation
from dgm_ray.nn.inputs import SingleInputLayer
from dgm_ray.nn.outputs import SingleOutputLayer
from dgm_ray.nn.reconstruction import BCE, MSE, RMSE, CrossEntropy, MultiReconstructionLoss
from dgm_ray.registry import FACTORIES, build, parameters


def test_everything_builds_and_runs_on_the_meta_device(md7: Metadata, make_auto: Callable[[float], nn.Module]) -> None:
    with torch.device("meta"):
        model = make_auto(0.2)
        features, mask = torch.empty(4, 13), torch.empty(4, 13)
        assert model(features, mask).shape == ()
        assert model.eval()(features, mask).shape == ()
        means = MeanAndModesImputation(None, torch.zeros(13))
        for layer in (ZeroImputation(), means):
            assert layer(features, mask).device.type == "meta"
        critic = FeedForward(
            SingleInputLayer(13), HiddenLayers(13, sizes=(5, 5), bn_decay=0.5), SingleOutputLayer(5, 1)
        )
        for loss, last in (
            (GANDiscriminatorLoss(), Sigmoid()),
            (WGANCriticLoss(), nn.Identity()),
            (WGANCriticLossWithGradientPenalty(), nn.Identity()),
        ):
            assert loss(nn.Sequential(critic, last, nn.Flatten(0)), features, features).device.type == "meta"
        for generator_loss in (GANGeneratorLoss(True), WGANGeneratorLoss()):
            assert generator_loss(lambda rows: rows[:, 0].sigmoid(), features).device.type == "meta"
        for one in (BCE(), MSE(), RMSE(), CrossEntropy(), MultiReconstructionLoss(md7, "sum")):
            assert one(features, features).device.type == "meta"
            assert one(features, features, mask).device.type == "meta"


def test_importing_the_floor_registers_its_factories() -> None:
    names = [
        "Adam",
        "AdditiveNormalNoise",
        "AutoEncoderLoss",
        "BCE",
        "CrossEntropy",
        "Dropout",
        "GANDiscriminatorLoss",
        "GANGeneratorLoss",
        "GumbelSoftmaxSampling",
        "HiddenLayers",
        "LeakyReLU",
        "MSE",
        "MeanAndModesImputation",
        "MultiInputDropout",
        "MultiInputLayer",
        "MultiOutputLayer",
        "MultiReconstructionLoss",
        "NormalNoiseImputation",
        "RMSE",
        "ReLU",
        "SGD",
        "Sigmoid",
        "SingleInputLayer",
        "SingleOutputLayer",
        "SoftmaxSampling",
        "Tanh",
        "WGANCriticLoss",
        "WGANCriticLossWithGradientPenalty",
        "WGANGeneratorLoss",
        "WGANOptimizer",
        "ZeroImputation",
    ]
    assert [name for name in names if name not in FACTORIES] == []
    assert {"initialize", "expectations", "FeedForward"} <= set(dir(dgm_ray.nn))


@pytest.mark.parametrize("name", ["ReLU", "Sigmoid", "Tanh", "SoftmaxSampling", "WGANCriticLoss", "WGANGeneratorLoss"])
def test_factories_without_arguments_have_none(name: str) -> None:
    assert isinstance(build({"factory": name}), nn.Module)
    assert parameters(FACTORIES.get(name, "")) == {}
