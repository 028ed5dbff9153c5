"""What every task does that uses a trained model: build the components it needs, load their weights, leave training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata, MinMaxScaler, class_numbers, discretize, read_npy
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation import Floats
from dgm_ray.models import build_components
from dgm_ray.nn import ConditionalLayer
from dgm_ray.space import read_file
from dgm_ray.training import load_states, modules_of, read_checkpoint

Device = Literal["auto", "cpu", "cuda"]
CHUNK = 4096  # rows at a time: memory stays bounded, whatever the table


@dataclass(frozen=True)
class Trained:
    """Components with their trained weights, in evaluation mode, on their device.

    arguments: the architecture's own, such as noise_size.
    """

    metadata: Metadata
    components: Mapping[str, nn.Module]
    arguments: Mapping[str, Any]
    device: torch.device

    @property
    def conditional(self) -> bool:
        """Tell whether a component takes labels."""
        modules = (module for component in self.components.values() for module in component.modules())
        return any(isinstance(module, ConditionalLayer) for module in modules)

    def size(self, name: str) -> int:
        """Return an integer that the architecture gives, such as noise_size."""
        if name not in self.arguments:
            raise ConfigurationError(f"architecture.arguments.{name}", "is needed to use this model")
        return int(self.arguments[name])

    def labels(self, path: Path | None, rows: int) -> Tensor | None:
        """Return the labels (rows,) of a conditional model; None for another, which may not be given any."""
        if not self.conditional:
            if path is not None:
                raise ConfigurationError("labels", "the architecture is not conditional: it takes none", str(path))
            return None
        if path is None:
            raise ConfigurationError("labels", "the architecture is conditional: give the labels of the rows")
        numbers = class_numbers(read_npy(path), self.metadata.num_classes, str(path))
        if len(numbers) != rows:
            raise ConfigurationError("labels", f"must have one item per row ({rows})", len(numbers))
        return torch.as_tensor(numbers, dtype=torch.float32, device=self.device)


def load_trained(metadata: Path, architecture: Any, checkpoint: Path, names: Sequence[str], device: Device) -> Trained:
    """Build the components ``names`` of an architecture (a node, or the path of its file) and load their weights.

    The weights are the best ones if the checkpoint has kept any, else the last. Losses and optimizers are neither
    needed nor built. Raises ConfigurationError or TrainingError for what is missing or does not fit.
    """
    table = Metadata.read(metadata)
    node, place = (read_file(architecture), architecture) if isinstance(architecture, str) else (architecture, "")
    components = modules_of(build_components(node, {"metadata": table}, names, place or "architecture"))
    for name in names:
        if name not in components:
            raise ConfigurationError(f"architecture.components.{name}", "is no module")
    state = read_checkpoint(checkpoint)
    best = "best_architecture" in state
    load_states(components, state["best_architecture" if best else "architecture"], str(checkpoint))
    where = device_of(device)
    for component in components.values():
        component.to(where).eval()
    return Trained(table, components, node["arguments"], where)


def device_of(device: Device) -> torch.device:
    """Return the device that a task asks for. Raises ConfigurationError for a GPU where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device", "there is no GPU on this machine", device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def finished(metadata: Metadata, features: Floats, scaler: MinMaxScaler | None, discrete: bool = True) -> Floats:
    """Return rows as a user wants them: valid values for binary and categorical cells, in the user's units."""
    cells: Floats = discretize(metadata, features) if discrete else features
    return scaler.inverse_transform(cells) if scaler else cells
