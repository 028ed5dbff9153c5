"""Training: one loop for all models, the best weights, checkpoints, files that are written whole."""

from dgm_ray.training.checkpoints import load_states, modules_of, read_checkpoint, write_checkpoint
from dgm_ray.training.files import append_line, atomic, write_json, write_text
from dgm_ray.training.loop import Loop, batches, schedule
from dgm_ray.training.repeats import Repeats, mean_and_std
from dgm_ray.training.rows import Rows, TensorRows, part_sizes
from dgm_ray.training.training import CONVERGED, DIVERGED, EARLY, Best, Training

__all__ = [
    "CONVERGED",
    "DIVERGED",
    "EARLY",
    "Best",
    "Loop",
    "Repeats",
    "Rows",
    "TensorRows",
    "Training",
    "append_line",
    "atomic",
    "batches",
    "load_states",
    "mean_and_std",
    "modules_of",
    "part_sizes",
    "read_checkpoint",
    "schedule",
    "write_checkpoint",
    "write_json",
    "write_text",
]
