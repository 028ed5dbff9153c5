"""One process against two that train together, over gloo on loopback. Without a GPU, NCCL is not tried."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models import GAN, MODELS, AutoEncoder, Batch, MedGAN, Phase
from dgm_ray.nn.masks import draw_mask
from dgm_ray.training import Part, check_split, split

from .two_workers import trained

NodeOf = Callable[..., dict[str, Any]]
# What is no mean over rows: means over the missing, or the observed, cells of a batch.
REFUSED = {"GAIN", "MaskedAutoEncoder", "masked", "normalised"}


def changed(node: dict[str, Any], **components: Any) -> dict[str, Any]:
    node = copy.deepcopy(node)
    node["components"] |= components
    return node


def cases(node_of: NodeOf) -> dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Return (model, node, arguments) by name: every model, and what else draws, clamps, or crosses components."""
    found: dict[str, Any] = {model.__name__: (model, node_of(model), {}) for model in MODELS}
    gan, medgan, auto = node_of(GAN), node_of(MedGAN), node_of(AutoEncoder)
    hidden, deep = {"hidden_layers": {"sizes": [8]}}, {"hidden_layers": {"sizes": [8, 8], "bn_decay": 0.9}}
    inner = {"factory": "Adam", "arguments": {"parameters": ["discriminator"], "lr": 0.01}}
    clamped = {"optimizer": inner, "discriminator_clamp": 0.1}
    losses = {"generator_loss": {"factory": "WGANGeneratorLoss"}, "discriminator": {"factory": "Critic", "arguments": hidden}}
    critic = {"factory": "WGANCriticLoss"}
    optimizer = {"factory": "WGANOptimizer", "arguments": clamped}
    wgan = changed(gan, **losses, discriminator_loss=critic, discriminator_optimizer=optimizer)
    found["WGAN"] = GAN, wgan, {"discriminator_steps": 3}
    penalty = {"factory": "WGANCriticLossWithGradientPenalty", "arguments": {"weight": 10}}
    found["WGAN-GP"] = GAN, changed(gan, **losses, discriminator_loss=penalty), {"generator_steps": 2}
    smooth = {"factory": "GANDiscriminatorLoss", "arguments": {"smooth_positive_labels": True}}
    found["smooth"] = GAN, changed(gan, discriminator_loss=smooth), {"mask_generated": True}
    both = {"factory": "Adam", "arguments": {"parameters": ["generator", "autoencoder"], "lr": 0.01}}
    found["crossed"] = MedGAN, changed(medgan, generator_optimizer=both), {}
    for noise in ("Dropout", "MultiInputDropout", "AdditiveNormalNoise"):
        noisy = copy.deepcopy(auto["components"]["autoencoder"])
        noisy["factory"] = "MultiVariableDeNoisingAutoencoder"
        noisy["arguments"]["noise_layer"] = {"factory": noise}
        found[noise] = AutoEncoder, changed(auto, autoencoder=noisy), {}
    gumbel = copy.deepcopy(gan)
    activation = {"factory": "GumbelSoftmaxSampling", "arguments": {"temperature": 0.7}}
    gumbel["components"]["generator"]["arguments"]["output_layer"] = {"activation": activation}
    found["Gumbel"] = GAN, gumbel, {}
    masked = copy.deepcopy(auto["components"]["reconstruction_loss"])
    masked["arguments"]["masked"] = True
    found["masked"] = AutoEncoder, changed(auto, reconstruction_loss=masked), {}
    normalised = {"factory": "Discriminator", "arguments": deep}
    found["normalised"] = GAN, changed(gan, discriminator=normalised), {}
    return found


def test_two_workers_equal_one_process(
    node_of: NodeOf, md7: Metadata, rows7: np.ndarray[Any, np.dtype[np.float32]], tmp_path: Path
) -> None:
    """Losses, weights, optimizers and the random state after two epochs of every model, or it is refused.

    Batches of 14 have parts as long as the table has variables; of 17, uneven parts and a last batch of one row.
    """
    rows = torch.from_numpy(rows7.copy())
    rows[::3, 0] = rows[1::3, 3:6] = rows[2::4, 12] = torch.nan
    given = {
        f"{name} {size}": {"model": model.__name__, "node": node, "arguments": arguments, "batch_size": size, "rows": rows}
        for name, (model, node, arguments) in cases(node_of).items()
        for size in (14, 17)
    }
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "metadata.json").write_text(json.dumps(md7.to_dict()))
    script = Path(__file__).with_name("two_workers.py")
    running = [subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)]) for rank in (0, 1)]
    expected = {name: trained(one, md7, None) for name, one in given.items()}
    assert [one.wait(timeout=120) for one in running] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    refused = {name: one["refused"] for name, one in first.items() if "refused" in one}
    assert {name.split()[0] for name in refused} == REFUSED
    assert len(refused) == 2 * len(REFUSED)
    assert refused["GAIN 14"].startswith("tune.resources.workers: the loss of generator is no mean over rows")
    for name in given.keys() - refused.keys():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=lambda said, name=name: f"{name}: {said}")
        assert first[name]["losses"] == [
            pytest.approx(losses, rel=1e-5) for losses in expected[name]["losses"]
        ], name
        torch.testing.assert_close(
            first[name]["states"], expected[name]["states"], rtol=1e-5, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}"
        )
        assert torch.equal(first[name]["random"], expected[name]["random"]), name
