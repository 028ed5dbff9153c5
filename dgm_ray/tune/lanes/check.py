"""Whether ``tune.lanes`` can do what it promises; checked before anything starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ByteSize
from torch import nn

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.space import LISTED, draws_of
from dgm_ray.tasks.progress import some
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.tune.data import available_memory
from dgm_ray.tune.settings import Settings

if TYPE_CHECKING:
    from dgm_ray.tune.study import Study

PLACE = "tune.lanes"
COPIES = 8  # of the weights: they, gradients, what an optimizer holds, and all but gradients again of the best epoch
ACTIVATIONS = 4  # of a layer's outputs: themselves, gradients, and what activations and losses keep


def check_settings(settings: Settings) -> None:
    """Raise ConfigurationError for what does not go with lanes."""
    if settings.lanes == 1:
        return
    scheduler = type(settings.scheduler).__name__
    if settings.scheduler.together:
        rule = f"does not go with {scheduler}, which lets trials wait for each other: use FIFO, ASHA or MedianStopping"
        raise ConfigurationError(PLACE, rule, settings.lanes)
    if settings.resources.workers > 1:
        rule = "does not go with tune.resources.workers: leave one of both out"
        raise ConfigurationError(PLACE, rule, settings.lanes)


def lanes_lines(study: Study, data: Prepared) -> list[str]:
    """Return what is said of the lanes of a study.

    Raises ConfigurationError if no two trials could be lanes of one pack, or if the lanes do not fit into the memory.
    """
    lanes, seeds = study.settings.lanes, study.settings.seeds
    if lanes == 1:
        return []
    if reasons := list(dict.fromkeys(found.reason for task in study.corners if (found := task.shape(data)).reason)):
        return [f"lanes: trained alone: {reason}" for reason in reasons]
    shapes = shapes_of_draws(study, data)
    if seeds == 1 and shapes and all(found.all_differ for found in shapes.values()):
        rule = "every draw changes shapes, so each pack would have one lane: draw what is no shape, or leave it out"
        raise ConfigurationError(PLACE, rule, lanes)
    if lanes != "auto":
        _check_memory(study, data, lanes)
    changing = {label: found.shapes for label, found in shapes.items() if found.shapes > 1}
    least = "at least " if any(study.plan.draws[label][1].distribution not in LISTED for label in changing) else ""
    said = f"{least}{some(math.prod(changing.values()), 'shape')}"
    said += f" (by {', '.join(changing)})" if changing else ""
    return [f"lanes: {said}; {of_a_pack(study.settings)} of one train together"]


def of_a_pack(settings: Settings) -> str:
    """Say how many trials a pack has."""
    lanes, seeds = settings.lanes, settings.seeds
    return "as many trials as it pays" if lanes == "auto" else f"up to {some(max(1, lanes // seeds), 'trial')}"


class OfDraw(NamedTuple):
    """How many shapes the values of a draw have that were tried, and whether each has another."""

    shapes: int
    all_differ: bool


def shapes_of_draws(study: Study, data: Prepared) -> dict[str, OfDraw]:
    """Return the shapes of each draw that has several values, by label: tried alone, all others at their first."""
    tried = {place: draw.tried for place, draw in draws_of(study.plan.template)}
    first, found = {place: values[0] for place, values in tried.items()}, {}
    for label, (place, draw) in study.plan.draws.items():
        keys = {study.task({**first, place: value}).shape(data).key for value in draw.tried}
        if len(draw.tried) > 1:
            found[label] = OfDraw(len(keys), len(keys) == len(draw.tried))
    return found


def _check_memory(study: Study, data: Prepared, lanes: int) -> None:
    if study.settings.resources.on_gpu:
        return  # of the GPUs nothing is known before Ray is there; a pack that is too large is halved
    one, room = max(lane_bytes(task, data) for task in study.corners), available_memory()
    fit = room // one
    if lanes > fit:
        takes = f"one takes about {ByteSize(one).human_readable()} of {ByteSize(room).human_readable()}"
        raise ConfigurationError(PLACE, f"should be at most the {fit} that fit into the memory ({takes})", lanes)


def lane_bytes(task: TrainingTask, data: Prepared) -> int:
    """Return about how much memory a lane takes: its weights and what belongs to them, and a batch in all its layers.

    Validation rows are scored at once.
    """
    model = task.rehearse(data.metadata).model
    weights = sum(one.nbytes for one in model.parameters())
    widths = sum(one.out_features for one in model.modules() if isinstance(one, nn.Linear))
    rows = max(getattr(task, "batch_size", 0), data.validation.rows)
    return COPIES * weights + 4 * ACTIVATIONS * widths * rows
