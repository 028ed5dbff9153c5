"""Tasks that make missing masks and the statistics that fill missing cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from dgm_ray.data import Metadata, means_and_modes
from dgm_ray.nn import generate_mask
from dgm_ray.registry import TASKS, NonNegativeInt, Probability
from dgm_ray.tasks.arrays import read_features, read_missing_mask, write_npy


@dataclass(frozen=True)
class GenerateMissingMask:
    """Draw a missing mask, completely at random, and save it: float32 (rows, num_features), 1 where missing.

    All columns of a categorical variable are missing together.

    metadata: the metadata.json of the table.
    missing_probability: of each variable of each row, in [0, 1].
    inputs: the rows that it is for, a .npy file (rows, num_features).
    outputs: the .npy file.
    seed: of the draws; null leaves them to chance.
    """

    metadata: Path
    missing_probability: Probability
    inputs: Path
    outputs: Path
    seed: NonNegativeInt | None = 0

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Draw and save; return the share of missing cells."""
        metadata = Metadata.read(self.metadata)
        rows = len(read_features(self.inputs, metadata))
        generator = torch.Generator()
        generator.seed() if self.seed is None else generator.manual_seed(self.seed)
        mask = generate_mask(metadata, rows, self.missing_probability, generator).numpy()
        saved, share = write_npy(self.outputs, mask), float(mask.mean())
        console.print(f"{share:.2%} of the cells of {rows} rows are missing: {saved}", highlight=False, soft_wrap=True)
        return {"rows": rows, "missing_share": share}


@dataclass(frozen=True)
class ComputeMeansAndModes:
    """Save the mean of each numerical column and the mode of the others, of observed cells: (num_features,).

    A binary variable is 1 if it is 1 as often as 0; a categorical one is the one-hot of its most frequent category,
    the first of several; a numerical column without an observed cell is NaN.

    metadata: the metadata.json of the table.
    inputs: the rows, a .npy file (rows, num_features).
    missing_mask: a .npy file of the same shape, 1 where missing.
    outputs: the .npy file.
    """

    metadata: Path
    inputs: Path
    missing_mask: Path
    outputs: Path

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Compute and save."""
        metadata = Metadata.read(self.metadata)
        features = read_features(self.inputs, metadata)
        values = means_and_modes(metadata, features, read_missing_mask(self.missing_mask, features))
        saved = write_npy(self.outputs, values)
        if unknown := metadata.names_of(np.isnan(values)):
            console.print(f"no observed cell: {', '.join(unknown)}", highlight=False, soft_wrap=True, markup=False)
        console.print(f"saved {len(values)} means and modes: {saved}", highlight=False, soft_wrap=True)
        return {"rows": len(features)}


for _task in (GenerateMissingMask, ComputeMeansAndModes):
    TASKS.register(_task)
