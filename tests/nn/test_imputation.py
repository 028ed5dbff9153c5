from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.nn.imputation import MeanAndModesImputation, NormalNoiseImputation, UniformNoiseImputation, ZeroImputation
from dgm_ray.registry import Scope, build

NAN = float("nan")
MASK = torch.tensor([[1.0, 0], [0, 1]])
FEATURES = torch.tensor([[NAN, 2], [3, NAN]])


def layers(differentiable: bool) -> list[nn.Module]:
    return [
        ZeroImputation(differentiable),
        NormalNoiseImputation(0.0, 1.0, differentiable),
        MeanAndModesImputation(None, torch.tensor([7.0, 8]), differentiable),
    ]


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_missing_cells_alone_are_filled(differentiable: bool, dtype: torch.dtype) -> None:
    zero, noise, means = (layer(FEATURES, MASK.to(dtype)) for layer in layers(differentiable))
    assert zero.tolist() == [[0, 2], [3, 0]]
    assert means.tolist() == [[7, 2], [3, 8]]
    assert noise.isfinite().all()
    assert [noise[0, 1].item(), noise[1, 0].item()] == [2, 3]


def test_uniform_noise_stays_in_its_range() -> None:
    filled = UniformNoiseImputation(0.2, 0.3)(torch.full((2000, 2), NAN), torch.ones(2000, 2))
    assert 0.2 <= filled.min() < 0.201 < 0.299 < filled.max() < 0.3
    assert UniformNoiseImputation(0.5, 0.5)(FEATURES, MASK).tolist() == [[0.5, 2], [3, 0.5]]
    with pytest.raises(ConfigurationError, match=r"high: should be 0\.5 \(low\) at least, not 0\.1"):
        build({"factory": "UniformNoiseImputation", "arguments": {"low": 0.5, "high": 0.1}}, nn.Module)


def test_gradients_reach_observed_cells_if_differentiable() -> None:
    for layer in layers(True):
        features = FEATURES.clone().requires_grad_()
        layer(features, MASK).square().sum().backward()
        assert features.grad is not None
        assert features.grad.tolist() == [[0, 4], [6, 0]]
    for layer in layers(False):
        assert not layer(FEATURES.clone().requires_grad_(), MASK).requires_grad


def test_noise_has_its_moments_in_training_and_evaluation() -> None:
    torch.manual_seed(0)
    layer = NormalNoiseImputation(2.0, 0.5)
    for training in (True, False):
        noise = layer.train(training)(torch.full((300, 400), NAN), torch.ones(300, 400))
        assert noise.mean().item() == pytest.approx(2.0, abs=0.007)
        assert noise.std().item() == pytest.approx(0.5, abs=0.005)


def test_means_come_from_a_file_before_the_scope(tmp_path: Path) -> None:
    np.save(tmp_path / "means.npy", np.array([7.0, 8.0]))
    node = {"factory": "MeanAndModesImputation", "arguments": {"path": str(tmp_path / "means.npy")}}
    shared = {"means_and_modes": torch.tensor([1.0, 2.0])}
    assert build(node)(FEATURES, MASK).tolist() == [[7, 2], [3, 8]]
    assert build(node, scope=Scope(shared))(FEATURES, MASK).tolist() == [[7, 2], [3, 8]]
    from_scope = build({"factory": "MeanAndModesImputation"}, scope=Scope(shared))
    assert from_scope(FEATURES, MASK).tolist() == [[1, 2], [3, 2]]
    assert not from_scope.state_dict()


def test_means_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        build({"factory": "MeanAndModesImputation"})
    with pytest.raises(ConfigurationError, match=r"absent\.npy"):
        MeanAndModesImputation(tmp_path / "absent.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ConfigurationError, match=r"objects\.npy"):
        MeanAndModesImputation(tmp_path / "objects.npy")
    np.save(tmp_path / "nan.npy", np.array([1.0, NAN]))
    with pytest.raises(DataError, match="finite"):
        MeanAndModesImputation(tmp_path / "nan.npy")
    np.save(tmp_path / "square.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match="one finite number"):
        MeanAndModesImputation(tmp_path / "square.npy")
