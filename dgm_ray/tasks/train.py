"""``TrainGAN`` and its like: one task a model. Its arguments are ``TrainTask``'s and the model's own (its steps).

The same task trains alone (``run``, by the task runner) and as a trial of a study (``start``, one epoch at a time).
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgm_ray.data import CellHoldout, Files, Holdout, Metadata, MinMaxScaler, Prepared, Streamed, class_numbers
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.evaluation import Evaluation, Seen, ValidationLoss, measures_of
from dgm_ray.models import ALIASES, MODELS, Architecture, Batch, Phase, build_architecture, parameters_of
from dgm_ray.nn import ImputationLayer, MeanAndModesImputation
from dgm_ray.registry import (
    TASKS,
    Node,
    NonNegativeInt,
    PositiveInt,
    Scope,
    build,
    parameters,
)
from dgm_ray.space import read_file
from dgm_ray.tasks.arrays import read_scaler
from dgm_ray.tasks.trained import device_of
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import (
    WORKERS,
    Averaging,
    Loop,
    Part,
    Repeats,
    Rows,
    TensorRows,
    Training,
    check_split,
    sample_of,
    split,
)
from dgm_ray.training.lanes import AsLane, Shape, key_of, why_alone
from dgm_ray.training.training import Measure


@dataclass(frozen=True, kw_only=True)
class TrainTask(TrainingTask):
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
    lanes: compute as one of several that train together, as a study did, which writes this: from which epoch on, of
        how many, and which. The result is that of training alone, but for rounding.
    """

    model: Callable[..., Any]
    model_arguments: Mapping[str, Any]
    data: Holdout | CellHoldout | Files
    architecture: Node
    batch_size: PositiveInt
    epochs: NonNegativeInt
    metadata: Path | None = None
    scale_transform: Path | None = None
    imputation: Node = None
    lanes: list[tuple[PositiveInt, PositiveInt, NonNegativeInt]] | None = None

    @property
    def label(self) -> str:
        return str(self.model.__name__)

    def prepare(self) -> Prepared:
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

    def start(
        self,
        data: Prepared | None = None,
        configuration: Mapping[str, Any] | None = None,
        part: Part | None = None,
    ) -> Training:
        data = data or self.prepare()
        self.check_data(data)
        seed = self.settle()
        device = device_of(self.device)
        architecture = self.assemble(data.metadata, data.means_and_modes, data.scaler)
        self.check_metric(architecture)
        fill: Any = architecture.fill
        seen = Seen(data.metadata, data.validation, fill, device, architecture.conditional)
        phases = self._phases(architecture)
        if part is not None:
            self._check_batch(part.workers)
            sample = self._sample(architecture, data.metadata, device, part.workers)
            phases = split(phases, architecture.model, part, sample)
        loop = Loop(
            architecture.model,
            phases,
            _rows(data, device, conditional=architecture.conditional),
            self.batch_size,
            seed=seed,
            imputation=None if self.imputation is None else fill,
        )
        epochs = loop if part is None or part.alone else Averaging(loop, device, part.workers)
        measure = self._judge(architecture, seen) if part is None or part.rank == 0 else _nothing
        training = self.training(architecture, epochs, measure, seed, configuration)
        if self.lanes is None or part is not None:
            return training
        for index, (_, rows, row) in enumerate(self.lanes):
            if row >= rows:
                raise ConfigurationError(f"lanes.{index}.2", f"should be below {rows}, the number of lanes", row)
        return AsLane.of(training, self.lanes)

    def assemble(
        self, metadata: Metadata, means_and_modes: NDArray[Any], scaler: MinMaxScaler | None = None
    ) -> Architecture:
        device, statistics = device_of(self.device), _tensor(means_and_modes)
        architecture, imputation = self.build(metadata, statistics, scaler)
        architecture.model.to(device)
        fill = (imputation or MeanAndModesImputation(means_and_modes=statistics)).to(device)
        return replace(architecture, fill=fill)

    def check_data(self, data: Prepared) -> None:
        """Raise unless the rows fit the batch size and missing cells have a layer that fills them."""
        super().check_data(data)
        rows = data.train.rows
        if self.batch_size > rows and not isinstance(self.data, Files):  # the original's files may have larger batches
            raise ConfigurationError("batch_size", f"should be at most the {rows} training rows", self.batch_size)
        if self.imputation is None and data.train.incomplete.any():
            names = data.metadata.names_of(data.train.incomplete)
            rule = "training rows have missing cells and the model cannot take them: give an `imputation` layer"
            raise DataError(f"data: {', '.join(names)}", rule)

    def check_workers(self, data: Prepared, workers: int) -> None:
        self._check_batch(workers)
        on_cpu = replace(self, device="cpu")
        architecture = on_cpu.assemble(data.metadata, data.means_and_modes, data.scaler)
        sample = self._sample(architecture, data.metadata, torch.device("cpu"), workers)
        check_split(architecture.phases, architecture.model, workers, sample)

    def shape(self, data: Prepared) -> Shape:
        if isinstance(data.train, Streamed):
            return Shape("", "its rows are streamed")
        on_cpu = replace(self, device="cpu", epochs=1, evaluate_every=1, patience=None, lanes=None)
        with torch.random.fork_rng(devices=[]):
            architecture = on_cpu.assemble(data.metadata, data.means_and_modes, data.scaler)
        key = key_of(architecture, self.batch_size, self.imputation is None)
        taken = sum(phase.steps for phase in architecture.phases if phase.takes_data)
        few = data.sample(max(1, taken) * self.batch_size)
        return Shape(key, why_alone(architecture, lambda seed: replace(on_cpu, seed=seed).start(few)))

    def repeats(self, seeds: int, data: Prepared, configuration: Mapping[str, Any], *, together: bool) -> Repeats:
        each = replace(self, lanes=None)  # they are lanes already
        return TrainingTask.repeats(each, seeds, data, configuration, together=together)

    def _check_batch(self, workers: int) -> None:
        if workers > self.batch_size:
            raise ConfigurationError(WORKERS, f"should be at most the {self.batch_size} rows of a batch", workers)

    def _sample(self, architecture: Architecture, metadata: Metadata, device: torch.device, workers: int) -> Batch:
        num_classes = metadata.num_classes if architecture.conditional else 0
        fill: Any = None if self.imputation is None else architecture.fill
        return sample_of(metadata.num_features, workers, device, num_classes=num_classes, imputation=fill)

    def measures(self, architecture: Architecture) -> list[str]:
        known = measures_of(architecture.model)
        if not isinstance(self.data, Files):
            return known
        losses = [f"{phase.name}_loss" for phase in self._phases(architecture)]
        return losses + ([_val_loss_name(architecture), *known] if self.data.val_features else [])

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
        return architecture, build(self.imputation, ImputationLayer, Scope(shared), "imputation")

    def _phases(self, architecture: Architecture) -> list[Phase]:
        """Return the phases, under the names that their losses have in the log."""
        phases: list[Phase] = architecture.phases
        if not isinstance(self.data, Files):
            return phases
        if len(phases) == 1:
            return [phases[0]._replace(name="train_reconstruction_mean")]
        return [phase._replace(name=f"{phase.name}_train_mean") for phase in phases]

    def _judge(self, architecture: Architecture, seen: Seen) -> Measure:
        """Return what measures the model: our scores, or the original's val_loss (and ours if they were asked for)."""
        if not isinstance(self.data, Files):
            return Evaluation(seen)
        measures: list[Measure] = []
        if "val_loss" in architecture.components:
            measures.append(ValidationLoss(seen, architecture.components["val_loss"], _val_loss_name(architecture)))
        if self.metric in measures_of(architecture.model):
            measures.append(Evaluation(seen))
        return lambda model: {name: value for measure in measures for name, value in measure(model).items()}

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

    def _architecture_node(self) -> tuple[Any, str]:
        if isinstance(self.architecture, str):
            return read_file(self.architecture), self.architecture
        return self.architecture, "architecture"


def _nothing(model: nn.Module) -> dict[str, float]:
    return {}


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
        return TrainTask(model=model, model_arguments=given, **arguments)

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


_ON_DEVICE: WeakKeyDictionary[Any, dict[Any, TensorRows]] = WeakKeyDictionary()  # by the rows of which it is a copy


def _rows(data: Prepared, device: torch.device, *, conditional: bool) -> Rows:
    """Return the training rows, with their labels if the model takes them; the same for all trainings of a process."""
    train, classes = data.train, data.metadata.num_classes
    if isinstance(train, Streamed):
        if conditional and train.labels is None:
            class_numbers(None, classes, "data: labels")
        rows: Rows = train.open(device, classes if conditional else None)
        return rows
    there = _ON_DEVICE.setdefault(train, {})
    if (device, conditional) not in there:
        features, labels = _tensor(train.features).to(device), None
        if conditional:
            numbers = class_numbers(train.labels, classes, "data: labels")
            labels = torch.as_tensor(numbers, dtype=torch.float32, device=device)
        there[device, conditional] = TensorRows(features, labels)
    return there[device, conditional]


def _tensor(array: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """Return a tensor over the same memory; a trial's table is shared by its node and read-only, and never written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
