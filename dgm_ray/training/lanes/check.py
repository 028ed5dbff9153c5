"""Whether trainings of a kind can be lanes: two of them are tried, together and alone."""

from collections.abc import Callable
from functools import partial

import torch

from dgm_ray.models import Architecture
from dgm_ray.training.lanes.pack import Lane, Pack
from dgm_ray.training.lanes.shape import kind_of
from dgm_ray.training.lanes.verify import differences
from dgm_ray.training.loop import Loop
from dgm_ray.training.training import Training

TOLERANCE = 1e-3  # of a norm, after a few steps; rounding is far below, another loss far above
STEPS = 4
SAID = 160  # characters of what torch says

_REASONS: dict[str, str] = {}  # by kind, of this process


def why_alone(architecture: Architecture, start: Callable[[int], Training]) -> str:
    """Return why trainings of an architecture cannot be lanes, or "". One of each kind is tried, whoever asks.

    start: returns the training with a seed, on the CPU, of few rows.
    """
    kind = kind_of(architecture)
    if kind not in _REASONS:
        threads = torch.get_num_threads()
        with torch.random.fork_rng(devices=[]):
            _REASONS[kind] = _why(start)
        torch.set_num_threads(threads)
    return _REASONS[kind]


def _why(start: Callable[[int], Training]) -> str:
    starts = [partial(start, seed) for seed in (0, 1)]
    if not isinstance(start(0).loop, Loop):
        return "it is not trained by phases"
    try:
        worst = max(step.parameters for step in differences(starts, STEPS))
        Pack([Lane(one) for one in starts]).advance()  # with its measures
    except Exception as error:  # torch has many kinds for what it cannot do
        return f"it cannot be stacked ({' '.join(str(error).split())[:SAID]})"
    return "" if worst < TOLERANCE else f"its weights would be others (by {worst:.1g})"
