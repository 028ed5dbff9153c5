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
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from dgm_ray.data import Files, Holdout, Metadata, MinMaxScaler, Prepared, class_numbers
from dgm_ray.errors import ConfigurationError, DataError, TrainingError
from dgm_ray.evaluation import Evaluation, Seen, ValidationLoss, measures_of
from dgm_ray.models import ALIASES, MODELS, Architecture, Batch, Phase, build_architecture, parameters_of
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
from dgm_ray.tasks.arrays import read_scaler
from dgm_ray.tasks.csv_log import CSVLog
from dgm_ray.tasks.progress import shown, steps_shown
from dgm_ray.tasks.trained import Device, device_of
from dgm_ray.training import DIVERGED, Loop, Training, read_checkpoint, write_checkpoint
from dgm_ray.training.training import Measure


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


@dataclass(frozen=True)
class TrainTask:
    """Train a model on a table.

    data: where the rows come from, how they are split and which cells are hidden; or the original library's files
        (train_features, val_features, train_labels, ...), logged under the original's names and judged by the
        component "val_loss".
    metadata: the metadata.json of such files. scale_transform: the scaler (JSON) they were scaled with; val_loss
        compares in the user's units then.
    architecture: the components, ``{"arguments": {...}, "components": {...}}``, or the path of a file with them.
    batch_size: rows per step, at most the training rows.
    epochs: the number of the last epoch.
    seed: of weights, noise and the order of rows; null draws one.
    imputation: the layer that fills missing cells before the model sees them; needed if training rows have any.
    keep_checkpoint_by_metric: the measure whose lowest value keeps the best weights; null keeps the last; "auto" is
        val_imputation_rmse, or null with the original's files.
    patience: stop when it has not improved for so many epochs.
    evaluate_every: epochs between two measures.
    checkpoints, logs: files to write; none by default.
    device: "auto" takes a GPU if there is one. threads: of the processor, for one training.
    """

    model: Callable[..., Any]
    model_arguments: Mapping[str, Any]
    data: Holdout | Files
    architecture: Node
    batch_size: PositiveInt
    epochs: NonNegativeInt
    metadata: Path | None = None
    seed: NonNegativeInt | None = 0
    scale_transform: Path | None = None
    imputation: Node = None
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
        return "val_imputation_rmse" if isinstance(self.data, Holdout) else None

    def prepare(self) -> Prepared:
        """Read the table. Raises ConfigurationError or DataError for what is missing or does not fit."""
        if isinstance(self.data, Files):
            if self.metadata is None:
                raise ConfigurationError("metadata", "is needed with files of features: the path of metadata.json")
            metadata = Metadata.read(self.metadata)
            scaler = None if self.scale_transform is None else read_scaler(self.scale_transform, metadata)
            return self.data.prepare(metadata, scaler)
        for name in ("metadata", "scale_transform"):
            if (given := getattr(self, name)) is not None:
                raise ConfigurationError(name, "belongs to files of features; a source has its own", str(given))
        return self.data.prepare()

    def start(self, data: Prepared | None = None, configuration: Mapping[str, Any] | None = None) -> Training:
        """Return the training, ready for its first epoch.

        data: already prepared, as a study's trials get it. configuration: of this task, for the checkpoints.

        Raises ConfigurationError or DataError, and leaves torch's seed and threads set.
        """
        data = data or self.prepare()
        self.check_data(data)
        torch.set_num_threads(self.threads)
        seed = secrets.randbits(31) if self.seed is None else self.seed
        torch.manual_seed(seed)
        device = device_of(self.device)
        statistics = _tensor(data.means_and_modes)
        architecture, imputation = self.build(data.metadata, statistics, data.scaler)
        self.check_metric(architecture)
        architecture.model.to(device)
        features = _tensor(data.train.features).to(device)
        labels = None
        if architecture.conditional:
            numbers = class_numbers(data.train.labels, data.metadata.num_classes, "data: labels")
            labels = torch.as_tensor(numbers, dtype=torch.float32, device=device)
        fill = imputation or MeanAndModesImputation(means_and_modes=statistics)
        seen = Seen(data.metadata, data.validation, fill.to(device), device, architecture.conditional)
        loop = Loop(
            architecture.model,
            self._phases(architecture),
            features,
            self.batch_size,
            seed=seed,
            imputation=imputation,
            labels=labels,
        )
        return Training(
            architecture,
            loop,
            self._judge(architecture, seen),
            epochs=self.epochs,
            seed=seed,
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            patience=self.patience,
            configuration=configuration,
        )

    def check_data(self, data: Prepared) -> None:
        """Raise unless the rows fit the batch size and missing cells have a layer that fills them."""
        rows = len(data.train.features)
        if self.batch_size > rows and isinstance(self.data, Holdout):  # the original's files may have larger batches
            raise ConfigurationError("batch_size", f"should be at most the {rows} training rows", self.batch_size)
        if self.imputation is None and data.train.incomplete.any():
            names = data.metadata.names_of(data.train.incomplete)
            rule = "training rows have missing cells and the model cannot take them: give an `imputation` layer"
            raise DataError(f"data: {', '.join(names)}", rule)

    def check_metric(self, architecture: Architecture, place: str = "keep_checkpoint_by_metric") -> None:
        """Raise unless the model reports the metric; ``place`` is where the user chose it."""
        if self.patience is not None and self.metric is None:
            raise ConfigurationError("patience", "needs keep_checkpoint_by_metric: there is nothing to wait for")
        known = measures_of(architecture.model)
        if isinstance(self.data, Files):
            known = [f"{phase.name}_loss" for phase in self._phases(architecture)] + (
                [_val_loss_name(architecture), *known] if self.data.val_features else []
            )
        if self.metric not in (None, *known):
            rule = f"{self.model.__name__} reports {', '.join(known)}"
            raise ConfigurationError(place, rule, self.metric)

    def build(
        self, metadata: Metadata, means_and_modes: Tensor, scaler: MinMaxScaler | None = None
    ) -> tuple[Architecture, nn.Module | None]:
        """Build the model, initialised by torch's random generator, and the imputation layer if there is one."""
        node, place = self._architecture_node()
        shared = {"metadata": metadata, "means_and_modes": means_and_modes}
        also = ("val_loss",) if isinstance(self.data, Files) else ()
        known = shared if scaler is None else shared | {"scaler": scaler}
        architecture = build_architecture(self.model, node, known, self.model_arguments, place, also)
        if self.imputation is None:
            return architecture, None
        return architecture, build(self.imputation, nn.Module, Scope(shared), "imputation")

    def _phases(self, architecture: Architecture) -> list[Phase]:
        """Return the phases, under the names that their losses have in the log."""
        phases: list[Phase] = architecture.phases
        if isinstance(self.data, Holdout):
            return phases
        if len(phases) == 1:
            return [phases[0]._replace(name="train_reconstruction_mean")]
        return [phase._replace(name=f"{phase.name}_train_mean") for phase in phases]

    def _judge(self, architecture: Architecture, seen: Seen) -> Measure:
        """Return what measures the model: our scores, or the original's val_loss (and ours if they were asked for)."""
        if isinstance(self.data, Holdout):
            return Evaluation(seen)
        measures: list[Measure] = []
        if "val_loss" in architecture.components:
            measures.append(ValidationLoss(seen, architecture.components["val_loss"], _val_loss_name(architecture)))
        if self.metric in measures_of(architecture.model):
            measures.append(Evaluation(seen))
        return lambda model: {name: value for measure in measures for name, value in measure(model).items()}

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
            labels = torch.empty(self.batch_size) if architecture.conditional else None
            for phase in architecture.phases:
                features = torch.empty(self.batch_size, metadata.num_features if phase.takes_data else 0)
                mask = None if self.imputation is None else torch.empty_like(features)
                try:
                    phase.loss(Batch(features, mask, labels)).backward(inputs=parameters_of(phase.optimizer))
                except (RuntimeError, ValueError) as error:
                    place = f"architecture: {phase.name}"
                    raise ConfigurationError(place, f"components do not fit each other ({error})") from None
        return architecture

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Train to the end, write the checkpoint and the log that were asked for, and return the best figures."""
        data = self.prepare()
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

    def _architecture_node(self) -> tuple[Any, str]:
        if isinstance(self.architecture, str):
            return read_file(self.architecture), self.architecture
        return self.architecture, "architecture"


def _val_loss_name(architecture: Architecture) -> str:
    names = [phase.name for phase in architecture.phases]
    if names == ["autoencoder"]:
        return "val_reconstruction_mean_loss"
    return "autoencoder_val_mean_loss" if "autoencoder" in names else "val_mean_loss"


def train_task(model: Callable[..., Any], name: str) -> Callable[..., TrainTask]:
    """Return the task that trains ``model``: TrainTask's arguments and the model's own, checked as one signature."""
    own = inspect.signature(TrainTask, eval_str=True).parameters
    common = [parameter for key, parameter in own.items() if key not in ("model", "model_arguments")]
    names = [key for key, parameter in parameters(model).items() if not parameter.shared]

    def make(**arguments: Any) -> TrainTask:
        given = {key: arguments.pop(key) for key in names if key in arguments}
        return TrainTask(model, given, **arguments)

    theirs = inspect.signature(model, eval_str=True).parameters
    keywords = [
        parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in [*common, *(theirs[key] for key in names)]
    ]
    make.__signature__ = inspect.Signature(keywords, return_annotation=TrainTask)  # type: ignore[attr-defined]
    make.__name__ = name
    make.__doc__ = f"{model.__doc__}\n\n{TrainTask.__doc__}"
    return make


for _name, _model in {**{f"Train{model.__name__}": model for model in MODELS}, **ALIASES}.items():
    TASKS.register(train_task(_model, _name))


def _tensor(array: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """Return a tensor over the same memory; a trial's table is shared by its node and read-only, and never written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
