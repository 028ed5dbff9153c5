"""``Encode`` and its aliases: the codes of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console

from dgm_ray.errors import DataError
from dgm_ray.models import EncodesAndDecodes
from dgm_ray.registry import TASKS, Node, NonNegativeInt
from dgm_ray.tasks.arrays import read_features, write_npy
from dgm_ray.tasks.trained import CHUNK, Device, load_trained


@dataclass(frozen=True)
class Encode:
    """Encode rows with the autoencoder of a trained model and save the codes, float32 (rows, code_size).

    The autoencoder is in evaluation mode: no noise, and the code of a VAE is its mean. metadata: the metadata.json of
    the table. architecture: the path of its file, or the architecture itself; only the autoencoder is built.
    checkpoint: of a training; its best weights if it has kept any, else the last.
    features: the rows, a .npy file (rows, num_features) without missing cells. labels: of a conditional model, a .npy
        file (rows,).
    output: the .npy file of the codes.
    seed: has no effect, because nothing is drawn; the original's files have it.
    device: "auto" takes a GPU if there is one.
    """

    metadata: Path
    architecture: Node
    checkpoint: Path
    features: Path
    output: Path
    labels: Path | None = None
    seed: NonNegativeInt | None = None
    device: Device = "auto"

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Encode and save. Raises DataError for rows with missing cells."""
        trained = load_trained(self.metadata, self.architecture, self.checkpoint, ("autoencoder",), self.device)
        features = read_features(self.features, trained.metadata)
        if np.isnan(features).any():
            rule = "has missing cells, which cannot be encoded: impute them first"
            raise DataError(str(self.features), rule)
        labels = trained.labels(self.labels, len(features))
        autoencoder = cast(EncodesAndDecodes, trained.components["autoencoder"])
        codes = []
        with torch.no_grad():
            for start in range(0, len(features), CHUNK):
                rows = torch.as_tensor(np.array(features[start : start + CHUNK]), device=trained.device)
                condition = () if labels is None else (labels[start : start + CHUNK],)
                codes.append(autoencoder.encode(rows, *condition).cpu().numpy())
        saved = write_npy(self.output, np.concatenate(codes))
        console.print(f"saved {len(features)} codes: {saved}", highlight=False, soft_wrap=True)
        return {"rows": len(features)}


for _name in ("Encode", *(f"EncodeWith{kind}" for kind in ("AutoEncoder", "DeNoisingAutoEncoder", "MIDA", "VAE"))):
    TASKS.register(Encode, _name)
