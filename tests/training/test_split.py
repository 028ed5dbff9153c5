"""One process against two that train together, over gloo on loopback. Without a GPU, NCCL is not tried."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    losses = {
        "generator_loss": {"factory": "WGANGeneratorLoss"},
        "discriminator": {"factory": "Critic", "arguments": hidden},
    }
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


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("float64")
def test_two_workers_equal_one_process(
    node_of: NodeOf, md7: Metadata, rows7: np.ndarray[Any, np.dtype[np.float32]], tmp_path: Path
) -> None:
    """Losses, weights, optimizers and the random state after two epochs of every model, or it is refused.

    Batches of 14 have parts as long as the table has variables; of 17, uneven parts and a last batch of one row.
    """
    rows = torch.from_numpy(rows7.copy())
    rows[::3, 0] = rows[1::3, 3:6] = rows[2::4, 12] = torch.nan
    given = {
        f"{name} {size}": {"model": model.__name__, "node": node, "arguments": more, "batch_size": size, "rows": rows}
        for name, (model, node, more) in cases(node_of).items()
        for size in (14, 17)
    }
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "metadata.json").write_text(json.dumps(md7.to_dict()))
    line = [sys.executable, str(Path(__file__).with_name("two_workers.py"))]
    running = [subprocess.Popen([*line, str(rank), str(tmp_path)]) for rank in (0, 1)]
    try:
        expected = {name: trained(one, md7, None) for name, one in given.items()}
        assert [one.wait(timeout=240) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()
            one.wait()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    refused = {name: one["refused"] for name, one in first.items() if "refused" in one}
    assert refused == {name: one["refused"] for name, one in second.items() if "refused" in one}
    assert {name.rpartition(" ")[0] for name in refused} == REFUSED
    assert len(refused) == 2 * len(REFUSED)
    assert refused["GAIN 14"].startswith("tune.resources.workers: the loss of generator is no mean over rows")
    assert refused["GAIN 14"].endswith("use 1, not 2")
    for name in given.keys() - refused.keys():
        same(first[name], second[name], f"workers of {name}", 0)
        same(first[name], expected[name], name, 1e-12)


def same(one: Any, other: Any, name: str, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda said: f"{name}: {said}")


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17])
def test_parts_make_the_batch(rows: int, workers: int) -> None:
    parts = [list(range(rows))[Part(rank, workers).rows(rows)] for rank in range(workers)]
    if rows < workers:
        assert parts == [list(range(rows))] * workers
    else:
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


COLUMNS = torch.tensor([0, 1, 1, 2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda rows: torch.randn(len(rows), 3),
        lambda rows: torch.randn((len(rows), 3)),
        lambda rows: torch.rand(size=(len(rows), 1)),
        lambda rows: torch.randint(7, (len(rows),)),
        lambda rows: torch.randint(2, 7, size=(len(rows), 2)),
        lambda rows: torch.rand_like(rows),
        lambda rows: torch.randn_like(rows, dtype=torch.float64),
        lambda rows: torch.randint_like(rows, 2, 9),
        lambda rows: torch.empty_like(rows).exponential_(2.0),
        lambda rows: torch.empty(len(rows), 2).normal_(1.0, 2.0),
        lambda rows: torch.empty(len(rows)).bernoulli_(0.3),
        lambda rows: nn.functional.dropout(rows, 0.4),
        lambda rows: nn.Dropout(0.4)(rows),
        lambda rows: draw_mask(COLUMNS, 3, len(rows), 0.4),
        lambda rows: draw_mask(COLUMNS, 5, len(rows), 0.4),  # as many variables as the first part has rows
        lambda rows: rows + torch.randn(4),  # the same for all rows
    ],
)
def test_workers_draw_what_one_process_draws(draw: Callable[[Tensor], Tensor]) -> None:
    """Two losses that remember their draws: of eleven rows, five and six; the random state is the same afterwards."""
    rows, kept = torch.arange(44.0).reshape(11, 4) / 7 + 1, []

    def loss(batch: Batch) -> Tensor:
        kept.append(draw(batch.features))
        return batch.features.sum()

    for one in (loss, Part(0, 2).loss(loss), Part(1, 2).loss(loss)):
        torch.manual_seed(5)
        one(Batch(rows))
        kept.append(torch.rand(3))
    whole, after, *others = kept
    assert torch.equal(torch.cat([others[0], others[2]]), whole)
    assert torch.equal(others[1], after)
    assert torch.equal(others[3], after)


def linear(loss: Callable[[Tensor], Tensor]) -> tuple[nn.Module, Phase]:
    model = nn.Linear(4, 1)
    phase = Phase("it", torch.optim.SGD(model.parameters(), lr=0.1), lambda batch: loss(model(batch.features)))
    return model, phase


@pytest.mark.parametrize(
    ("loss", "refused"),
    [(torch.mean, False), (torch.sum, True), (torch.std, True), (lambda out: out.square().mean().sqrt(), True)],
)
def test_a_loss_that_is_no_mean_over_rows_is_refused(loss: Callable[[Tensor], Tensor], refused: bool) -> None:
    model, phase = linear(loss)
    sample, before = Batch(torch.rand(13, 4)), torch.get_rng_state()
    if refused:
        with pytest.raises(ConfigurationError, match=r"^tune\.resources\.workers: the loss of it is no mean .* not 3$"):
            check_split([phase], model, 3, sample)
    else:
        check_split([phase], model, 3, sample)
    assert torch.equal(torch.get_rng_state(), before)


def test_trying_a_model_leaves_it_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1)).eval()
    unreached = nn.Parameter(torch.ones(1))
    steps = torch.optim.SGD([*model.parameters(), unreached], lr=0.1)
    phase = Phase("it", steps, lambda batch: model[1](batch.features).mean() + 0 * model(batch.features).detach().sum())
    before = copy.deepcopy(model.state_dict())
    assert check_split([phase], model, 2, Batch(torch.rand(9, 4))) == [[*model.parameters()]]
    same(dict(model.state_dict()), dict(before), "state", 0)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_worker_that_is_alone_counts_for_itself() -> None:
    """Of five rows in two parts the second has three, which count 6/5 of their mean."""
    model, phase = linear(torch.mean)
    rows = torch.rand(5, 4)
    (part,) = split([phase], model, Part(1, 2, alone=True), Batch(rows))
    assert part.loss(Batch(rows)).item() == pytest.approx(model(rows[2:]).mean().item() * 6 / 5)
