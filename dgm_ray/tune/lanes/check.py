"""Whether ``tune.lanes`` can do what it promises; checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import ByteSize
from torch import nn

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.space import draws_of
from dgm_ray.tasks.progress import some
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training.lanes import Shape
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
    lanes = study.settings.lanes
    if lanes == 1:
        return []
    shapes: dict[str, Shape] = {}

    def shape(task: TrainingTask) -> Shape:
        return shapes.setdefault(repr(task), task.shape(data))

    found = [shape(task) for task in study.corners]
    if reasons := list(dict.fromkeys(one.reason for one in found if one.reason)):
        return [f"lanes: trained alone: {reason}" for reason in reasons]
    if study.settings.seeds == 1 and study.plan.draws and _of_shapes_alone(study, lambda task: shape(task).key):
        rule = "every draw changes shapes, so each pack would have one lane: draw what is no shape, or leave it out"
        raise ConfigurationError(PLACE, rule, lanes)
    if lanes != "auto":
        _check_memory(study, data, lanes)
    many = "as many trials as it pays" if lanes == "auto" else f"up to {lanes // study.settings.seeds or 1} trials"
    return [f"lanes: {some(len({one.key for one in found}), 'shape')} in the corners; {many} of one train together"]


def _of_shapes_alone(study: Study, key: Callable[[TrainingTask], str]) -> bool:
    """Tell whether two values of a draw, all others at their first, never have the same shape, whatever the draw."""
    tried = {place: draw.tried for place, draw in draws_of(study.plan.template)}
    first = {place: values[0] for place, values in tried.items()}
    several = {place: values for place, values in tried.items() if len(values) > 1}
    return bool(several) and all(
        len({key(study.task({**first, place: value})) for value in values}) == len(values)
        for place, values in several.items()
    )


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
