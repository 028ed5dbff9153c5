"""Seconds per epoch of five models, here and in loops that are written by hand.

    python -m benchmarks.tasks                    # about two minutes
    python -m benchmarks.tasks --rounds 9

GAN, VAE, MedGAN, ARAE (with a WGAN's losses) and GAIN on the credit table (30,000 rows, 89 features; random numbers of
this shape where it is missing), one thread, batches of 128, single-variable networks with one hidden layer of 50, Adam.
GAIN's rows have a fifth of their cells hidden, known beforehand to the hand-written loop as a mask.

Per model and round: the hand-written loop (``nn.Sequential``, ``torch.optim.Adam``, torch's own losses, ``randperm``
and one index per batch), the same loop fed by a DataLoader that returns row i as a mapping, and dgm_ray: the phases
that the grammar builds, in the loop of a TrainX task (the epoch alone: no validation, no log). All follow the same
schedule: one step of each kind per cycle, a new batch for each step that takes data.

A figure is the median of the rounds, a ratio the median of the ratios within rounds.
"""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.epoch import CREDIT, Epoch, indexed, loaded, ratio, timed
from dgm_ray.data import Metadata
from dgm_ray.data.variable import Variable
from dgm_ray.models import ARAE, GAIN, GAN, VAE, MedGAN, build_architecture
from dgm_ray.nn import ZeroImputation
from dgm_ray.training import Loop, TensorRows

NOISE = CODE = 16
HIDDEN = 50
Step = Callable[[Tensor], Tensor]


def network(inputs: int, outputs: int, hidden: nn.Module, *end: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), hidden, nn.Linear(HIDDEN, outputs), *end)


def adam(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([one for module in modules for one in module.parameters()], lr=1e-3)


def judge(columns: int, *end: nn.Module) -> nn.Sequential:
    return network(columns, 1, nn.LeakyReLU(0.2), *end, nn.Flatten(0))


def adversaries(
    columns: int, make: Callable[[Tensor], Tensor], real: Step, wasserstein: bool
) -> tuple[Step, Step, Any]:
    """Return the losses of discriminator and generator, and the discriminator."""
    discriminator = judge(columns) if wasserstein else judge(columns, nn.Sigmoid())

    def of_discriminator(rows: Tensor) -> Tensor:
        with torch.no_grad():
            fake, true = make(torch.randn(len(rows), NOISE)), real(rows)
        on_real, on_fake = discriminator(true), discriminator(fake)
        if wasserstein:
            distance: Tensor = on_fake.mean() - on_real.mean()
            return distance
        loss = F.binary_cross_entropy(on_real, torch.ones_like(on_real))
        return loss + F.binary_cross_entropy(on_fake, torch.zeros_like(on_fake))

    def of_generator(rows: Tensor) -> Tensor:
        on_fake = discriminator(make(torch.randn(len(rows), NOISE)))
        return -on_fake.mean() if wasserstein else F.binary_cross_entropy(on_fake, torch.ones_like(on_fake))

    return of_discriminator, of_generator, discriminator


def plain_gan(columns: int) -> list[Any]:
    generator = network(NOISE, columns, nn.ReLU())
    first, second, discriminator = adversaries(columns, generator, lambda rows: rows, False)
    return [(first, adam(discriminator), True), (second, adam(generator), False)]


def plain_vae(columns: int) -> list[Any]:
    encoder, decoder = network(columns, CODE, nn.Tanh()), network(CODE, columns, nn.Tanh())
    to_mu, to_log_var = nn.Linear(CODE, CODE), nn.Linear(CODE, CODE)

    def loss(rows: Tensor) -> Tensor:
        hidden = encoder(rows)
        mu, log_var = to_mu(hidden), to_log_var(hidden)
        made = decoder(mu + torch.randn_like(mu) * torch.exp(log_var / 2))
        divergence = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum()
        total: Tensor = (F.mse_loss(made, rows, reduction="sum") + divergence) / len(rows)
        return total

    return [(loss, adam(encoder, decoder, to_mu, to_log_var), True)]


def plain_coded(columns: int, wasserstein: bool) -> list[Any]:
    """Return MedGAN's phases, or ARAE's."""
    encoder, decoder = network(columns, CODE, nn.Tanh()), network(CODE, columns, nn.Tanh())
    generator = network(NOISE, CODE, nn.ReLU())
    if wasserstein:
        first, second, discriminator = adversaries(CODE, generator, encoder, True)
    else:
        first, second, discriminator = adversaries(columns, nn.Sequential(generator, decoder), lambda rows: rows, False)
    of_generator = adam(generator) if wasserstein else adam(generator, decoder)

    def reconstruct(rows: Tensor) -> Tensor:
        return F.mse_loss(decoder(encoder(rows)), rows)

    phases = [(reconstruct, adam(encoder, decoder), True), (first, adam(discriminator), True)]
    return [*phases, (second, of_generator, False)]


def plain_gain(columns: int) -> list[Any]:
    generator = network(2 * columns, columns, nn.Tanh())
    discriminator = network(2 * columns, columns, nn.Tanh(), nn.Sigmoid())

    def imputed(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask = rows.isnan().float()
        rows = rows.nan_to_num()
        made = generator(torch.cat([rows, mask], 1))
        return made, torch.where(mask != 0, made, rows), mask

    def hint(mask: Tensor) -> Tensor:
        return torch.where(torch.rand_like(mask) < 0.9, mask, 0.5)

    def of_discriminator(rows: Tensor) -> Tensor:
        with torch.no_grad():
            _, whole, mask = imputed(rows)
        return F.binary_cross_entropy(discriminator(torch.cat([whole, hint(mask)], 1)), mask)

    def of_generator(rows: Tensor) -> Tensor:
        made, whole, mask = imputed(rows)
        missing = discriminator(torch.cat([whole, hint(mask)], 1))
        passing = (F.binary_cross_entropy(missing, 1 - mask, reduction="none") * mask).sum() / mask.sum()
        error = ((made - rows.nan_to_num()).square() * (1 - mask)).sum() / (1 - mask).sum()
        return passing + error

    return [(of_discriminator, adam(discriminator), True), (of_generator, adam(generator), True)]


def by_hand(phases: list[Any], data: Iterable[Tensor], batch_size: int) -> Epoch:
    """Return an epoch: one step of each phase in turn, until the data ends."""

    def epoch(number: int) -> list[float]:
        totals, batches, empty = [torch.zeros(()) for _ in phases], iter(data), torch.empty(batch_size, 0)
        counts = [0] * len(phases)
        while True:
            for index, (loss_of, optimizer, takes_data) in enumerate(phases):
                batch = next(batches, None) if takes_data else empty
                if batch is None:
                    return [(total / max(count, 1)).item() for total, count in zip(totals, counts, strict=True)]
                optimizer.zero_grad()
                loss = loss_of(batch)
                loss.backward()
                optimizer.step()
                totals[index] += loss.detach() * len(batch)
                counts[index] += len(batch)

    return epoch


def components(model: Any) -> dict[str, Any]:
    """Return the architecture that the hand-written loops have."""
    hidden = {"hidden_layers": {"sizes": [HIDDEN]}}
    squares = {"reconstruction_loss": {"factory": "MSE"}}
    parts: dict[str, Any] = {}
    kinds = {GAN: ("SingleOutputGenerator", "Discriminator"), MedGAN: ("CodeGenerator", "Discriminator")}
    kinds |= {ARAE: ("CodeGenerator", "CodeCritic")}
    kinds |= {GAIN: ("SingleVariableGAINGenerator", "SingleInputGAINDiscriminator")}
    prefix = {ARAE: "WGAN", GAIN: "GAIN"}[model] if model in (ARAE, GAIN) else "GAN"
    if model in kinds:
        for part, factory in zip(("generator", "discriminator"), kinds[model], strict=True):
            parts[part] = {"factory": factory, "arguments": hidden}
        critic = "WGANCriticLoss" if model is ARAE else f"{prefix}DiscriminatorLoss"
        parts["discriminator_loss"] = {"factory": critic}
        parts["generator_loss"] = {"factory": f"{prefix}GeneratorLoss", "arguments": squares if model is GAIN else {}}
    if model in (VAE, MedGAN, ARAE):
        factory, loss = ("VAE", "VAELoss") if model is VAE else ("AutoEncoder", "AutoEncoderLoss")
        both = {"encoder": hidden, "decoder": hidden}
        parts["autoencoder"] = {"factory": f"SingleVariable{factory}", "arguments": both}
        parts["reconstruction_loss"] = {"factory": loss, "arguments": squares}
    for part in [part for part in ("autoencoder", "generator", "discriminator") if part in parts]:
        trained = [part, "autoencoder"] if (part, model) == ("generator", MedGAN) else [part]
        parts[f"{part}_optimizer"] = {"factory": "Adam", "arguments": {"parameters": trained, "lr": 1e-3}}
    sizes = {"noise_size": NOISE} if model in (GAN, MedGAN, ARAE) else {}
    return {"arguments": sizes | ({"code_size": CODE} if "autoencoder" in parts else {}), "components": parts}


def ours(model: Any, features: Tensor, batch_size: int) -> Epoch:
    """Return the epoch of this library."""
    metadata = Metadata(tuple(Variable(f"column_{index}", "numerical") for index in range(features.shape[1])))
    torch.manual_seed(0)
    made = build_architecture(model, components(model), {"metadata": metadata}, {})
    fill = ZeroImputation() if model is GAIN else None
    return Loop(made.model, made.phases, TensorRows(features), batch_size, seed=0, imputation=fill)


PLAIN: dict[Any, Callable[[int], list[Any]]] = {
    GAN: plain_gan,
    VAE: plain_vae,
    MedGAN: lambda columns: plain_coded(columns, False),
    ARAE: lambda columns: plain_coded(columns, True),
    GAIN: plain_gain,
}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each that are timed; one more warms up.")] = 7,
    rows: Annotated[int, typer.Option(min=1, help="The table's first rows, at most these.")] = 30_000,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
) -> None:
    console = Console()
    torch.set_num_threads(1)
    whole = torch.from_numpy(np.load(CREDIT)[:rows]) if CREDIT.exists() else torch.rand(rows, 89)
    hidden = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    table = Table(title=f"{len(whole)} rows, batches of {batch_size}, one thread, median of {rounds}")
    for name in ("task", "by hand, s", "DataLoader, s", "dgm_ray, s", "to by hand", "to DataLoader"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for model, make in PLAIN.items():
        features = whole.masked_fill(hidden, torch.nan) if model is GAIN else whole
        contestants = {
            "plain": by_hand(make(features.shape[1]), indexed(features, batch_size), batch_size),
            "loader": by_hand(make(features.shape[1]), loaded(features, batch_size), batch_size),
            "ours": ours(model, features, batch_size),
        }
        seconds = timed(contestants, rounds)
        figures = [f"{median(seconds[name]):.3f}" for name in ("plain", "loader", "ours")]
        ratios = [ratio(seconds["ours"], seconds[name]) for name in ("plain", "loader")]
        table.add_row(f"Train{model.__name__}", *figures, *ratios)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
