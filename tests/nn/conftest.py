"""The two tables of the contract that the golden facts are about, and a model with a knob in every layer."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata, Variable
from dgm_ray.nn.activations import GumbelSoftmaxSampling, LeakyReLU
from dgm_ray.nn.autoencoding import AutoEncoderLoss, Outputs
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.hidden import HiddenLayers
from dgm_ray.nn.imputation import NormalNoiseImputation
from dgm_ray.nn.inputs import MiniBatchAveraging, MultiInputLayer
from dgm_ray.nn.noise import AdditiveNormalNoise, Dropout, MultiInputDropout
from dgm_ray.nn.outputs import MultiOutputLayer
from dgm_ray.nn.reconstruction import MultiReconstructionLoss


class Auto(nn.Module):
    """An autoencoder with a knob in every layer, and its loss."""

    def __init__(self, metadata: Metadata, knob: float) -> None:
        super().__init__()
        inputs = MiniBatchAveraging(MultiInputLayer(metadata))
        leaky = partial(LeakyReLU, knob)
        self.noise = nn.Sequential(Dropout(knob), MultiInputDropout(metadata, knob), AdditiveNormalNoise(knob, knob))
        self.fill = NormalNoiseImputation(knob, knob)
        hidden = HiddenLayers(inputs.output_size, leaky, sizes=(8, 8), bn_decay=0.9)
        outputs = MultiOutputLayer(8, metadata, partial(GumbelSoftmaxSampling, 0.5 + knob))
        self.network = FeedForward(inputs, hidden, outputs)
        self.loss = AutoEncoderLoss(MultiReconstructionLoss(metadata), masked=True)

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        outputs = self.network(self.noise(self.fill(features, missing_mask)))
        loss: Tensor = self.loss(Outputs(outputs, outputs), features, missing_mask)
        return loss


@pytest.fixture
def s3() -> Metadata:
    return Metadata((Variable("n", "numerical"), Variable("b", "binary"), Variable("c", "categorical", 3)))


@pytest.fixture
def target() -> Tensor:
    """Rows of s3."""
    return torch.tensor([[0.5, 1, 0, 1, 0], [0.25, 0, 1, 0, 0]])


@pytest.fixture
def prediction() -> Tensor:
    """Predictions of ``target``."""
    return torch.tensor([[0.75, 0.8, 0.2, 0.7, 0.1], [0.25, 0.4, 0.6, 0.3, 0.1]])


@pytest.fixture
def keep_mask() -> Tensor:
    """Kept cells of ``target``."""
    return torch.tensor([[1.0, 1, 0, 0, 0], [0, 1, 1, 1, 1]])


@pytest.fixture
def make_auto(md7: Metadata) -> Callable[[float], nn.Module]:
    """Make an ``Auto`` from its knob."""
    return partial(Auto, md7)
