"""Trainings: alone (``run``, by the task runner), or as a trial of a study (``start``, one epoch at a time)."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console

from dgm_ray.data import CellHoldout, Files, Holdout, Metadata, MinMaxScaler, Prepared
from dgm_ray.errors import ConfigurationError, TrainingError
from dgm_ray.evaluation import measures_of
from dgm_ray.evaluation.final_report import FinalReport, final_report, score_test_cells
from dgm_ray.models import Architecture
from dgm_ray.registry import NonNegativeFloat, NonNegativeInt, PositiveInt, register
from dgm_ray.tasks.csv_log import CSVLog
from dgm_ray.tasks.progress import shown, steps_shown
from dgm_ray.tasks.trained import Device, device_of
from dgm_ray.training import DIVERGED, Part, Repeats, Training, read_checkpoint, write_checkpoint
from dgm_ray.training.lanes import Shape
from dgm_ray.training.training import Epochs, Measure


@register
@dataclass(frozen=True)
class Checkpoints:
    """Where a training is saved. output: the file. max_delay: seconds between two saves at least (the last always is).

    continue_from_output: go on from ``output`` if it is there; this goes before ``input``.
    input: a checkpoint to start from. use_best_input: start from its best weights, and forget what was best.
    ignore_input_epochs: count epochs from 0, and forget what was best.
    """

    output: Path
    max_delay: NonNegativeFloat = 0.0
    continue_from_output: bool = False
    input: Path | None = None
    ignore_input_epochs: bool = False
    use_best_input: bool = False

    def read(self) -> tuple[dict[str, Any], str] | None:
        """Return the state to go on from and the place it came from, if there is any.

        Raises TrainingError for a checkpoint that cannot be read, or that has no best weights when they are wanted.
        """
        if self.continue_from_output and self.output.exists():
            return read_checkpoint(self.output), str(self.output)
        if self.input is None:
            return None
        state, place = read_checkpoint(self.input), str(self.input)
        if self.use_best_input and "best_architecture" not in state:
            raise TrainingError(place, "has no best weights (use_best_input)")
        if self.use_best_input:
            state["architecture"] = state["best_architecture"]
        if self.ignore_input_epochs:
            state["epoch"] = 0
        if self.use_best_input or self.ignore_input_epochs:  # the old best would stay the bar (defect 38)
            state = {key: value for key, value in state.items() if not key.startswith("best_")}
        return state, place


@dataclass(frozen=True, kw_only=True)
class TrainingTask(ABC):
    """What all trainings have in common. Its arguments are described by the tasks, whose docstrings make the pages."""

    data: Holdout | CellHoldout | Files
    epochs: NonNegativeInt
    seed: NonNegativeInt | None = 0
    keep_checkpoint_by_metric: str | None = "auto"
    patience: PositiveInt | None = None
    evaluate_every: PositiveInt = 1
    checkpoints: Checkpoints | None = None
    logs: Path | None = None
    device: Device = "auto"
    threads: PositiveInt = 1

    @property
    def metric(self) -> str | None:
        """The measure that keeps the best weights."""
        if self.keep_checkpoint_by_metric != "auto":
            return self.keep_checkpoint_by_metric
        return "val_imputation_rmse" if not isinstance(self.data, Files) else None

    @abstractmethod
    def prepare(self) -> Prepared:
        """Read the table. Raises ConfigurationError or DataError for what is missing or does not fit."""

    def check_data(self, data: Prepared) -> None:
        """Raise ConfigurationError or DataError unless the rows can be trained on, and the model measured."""
        hidden = isinstance(self.data, Files) or data.validation.hidden_mask.any()
        if not hidden and (self.metric or "").startswith("val_imputation"):
            rule = f"hides no cell, so {self.metric} cannot be measured: hide some, or keep_checkpoint_by_metric: null"
            raise ConfigurationError("data.validation_probability", rule)

    @abstractmethod
    def rehearse(self, metadata: Metadata) -> Architecture:
        """Build what is trained, computing nothing. Raises ConfigurationError for parts that do not fit each other."""

    @abstractmethod
    def assemble(
        self, metadata: Metadata, means_and_modes: NDArray[Any], scaler: MinMaxScaler | None = None
    ) -> Architecture:
        """Build what is trained, on its device and with its fill: to train it, or to load what was trained.

        means_and_modes: (num_features,), of the training rows, scaled.
        """

    @abstractmethod
    def start(
        self,
        data: Prepared | None = None,
        configuration: Mapping[str, Any] | None = None,
        part: Part | None = None,
    ) -> Training:
        """Return the training, ready for its first epoch.

        data: already prepared, as a study's trials get it. configuration: of this task, for the checkpoints.
        part: of each batch, if several workers train together; the first of them measures.

        Raises ConfigurationError or DataError, and leaves torch's seed and threads set.
        """

    @abstractmethod
    def check_workers(self, data: Prepared, workers: int) -> None:
        """Raise ConfigurationError unless several workers can train together."""

    def shape(self, data: Prepared) -> Shape:
        """Return what decides whether this training can be a lane beside another on the same data."""
        return Shape("", f"{self.label} is no network")

    def repeats(self, seeds: int, data: Prepared, configuration: Mapping[str, Any], *, together: bool) -> Repeats:
        """Return the trainings with so many seeds, the task's and those after it, each as ``start`` returns it.

        together: as lanes, which ``shape`` has to allow.
        """

        def begin(seed: int) -> Training:
            own = {**configuration, "arguments": {**configuration["arguments"], "seed": seed}}
            return replace(self, seed=seed).start(data, own)

        assert self.seed is not None
        starts = [partial(begin, seed) for seed in range(self.seed, self.seed + seeds)]
        return Repeats(starts, together=together)

    def seeded(self, metadata: Metadata) -> bool:
        """Tell whether another seed gives another result."""
        return True

    def check_metric(self, architecture: Architecture, place: str = "keep_checkpoint_by_metric") -> None:
        """Raise unless the model reports the metric; ``place`` is where the user chose it."""
        if self.patience is not None and self.metric is None:
            raise ConfigurationError("patience", "needs keep_checkpoint_by_metric: there is nothing to wait for")
        known = self.measures(architecture)
        if self.metric not in (None, *known):
            raise ConfigurationError(place, f"{self.label} reports {', '.join(known)}", self.metric)

    def measures(self, architecture: Architecture) -> list[str]:
        """Return the names of what may be the metric."""
        return measures_of(architecture.model)

    @property
    @abstractmethod
    def label(self) -> str:
        """What is trained, for errors."""

    def settle(self) -> int:
        """Set torch's threads and seed, and return the seed."""
        torch.set_num_threads(self.threads)
        seed = secrets.randbits(31) if self.seed is None else self.seed
        torch.manual_seed(seed)
        return seed

    def training(
        self,
        architecture: Architecture,
        loop: Epochs,
        measure: Measure,
        seed: int,
        configuration: Mapping[str, Any] | None,
    ) -> Training:
        """Return the training of what was built, with what the arguments say about its end."""
        return Training(
            architecture,
            loop,
            measure,
            epochs=self.epochs,
            seed=seed,
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            patience=self.patience,
            configuration=configuration,
        )

    def score_test(self, data: Prepared, state: Mapping[str, Any]) -> FinalReport:
        """Return what a checkpoint's best weights are worth on the test rows, and on the validation rows."""
        return final_report(self._trained(data, state), data, device_of(self.device))

    def score_test_cells(self, data: Prepared, state: Mapping[str, Any]) -> dict[str, float]:
        """Return the part of ``score_test`` that is about the test cells alone, which takes far less time."""
        return score_test_cells(self._trained(data, state), data, device_of(self.device))

    def _trained(self, data: Prepared, state: Mapping[str, Any]) -> Training:
        training = self.start(data)
        training.load(state, "checkpoint")
        training.use_best()
        return training

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Train to the end, write the checkpoint and the log that were asked for, and return the best figures."""
        return self.run_on(self.prepare(), console, configuration)

    def run_on(
        self, data: Prepared, console: Console, configuration: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Do what ``run`` does, on data that is prepared already."""
        for place in self.rehearse(data.metadata).unused:
            console.print(f"has no effect: {place}", highlight=False, soft_wrap=True, markup=False)
        training = self.start(data, configuration)
        if self.seed is None:
            console.print(f"seed {training.seed}", highlight=False)
        saved = self.checkpoints
        if saved and (found := saved.read()):
            training.load(*found)
        last_save = time.monotonic()
        with ExitStack() as stack:
            report = stack.enter_context(steps_shown(self.epochs, console))
            log = stack.enter_context(CSVLog(self.logs, after=training.epoch)) if self.logs else None
            while not training.done:
                metrics = training.advance()
                report(training.epoch, metrics)
                if log:
                    log.epoch(
                        training.epoch,
                        {name: value for name, value in metrics.items() if name != "seconds"},
                        metrics["seconds"],
                    )
                if saved and time.monotonic() - last_save > saved.max_delay:
                    write_checkpoint(saved.output, training.state())
                    last_save = time.monotonic()
        if saved:
            write_checkpoint(saved.output, training.state())
        console.print(f"ended after epoch {training.epoch}: {training.reason}", highlight=False)
        if training.reason.startswith(DIVERGED):
            raise TrainingError("training", training.reason)
        return self._found(training, console)

    def _found(self, training: Training, console: Console) -> dict[str, Any]:
        training.use_best()
        found: dict[str, Any] = {"best_epoch": training.best.epoch if training.best else training.epoch}
        found |= training.evaluate()
        console.print(f"best epoch {found['best_epoch']}: {shown(found)}", soft_wrap=True, highlight=False)
        return found
