import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.nn import MSE, GAINDiscriminatorLoss, GAINGeneratorLoss, Outputs
from dgm_ray.registry import Scope, build

MU = torch.tensor([[1.0, 0.0], [0.5, -1.0]])


@pytest.fixture
def outputs(prediction: Tensor) -> Outputs:
    """The contract's 9.2: its divergence is 1.2784264."""
    log_var = torch.tensor([[0.0, torch.log(torch.tensor(2.0))], [0.0, 0.0]])
    return Outputs(MU, prediction, MU, log_var)


def vae_loss(metadata: Metadata, reconstruction: str, **more: object) -> torch.nn.Module:
    node = {"factory": "VAELoss", "arguments": {"reconstruction_loss": {"factory": reconstruction}, **more}}
    made: torch.nn.Module = build(node, scope=Scope({"metadata": metadata}))
    return made


def test_defect_15_the_vae_loss_is_a_mean_over_rows(s3: Metadata, outputs: Outputs, target: Tensor) -> None:
    loss = vae_loss(s3, "MultiReconstructionLoss")
    reconstruction = 2 * (0.03125 + 0.3669846) - math.log(0.7) - math.log(0.6)  # one softmax, not two: defect 10
    assert loss(outputs, target).item() == pytest.approx((reconstruction + 1.2784264) / 2, rel=1e-6)
    twice = Outputs(*(None if one is None else torch.cat([one, one]) for one in outputs))  # type: ignore[arg-type]
    assert loss(twice, torch.cat([target, target])).item() == pytest.approx(loss(outputs, target).item(), rel=1e-6)


def test_defect_15_masked_both_terms_are_sums_over_a_row(
    s3: Metadata, outputs: Outputs, target: Tensor, keep_mask: Tensor
) -> None:
    loss = vae_loss(s3, "MSE", masked=True)
    expected = (0.5225 + 1.2784264) / 2
    assert loss(outputs, target, 1 - keep_mask).item() == pytest.approx(expected, rel=1e-5)
    hidden = torch.where(keep_mask != 0, target, torch.nan)
    assert loss(outputs, hidden, 1 - keep_mask).item() == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_the_divergence(s3: Metadata, outputs: Outputs, target: Tensor) -> None:
    without, whole = (vae_loss(s3, "MSE", kl_weight=weight)(outputs, target).item() for weight in (0.0, 1.0))
    assert whole - without == pytest.approx(1.2784264 / 2, rel=1e-5)


def test_mistakes_of_a_vae_loss(prediction: Tensor, target: Tensor, s3: Metadata) -> None:
    mean = {"factory": "MSE", "arguments": {"reduction": "mean"}}
    with pytest.raises(ConfigurationError, match=r"reconstruction_loss.arguments.reduction: should be 'sum'.*'mean'"):
        build({"factory": "VAELoss", "arguments": {"reconstruction_loss": mean}})
    with pytest.raises(ConfigurationError, match="needs a variational autoencoder"):
        vae_loss(s3, "MSE")(Outputs(MU, prediction), target)


# GAIN, contract 9.2: a stub D(x, h) = sigmoid(x - 2 h)

MASK = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
IMPUTED = torch.tensor([[0.2, 0.9], [0.4, 0.6]])
MISSING = torch.sigmoid(IMPUTED - 2 * torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
GENERATED = torch.tensor([[0.2, 0.5], [0.4, 0.5]])
RAW = torch.tensor([[torch.nan, 0.9], [torch.nan, 0.6]])  # what stands in a missing cell has no influence


def test_the_gain_discriminators_loss() -> None:
    assert GAINDiscriminatorLoss()(MISSING, MASK).item() == pytest.approx(1.1861587, rel=1e-6)


def test_defect_21_the_gain_generators_loss_is_over_missing_cells() -> None:
    original = GAINGeneratorLoss(MSE("sum"), 10.0, all_cells=True)(MISSING, GENERATED, RAW, MASK).item()
    assert original == pytest.approx(1.3111587, rel=1e-6)
    reconstruction = 10 * (0.16 + 0.01) / 2
    passing = -torch.log(1 - MISSING[:, 0]).mean().item()
    assert GAINGeneratorLoss(MSE("sum"), 10.0)(MISSING, GENERATED, RAW, MASK).item() == pytest.approx(
        passing + reconstruction, rel=1e-6
    )


def test_the_gain_generators_loss_of_its_authors() -> None:
    """Their code: -mean((1 - M) log D) + alpha MSE(observed) / mean(M), M = 1 where observed, D = P(observed)."""
    found = GAINGeneratorLoss(MSE(), 100.0, mean_of_all=True)(MISSING, GENERATED, RAW, MASK).item()
    observed = 1 - MASK.numpy()
    adversarial = -np.mean((1 - observed) * np.log(1 - MISSING.numpy()))
    errors = np.where(observed == 1, GENERATED.numpy() - np.nan_to_num(RAW.numpy()), 0)
    assert found == pytest.approx(adversarial + 100 * np.mean(errors**2) / np.mean(observed), rel=1e-5)


def test_gain_without_a_missing_cell() -> None:
    loss = GAINGeneratorLoss(MSE())(MISSING, GENERATED, GENERATED, torch.zeros(2, 2))
    assert loss.item() == 0
