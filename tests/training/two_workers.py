"""One of two workers that train models together: ``python two_workers.py RANK FOLDER``.

A process of its own, because torch.distributed is of a process. FOLDER/given.pt has what to train, by name;
FOLDER/RANK.pt gets what came out.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models import MODELS, Batch, build_architecture
from dgm_ray.nn import ZeroImputation
from dgm_ray.training import Averaging, Loop, Part, TensorRows, split
from dgm_ray.training.checkpoints import copy_states

CPU = torch.device("cpu")


def trained(given: dict[str, Any], metadata: Metadata, part: Part | None) -> dict[str, Any]:
    """Return the losses of two epochs and the states after them, or why a model cannot be split.

    In float64, because Adam makes a whole step of a gradient of which nothing but rounding is left, as a WGAN critic's
    are where all real and all generated rows pass a unit: in float32 the workers' would part from one process there.
    """
    model = next(one for one in MODELS if one.__name__ == given["model"])
    torch.manual_seed(3)
    made = build_architecture(model, given["node"], {"metadata": metadata}, given["arguments"])
    made.model.double()
    rows: torch.Tensor = given["rows"].double()
    phases = made.phases
    if part is not None:
        sample = rows[:9].nan_to_num(), rows[:9].isnan().double()
        try:
            phases = split(phases, made.model, part, Batch(*sample))
        except ConfigurationError as error:
            return {"refused": str(error)}
    loop = Loop(made.model, phases, TensorRows(rows), given["batch_size"], seed=1, imputation=ZeroImputation())
    epochs = loop if part is None else Averaging(loop, CPU, part.workers)
    losses = [epochs(epoch) for epoch in (1, 2)]
    return {"losses": losses, "states": copy_states(made.components), "random": torch.get_rng_state()}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=180))
    given = torch.load(folder / "given.pt", weights_only=True)
    metadata = Metadata.read(folder / "metadata.json")
    found = {name: trained(one, metadata, Part(rank, 2)) for name, one in given.items()}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
