"""``SampleGAN`` and its like: rows from a trained model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dgm_ray.errors import UnfinishedError
from dgm_ray.evaluation import Floats
from dgm_ray.models import Decoded, EncodesAndDecodes, draw_noise
from dgm_ray.registry import TASKS, Node, NonNegativeInt, PositiveInt, preset
from dgm_ray.tasks.arrays import read_scaler, write_npy
from dgm_ray.tasks.progress import steps_shown
from dgm_ray.tasks.strategies import Default, Strategy
from dgm_ray.tasks.trained import Device, Trained, finished, load_trained

Generate = Callable[[Trained, int, tuple[Tensor, ...]], Tensor]  # -> (rows, num_features), scaled


@dataclass(frozen=True)
class Sample:
    """Draw rows from a trained model and save them, float32 (sample_size, num_features).

    metadata: the metadata.json of the table.
    architecture: the path of its file, or the architecture itself; only what makes rows is built.
    checkpoint: of a training; its best weights if it has kept any, else the last.
    output: the .npy file.
    batch_size: rows per draw. sample_size: rows that are saved.
    seed: of the noise; null leaves it to chance.
    scale_transform: the scaler (JSON) of the table; rows are saved in the user's units then.
    strategy: "default" takes every row, "rejection" those with given values, "conditional" draws for a label.
    discretize: save valid values (0 or 1, one-hot) instead of what the model gives, as the original always does.
    device: "auto" takes a GPU if there is one.
    """

    components: tuple[str, ...]
    generate: Generate
    metadata: Path
    architecture: Node
    checkpoint: Path
    output: Path
    batch_size: PositiveInt
    sample_size: NonNegativeInt
    seed: NonNegativeInt | None = 0
    scale_transform: Path | None = None
    strategy: Strategy = Default()
    discretize: bool = True
    device: Device = "auto"

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Draw and save. Raises UnfinishedError, after saving what there is, if a strategy gives up."""
        trained = load_trained(self.metadata, self.architecture, self.checkpoint, self.components, self.device)
        self.strategy.check(trained.metadata, trained.conditional)
        scaler = None if self.scale_transform is None else read_scaler(self.scale_transform, trained.metadata)
        if self.seed is not None:
            torch.manual_seed(self.seed)

        def draw(label: float | None = None) -> Floats:
            labels = () if label is None else (torch.full((self.batch_size,), label, device=trained.device),)
            with torch.no_grad():
                rows = self.generate(trained, self.batch_size, labels)
            return finished(trained.metadata, rows.cpu().numpy(), scaler, self.discretize)

        rows = self._rows(trained, draw, console)
        saved = write_npy(self.output, rows)
        console.print(f"saved {len(rows)} rows of {rows.shape[1]} columns: {saved}", highlight=False, soft_wrap=True)
        if len(rows) < self.sample_size:
            rule = f"no row to keep in many draws, gave up with {len(rows)} of {self.sample_size} rows, which are saved"
            raise UnfinishedError("strategy", rule)
        return {"rows": len(rows)}

    def _rows(self, trained: Trained, draw: Callable[..., Floats], console: Console) -> Floats:
        parts: list[Floats] = []
        count = empty = 0
        with steps_shown(self.sample_size, console, "row") as report:
            while count < self.sample_size and not self.strategy.gives_up(empty):
                part = self.strategy.draw(trained.metadata, draw)[: self.sample_size - count]
                empty = 0 if len(part) else empty + 1
                parts.append(part)
                count += len(part)
                report(count, {})
        return np.concatenate(parts) if parts else np.empty((0, trained.metadata.num_features), np.float32)


def _from_noise(trained: Trained, rows: int, condition: tuple[Tensor, ...]) -> Tensor:
    features: Tensor = trained.components["generator"](_noise(trained, "noise_size", rows), *condition)
    return features


def _from_codes(trained: Trained, rows: int, condition: tuple[Tensor, ...]) -> Tensor:
    decoded = Decoded(trained.components["generator"], cast(EncodesAndDecodes, trained.components["autoencoder"]))
    features: Tensor = decoded(_noise(trained, "noise_size", rows), *condition)
    return features


def _from_normal_codes(trained: Trained, rows: int, condition: tuple[Tensor, ...]) -> Tensor:
    autoencoder = cast(EncodesAndDecodes, trained.components["autoencoder"])
    return autoencoder.decode(_noise(trained, "code_size", rows), *condition)


def _noise(trained: Trained, size: str, rows: int) -> Tensor:
    return draw_noise(rows, trained.size(size), trained.device)


_BOTH = ("generator", "autoencoder")
for _model, _components, _generate in (
    ("GAN", ("generator",), _from_noise),
    ("ARAE", _BOTH, _from_codes),
    ("MedGAN", _BOTH, _from_codes),
    ("VAE", ("autoencoder",), _from_normal_codes),
):
    _name = f"Sample{_model}"
    TASKS.register(preset(Sample, _name, components=_components, generate=_generate), _name)
