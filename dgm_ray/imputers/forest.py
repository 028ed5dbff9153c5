"""A random forest as plain arrays: grown by scikit-learn, kept and used without it, so that no file is unpickled."""

import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class Forest:
    """The trees of a forest, one after the other.

    starts: (trees + 1,), where the nodes of each tree begin. left, right: (nodes,), the children's numbers within the
    tree, -1 at a leaf. column, threshold: (nodes,), a row goes left if its column is at most the threshold.
    value: (nodes, outputs): the mean, or the share of each class. classes: (outputs,) what the outputs stand for; empty
    for a regression. oob: () the error on rows that a tree was not grown on.
    """

    starts: Array
    left: Array
    right: Array
    column: Array
    threshold: Array
    value: Array
    classes: Array
    oob: Array

    @property
    def oob_error(self) -> float:
        """Root mean squared error over the standard deviation, or the share of wrong classes; NaN if unknown."""
        return float(self.oob)

    def predict(self, rows: NDArray[np.float32]) -> Array:
        """Return the mean, or the likeliest class, of (rows, columns): (rows,). As scikit-learn's own predict."""
        total = np.zeros((len(rows), self.value.shape[1]))
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            total += self.value[start + self._leaves(rows, int(start), int(stop))]
        if not len(self.classes):
            return total[:, 0] / (len(self.starts) - 1)
        return np.asarray(self.classes[total.argmax(axis=1)])

    def _leaves(self, rows: NDArray[np.float32], start: int, stop: int) -> Array:
        """Return the number of the leaf of a tree that each row ends in, (rows,)."""
        left, right = self.left[start:stop], self.right[start:stop]
        column, threshold = self.column[start:stop], self.threshold[start:stop]
        nodes = np.zeros(len(rows), dtype=np.int64)
        inner = np.flatnonzero(left[nodes] >= 0)  # the rows that are not at a leaf yet
        while len(inner):
            at = nodes[inner]
            nodes[inner] = np.where(rows[inner, column[at]] <= threshold[at], left[at], right[at])
            inner = inner[left[nodes[inner]] >= 0]
        return nodes

    def to_arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], place: str) -> "Forest":
        """Return the forest that ``to_arrays`` described. Raises DataError if something is missing."""
        names = [one.name for one in fields(cls)]
        if set(names) != set(arrays):
            raise DataError(place, "is damaged: a forest is not whole")
        return cls(**arrays)


def grow(rows: NDArray[np.float32], targets: Array, *, classes: int, **options: Any) -> Forest:
    """Grow a forest on (rows, columns) and (rows,) targets: class numbers below ``classes``, or numbers if that is 0.

    options: scikit-learn's own.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if classes else RandomForestRegressor
    targets = targets.astype(np.int64) if classes else targets
    forest = kind(oob_score=True, **options)
    with warnings.catch_warnings(record=True) as unseen:  # scikit-learn's: some rows are in every tree's sample
        warnings.simplefilter("always")
        forest.fit(rows, targets)
    trees = [tree.tree_ for tree in forest.estimators_]
    values = [tree.value[:, 0, :] for tree in trees]
    if classes:
        values = [value / value.sum(axis=1, keepdims=True) for value in values]
    return Forest(
        starts=np.cumsum([0, *(tree.node_count for tree in trees)]),
        left=np.concatenate([tree.children_left for tree in trees]),
        right=np.concatenate([tree.children_right for tree in trees]),
        column=np.concatenate([np.maximum(tree.feature, 0) for tree in trees]),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        value=np.concatenate(values),
        classes=np.asarray(forest.classes_, dtype=np.int64) if classes else np.empty(0, dtype=np.int64),
        oob=np.array(np.nan if unseen else _oob_error(forest, targets, classes)),
    )


def _oob_error(forest: Any, targets: Array, classes: int) -> float:
    if classes:
        return float(np.mean(forest.classes_[forest.oob_decision_function_.argmax(axis=1)] != targets))
    variance = float(np.var(targets, dtype=np.float64))
    return float(np.sqrt(np.mean(np.square(forest.oob_prediction_ - targets)) / variance)) if variance else 0.0
