"""``Augmentation``: is oversampling worth the effort? Classifiers with and without it, compared over folds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Le
from rich.console import Console
from rich.table import Table

from dgm_ray.data import Metadata, class_numbers, read_npy
from dgm_ray.errors import ConfigurationError, DataError, UnfinishedError
from dgm_ray.evaluation.augmentation import (
    Fold,
    ImbalancedLearn,
    Sampler,
    extra,
    from_sample,
    imbalanced_learn,
    random_under,
    scores,
    summary,
)
from dgm_ray.registry import TASKS, NonNegativeInt, PositiveFloat, PositiveInt, register
from dgm_ray.tasks.arrays import read_features
from dgm_ray.tasks.csv_log import RowLog
from dgm_ray.tune.parallel import Pool, Worker

FIGURES = [
    f"{part}_{name}_{kind}" for name in ("pr_auc", "f1") for part in ("train", "test") for kind in ("mean", "std")
]
SAMPLING = [
    "under_sampling",
    "under_sampling_ratio",
    "over_sampling",
    "over_sampling_ratio",
    "over_sampling_sample_path",
]
COLUMNS = ("case", "name", *FIGURES, *SAMPLING, "has_error", "error", "time")
Ratio = Annotated[float, Gt(0), Le(1)]
Read = Callable[[Path], Any]


@register
@dataclass(frozen=True)
class FoldFiles:
    """Rows and labels (0, and 1 for the minority) of each fold.

    num_folds: how many paths each list has. train_features, train_labels, test_features, test_labels: .npy files.
    val_features, val_labels: more rows to train on; null: none.
    """

    num_folds: PositiveInt
    train_features: list[Path]
    train_labels: list[Path]
    test_features: list[Path]
    test_labels: list[Path]
    val_features: list[Path] | None = None
    val_labels: list[Path] | None = None

    def __post_init__(self) -> None:
        if (self.val_features is None) != (self.val_labels is None):
            raise ConfigurationError("", "needs both val_features and val_labels, or none of them")
        for name in (f"{part}_{kind}" for part in self.parts for kind in ("features", "labels")):
            if len(paths := getattr(self, name)) != self.num_folds:
                raise ConfigurationError(name, f"must have {self.num_folds} paths (num_folds)", len(paths))

    @property
    def parts(self) -> tuple[str, ...]:
        return ("train", "test") if self.val_features is None else ("train", "val", "test")

    def check(self, features: Read, labels: Read) -> int:
        """Return how many columns there are. Raises DataError for a file that does not go with the others."""
        first = self.train_features[0]
        for part in self.parts:
            for rows, classes in zip(getattr(self, f"{part}_features"), getattr(self, f"{part}_labels"), strict=True):
                count, columns = features(rows).shape
                if columns != features(first).shape[1]:
                    raise DataError(str(rows), f"must have {features(first).shape[1]} columns, as {first}", columns)
                if len(labels(classes)) != count:
                    raise DataError(str(classes), f"must have one item per row of {rows}", len(labels(classes)))
                if part != "val" and len(np.unique(labels(classes))) == 1:
                    raise DataError(str(classes), "must hold both classes, 0 and 1", f"{labels(classes)[0]} alone")
        return int(features(first).shape[1])

    def fold(self, index: int) -> Fold:
        """Return the rows of a fold: a classifier is fitted on train and validation rows."""
        features = {part: _features(getattr(self, f"{part}_features")[index]) for part in self.parts}
        labels = {part: _labels(getattr(self, f"{part}_labels")[index]) for part in self.parts}
        test = features.pop("test"), labels.pop("test")
        return Fold(np.vstack(list(features.values())), np.concatenate(list(labels.values())), *test)


@register
@dataclass(frozen=True)
class UnderSampling:
    """Rows of the majority are dropped.

    type: at random. ratio: of the minority to the majority afterwards, up to 1.
    """

    type: Literal["random"]
    ratio: Ratio


@register
@dataclass(frozen=True)
class OverSampling:
    """Rows of the minority are added, by imbalanced-learn or from a sample that a generator has made.

    type: which of both. ratio: of the minority to the majority afterwards, up to 1.
    imbalanced_learn_factory: its over-sampler. SMOTENC keeps categories; all others but RandomOverSampler take a
        one-hot column for a number.
    metadata_path: the metadata.json of the table; only SMOTENC needs it.
    sample_path_by_fold: .npy files (rows, num_features), such as SampleGAN writes, of a model that was trained on the
        minority of that fold's training rows.
    """

    type: Literal["imbalanced_learn", "from_sample"]
    ratio: Ratio
    imbalanced_learn_factory: ImbalancedLearn | None = None
    metadata_path: Path | None = None
    sample_path_by_fold: list[Path] | None = None

    def __post_init__(self) -> None:
        needed, other = "imbalanced_learn_factory", "sample_path_by_fold"
        if self.type == "from_sample":
            needed, other = other, needed
        if getattr(self, needed) is None:
            raise ConfigurationError("", f"{self.type} needs {needed!r}")
        if getattr(self, other) is not None:
            raise ConfigurationError(other, f"{self.type} has no such argument")
        if self.imbalanced_learn_factory == "SMOTENC" and self.metadata_path is None:
            raise ConfigurationError("", "SMOTENC needs 'metadata_path'")

    def check(self, columns: int, features: Read) -> None:
        """Raise DataError unless its files go with a table of so many columns."""
        for path in self.sample_path_by_fold or ():
            if features(path).shape[1] != columns:
                raise DataError(str(path), f"must have {columns} columns", features(path).shape[1])
        if (metadata := self._metadata) and metadata.num_features != columns:
            raise DataError(str(self.metadata_path), f"must describe {columns} columns", metadata.num_features)

    def sampler(self, index: int) -> Sampler:
        """Return the sampler for a fold."""
        if self.sample_path_by_fold is not None:
            return from_sample(_features(self.sample_path_by_fold[index]), self.ratio)
        assert self.imbalanced_learn_factory is not None
        return imbalanced_learn(self.imbalanced_learn_factory, self.ratio, self._metadata)

    @property
    def _metadata(self) -> Metadata | None:
        return Metadata.read(self.metadata_path) if self.metadata_path else None


@register
@dataclass(frozen=True)
class Classifier:
    """An XGBoost classifier, and what is done to the rows that it is fitted on.

    n_estimators: trees. max_depth: of a tree. under_sampling, over_sampling: in this order; null does nothing.
    """

    n_estimators: PositiveInt
    max_depth: PositiveInt
    under_sampling: UnderSampling | None = None
    over_sampling: OverSampling | None = None


@register
@dataclass(frozen=True)
class Comparison:
    """One row of the result. name, case: copied into it. data: the folds. model: the classifier."""

    name: str | int
    case: str | int
    data: FoldFiles
    model: Classifier

    def __post_init__(self) -> None:
        over, folds = self.model.over_sampling, self.data.num_folds
        if over and over.sample_path_by_fold is not None and len(over.sample_path_by_fold) != folds:
            place = "model.over_sampling.sample_path_by_fold"
            raise ConfigurationError(place, f"must have {folds} paths (num_folds)", len(over.sample_path_by_fold))

    def figures(self, seed: int) -> dict[str, float]:
        """Return mean and standard deviation over folds of PR AUC and F1, on train and test rows."""
        under, over, folds = self.model.under_sampling, self.model.over_sampling, []
        for index in range(self.data.num_folds):
            samplers = [random_under(under.ratio)] if under else []
            samplers += [over.sampler(index)] if over else []
            sizes = self.model.n_estimators, self.model.max_depth
            folds.append(scores(self.data.fold(index), samplers, *sizes, seed + index))
        return summary(folds)

    def described(self) -> dict[str, Any]:
        """Return what the result says of the sampling."""
        under, over = self.model.under_sampling, self.model.over_sampling
        said: dict[str, Any] = {"case": self.case, "name": self.name}
        said |= {"under_sampling": under.type, "under_sampling_ratio": under.ratio} if under else {}
        if over:
            said |= {"over_sampling": over.imbalanced_learn_factory or over.type, "over_sampling_ratio": over.ratio}
            said["over_sampling_sample_path"] = ";".join(map(str, over.sample_path_by_fold or []))
        return said


@dataclass(frozen=True)
class Augmentation:
    """Compare classifiers whose training rows were sampled up or down, over folds, and write a row for each.

    Columns of the CSV file: case, name, mean and standard deviation over folds of PR AUC and F1 on train and test
    rows, what was sampled and how, has_error, error, time (seconds). The exit code is 1 if any failed; Ctrl-C leaves a
    whole file. Needs the extra "augmentation". Source: Camino and Hammerschmidt 2020.

    inputs: what to compare: objects with name, case, data (num_folds and six lists of .npy paths) and model.
    output: the CSV file, a row for each input as it ends.
    workers: how many processes; or a list of objects, as in MultiProcessTaskRunner.
    log_every: seconds between two lines of progress.
    seed: of samplers and classifiers; each fold has the next number.
    address: of a Ray cluster to join; null starts Ray here.
    """

    inputs: list[Comparison]
    output: Path
    workers: PositiveInt | list[Worker] = 1
    log_every: PositiveFloat = 5.0
    seed: NonNegativeInt = 0
    address: str | None = None

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check every file, compare, and write. Raises UnfinishedError at the end if any failed."""
        from dgm_ray.tune.cluster import start_ray
        from dgm_ray.tune.settings import Resources

        self._check()
        workers = [Worker()] * self.workers if isinstance(self.workers, int) else self.workers
        start_ray(Resources(), self.address)
        pool = Pool(workers, console, log_every=self.log_every)
        rows: list[dict[str, Any]] = []
        with RowLog(self.output, COLUMNS) as log:
            for one in pool.run(_figures, [(str(index), (each, self.seed)) for index, each in enumerate(self.inputs)]):
                ending = {"has_error": bool(one.error), "error": one.error, "time": one.seconds}
                rows.append(self.inputs[int(one.label)].described() | (one.result or {}) | ending)
                log.write([rows[-1][name] if name in rows[-1] else "" for name in COLUMNS])
        return self._finish(rows, console)

    def _check(self) -> None:
        """Read every file once, whatever many inputs name it."""
        for module in ("imblearn", "xgboost"):
            extra(module)
        features, labels = cache(_features), cache(_labels)
        for one in self.inputs:
            columns = one.data.check(features, labels)
            if over := one.model.over_sampling:
                over.check(columns, features)

    def _finish(self, rows: list[dict[str, Any]], console: Console) -> dict[str, Any]:
        """Show a table, the best of each case first. Raises UnfinishedError if an input failed."""
        table = Table("case", "name", title="mean ± std over folds, test rows")
        for column in ("PR AUC", "F1", "seconds"):
            table.add_column(column, justify="right")
        done, failed = [row for row in rows if not row["error"]], [row for row in rows if row["error"]]
        for row in sorted(done, key=lambda row: (str(row["case"]), -row["test_pr_auc_mean"])):
            figures = [f"{row[f'test_{name}_mean']:.3f} ± {row[f'test_{name}_std']:.3f}" for name in ("pr_auc", "f1")]
            table.add_row(str(row["case"]), str(row["name"]), *figures, f"{row['time']:.1f}")
        console.print(table)
        for row in failed:
            said = f"failed: {row['case']}, {row['name']}: {row['error']}"
            console.print(said, highlight=False, soft_wrap=True, markup=False)
        console.print(f"{len(rows)} inputs, {len(failed)} failed: {self.output}", highlight=False, soft_wrap=True)
        if failed:
            raise UnfinishedError("inputs", f"{len(failed)} of {len(rows)} failed; {self.output} says why")
        return {"inputs": len(rows), "test_pr_auc": max(row["test_pr_auc_mean"] for row in rows)}


def _figures(item: tuple[Comparison, int]) -> dict[str, float]:
    comparison, seed = item
    return comparison.figures(seed)


def _features(path: Path) -> Any:
    return read_features(path, None)


def _labels(path: Path) -> Any:
    return class_numbers(read_npy(path), 2, str(path))


TASKS.register(Augmentation)
