"""``ImputeWithGAIN``, ``ImputeWithVAE``, ``ImputeWithMIDA``, and imputation by a search for the noise."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from dgm_ray.errors import DataError
from dgm_ray.evaluation import Floats, complete
from dgm_ray.models import EncodesAndDecodes, NoiseSearch, draw_noise
from dgm_ray.nn import ImputationLayer, expectations
from dgm_ray.registry import (
    TASKS,
    Node,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Scope,
    build,
    preset,
)
from dgm_ray.tasks.arrays import Mask, read_features, read_missing_mask, read_scaler, write_npy
from dgm_ray.tasks.csv_log import CSVLog
from dgm_ray.tasks.progress import steps_shown
from dgm_ray.tasks.trained import CHUNK, Device, Trained, load_trained

Propose = Callable[..., Floats]  # (trained, rows, fill) -> (rows, num_features)
Few = Callable[..., Tensor]  # (trained, filled, mask, *condition) -> (rows, num_features)


@dataclass(frozen=True)
class Rows:
    """Rows to impute. truth: what the file holds, under the mask as well."""

    truth: Floats
    missing_mask: Mask
    labels: Tensor | None

    @property
    def observed(self) -> Floats:
        """The rows with NaN where a cell is missing: nothing that stands under the mask is ever looked at."""
        return np.where(self.missing_mask, np.float32(np.nan), self.truth)


@dataclass(frozen=True)
class Impute:
    """Fill missing cells with what a trained model makes of the rows, float32 (rows, num_features).

    Observed cells are saved as they are; imputed ones as valid values (0 or 1, one-hot). The model is in evaluation
    mode and its categorical outputs are probabilities, so only ``imputation`` may draw anything.

    features: the rows, a .npy file (rows, num_features). missing_mask: a .npy file of the same shape, 1 where missing;
        cells of the features that are NaN are missing as well.
    metadata: the metadata.json of the table.
    architecture: the path of its file, or the architecture itself; only what imputes is built.
    checkpoint: of a training; its best weights if it has kept any, else the last.
    imputation: the layer that fills missing cells before the model sees them.
    output: the .npy file.
    seed: of the imputation layer's noise; null leaves it to chance.
    scale_transform: the scaler (JSON) of the table; rows are saved in the user's units then.
    labels: of a conditional model, a .npy file (rows,).
    device: "auto" takes a GPU if there is one.
    """

    component: str
    propose: Propose
    features: Path
    missing_mask: Path
    metadata: Path
    architecture: Node
    checkpoint: Path
    imputation: Node
    output: Path
    seed: NonNegativeInt | None = 0
    scale_transform: Path | None = None
    labels: Path | None = None
    device: Device = "auto"

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Impute and save."""
        trained = load_trained(self.metadata, self.architecture, self.checkpoint, (self.component,), self.device)
        features = read_features(self.features, trained.metadata)
        mask = read_missing_mask(self.missing_mask, features)
        rows = Rows(features, mask, trained.labels(self.labels, len(features)))
        scaler = None if self.scale_transform is None else read_scaler(self.scale_transform, trained.metadata)
        layer = build(self.imputation, ImputationLayer, Scope({"metadata": trained.metadata}), "imputation")
        if self.seed is not None:
            torch.manual_seed(self.seed)
        proposed = self.propose(trained, rows, layer.to(trained.device))
        completed = complete(trained.metadata, proposed, rows.observed)
        saved = write_npy(self.output, scaler.inverse_transform(completed) if scaler else completed)
        console.print(f"imputed {int(mask.sum())} cells of {len(mask)} rows: {saved}", highlight=False, soft_wrap=True)
        return {"rows": len(mask), "imputed_cells": int(mask.sum())}


def _in_chunks(one: Few) -> Propose:
    """Return what imputes any number of rows, a chunk at a time, by what imputes a few."""

    def propose(trained: Trained, rows: Rows, fill: nn.Module) -> Floats:
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows.truth), CHUNK):
                few = slice(start, start + CHUNK)
                filled, mask = filled_rows(rows.observed[few], fill, trained.device)
                condition = () if rows.labels is None else (rows.labels[few],)
                parts.append(one(trained, filled, mask, *condition).cpu().numpy())
        return np.concatenate(parts)

    return propose


def filled_rows(observed: Floats, fill: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (rows, num_features) rows whose missing (NaN) cells ``fill`` has filled, and the mask, 1 where missing."""
    features = torch.as_tensor(observed, device=device)
    mask = features.isnan().to(features.dtype)
    return fill(features.nan_to_num(), mask), mask


@_in_chunks
def _reconstruct(trained: Trained, filled: Tensor, mask: Tensor, *condition: Tensor) -> Tensor:
    autoencoder = trained.components["autoencoder"]
    with expectations(autoencoder):
        return cast(EncodesAndDecodes, autoencoder)(filled, *condition).reconstructed


@_in_chunks
def _generate(trained: Trained, filled: Tensor, mask: Tensor, *condition: Tensor) -> Tensor:
    generator = trained.components["generator"]
    with expectations(generator):
        generated: Tensor = generator(filled, mask)
    return generated


TASKS.register(preset(Impute, "ImputeWithGAIN", component="generator", propose=_generate), "ImputeWithGAIN")
for _kind in ("AutoEncoder", "DeNoisingAutoEncoder", "MIDA", "VAE"):
    _name = f"ImputeWith{_kind}"
    TASKS.register(preset(Impute, _name, component="autoencoder", propose=_reconstruct), _name)


@dataclass(frozen=True)
class GANIterativeImputation:
    """Fill missing cells with what a GAN generates from the noise whose rows agree best with the observed cells.

    Adam moves the noise, a row of it for each row, and nothing else. The log has a row per iteration (in its column
    epoch): non_missing_loss; with log_missing_loss also missing_loss and loss, of the hidden and of all cells.
    Source: Camino et al. 2019, arXiv:1902.10666.

    features, missing_mask, metadata, checkpoint, imputation, output: as in ImputeWithGAIN.
    architecture: as in ImputeWithGAIN; it has a generator and a noise_size.
    seed, scale_transform, labels, device: as in ImputeWithGAIN.
    noise_learning_rate: the step size of Adam, above 0. max_iterations: steps at most.
    tolerance: stop when non_missing_loss, the loss per observed cell, falls below it.
    reconstruction_loss: what compares generated with observed cells, such as MSE.
    logs: the CSV file.
    log_missing_loss: log the losses of missing cells too; the features must hold their true values then.
    """

    features: Path
    missing_mask: Path
    metadata: Path
    architecture: Node
    checkpoint: Path
    imputation: Node
    output: Path
    noise_learning_rate: PositiveFloat
    max_iterations: PositiveInt
    reconstruction_loss: Node
    logs: Path
    seed: NonNegativeInt | None = 0
    scale_transform: Path | None = None
    tolerance: NonNegativeFloat = 1e-5
    log_missing_loss: bool = False
    labels: Path | None = None
    device: Device = "auto"

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Search, impute and save."""
        impute = Impute(
            "generator",
            lambda *given: self._search(console, *given),
            **{name: getattr(self, name) for name in _IMPUTES},
        )
        return impute.run(console)

    def _search(self, console: Console, trained: Trained, rows: Rows, fill: nn.Module) -> Floats:
        loss = build(self.reconstruction_loss, nn.Module, Scope({"metadata": trained.metadata}), "reconstruction_loss")
        loss = loss.to(trained.device)
        if self.log_missing_loss and np.isnan(rows.truth).any():
            raise DataError(str(self.features), "has NaN cells, so log_missing_loss has no truth to compare with")
        filled, mask = filled_rows(rows.observed, fill, trained.device)
        truth = torch.as_tensor(np.array(rows.truth), device=trained.device)
        noise = draw_noise(len(filled), trained.size("noise_size"), trained.device)
        condition = () if rows.labels is None else (rows.labels,)
        search = NoiseSearch(self.noise_learning_rate, self.max_iterations, self.tolerance)
        started = perf_counter()
        with ExitStack() as stack:
            log = stack.enter_context(CSVLog(self.logs))
            shown = stack.enter_context(steps_shown(self.max_iterations, console, "iteration"))

            def report(iteration: int, error: Tensor, generated: Tensor) -> None:
                losses = {"non_missing_loss": float(error)}
                if self.log_missing_loss:
                    losses["missing_loss"] = float(loss(generated, truth, mask))
                    losses["loss"] = float(loss(generated, truth, torch.ones_like(mask)))
                log.epoch(iteration, losses, perf_counter() - started)
                shown(iteration, losses)

            generator = trained.components["generator"]
            found = search(generator, noise, filled, mask, *condition, loss=loss, report=report)
        return cast(Floats, found.cpu().numpy())


_IMPUTES = [field.name for field in fields(Impute) if field.name not in ("component", "propose")]
TASKS.register(GANIterativeImputation)
