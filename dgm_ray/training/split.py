"""One training over several workers: each takes its part of every batch, and their gradients are averaged.

The result is that of one process, to rounding: the order of rows is the same, a worker draws the noise of the whole
batch and keeps its rows of it, and a part counts by its rows. So a loss has to be a mean over rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dgm_ray.errors import ConfigurationError
from dgm_ray.models import Batch, Phase, Probed, parameters_of
from dgm_ray.training.draws import IN_PLACE
from dgm_ray.training.loop import Imputation, Loop

WORKERS = "tune.resources.workers"  # where a user asks for them
TOLERANCE = 1e-4  # of a gradient, in float32: rounding is far below, a loss that is no mean of rows far above
Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Part:
    """What one of several workers takes of every batch.

    rank: its number, from 0. alone: there are no others to average with; to learn what a worker takes.
    """

    rank: int
    workers: int
    alone: bool = False

    def rows(self, whole: int) -> slice:
        """Return its rows of a batch: as many as others have, or one more. Of fewer than workers, each takes all."""
        if whole < self.workers:
            return slice(0, whole)
        return slice(whole * self.rank // self.workers, whole * (self.rank + 1) // self.workers)

    def loss(self, loss: Loss) -> Loss:
        """Return a loss of whole batches that looks at this part alone. Its mean over the workers is ``loss``."""

        def of_part(batch: Batch) -> Tensor:
            rows = self.rows(batch.rows)
            part = Batch._make(None if tensor is None else tensor[rows] for tensor in batch)
            if part.rows == batch.rows:
                return loss(batch)
            with _WholeDraws(batch.rows, rows):
                value = loss(part)
            return value * (part.rows * self.workers / batch.rows)

        return of_part


class Averaging:
    """The loop of one of several workers: an epoch's losses are their mean over the workers. See ``Epochs``."""

    finished = False

    def __init__(self, loop: Loop, device: torch.device, workers: int) -> None:
        self._loop, self._device, self._workers = loop, device, workers

    def __call__(self, epoch: int) -> dict[str, float]:
        found = self._loop(epoch)
        total = torch.tensor(list(found.values()), dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(total)
        return dict(zip(found, (total / self._workers).tolist(), strict=True))

    def probe(self, cycles: int) -> Probed:
        return self._loop.probe(cycles)


def sample_of(
    num_features: int,
    workers: int,
    device: torch.device,
    *,
    num_classes: int = 0,
    imputation: Imputation | None = None,
) -> Batch:
    """Return a few random rows as a loss sees them, each with more missing cells than the one before.

    num_classes: of labels; 0: there are none. imputation: fills missing cells; None: there are none.
    """
    random, rows = torch.Generator().manual_seed(0), 4 * workers + 1
    features = torch.rand(rows, num_features, generator=random)
    mask = (torch.rand(rows, num_features, generator=random) < torch.linspace(0, 1, rows)[:, None]).to(features.dtype)
    labels = torch.randint(num_classes, (rows,), generator=random).to(device, features.dtype) if num_classes else None
    features, mask = features.to(device), mask.to(device)
    if imputation is None:
        return Batch(features, labels=labels)
    with torch.random.fork_rng(_gpus(device)):
        return Batch(imputation(features.masked_fill(mask != 0, torch.nan), mask), mask, labels)


def split(phases: Sequence[Phase], model: nn.Module, part: Part, sample: Batch) -> list[Phase]:
    """Return the phases as one worker trains them: on whole batches, of which each looks at its part.

    Unless the part is alone, torch.distributed's default group is there when the first batch comes.
    sample: see ``sample_of``. Raises as ``check_split``.
    """
    reached = check_split(phases, model, part.workers, sample)
    parts = [phase._replace(loss=part.loss(phase.loss)) for phase in phases]
    return parts if part.alone else list(map(_averaged, parts, reached))


def check_split(phases: Sequence[Phase], model: nn.Module, workers: int, sample: Batch) -> list[list[nn.Parameter]]:
    """Raise ConfigurationError for a loss whose mean over the workers is not the whole batch's, or its gradient.

    sample: see ``sample_of``. Return for each phase what its loss reaches of what it steps.
    """
    reached = []
    with _untouched(model, sample.device):
        for phase in phases:
            batch = sample if phase.takes_data else Batch(sample.features[:, :0])
            parameters = parameters_of(phase.optimizer)
            whole, gradients = _loss_and_gradient(phase.loss, batch, parameters)
            parts = [
                _loss_and_gradient(Part(rank, workers).loss(phase.loss), batch, parameters)[0]
                for rank in range(workers)
            ]
            for one, others in zip(whole, zip(*parts, strict=True), strict=True):
                scale = torch.stack([other.norm() for other in others]).mean()
                if (one - sum(others) / workers).norm() > TOLERANCE * scale:
                    rule = f"the loss of {phase.name} is no mean over rows (as with batch normalisation, or a mean over"
                    raise ConfigurationError(WORKERS, f"{rule} the missing cells of a batch): use 1", workers)
            reached.append([one for one, found in zip(parameters, gradients, strict=True) if found is not None])
    return reached


def _loss_and_gradient(
    loss: Loss, batch: Batch, parameters: Sequence[nn.Parameter]
) -> tuple[tuple[Tensor, Tensor], Sequence[Tensor | None]]:
    """Return a loss and its gradient as one vector, and that of each parameter, None where the loss has none."""
    torch.manual_seed(0)
    value = loss(batch)
    gradients = torch.autograd.grad(value, list(parameters), allow_unused=True)
    parts = [torch.zeros_like(one) if it is None else it for one, it in zip(parameters, gradients, strict=True)]
    return (value.detach(), torch.cat([part.flatten() for part in parts])), gradients


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a model be tried in training mode; its buffers and torch's random state are as before afterwards."""
    training, before = model.training, [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng(_gpus(device)):
        model.train()
        yield
        model.train(training)
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)


def _gpus(device: torch.device) -> list[int]:
    return [torch.cuda.current_device()] if device.type == "cuda" else []


class _Reaching(nn.Module):
    """A loss as DistributedDataParallel wants it: a module with the parameters that it reaches, and no others.

    With ``find_unused_parameters`` instead, it would take those that another phase reaches for its own.
    """

    def __init__(self, loss: Loss, reached: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.reached = nn.ParameterList(reached)
        self._loss = loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(batch)


def _averaged(phase: Phase, reached: Sequence[nn.Parameter]) -> Phase:
    """Return a phase whose gradients are averaged over the workers, during its backward pass."""
    made: list[nn.Module] = []

    def loss(batch: Batch) -> Tensor:
        if not made:  # the workers meet at the first batch
            made.append(nn.parallel.DistributedDataParallel(_Reaching(phase.loss, reached)))
        value: Tensor = made[0](batch)
        return value

    return phase._replace(loss=loss)


_LIKE = (torch.rand_like, torch.randn_like, torch.randint_like)
_SIZED = (torch.rand, torch.randn, torch.randint)


class _WholeDraws(TorchFunctionMode):
    """Inside, torch's random functions draw for the whole batch, as one process does, and return the part's rows.

    whole: rows of the batch. rows: the part. What has no dimension as long as the part is drawn as it is: the same for
    all rows, and by all workers. ``torch.rand`` has the rows last if it can, as ``draw_mask`` asks for them; all others
    have them first.
    """

    def __init__(self, whole: int, rows: slice) -> None:
        super().__init__()
        self._whole, self._rows = whole, rows

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _SIZED:
            return self._sized(function, args, kwargs)
        if function in _LIKE:
            like, *more = args
            shape, dimension = self._shape(like.shape)
            return self._part(function(like.new_empty(shape), *more, **kwargs), dimension)
        if function in IN_PLACE:
            filled, *more = args
            shape, dimension = self._shape(filled.shape)
            return filled.copy_(self._part(function(filled.new_empty(shape), *more, **kwargs), dimension))
        if function is F.dropout:
            features, *more = args
            shape, dimension = self._shape(features.shape)
            return features * self._part(function(features.new_ones(shape), *more, **kwargs), dimension)
        return function(*args, **kwargs)

    def _sized(self, function: Any, args: Any, kwargs: Any) -> Tensor:
        if "size" in kwargs:
            args, kwargs = (*args, kwargs["size"]), {key: value for key, value in kwargs.items() if key != "size"}
        given = args[-1] if isinstance(args[-1], Sequence) else args
        before = args[:-1] if given is args[-1] else ()
        shape, dimension = self._shape(given, last=function is torch.rand)
        return self._part(function(*before, shape, **kwargs), dimension)

    def _shape(self, given: Sequence[int], *, last: bool = False) -> tuple[list[int], int | None]:
        """Return the shape for the whole batch, and which dimension has the rows."""
        shape, length = list(given), self._rows.stop - self._rows.start
        having = [dimension for dimension, size in enumerate(shape) if size == length]
        if not having:
            return shape, None
        dimension = having[-1 if last else 0]
        shape[dimension] = self._whole
        return shape, dimension

    def _part(self, drawn: Tensor, dimension: int | None) -> Tensor:
        if dimension is None:
            return drawn
        return drawn.narrow(dimension, self._rows.start, self._rows.stop - self._rows.start)
