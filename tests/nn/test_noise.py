import pytest
import torch
from torch import nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.noise import AdditiveNormalNoise, Dropout, MultiInputDropout
from dgm_ray.registry import build


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_is_distributed_as_torchs(p: float) -> None:
    torch.manual_seed(0)
    features = torch.full((400, 500), 3.0)
    own, reference = Dropout(p)(features), nn.Dropout(p)(features)
    kept = own[own != 0]
    torch.testing.assert_close(kept, reference[reference != 0].max().expand_as(kept))
    assert (own == 0).float().mean().item() == pytest.approx(p, abs=0.006)


def test_dropout_of_nothing_and_of_all() -> None:
    features = torch.randn(50, 4, requires_grad=True)
    assert torch.equal(Dropout(0.0)(features), features)
    outputs = Dropout(1.0)(features)
    outputs.sum().backward()
    assert torch.equal(outputs, torch.zeros(50, 4))
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros(50, 4))


def test_dropout_passes_scaled_gradients() -> None:
    torch.manual_seed(0)
    features = torch.ones(100, 3, requires_grad=True)
    outputs = Dropout(0.75)(features)
    outputs.sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, outputs.detach())
    assert set(outputs.detach().unique().tolist()) == {0.0, 4.0}


def test_multi_input_dropout_zeroes_whole_variables(md7: Metadata) -> None:
    torch.manual_seed(0)
    layer = MultiInputDropout(md7, 0.3)
    features = 1 + torch.rand(20000, 13)
    outputs = layer(features)
    kept = outputs != 0
    torch.testing.assert_close(outputs[kept], features[kept])  # nothing is rescaled
    for columns in md7.slices:
        block = kept[:, columns]
        assert torch.equal(block.all(dim=1), block.any(dim=1))
        assert block.float().mean().item() == pytest.approx(0.7, abs=0.014)
    correlation = torch.corrcoef(kept[:, [0, 1, 3]].float().T)
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_additive_noise_has_its_moments() -> None:
    torch.manual_seed(0)
    noise = AdditiveNormalNoise(2.0, 0.5)(torch.full((400, 500), 10.0)) - 10
    assert noise.mean().item() == pytest.approx(2.0, abs=0.005)
    assert noise.std().item() == pytest.approx(0.5, abs=0.004)
    assert torch.equal(AdditiveNormalNoise(2.0, 0.0)(torch.ones(3, 2)), torch.full((3, 2), 3.0))


def test_defect_17_evaluation_changes_nothing(md7: Metadata) -> None:
    features = torch.randn(5, 13)
    for layer in (Dropout(0.9), MultiInputDropout(md7, 0.9), AdditiveNormalNoise(1.0)):
        assert not torch.equal(layer(features), features)
        assert torch.equal(layer.eval()(features), features)


def test_no_layer_has_state(md7: Metadata) -> None:
    for layer in (Dropout(0.9), MultiInputDropout(md7, 0.9), AdditiveNormalNoise(1.0)):
        assert not layer.state_dict()
        assert dict(layer.named_buffers())


@pytest.mark.parametrize(
    ("factory", "argument", "value"),
    [("Dropout", "p", 1.1), ("Dropout", "p", -0.1), ("AdditiveNormalNoise", "noise_std", -1), ("Dropout", "p", "0.5")],
)
def test_ranges(factory: str, argument: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        build({"factory": factory, "arguments": {argument: value}})
