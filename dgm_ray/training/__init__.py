"""Training: one loop for all models, the best weights, checkpoints, files that are written whole."""

from dgm_ray.training.checkpoints import load_states, modules_of, packed, read_checkpoint, unpacked, write_checkpoint
from dgm_ray.training.files import append_line, atomic, read_lines, write_json, write_text
from dgm_ray.training.loop import Loop, batches, schedule
from dgm_ray.training.repeats import Repeats, mean_and_std
from dgm_ray.training.rows import Rows, TensorRows, part_sizes
from dgm_ray.training.split import WORKERS, Averaging, Part, check_split, sample_of, split
from dgm_ray.training.training import CONVERGED, DIVERGED, EARLY, Best, Training

__all__ = [
    "CONVERGED",
    "DIVERGED",
    "EARLY",
    "WORKERS",
    "Averaging",
    "Best",
    "Loop",
    "Part",
    "Repeats",
    "Rows",
    "TensorRows",
    "Training",
    "append_line",
    "atomic",
    "batches",
    "check_split",
    "load_states",
    "mean_and_std",
    "modules_of",
    "packed",
    "part_sizes",
    "read_checkpoint",
    "read_lines",
    "sample_of",
    "schedule",
    "split",
    "unpacked",
    "write_checkpoint",
    "write_json",
    "write_text",
]
