"""A trained model as a folder, and as an object that completes a user's rows and draws new ones.

Neither Ray nor MLflow is needed to use it, and nothing is unpickled. ``model_folder`` says what is in the folder.
"""

import hashlib
import math
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dgm_ray import __version__
from dgm_ray.data import CellHoldout, InMemory, Origin, discretize
from dgm_ray.data.origin import read_object
from dgm_ray.errors import ConfigurationError, DataError, TrainingError
from dgm_ray.evaluation import Floats, draw_rows, impute_rows, sample_rows
from dgm_ray.models import Architecture, Imputes, Samples
from dgm_ray.registry import TASKS, call, check_keys
from dgm_ray.tasks import train, train_imputer  # noqa: F401 (registers what can train)
from dgm_ray.tasks.model_folder import CONFIGURATION, MODEL, SCRIPT, TABLE, WEIGHTS
from dgm_ray.tasks.trained import Device, device_of
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import load_states, modules_of, read_checkpoint, write_checkpoint, write_json, write_text
from dgm_ray.training.checkpoints import copy_states

if TYPE_CHECKING:
    import pandas as pd

CHECKED = (CONFIGURATION, TABLE, WEIGHTS)
FORMAT = 1
# What belongs to the table or to the run that a configuration was made for.
LEFT_OUT = ("data", "metadata", "scale_transform", "checkpoints", "logs", "logging")
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn")


class Model:
    """A trained model, with the columns, types and units of the table that it was trained on.

    configuration: what trained it, ``{"task": ..., "arguments": {...}}``; its data is not read. states: of its
    components. place: where these come from, for errors. epoch, scores: the best epoch, and what was measured in it.

    Raises TrainingError for weights that do not fit the configuration.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        origin: Origin,
        states: Mapping[str, Any],
        device: Device = "cpu",
        place: str = "model",
        *,
        epoch: int = 0,
        scores: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        arguments = {key: value for key, value in configuration["arguments"].items() if key not in LEFT_OUT}
        node = {"task": configuration["task"], "arguments": arguments | {"device": device}}
        self.trained_by = configuration
        self.configuration, self.origin, self.device = node, origin, device
        self.epoch = epoch
        self.scores = {name: value for name, value in scores.items() if math.isfinite(value)}
        self.seed = int(arguments["seed"]) if "seed" in arguments and arguments["seed"] is not None else 0
        self.architecture = assembled(node, origin, states, self.seed, place)

    @classmethod
    def load(cls, folder: str | Path, device: Device = "cpu") -> "Model":
        """Return the model of a folder.

        Raises TrainingError or DataError for a folder that is none, or in which a file is missing, damaged or changed.
        """
        folder = Path(folder)
        about = _about(folder)
        node = read_object(folder / CONFIGURATION)
        check_keys(node, node, str(folder / CONFIGURATION), "a configuration", needed=("task", "arguments"))
        weights, origin = read_checkpoint(folder / WEIGHTS), Origin.read(folder / TABLE)
        found = {"epoch": weights["epoch"], "scores": about["scores"]}
        return cls(node, origin, weights["architecture"], device, str(folder / WEIGHTS), **found)

    @property
    def can_impute(self) -> bool:
        """Whether it completes rows."""
        return isinstance(self.architecture.model, Imputes)

    @property
    def can_sample(self) -> bool:
        """Whether it draws rows."""
        return isinstance(self.architecture.model, Samples)

    @property
    def conditional(self) -> bool:
        """Whether it takes labels."""
        return self.architecture.conditional

    def impute(self, frame: "pd.DataFrame", labels: Any = None) -> "pd.DataFrame":
        """Return rows with their missing cells filled; observed cells, types, units and the index stay the user's.

        frame: the columns that were learned, in any order, and what the study left out, which stays as it is.
        labels: of a conditional model, its class for each row, or one for all; None: the frame's own column.

        The same rows give the same each time. Raises DataError for rows that do not fit, ConfigurationError for a model
        that cannot impute.
        """
        if not self.can_impute:
            raise ConfigurationError("model", f"{self._name} draws rows and cannot impute: use sample")
        aside = [name for name in frame.columns if name in (self.origin.label, *self.origin.left_out)]
        rows = frame.drop(columns=aside)
        self.origin.encoder.check_columns(rows)
        if self.conditional and labels is None and self.origin.label in aside:
            labels = frame[self.origin.label]
        numbers = self._labels(labels, len(frame))
        done = completed(self.architecture, self.origin, rows, self.seed, device_of(self.device), labels=numbers)
        made = frame.copy()
        for name in done:
            made[name] = done[name]
        return made

    def sample(self, n: int, seed: int | None = None, labels: Any = None) -> "pd.DataFrame":
        """Return n new rows, with the columns, types and units of the training table.

        seed: the same gives the same rows; None: others each time. labels: of a conditional model, the class of each
        row, or one for all; it stands in its column, if the classes have one.

        Raises DataError for labels that do not fit, ConfigurationError for a model that cannot draw rows.
        """
        model = self.architecture.model
        if not isinstance(model, Samples):
            raise ConfigurationError("model", f"{self._name} completes rows and cannot draw new ones: use impute")
        if n < 1:
            raise ConfigurationError("n", "must be 1 or above", n)
        numbers, device = self._labels(labels, n), device_of(self.device)
        with drawing(secrets.randbits(31) if seed is None else seed):
            features = sample_rows(model, n, device, None if numbers is None else torch.from_numpy(numbers).to(device))
        made = self.origin.encoder.decode(self.origin.units(discretize(self.origin.metadata, features)))
        return made.assign(**{self.origin.label: labels}) if self.conditional and self.origin.label else made

    def save(self, folder: str | Path) -> None:
        """Write the folder. Raises ConfigurationError unless it is new or empty."""
        folder = Path(folder)
        check_free(folder)
        components = modules_of(self.architecture.components)
        write_json(folder / CONFIGURATION, self.trained_by)
        write_json(folder / TABLE, self.origin.to_dict())
        write_checkpoint(folder / WEIGHTS, {"architecture": copy_states(components), "epoch": self.epoch})
        write_text(folder / SCRIPT, _script(self))
        versions = {"dgm_ray": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in PACKAGES}
        about = {"model": self._name, "can_impute": self.can_impute, "can_sample": self.can_sample}
        about |= {"conditional": self.conditional, "epoch": self.epoch, "scores": self.scores}
        hashes = {name: _sha256(folder / name) for name in CHECKED}
        write_json(folder / MODEL, {"format": FORMAT, **about, "versions": versions, "sha256": hashes})

    @property
    def _name(self) -> str:
        return str(self.configuration["task"]).removeprefix("Train")

    def _labels(self, labels: Any, rows: int) -> Floats | None:
        if not self.conditional:
            if labels is not None:
                raise DataError("labels", f"{self._name} is not conditional: it takes none")
            return None
        if labels is None:
            named = f", in the column {self.origin.label!r} or" if self.origin.label else ""
            raise DataError("labels", f"{self._name} is conditional: give the class of each row{named} as labels")
        return self.origin.class_numbers(labels, rows)


def load(folder: str | Path, device: Device = "cpu") -> Model:
    """Return the model of a folder that ``dgm-ray export`` has written; see ``Model``."""
    return Model.load(folder, device)


def export(
    folder: Path, configuration: Mapping[str, Any], origin: Origin, state: Mapping[str, Any], place: str = "checkpoint"
) -> Model:
    """Write the folder of what a training's checkpoint holds: its best weights if it has kept any, else the last.

    Raises ConfigurationError for a folder that is taken, TrainingError for weights of another configuration.
    """
    check_free(folder)
    model = of_checkpoint(configuration, origin, state, place)
    model.save(folder)
    return model


def copy_model(kept: Path, folder: Path) -> Model:
    """Write the model of a folder to another, and return it. Raises as ``Model.load`` and ``Model.save``."""
    check_free(folder)
    model = Model.load(kept)
    model.save(folder)
    return model


def of_checkpoint(configuration: Mapping[str, Any], origin: Origin, state: Mapping[str, Any], place: str) -> Model:
    """Return the model of a training's checkpoint, with its best weights if it has kept any, else the last.

    Of several seeds it is the one that is best.
    """
    if "seeds" in state:
        state = min(state["seeds"], key=lambda one: one["best_metric"] if "best_metric" in one else math.inf)
    if "best_architecture" not in state:
        return Model(configuration, origin, state["architecture"], place=place, epoch=state["epoch"])
    found = {"epoch": state["best_epoch"], "scores": state["best_measures"]}
    return Model(configuration, origin, state["best_architecture"], place=place, **found)


def assembled(
    node: Mapping[str, Any], origin: Origin, states: Mapping[str, Any], seed: int, place: str
) -> Architecture:
    """Build what a configuration describes and load its weights; torch's random stream is left as it was.

    Raises TrainingError for weights that do not fit.
    """
    with drawing(seed):
        task = task_of(node, CellHoldout(InMemory()))
        made = task.assemble(origin.metadata, origin.means_and_modes, origin.scaler)
    load_states(modules_of(made.components), states, place)
    made.model.eval()
    return made


def task_of(node: Mapping[str, Any], data: CellHoldout, place: str = "configuration") -> TrainingTask:
    """Return the task that a configuration without data describes."""
    task: TrainingTask = call(
        TASKS.get(node["task"], f"{place}.task"), node["arguments"] | {"data": data}, path=f"{place}.arguments"
    )
    return task


def completed(
    architecture: Architecture,
    origin: Origin,
    frame: "pd.DataFrame",
    seed: int,
    device: torch.device,
    draw: int | None = None,
    labels: Floats | None = None,
) -> "pd.DataFrame":
    """Return a table of the columns that were learned, with its missing cells filled by a trained model.

    draw: which of several completions, None: the estimate. labels: class numbers (rows,) of a conditional model.
    """
    scaled = origin.scaled(frame)
    if (rows := np.isnan(scaled).any(axis=1)).any():
        own = None if labels is None else labels[rows]
        with drawing(seed if draw is None else seed + 1 + draw):
            if draw is None:
                scaled[rows] = impute_rows(architecture, origin.metadata, scaled[rows], device, own)
            else:
                random = np.random.default_rng([seed, draw])
                scaled[rows] = draw_rows(architecture, origin.metadata, scaled[rows], device, random, own)
    return origin.encoder.complete(frame, origin.units(scaled))


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Draw what the seed decides; torch's random stream and threads are the caller's again afterwards."""
    threads = torch.get_num_threads()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def check_free(folder: Path) -> None:
    """Raise ConfigurationError unless a folder is not there yet, or is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError("DIR", "is there already: give a new or an empty folder", str(folder))


def _about(folder: Path) -> dict[str, Any]:
    """Return model.json. Raises TrainingError unless the folder has all that ``Model.save`` writes, as it was."""
    if not (folder / MODEL).is_file():
        raise TrainingError(str(folder), f"is no folder of a model (it has no {MODEL}): dgm-ray export writes one")
    about = read_object(folder / MODEL)
    check_keys(about, about, str(folder / MODEL), "a model", needed=("format", "scores", "sha256"))
    if about["format"] != FORMAT:
        raise TrainingError(
            str(folder), f"is of another version of dgm_ray: its format must be {FORMAT}", about["format"]
        )
    for name in CHECKED:
        path = folder / name
        if not path.is_file():
            raise TrainingError(str(folder), f"has no {name}: export the model again")
        if name not in about["sha256"] or about["sha256"][name] != _sha256(path):
            raise TrainingError(str(path), f"was changed after it was exported: {MODEL} has another SHA-256 of it")
    return about


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _script(model: Model) -> str:
    """Return a script that uses the model of the folder in which it lies."""
    uses = [f"python {SCRIPT} IN.csv OUT.csv completes a table"] if model.can_impute else []
    label = " CLASS" if model.conditional else ""
    uses += [f"python {SCRIPT} 100 OUT.csv{label} draws rows"] if model.can_sample else []
    reads = "from dgm_ray.data.user_files import read_frame\n" if model.can_impute else ""
    fill = "made = model.impute(read_frame(Path(source), model.origin.encoder))"
    draw = f"made = model.sample(int(source){', labels=label[0] if label else None' if label else ''})"
    act = fill if model.can_impute else draw
    if model.can_impute and model.can_sample:
        act = f"if source.isdigit():\n        {draw}\n    else:\n        {fill}"
    return f'''"""{"; ".join(uses)}."""

import sys
from pathlib import Path

import dgm_ray
{reads}from dgm_ray.errors import one_line_errors

source, output, *label = sys.argv[1:]
with one_line_errors():
    model = dgm_ray.load(Path(__file__).parent)
    {act}
    made.to_csv(output, index=False)
'''
