"""A random forest as plain arrays: grown by scikit-learn's trees, kept without them, so that no file is unpickled.

The same forest as scikit-learn's RandomForestRegressor or RandomForestClassifier, seed by seed, in less time: a tree
predicts all rows once, which gives the out-of-bag error and the wanted predictions together.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.errors import DataError

Array = NDArray[Any]
Rows = NDArray[np.float32]
NAMES = ("starts", "left", "right", "column", "threshold", "value", "classes", "oob")
WALKERS = 8192  # trees times rows that are walked together: more leave the processor's cache, fewer wait for Python


@dataclass(frozen=True, eq=False)
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

    def predict(self, rows: Rows) -> Array:
        """Return the mean, or the likeliest class, of (rows, columns): (rows,). As scikit-learn's own predict."""
        total, count = np.zeros((len(rows), self.value.shape[1])), len(self.starts) - 1
        together = max(1, WALKERS // max(len(rows), 1))
        for first in range(0, count, together):
            for leaves in self._leaves(self.starts[first : min(first + together, count)], rows):
                total += self.value[leaves]
        return decided(total, count, self.classes)

    def draw(self, rows: Rows, random: np.random.Generator) -> Array:
        """Return for each row what a tree, drawn at random, says: (rows,). A class is drawn by its share of the leaf.

        Source: Doove et al. 2014, doi 10.1016/j.csda.2013.10.025. In a grown-out tree it is an observed value.
        """
        chosen, drawn = random.integers(len(self.starts) - 1, size=len(rows)), np.empty(len(rows))
        for tree in range(len(self.starts) - 1):
            own = chosen == tree
            value = self.value[self._leaves(self.starts[tree : tree + 1], rows[own])[0]]
            if len(self.classes):
                reached = value.cumsum(axis=1)
                which = (reached > random.random((len(value), 1)) * reached[:, -1:]).argmax(axis=1)
                drawn[own] = self.classes[which]
            else:
                drawn[own] = value[:, 0]
        return drawn

    def _leaves(self, starts: Array, rows: Rows) -> Array:
        """Return the nodes that rows end in, in the trees that start there: (trees, rows)."""
        start = np.repeat(starts, len(rows))  # a walker for each tree and row
        cells, first = (
            np.ascontiguousarray(rows).reshape(-1),
            np.tile(np.arange(len(rows)) * rows.shape[1], len(starts)),
        )
        nodes = start.copy()
        inner = np.flatnonzero(self.left[nodes] >= 0)  # the walkers that are not at a leaf yet
        while len(inner):
            at = nodes[inner]
            left = cells[first[inner] + self.column[at]] <= self.threshold[at]
            nodes[inner] = start[inner] + np.where(left, self.left[at], self.right[at])
            inner = inner[self.left[nodes[inner]] >= 0]
        return nodes.reshape(len(starts), len(rows))

    def to_arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], columns: int, place: str) -> "Forest":
        """Return the forest of rows (rows, columns) that ``to_arrays`` described.

        Raises DataError if something is missing, or if its nodes are no trees.
        """
        if set(NAMES) != set(arrays):
            raise DataError(place, "is damaged: a forest is not whole")
        forest = cls(**{name: arrays[name] for name in NAMES})
        if not forest._is_sound(columns):
            raise DataError(place, "is damaged: the nodes of a forest are no trees")
        return forest

    def _is_sound(self, columns: int) -> bool:
        """Tell whether every walk ends in a leaf: a child comes after its parent and in the same tree."""
        nodes = len(self.left)
        flat = all(getattr(self, name).shape == (nodes,) for name in ("left", "right", "column", "threshold"))
        if not flat or self.value.ndim != 2 or self.starts.ndim != 1 or self.oob.shape:
            return False
        sizes = np.diff(self.starts)
        if len(self.value) != nodes or not len(sizes) or (sizes < 1).any() or sizes.sum() != nodes or self.starts[0]:
            return False
        place = np.arange(nodes) - np.repeat(self.starts[:-1], sizes)
        inner, size = self.left >= 0, np.repeat(sizes, sizes)
        walks = all(((child > place) & (child < size))[inner].all() for child in (self.left, self.right))
        outputs = self.value.shape[1] if len(self.classes) else 0
        known = bool(((self.column >= 0) & (self.column < columns)).all())
        return walks and known and self.value.shape[1] > 0 and self.classes.shape == (outputs,)


class Grown(NamedTuple):
    """A forest, and what it predicts of the rows that it was asked about, (rows,)."""

    forest: Forest
    predicted: Array


class _Tree(NamedTuple):
    """A tree's nodes, and what it says of all rows: those it could be grown on, of which ``drawn`` were, and others."""

    nodes: dict[str, Array]
    drawn: NDArray[np.bool_]
    said: Array


def grow(
    rows: Rows,
    targets: Array,
    others: Rows,
    *,
    classes: bool,
    n_estimators: int,
    seed: int,
    workers: int = 1,
    **options: Any,
) -> Grown:
    """Grow a forest on (rows, columns) and (rows,) targets, and predict others (others, columns).

    classes: targets are classes, not numbers. workers: threads. options: of scikit-learn's trees.
    """
    found, codes = np.unique(targets, return_inverse=True) if classes else (np.empty(0, np.int64), targets)
    everyone = np.ascontiguousarray(np.concatenate([rows, others]), dtype=np.float32)
    one = partial(_tree, everyone, np.ascontiguousarray(codes, dtype=np.float64), classes, options)
    seeds = [int(seed) for seed in _random(seed).randint(np.iinfo(np.int32).max, size=n_estimators)]
    outputs, kept, trees = max(len(found), 1), found.astype(np.int64), []
    total, times, predicted = np.zeros((len(rows), outputs)), np.zeros(len(rows)), np.zeros((len(others), outputs))
    with warnings.catch_warnings():
        # scikit-learn's: many classes in few rows. They are categories, whatever their number.
        warnings.filterwarnings("ignore", "The number of unique classes")
        for nodes, drawn, said in _in_threads(one, seeds, workers):
            total += np.where(drawn[:, np.newaxis], 0, said[: len(rows)])
            times += ~drawn
            predicted += said[len(rows) :]
            trees.append(nodes)
    unknown = not times.all()  # some rows were in every tree's sample
    error = np.nan if unknown else _error(decided(total, times, kept), targets, classes)
    return Grown(_forest(trees, kept, error), decided(predicted, len(trees), kept))


def decided(total: Array, trees: Any, classes: Array) -> Array:
    """Return the likeliest class, or the mean, of what trees said in total, (rows, outputs): (rows,)."""
    return np.asarray(classes[total.argmax(axis=1)] if len(classes) else total[:, 0] / trees)


def _tree(everyone: Rows, targets: Array, classes: bool, options: dict[str, Any], seed: int) -> _Tree:
    from sklearn import config_context
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    count = len(targets)
    # As scikit-learn's forest: a row that was drawn twice has the weight 2, and one seed draws rows and splits.
    weights = np.bincount(_random(seed).randint(0, count, count), minlength=count).astype(np.float64)
    kind = DecisionTreeClassifier if classes else DecisionTreeRegressor
    with config_context(skip_parameter_validation=True):  # the same every time, and slower than a small tree
        tree = kind(random_state=seed, **options).fit(
            everyone[:count], targets, weights.astype(float), check_input=False
        )
    said = tree.tree_.predict(everyone).reshape(len(everyone), -1)
    return _Tree(_nodes(tree.tree_), weights > 0, said)


def _random(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)  # scikit-learn's own generator, so that forests are the same


def _in_threads(work: Callable[[int], _Tree], seeds: list[int], workers: int) -> Iterator[_Tree]:
    """Yield what the work makes of each seed, in their order; trees grow without Python's lock."""
    if workers == 1 or len(seeds) == 1:
        yield from map(work, seeds)
    else:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(work, seeds)


def _nodes(tree: Any) -> dict[str, Array]:
    """Return what a walk needs of scikit-learn's tree, which takes more than twice the memory."""
    return {
        "left": tree.children_left.astype(np.int32),
        "right": tree.children_right.astype(np.int32),
        "column": np.maximum(tree.feature, 0).astype(np.int32),
        "threshold": tree.threshold.copy(),
        "value": tree.value[:, 0, :].copy(),
    }


def _forest(trees: list[dict[str, Array]], classes: Array, error: float) -> Forest:
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    starts = np.cumsum([0, *(len(tree["left"]) for tree in trees)])
    return Forest(starts=starts, classes=classes, oob=np.array(error), **joined)


def _error(predicted: Array, targets: Array, classes: bool) -> float:
    if classes:
        return float(np.mean(predicted != targets))
    variance = float(np.var(targets, dtype=np.float64))
    return float(np.sqrt(np.mean(np.square(predicted - targets)) / variance)) if variance else 0.0
