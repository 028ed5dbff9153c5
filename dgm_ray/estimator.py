"""``dgm_ray.Imputer``: any configuration that trains, with the conventions of scikit-learn, on a user's own table."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from dgm_ray.data import CellHoldout, FrameEncoder, InMemory, Kind, MinMaxScaler, Origin, Prepared, Table
from dgm_ray.data.user_files import own_source
from dgm_ray.errors import ConfigurationError, DataError, DGMError, ImputerError, TrainingError
from dgm_ray.models import Imputes
from dgm_ray.registry import TASKS, check_keys, parameters
from dgm_ray.space import draws_of, read_draws, read_file
from dgm_ray.tasks.exported import LEFT_OUT, Model, assembled, completed, drawing, task_of
from dgm_ray.tasks.imputers import fitting, imputer_configuration
from dgm_ray.tasks.trained import device_of
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import DIVERGED, Training, modules_of, read_checkpoint, write_checkpoint
from dgm_ray.training.checkpoints import copy_states

Report = Callable[[int, Mapping[str, float]], None]

DEFAULT = "miss_forest"
_ARGUMENTS = "configuration.arguments"


class Imputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fill the missing cells of a table with what a model has learned from it.

    configuration: what trains, ``{"task": ..., "arguments": {...}}`` or the path of such a file, as a study's
        best.json. Its data is replaced by the table that ``fit`` gets; the rest stays. Or the name of an imputer, such
        as "gain", whose batches are at most as large as the table. None: "miss_forest".
    kinds: "numerical", "binary" or "categorical" by column, where another would be inferred.
    epochs: instead of the configuration's. seed: of training, of what is hidden and of what is drawn.
    device: "cpu", "cuda" or "auto".
    validation_probability: share of the cells to hide while training, on which the best epoch is chosen; 0: the last.

    A table is a DataFrame, whose columns may be numbers, text, booleans, pandas' categories and dates, or an array of
    numbers; NaN, None and NaT are missing. The result is what was given: observed cells are the same to the bit,
    columns have their types back, also whole numbers that pandas had made floats because cells were missing.
    ``transform`` never trains, and returns the same for the same table whenever it is called. The GANs and
    normal_noise draw noise row after row: there, what a row gets depends on how many come before it.

    encoder_: what each column was taken for. validation_scores_: the best epoch's. n_iter_: epochs that were trained.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any] | str | Path | None = None,
        kinds: Mapping[str, Kind] | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        validation_probability: float = 0.1,
    ) -> None:
        self.configuration = configuration
        self.kinds = kinds
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.validation_probability = validation_probability

    @classmethod
    def from_config(cls, path: str | Path, **given: Any) -> "Imputer":
        """Return an imputer that trains as a file says, such as a study's best.json, or one by its name.

        given: other arguments; ``kinds`` are those that a study had of its table. Raises ImputerError for a
        configuration that cannot train.
        """
        node = _read(path)  # a mistake is found here, and not when a table is there
        with _value_errors():
            source = own_source(node, str(path))
        known = {} if source is None or not source.kinds else {"kinds": dict(source.kinds)}
        return cls(path, **known | given)

    def fit(self, X: Any, y: Any = None, *, report: Report | None = None) -> "Imputer":  # noqa: N803
        """Train on a table (rows, columns). y: is not looked at. report: called after each epoch with its figures.

        Raises ImputerError, a ValueError, for a table that cannot be learned from, or that does not fit.
        """
        frame = self._frame(X, reset=True)
        with _value_errors():
            if frame.shape[1] == 1:
                raise DataError("table", "must have more than 1 column: a cell is imputed from the others")
            encoder = FrameEncoder.infer(frame, self.kinds)
            table = Table(encoder.metadata, encoder.encode(frame, "table"), scaled=False, encoder=encoder)
            data = CellHoldout(InMemory(table), 0.0, self.validation_probability, self.seed)
            prepared = self._prepared(data)
            node = self._node(table.rows, hidden=bool(prepared.validation.hidden_mask.any()))
            with drawing(self.seed):
                training = _trained(task_of(node, data), prepared, node, report)
                self.validation_scores_ = training.evaluate()
        self.encoder_, self.configuration_ = encoder, node
        self.scaler_: MinMaxScaler | None = prepared.scaler
        self.means_and_modes_, self.n_iter_ = prepared.means_and_modes, training.epoch
        self.architecture_ = training.architecture
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Return the table with its missing cells filled. Raises ImputerError for rows that do not fit."""
        return self._completed(X, None)

    def draws(self, X: Any, n: int = 5) -> list[Any]:  # noqa: N803
        """Return n completions, which differ where the model is not certain: multiple imputation.

        An imputer draws from what it holds for likely; a network draws its noise anew. What is certain of itself
        returns the same n times.
        """
        if n < 1:
            raise ImputerError("n", "must be 1 or above", n)
        return [self._completed(X, number) for number in range(n)]

    def save(self, path: str | Path) -> None:
        """Write the fitted imputer; ``Imputer.load`` reads it without unpickling anything."""
        write_checkpoint(Path(path), self.state())

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as tensors and text."""
        check_is_fitted(self)
        own = self.get_params() | {"configuration": self.configuration_, "epochs": None}
        described = {
            "parameters": own | {"kinds": dict(self.kinds) if self.kinds else None},
            "encoder": self.encoder_.to_dict(),
            "scaler": self.scaler_ and self.scaler_.to_dict(),
            "validation_scores": self.validation_scores_,
            "named": hasattr(self, "feature_names_in_"),
        }
        return {
            "architecture": copy_states(modules_of(self.architecture_.components)),
            "epoch": self.n_iter_,
            "means_and_modes": torch.tensor(self.means_and_modes_),
            "imputer": json.dumps(described),
        }

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> "Imputer":
        """Return a fitted imputer that ``save`` has written, or that of a model's folder (``dgm-ray export``).

        device: another than it was trained on. Raises ImputerError if there is none, or if it is damaged.
        """
        with _value_errors():
            if Path(path).is_dir():
                return cls._of(Model.load(path, device or "cpu"))  # type: ignore[arg-type]
            state = read_checkpoint(Path(path))
            if "imputer" not in state:
                raise TrainingError(str(path), "is no imputer that was saved: Imputer.save writes such files")
            described = json.loads(state["imputer"])
            own = described["parameters"] | ({"device": device} if device else {})
            node = own["configuration"]
            made = cls(**own)
            made.encoder_ = FrameEncoder.from_dict(described["encoder"], str(path))
            made.scaler_ = None
            if described["scaler"] is not None:  # the table of a model's folder may have come scaled
                made.scaler_ = MinMaxScaler.from_dict(described["scaler"], str(path))
            made.configuration_ = node | {"arguments": node["arguments"] | {"device": own["device"]}}
            made.means_and_modes_, made.n_iter_ = state["means_and_modes"].numpy(), state["epoch"]
            made.validation_scores_ = described["validation_scores"]
            made.n_features_in_ = len(made.encoder_.columns)
            if described["named"]:
                made.feature_names_in_ = np.array([one.name for one in made.encoder_.columns], dtype=object)
            made._assemble(state["architecture"], str(path))
        return made

    @classmethod
    def _of(cls, model: Model) -> "Imputer":
        """Return the imputer that a model is. Raises ConfigurationError for one that is none."""
        if not model.can_impute or model.conditional:
            lacks = "is conditional, and an imputer's table has no labels: use dgm_ray.load, or the folder's script.py"
            raise ConfigurationError("model", lacks if model.can_impute else "draws rows and cannot impute")
        made, origin = cls(model.configuration, seed=model.seed, device=model.device), model.origin
        made.encoder_, made.means_and_modes_, made.scaler_ = origin.encoder, origin.means_and_modes, origin.scaler
        made.configuration_, made.architecture_ = model.configuration, model.architecture
        made.validation_scores_, made.n_iter_ = model.scores, model.epoch
        made.n_features_in_ = len(made.encoder_.columns)
        made.feature_names_in_ = np.array([one.name for one in made.encoder_.columns], dtype=object)
        return made

    def planned_epochs(self) -> int:
        """Return how many epochs ``fit`` trains at most."""
        if self.epochs is not None:
            return self.epochs
        node = _read(DEFAULT if self.configuration is None else self.configuration)
        if "epochs" in node["arguments"]:
            return int(node["arguments"]["epochs"])
        return int(parameters(TASKS.get(node["task"], "configuration.task"))["epochs"].default)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: weights instead of the model, whose parts cannot be pickled."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "architecture_" in state:
            state["architecture_"] = copy_states(modules_of(self.architecture_.components))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "architecture_" in state:
            self._assemble(state["architecture_"], "imputer")

    def _assemble(self, states: Mapping[str, Any], place: str) -> None:
        self.architecture_ = assembled(self.configuration_, self._origin(), states, self.seed, place)

    def _prepared(self, data: CellHoldout) -> Prepared:
        if not 0 <= self.validation_probability < 1:
            raise DataError("validation_probability", "must be within [0, 1)", self.validation_probability)
        try:
            return data.prepare()
        except DataError as error:  # all the observed cells of a column are hidden
            rule = f"{error.rule}, or hidden for validation: a lower validation_probability hides fewer"
            raise DataError(error.place, rule) from None

    def _node(self, rows: int, *, hidden: bool) -> dict[str, Any]:
        """Return the configuration without its data, with what this imputer's own arguments say.

        rows: of the table. hidden: cells are hidden for validation; if not, nothing tells which epoch is the best.
        """
        node = _read(DEFAULT if self.configuration is None else self.configuration)
        known, given = parameters(TASKS.get(node["task"], "configuration.task")), node["arguments"]
        arguments = {key: value for key, value in given.items() if key not in LEFT_OUT}
        if "data" in given and not {"source", "factory"} & set(given["data"]):  # the original's files: other measures
            arguments.pop("keep_checkpoint_by_metric", None)
        if "architecture" in arguments and isinstance(arguments["architecture"], str):
            arguments["architecture"] = read_file(arguments["architecture"])
        if "imputation" in known and ("imputation" not in arguments or arguments["imputation"] is None):
            arguments["imputation"] = {"factory": "MeanAndModesImputation"}  # what stands in a cell at first
        if _is_name(self.configuration):
            arguments = fitting(arguments, rows)
        if not hidden:
            arguments |= {"keep_checkpoint_by_metric": None, "patience": None}
        arguments |= {} if self.epochs is None else {"epochs": self.epochs}
        return {"task": node["task"], "arguments": arguments | {"seed": self.seed, "device": self.device}}

    def _completed(self, X: Any, draw: int | None) -> Any:  # noqa: N803
        check_is_fitted(self)
        frame = self._frame(X, reset=False)
        with _value_errors():
            device = device_of(self.device)  # type: ignore[arg-type]
            done = completed(self.architecture_, self._origin(), frame, self.seed, device, draw)
        if isinstance(X, pd.DataFrame):
            return done.set_axis(X.columns, axis=1)
        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        return done.to_numpy(dtype=dtype)

    def _origin(self) -> Origin:
        return Origin(self.encoder_, self.scaler_, self.means_and_modes_)

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:  # noqa: N803
        """Return a table as a DataFrame, with the names that were learned where it has none."""
        if isinstance(X, pd.DataFrame):
            with _value_errors():
                if X.shape[1] and X.columns.nlevels == 1 and X.columns.is_unique:  # else the encoder says what is wrong
                    validate_data(self, X, reset=reset, skip_check_array=True)
            if reset or list(X.columns) == (names := [column.name for column in self.encoder_.columns]):
                return X
            unnamed = not hasattr(self, "feature_names_in_") or not all(isinstance(name, str) for name in X.columns)
            return X.set_axis(names, axis=1) if unnamed and X.shape[1] == len(names) else X
        least = {"ensure_min_samples": 2, "ensure_min_features": 2} if reset else {}
        # The encoder refuses infinities, and says in which column.
        how: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_all_finite": False, **least}
        cells = validate_data(self, X, reset=reset, **how)
        names = [f"x{i}" for i in range(cells.shape[1])] if reset else [column.name for column in self.encoder_.columns]
        return pd.DataFrame(cells, columns=names)


def _is_name(configuration: Any) -> bool:
    return isinstance(configuration, str | Path) and not Path(configuration).suffix


def _read(configuration: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """Return a configuration that trains. Raises ImputerError for anything else."""
    with _value_errors():
        node: Any = configuration
        place = "configuration"
        if _is_name(configuration):
            node, place = imputer_configuration(str(configuration)), str(configuration)
        elif isinstance(configuration, str | Path):
            node, place = read_file(Path(configuration)), str(configuration)
        if isinstance(node, Mapping) and "trial" in node:
            raise ConfigurationError(place, "is a search space: search it, and use the best.json that this writes")
        check_keys(node, node, place, "a configuration", needed=("task", "arguments"))
        for where, draw in draws_of(read_draws(node)):
            raise ConfigurationError(".".join(where), "a configuration has no draws (a search space has)", str(draw))
        check_keys(node["arguments"], node["arguments"], f"{place}: arguments", node["task"])
        _check_trains(node["task"], f"{place}: task")
        return dict(node)


def _check_trains(name: Any, place: str) -> None:
    if not {"data", "epochs", "seed"} <= parameters(TASKS.get(name, place)).keys():
        raise ConfigurationError(place, "should be one that trains, such as TrainImputer or TrainGAIN", name)


def _trained(task: TrainingTask, data: Prepared, node: Mapping[str, Any], report: Report | None) -> Training:
    """Train to the end and return the training with its best weights."""
    try:
        task.rehearse(data.metadata)
        training = task.start(data, node)
    except ConfigurationError as error:
        if error.place.endswith(".conditional"):
            rule = "an imputer's table has no labels, so it cannot be conditional: use one that was tuned without"
            error = ConfigurationError(error.place, rule)
        raise error.under(_ARGUMENTS) from None
    if not isinstance(training.architecture.model, Imputes):
        raise ConfigurationError("configuration.task", f"{task.label} cannot impute", node["task"])
    while not training.done:
        figures = training.advance()
        if report:
            report(training.epoch, figures)
    if training.reason.startswith(DIVERGED):
        raise TrainingError("training", training.reason)
    training.use_best()
    return training


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turn our errors into ones that are ValueErrors as well."""
    try:
        yield
    except ImputerError:
        raise
    except DGMError as error:
        raise ImputerError(error.place, error.rule, error.value) from None
