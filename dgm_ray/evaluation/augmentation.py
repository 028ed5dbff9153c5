"""Is oversampling worth the effort? Classifiers trained on tables whose minority class was sampled up, or down.

Source: Camino and Hammerschmidt 2020, "Oversampling Tabular Data with Deep Generative Models: Is it worth the effort?".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, from_codes, to_codes
from dgm_ray.errors import ConfigurationError, DataError

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Sampler = Callable[[Floats, Labels, int], tuple[Floats, Labels]]  # (features, labels, seed) -> more or fewer rows
ImbalancedLearn = Literal[
    "ADASYN", "BorderlineSMOTE", "KMeansSMOTE", "RandomOverSampler", "SMOTE", "SMOTENC", "SVMSMOTE"
]


@dataclass(frozen=True)
class Fold:
    """Train and test rows; labels are 0 and 1, the minority."""

    train_features: Floats
    train_labels: Labels
    test_features: Floats
    test_labels: Labels


def scores(fold: Fold, samplers: Sequence[Sampler], n_estimators: int, max_depth: int, seed: int) -> dict[str, float]:
    """Return PR AUC and F1 of an XGBoost classifier on train and on test rows. Samplers change what it is fitted on."""
    xgboost = extra("xgboost")
    features, labels = fold.train_features, fold.train_labels
    for sampler in samplers:
        features, labels = sampler(features, labels, seed)
    model = xgboost.XGBClassifier(n_estimators=n_estimators, max_depth=max_depth, n_jobs=1, random_state=seed)
    model.fit(features, labels)
    found: dict[str, float] = {}
    parts = {"train": (fold.train_features, fold.train_labels), "test": (fold.test_features, fold.test_labels)}
    for name, (rows, truth) in parts.items():
        found |= quality(truth, model.predict_proba(rows)[:, 1], f"{name}_")
    return found


def quality(labels: Labels, probabilities: NDArray[Any], prefix: str = "") -> dict[str, float]:
    """Return the area under the precision-recall curve, by trapezoids, and F1 at 0.5; of class 1."""
    from sklearn.metrics import auc, f1_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, probabilities)
    f1 = f1_score(labels, probabilities > 0.5, zero_division=0)
    return {f"{prefix}pr_auc": float(auc(recall, precision)), f"{prefix}f1": float(f1)}


def summary(folds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean and the (population) standard deviation of each figure over folds."""
    return {
        f"{name}_{kind}": float(compute([fold[name] for fold in folds]))
        for name in folds[0]
        for kind, compute in (("mean", np.mean), ("std", np.std))
    }


def random_under(ratio: float) -> Sampler:
    """Return what drops rows of the majority until the minority is ``ratio`` of it."""

    def sample(features: Floats, labels: Labels, seed: int) -> tuple[Floats, Labels]:
        sampler = extra("imblearn.under_sampling").RandomUnderSampler(sampling_strategy=ratio, random_state=seed)
        return _resampled(sampler, features, labels)

    return sample


def imbalanced_learn(name: ImbalancedLearn, ratio: float, metadata: Metadata | None = None) -> Sampler:
    """Return an over-sampler of imbalanced-learn; SMOTENC needs the table's metadata."""
    if name == "SMOTENC":
        if metadata is None:
            raise ConfigurationError("over_sampling.metadata_path", "is needed by SMOTENC")
        return smote_nc(ratio, metadata)

    def sample(features: Floats, labels: Labels, seed: int) -> tuple[Floats, Labels]:
        sampler = getattr(extra("imblearn.over_sampling"), name)(sampling_strategy=ratio, random_state=seed)
        return _resampled(sampler, features, labels)

    return sample


def smote_nc(ratio: float, metadata: Metadata) -> Sampler:
    """Return SMOTE-NC for mixed tables: categorical and binary variables are categories, and come back one-hot.

    Raises DataError for a table that has only numerical variables, or none.
    """
    categories = [index for index, one in enumerate(metadata.variables) if one.kind != "numerical"]
    if not categories or len(categories) == len(metadata.variables):
        raise DataError("SMOTENC", "needs numerical and other variables; SMOTE is for tables of numbers")

    def sample(features: Floats, labels: Labels, seed: int) -> tuple[Floats, Labels]:
        sampler = extra("imblearn.over_sampling").SMOTENC(categories, sampling_strategy=ratio, random_state=seed)
        codes, more = _resampled(sampler, to_codes(metadata, features), labels)
        return from_codes(metadata, codes), more

    return sample


def from_sample(minority: Floats, ratio: float) -> Sampler:
    """Return what adds rows of a sample of the minority, without replacement, until it is ``ratio`` of the majority.

    Raises DataError when it is called if there are too many of the minority already, or too few in the sample.
    """

    def sample(features: Floats, labels: Labels, seed: int) -> tuple[Floats, Labels]:
        few = int((labels == 1).sum())
        needed = int((len(labels) - few) * ratio) - few
        if needed < 0:
            raise DataError("over_sampling.ratio", f"is reached already, by {few} rows of {len(labels)}", ratio)
        if needed > len(minority):
            raise DataError("over_sampling.sample_path_by_fold", f"needs {needed} rows at least", len(minority))
        random = np.random.default_rng(seed)
        added = minority[random.choice(len(minority), needed, replace=False)]
        order = random.permutation(len(labels) + needed)
        rows, more = np.vstack([features, added])[order], np.append(labels, np.ones(needed, np.int64))[order]
        return rows.astype(np.float32), more

    return sample


def extra(module: str) -> Any:
    """Return a module of the extra "augmentation". Raises ConfigurationError if it is not installed."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        rule = "needs the extra 'augmentation': pip install 'dgm-ray[augmentation]'"
        raise ConfigurationError(module.partition(".")[0], rule) from None


def _resampled(sampler: Any, features: Floats, labels: Labels) -> tuple[Floats, Labels]:
    try:
        rows, more = sampler.fit_resample(features, labels)
    except (ValueError, RuntimeError) as error:  # too few rows, a ratio below what is there
        said = " ".join(str(error).split())
        raise DataError(type(sampler).__name__, said) from None
    return np.asarray(rows, dtype=np.float32), np.asarray(more, dtype=np.int64)
