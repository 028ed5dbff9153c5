import math

import pytest
import torch
from torch import Tensor

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.autoencoding import AutoEncoderLoss, Outputs
from dgm_ray.nn.reconstruction import MSE
from dgm_ray.registry import Scope, build


def near(actual: Tensor, expected: float | Tensor) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=2e-5, atol=1e-6)


def test_defect_29_weights_come_from_a_configuration() -> None:
    prediction, target = torch.tensor([[0.5, 0.25], [0.5, 0.5]]), torch.tensor([[1.0, 0], [0, 1]])
    bce = build({"factory": "BCE", "arguments": {"weight": [2, 3], "reduction": "sum"}})
    near(bce(prediction, target), -2 * 2 * math.log(0.5) - 3 * math.log(0.75) - 3 * math.log(0.5))
    keep = torch.tensor([[1.0, 1], [0, 0]])
    near(bce(prediction, target, keep), (-2 * math.log(0.5) - 3 * math.log(0.75)) / 2)
    cross = build({"factory": "CrossEntropy", "arguments": {"weight": [2, 3], "reduction": "sum"}})
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # probabilities 1/4 3/4, 1/2 1/2
    near(cross(logits, target), -2 * math.log(0.25) - 3 * math.log(0.5))
    near(cross(logits, torch.tensor([0, 1])), -2 * math.log(0.25) - 3 * math.log(0.5))
    near(cross(logits, torch.tensor([0, 1]), torch.tensor([1.0, 0])), -2 * math.log(0.25))
    near(cross(logits, target, keep), -2 * math.log(0.25) / 2)
    near(cross(logits, target, torch.tensor([[1.0, 0], [1, 1]])), -3 * math.log(0.5) / 3)  # a row in part is left out
    assert not bce.state_dict()
    assert not cross.state_dict()


def test_reductions_are_checked(s3: Metadata) -> None:
    for name, reduction in (("MSE", "median"), ("MultiReconstructionLoss", "none")):
        with pytest.raises(ConfigurationError, match="reduction"):
            build({"factory": name, "arguments": {"reduction": reduction}}, scope=Scope({"metadata": s3}))


def test_autoencoder_loss(prediction: Tensor, target: Tensor, keep_mask: Tensor) -> None:
    node = {"reconstruction_loss": {"factory": "MSE", "arguments": {"reduction": "sum"}}, "masked": True}
    masked = build({"factory": "AutoEncoderLoss", "arguments": node})
    outputs = Outputs(prediction, prediction)
    near(masked(outputs, target, 1 - keep_mask), 0.0870833)
    near(masked(outputs, target, ~keep_mask.bool()), 0.0870833)
    near(masked(outputs, target), 0.8139410**2 / 10)
    plain = AutoEncoderLoss(MSE("sum"))
    near(plain(outputs, target, 1 - keep_mask), 0.8139410**2)
