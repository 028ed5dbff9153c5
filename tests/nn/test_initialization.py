import pytest
import torch
from torch import nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.hidden import HiddenLayers
from dgm_ray.nn.initialization import initialize
from dgm_ray.nn.inputs import MultiInputLayer
from dgm_ray.nn.outputs import SingleOutputLayer


def network(metadata: Metadata) -> FeedForward:
    inputs = MultiInputLayer(metadata)
    hidden = HiddenLayers(inputs.output_size, sizes=(400, 600), bn_decay=0.5)
    return FeedForward(inputs, hidden, SingleOutputLayer(600, 300))


def test_linear_and_norm_layers_are_drawn_at_any_depth(md7: Metadata) -> None:
    torch.manual_seed(0)
    model = network(md7)
    embeddings = [one.detach().clone() for one in model.input_layer.parameters()]
    initialize(model)
    for linear in (one for one in model.modules() if isinstance(one, nn.Linear)):
        deviation = (2 / (linear.in_features + linear.out_features)) ** 0.5
        assert linear.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert torch.equal(linear.bias, torch.zeros_like(linear.bias))
    (norm,) = (one for one in model.modules() if isinstance(one, nn.BatchNorm1d))
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.004)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert torch.equal(norm.bias, torch.zeros(600))
    assert all(map(torch.equal, embeddings, model.input_layer.parameters()))


def test_the_seed_decides(md7: Metadata) -> None:
    model = network(md7)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        initialize(model)
        weights.append(model.output_layer.model.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_layer_without_bias_and_the_meta_device(md7: Metadata) -> None:
    bare = nn.Linear(50, 50, bias=False)
    before = bare.weight.detach().clone()
    initialize(bare)
    assert not torch.equal(before, bare.weight)
    with torch.device("meta"):
        model = network(md7)
        initialize(model)
    assert {one.device.type for one in model.parameters()} == {"meta"}


def test_he_depends_on_what_comes_in_alone(md7: Metadata) -> None:
    torch.manual_seed(0)
    model = network(md7)
    initialize(model, "he")
    for linear in (one for one in model.modules() if isinstance(one, nn.Linear)):
        assert linear.weight.std().item() == pytest.approx((2 / linear.in_features) ** 0.5, rel=0.05)
