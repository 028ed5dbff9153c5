"""Several models of one shape as one: each parameter and each buffer has a leading dimension, the rows of the stack.

The parameters are one matrix, a row a lane, and the lanes' own modules have views of it: what a lane's model holds is
always what was trained, for checkpoints, measures and best weights, without a copy. A row without a lane computes as
the others do, and nobody looks at it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby, permutations
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from dgm_ray.models import Batch, parameters_of
from dgm_ray.nn import WGANOptimizer
from dgm_ray.nn.together import computing_together
from dgm_ray.training.lanes.noise import Draw, Noise, Random, Recording, Replaying
from dgm_ray.training.lanes.optimizers import Clamp, Part, step_of
from dgm_ray.training.lanes.shape import Whole, key_of, knobs_of, state_of
from dgm_ray.training.lanes.traced import Traced
from dgm_ray.training.loop import Loop, batch_of
from dgm_ray.training.rows import TensorRows
from dgm_ray.training.training import Training

ORDERS = 6  # groups of parameters of which every order is tried


class Known:
    """What one stack of a shape has learned for the next.

    reach: by phase, the names of what its loss reaches of what its optimizer steps. A parameter that is not reached is
    not stepped, as torch does not step what has no gradient. draws: by what is computed and the shapes of its inputs.
    steps: by phase, size of a batch and rows of the stack.
    """

    def __init__(self) -> None:
        self.reach: list[list[str]] = []
        self.draws: dict[Any, list[Draw]] = {}
        self.steps: dict[tuple[int, int, int, bool], Traced] = {}


_KNOWN: dict[Any, Known] = {}  # of this process; a study has few shapes


class Stack:
    """The models of lanes as one.

    lanes: trainings of one shape by their rows. rows: of the stack. random: of each lane.
    """

    def __init__(
        self, lanes: Mapping[int, Training], rows: int, random: Mapping[int, Random], *, compiled: bool = False
    ) -> None:
        self.rows, self.random, self._compiled = rows, random, compiled
        first = next(iter(lanes.values()))
        self.model, loop = first.architecture.model, first.loop
        assert isinstance(loop, Loop)
        assert isinstance(loop.rows, TensorRows)
        self.loop, self.table, self.device = loop, loop.rows, loop.rows.device
        wholes = {row: Whole(one.architecture.model, one.architecture.fill) for row, one in lanes.items()}
        self._base = next(iter(wholes.values()))
        key = key_of(first.architecture, loop.batch_size, loop.imputation is None)
        self._known = _KNOWN.setdefault((key, self.device), Known())
        self._noise: dict[Any, Noise] = {}
        self._reach = self._reached()
        names = [name for name, _ in self._base.named_parameters()]
        self._order = ordered(names, self._reach)
        self._parameters = self._stack_parameters(wholes)
        self._buffers = self._stack_buffers(wholes)
        self._steps = [self._stepper(index, lanes, wholes) for index in range(len(loop.phases))]

    def step(self, index: int, features: Tensor, labels: Tensor | None) -> Tensor:
        """Do a step of phase ``index``; return the loss of each row of the stack, (rows,).

        features: (rows, batch, num_features), NaN where missing. labels: (rows, batch), of a conditional model.
        """
        given = (features,) if labels is None else (features, labels)
        noise, size = self._drawn(index, given), features.shape[1]
        place = (index, size, self.rows, self._compiled)
        if place not in self._known.steps:
            self._known.steps[place] = Traced(compiled=self._compiled)
        tensors = [*self._parameters.values(), *self._buffers.values(), *noise, *given]
        changed = range(len(self._parameters), len(self._parameters) + len(self._buffers))
        make = partial(self._gradients, index, len(noise), len(given))
        losses, *gradients = self._known.steps[place](make, tensors, changed)
        self._steps[index](gradients)
        return losses

    def run(self, name: str, function: Callable[[], Tensor], random: Mapping[int, Random]) -> Tensor:
        """Return what a function of the first lane's modules gives of each row's, (rows, ...).

        name: of what it computes, and on inputs of which shape. random: of each lane.
        """
        self._base.eval()
        with torch.no_grad():
            if name not in self._known.draws:
                _, self._known.draws[name] = self._rehearse(function)
            noise = Noise(self._known.draws[name], self.rows)
            noise.draw(random)
            made = self._of_rows(function)(self._parameters, self._buffers, noise.tensors)
        assert isinstance(made, Tensor)
        return made

    def train(self) -> None:
        """Let the model be as it is when it learns."""
        self._base.train()

    def _of_rows(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of stacked parameters, buffers, draws, and what ``function`` takes."""

        def of_row(parameters: Any, buffers: Any, noise: Any, *given: Tensor) -> Any:
            with Replaying(noise), computing_together():
                return _called(self._base, {**parameters, **buffers}, lambda: function(*given))

        return vmap(of_row, randomness="error")

    def _loss(self, index: int) -> Callable[..., Tensor]:
        phase, imputation = self.loop.phases[index], self.loop.imputation

        def loss(features: Tensor, labels: Tensor | None = None) -> Tensor:
            takes = phase.takes_data
            value: Tensor = phase.loss(batch_of(features, labels, imputation) if takes else Batch(features))
            return value

        return loss

    def _gradients(self, index: int, draws: int, given: int) -> Callable[..., list[Tensor]]:
        """Return a function of all that a step depends on: losses (rows,), and the gradient of each part."""
        names, buffers = list(self._parameters), list(self._buffers)
        ends = list(accumulate((len(names), len(buffers), draws, given)))
        runs = self._runs(self._reach[index])
        losses_of = self._of_rows(self._loss(index))

        def gradients(*tensors: Tensor) -> list[Tensor]:
            parts = [tensors[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            reached = {name for run in runs for name in run}
            leaves = {
                name: one.detach().requires_grad_(name in reached) for name, one in zip(names, parts[0], strict=True)
            }
            with torch.enable_grad():
                losses = losses_of(leaves, dict(zip(buffers, parts[1], strict=True)), list(parts[2]), *parts[3])
                # A sum: a mean would divide each lane's gradient by the number of lanes.
                found = torch.autograd.grad(losses.sum(), [leaves[name] for run in runs for name in run])
            flat = iter([one.reshape(self.rows, -1) for one in found])
            return [losses.detach(), *(torch.cat([next(flat) for _ in run], dim=1) for run in runs)]

        return gradients

    def _drawn(self, index: int, given: Sequence[Tensor]) -> list[Tensor]:
        """Return the random numbers of a step, drawn anew."""
        place = (index, given[0].shape[1])
        if place not in self._noise:
            if place not in self._known.draws:
                _, self._known.draws[place] = self._rehearse(lambda: self._loss(index)(*(one[0] for one in given)))
            self._noise[place] = Noise(self._known.draws[place], self.rows)
        noise = self._noise[place]
        noise.draw(self.random)
        return noise.tensors

    def _rehearse(self, function: Callable[[], Tensor]) -> tuple[Tensor, list[Draw]]:
        """Do what the first lane would do alone, and leave all as it was; return what came out, and what it drew."""
        copies = {name: buffer.clone() for name, buffer in self._base.named_buffers()}
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), Recording() as recording:
            found: Tensor = _called(self._base, copies, function)
        return found, recording.draws

    def _reached(self) -> list[list[str]]:
        if not self._known.reach:
            self.train()
            names = {id(parameter): name for name, parameter in self._base.named_parameters()}
            sample = self.table.take(torch.arange(min(self.loop.batch_size, len(self.table)), device=self.device))
            for index, phase in enumerate(self.loop.phases):
                given = sample if phase.takes_data else (sample[0][:, :0], None)
                loss, _ = self._rehearse(lambda index=index, given=given: self._loss(index)(*given))  # type: ignore[misc]
                stepped = parameters_of(phase.optimizer)
                found = torch.autograd.grad(loss, stepped, allow_unused=True)
                reached = [names[id(one)] for one, its in zip(stepped, found, strict=True) if its is not None]
                self._known.reach.append(reached)
        return self._known.reach

    def _runs(self, names: Sequence[str]) -> list[list[str]]:
        """Return parameters as runs of columns of the matrix that stand side by side."""
        wanted = set(names)
        return [list(run) for inside, run in groupby(self._order, wanted.__contains__) if inside]

    def _columns(self, run: Sequence[str]) -> Tensor:
        return self._matrix[:, self._starts[run[0]] : self._starts[run[-1]] + self._sizes[run[-1]]]

    def _stack_parameters(self, wholes: Mapping[int, Whole]) -> dict[str, Tensor]:
        shapes = {name: one.shape for name, one in self._base.named_parameters()}
        self._sizes = {name: shapes[name].numel() for name in self._order}
        ends = list(accumulate(self._sizes.values()))
        self._starts = dict(zip(self._order, [0, *ends[:-1]], strict=True))
        example = next(iter(self._base.parameters()))
        self._matrix = example.new_empty(self.rows, ends[-1])
        self._matrix.requires_grad_(False)
        rows = [wholes[row] if row in wholes else self._base for row in range(self.rows)]
        for row, whole in enumerate(rows):
            own = dict(whole.named_parameters())
            torch.cat([own[name].detach().reshape(-1) for name in self._order], out=self._matrix[row])
        for row, whole in wholes.items():
            for name, parameter in whole.named_parameters():
                part = self._matrix[row, self._starts[name] : self._starts[name] + self._sizes[name]]
                parameter.data = part.view(parameter.shape)
        return {name: self._columns([name]).view(self.rows, *shapes[name]) for name in self._order}

    def _stack_buffers(self, wholes: Mapping[int, Whole]) -> dict[str, Tensor]:
        """Stack what is a knob or a state; all else is the same for all lanes, and stays the first one's."""
        kept = knobs_of(self._base) | state_of(self._base)
        own = {row: dict(whole.named_buffers()) for row, whole in wholes.items()}
        first = next(iter(own.values()))
        stacked = {
            name: torch.stack([(own[row] if row in own else first)[name] for row in range(self.rows)])
            for name in first
            if name in kept
        }
        for row, whole in wholes.items():
            names = {id(buffer): name for name, buffer in own[row].items()}
            for module in whole.modules():
                for key, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
                    if names[id(buffer)] in stacked:
                        setattr(module, key, stacked[names[id(buffer)]][row])
        return stacked

    def _stepper(
        self, index: int, lanes: Mapping[int, Training], wholes: Mapping[int, Whole]
    ) -> Callable[[Sequence[Tensor]], None]:
        """Return what does a phase's step, given the gradient of each part."""
        optimizers = {row: loop_of(lane).phases[index].optimizer for row, lane in lanes.items()}
        inner = {row: one.optimizer if isinstance(one, WGANOptimizer) else one for row, one in optimizers.items()}
        parameters = {row: dict(whole.named_parameters()) for row, whole in wholes.items()}
        step = step_of(
            [
                Part(
                    self._columns(run),
                    {row: (inner[row], [own[name] for name in run]) for row, own in parameters.items()},
                )
                for run in self._runs(self._reach[index])
            ]
        )
        bounds = {row: one.discriminator_clamp for row, one in optimizers.items() if isinstance(one, WGANOptimizer)}
        clamps = [Clamp(self._columns(run), bounds) for run in self._runs(self._clamped(index))] if bounds else []

        def whole_step(gradients: Sequence[Tensor]) -> None:
            with torch.no_grad():
                step(gradients)
                for clamp in clamps:
                    clamp()

        return whole_step

    def _clamped(self, index: int) -> list[str]:
        names = {id(parameter): name for name, parameter in self._base.named_parameters()}
        optimizer = self.loop.phases[index].optimizer
        return [names[id(one)] for one in optimizer.clamped] if isinstance(optimizer, WGANOptimizer) else []


def _called(whole: Whole, tensors: Mapping[str, Tensor], function: Callable[[], Any]) -> Any:
    """Return what a function gives while a model has other tensors.

    torch is not asked to look for tied ones: where a module stands at two places, it puts a wrong one back (2.13).
    """
    return functional_call(whole, dict(tensors), (function,), tie_weights=False)


def loop_of(training: Training) -> Loop:
    """Return the plain loop of a training that can be a lane."""
    assert isinstance(training.loop, Loop)
    return training.loop


def ordered(names: Sequence[str], reach: Sequence[Sequence[str]]) -> list[str]:
    """Return parameters in an order in which what each phase reaches stands side by side, as far as there is one."""
    groups: dict[tuple[bool, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(name in reached for reached in reach), []).append(name)
    if len(groups) > ORDERS:
        return [name for group in groups.values() for name in group]

    def breaks(order: Sequence[tuple[bool, ...]]) -> int:
        return sum(inside for phase in range(len(reach)) for inside, _ in groupby(group[phase] for group in order))

    return [name for group in min(permutations(groups), key=breaks) for name in groups[group]]
