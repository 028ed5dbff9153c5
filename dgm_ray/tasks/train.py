"""``TrainGAN`` and its like: one task a model. Its arguments are ``TrainTask``'s and the model's own (its steps).

The same task trains alone (``run``, by the task runner) and as a trial of a study (``start``, one epoch at a time).
"""

import inspect
import secrets
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from dgm_ray.data import Holdout, Metadata, Prepared
from dgm_ray.errors import ConfigurationError, DataError, TrainingError
from dgm_ray.evaluation import Evaluation, measures_of
from dgm_ray.models import MODELS, Architecture, Batch, build_architecture, parameters_of
from dgm_ray.nn import MeanAndModesImputation
from dgm_ray.registry import (
    TASKS,
    Node,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Scope,
    build,
    parameters,
    register,
)
from dgm_ray.space import read_file
from dgm_ray.tasks.csv_log import CSVLog
from dgm_ray.tasks.progress import epochs_shown, shown
from dgm_ray.training import DIVERGED, Loop, Training, read_checkpoint, write_checkpoint

Device = Literal["auto", "cpu", "cuda"]


@register
@dataclass(frozen=True)
class Checkpoints:
    """Where a training is saved. output: the file. max_delay: seconds between two saves at least (the last always is).

    continue_from_output: go on from ``output`` if it is there.
    """

    output: Path
    max_delay: NonNegativeFloat = 0.0
    continue_from_output: bool = False


@dataclass(frozen=True)
class TrainTask:
    """Train a model on a table.

    data: where the rows come from, how they are split and which cells are hidden.
    architecture: the components, ``{"arguments": {...}, "components": {...}}``, or the path of a file with them.
    batch_size: rows per step, at most the training rows.
    epochs: the number of the last epoch.
    seed: of weights, noise and the order of rows; null draws one.
    imputation: the layer that fills missing cells before the model sees them; needed if training rows have any.
    keep_checkpoint_by_metric: the measure whose lowest value keeps the best weights; null keeps the last.
    patience: stop when it has not improved for so many epochs.
    evaluate_every: epochs between two measures.
    checkpoints, logs: files to write; none by default.
    device: "auto" takes a GPU if there is one. threads: of the processor, for one training.
    """

    model: Callable[..., Any]
    model_arguments: Mapping[str, Any]
    data: Holdout
    architecture: Node
    batch_size: PositiveInt
    epochs: NonNegativeInt
    seed: NonNegativeInt | None = 0
    imputation: Node = None
    keep_checkpoint_by_metric: str | None = "val_imputation_rmse"
    patience: PositiveInt | None = None
    evaluate_every: PositiveInt = 1
    checkpoints: Checkpoints | None = None
    logs: Path | None = None
    device: Device = "auto"
    threads: PositiveInt = 1

    def start(self, data: Prepared | None = None, configuration: Mapping[str, Any] | None = None) -> Training:
        """Return the training, ready for its first epoch.

        data: already prepared, as a study's trials get it. configuration: of this task, for the checkpoints.

        Raises ConfigurationError or DataError, and leaves torch's seed and threads set.
        """
        data = data or self.data.prepare()
        self.check_data(data)
        torch.set_num_threads(self.threads)
        seed = secrets.randbits(31) if self.seed is None else self.seed
        torch.manual_seed(seed)
        device = self._device()
        statistics = _tensor(data.means_and_modes)
        architecture, imputation = self.build(data.metadata, statistics)
        self.check_metric(architecture.model)
        architecture.model.to(device)
        features = _tensor(data.train.features).to(device)
        fill = imputation or MeanAndModesImputation(means_and_modes=statistics)
        evaluation = Evaluation(data.metadata, data.validation, fill.to(device), device)
        loop = Loop(
            architecture.model, architecture.phases, features, self.batch_size, seed=seed, imputation=imputation
        )
        return Training(
            architecture,
            loop,
            evaluation,
            epochs=self.epochs,
            seed=seed,
            evaluate_every=self.evaluate_every,
            metric=self.keep_checkpoint_by_metric,
            patience=self.patience,
            configuration=configuration,
        )

    def check_data(self, data: Prepared) -> None:
        """Raise unless the rows fit the batch size and missing cells have a layer that fills them."""
        rows = len(data.train.features)
        if self.batch_size > rows:
            raise ConfigurationError("batch_size", f"should be at most the {rows} training rows", self.batch_size)
        if self.imputation is None and data.train.incomplete.any():
            names = data.metadata.names_of(data.train.incomplete)
            rule = "training rows have missing cells and the model cannot take them: give an `imputation` layer"
            raise DataError(f"data: {', '.join(names)}", rule)

    def check_metric(self, model: nn.Module, place: str = "keep_checkpoint_by_metric") -> None:
        """Raise unless the model reports the metric; ``place`` is where the user chose it."""
        if self.patience is not None and self.keep_checkpoint_by_metric is None:
            raise ConfigurationError("patience", "needs keep_checkpoint_by_metric: there is nothing to wait for")
        measures = measures_of(model)
        if self.keep_checkpoint_by_metric not in (None, *measures):
            rule = f"{self.model.__name__} reports {', '.join(measures)}"
            raise ConfigurationError(place, rule, self.keep_checkpoint_by_metric)

    def build(self, metadata: Metadata, means_and_modes: Tensor) -> tuple[Architecture, nn.Module | None]:
        """Build the model, initialised by torch's random generator, and the imputation layer if there is one."""
        node, place = self._architecture_node()
        shared = {"metadata": metadata, "means_and_modes": means_and_modes}
        architecture = build_architecture(self.model, node, shared, self.model_arguments, place)
        if self.imputation is None:
            return architecture, None
        return architecture, build(self.imputation, nn.Module, Scope(shared), "imputation")

    def score_test(self, data: Prepared, state: Mapping[str, Any]) -> dict[str, float]:
        """Return the scores of a checkpoint's best weights on the test rows, named ``test_{measure}``."""
        assert data.test is not None
        training = self.start(replace(data, validation=data.test))
        training.load(state, "checkpoint")
        training.use_best()
        return {name.replace("val_", "test_", 1): value for name, value in training.evaluate().items()}

    def rehearse(self, metadata: Metadata) -> Architecture:
        """Build the model and run every loss on torch's meta device: shapes are checked, nothing is computed.

        Raises ConfigurationError for components that do not fit each other.
        """
        with torch.device("meta"):
            architecture, _ = self.build(metadata, torch.empty(metadata.num_features))
            for phase in architecture.phases:
                columns = metadata.num_features if phase.takes_data else 0
                features = torch.empty(self.batch_size, columns)
                try:
                    phase.loss(Batch(features)).backward(inputs=parameters_of(phase.optimizer))
                except (RuntimeError, ValueError) as error:
                    place = f"architecture: {phase.name}"
                    raise ConfigurationError(place, f"components do not fit each other ({error})") from None
        return architecture

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Train to the end, write the checkpoint and the log that were asked for, and return the best figures."""
        data = self.data.prepare()
        for place in self.rehearse(data.metadata).unused:
            console.print(f"has no effect: {place}", highlight=False, soft_wrap=True, markup=False)
        training = self.start(data, configuration)
        if self.seed is None:
            console.print(f"seed {training.seed}", highlight=False)
        saved = self.checkpoints
        if saved and saved.continue_from_output and saved.output.exists():
            training.load(read_checkpoint(saved.output), str(saved.output))
        last_save = time.monotonic()
        with ExitStack() as stack:
            report = stack.enter_context(epochs_shown(self.epochs, console))
            log = stack.enter_context(CSVLog(self.logs, append=training.epoch > 0)) if self.logs else None
            while not training.done:
                metrics = training.advance()
                report(training.epoch, metrics)
                if log:
                    log.write(
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

    def _architecture_node(self) -> tuple[Any, str]:
        if isinstance(self.architecture, str):
            return read_file(self.architecture), self.architecture
        return self.architecture, "architecture"

    def _device(self) -> torch.device:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigurationError("device", "there is no GPU on this machine", self.device)
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def train_task(model: Callable[..., Any]) -> Callable[..., TrainTask]:
    """Return the task that trains ``model``: TrainTask's arguments and the model's own, checked as one signature."""
    own = inspect.signature(TrainTask, eval_str=True).parameters
    common = [parameter for name, parameter in own.items() if name not in ("model", "model_arguments")]
    names = [name for name, parameter in parameters(model).items() if not parameter.shared]

    def make(**arguments: Any) -> TrainTask:
        given = {name: arguments.pop(name) for name in names if name in arguments}
        return TrainTask(model, given, **arguments)

    theirs = inspect.signature(model, eval_str=True).parameters
    keywords = [
        parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in [*common, *(theirs[name] for name in names)]
    ]
    make.__signature__ = inspect.Signature(keywords, return_annotation=TrainTask)  # type: ignore[attr-defined]
    make.__name__ = f"Train{model.__name__}"
    make.__doc__ = f"{model.__doc__}\n\n{TrainTask.__doc__}"
    return make


for _model in MODELS:
    TASKS.register(train_task(_model))


def _tensor(array: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """Return a tensor over the same memory; a trial's table is shared by its node and read-only, and never written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
