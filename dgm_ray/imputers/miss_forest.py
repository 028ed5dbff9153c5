"""Imputation by random forests: each variable's missing cells are predicted from the others, again and again.

Source: Stekhoven and Buehlmann 2012, "MissForest: non-parametric missing value imputation for mixed-type data",
doi 10.1093/bioinformatics/btr597, algorithm 1.

Differs from the paper: the forests are kept, so that rows that were not there are imputed without growing any; a
variable that was complete has a forest too, for such rows. The other categorical variables are predictors as one-hot
columns, because scikit-learn's trees have no categories.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Gt, Le

from dgm_ray.data import Metadata, Variable, means_and_modes
from dgm_ray.errors import DataError
from dgm_ray.imputers.forest import Forest, grow
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared, register

Share = Annotated[float, Gt(0), Le(1)]


@register
@dataclass
class MissForest(BaseImputer):
    """Impute mixed tables with random forests.

    n_estimators: trees of a forest. max_depth: of a tree; null grows it out. min_samples_leaf: rows of a leaf at
    least. max_features: share of the other columns that a split looks at, in (0, 1]; null: the square root of their
    number, as in the paper.
    max_iterations: rounds over all variables at most, to fit and to transform.
    seed: of the forests. workers: processors that grow a forest.
    """

    metadata: Shared[Metadata]
    n_estimators: PositiveInt = 100
    max_depth: PositiveInt | None = None
    min_samples_leaf: PositiveInt = 1
    max_features: Share | None = None
    max_iterations: PositiveInt = 10
    seed: Shared[NonNegativeInt] = 0
    workers: Shared[PositiveInt] = 1
    forests_: dict[int, Forest] = field(default_factory=dict, init=False)  # by the variable's number
    initial_: Floats | None = field(default=None, init=False)  # (num_features,) means and modes
    order_: list[int] = field(default_factory=list, init=False)

    def fit(
        self, features: Floats, missing_mask: Mask, report: Callable[[int, Change], None] | None = None
    ) -> "MissForest":
        """Grow the forests on (rows, num_features); what stands under the mask (True: missing) is not looked at.

        report: called after each iteration with its number and change. Raises DataError for a variable without an
        observed cell.
        """
        for iteration, change in enumerate(self.iterations(features, missing_mask), 1):
            if report:
                report(iteration, change)
        return self

    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Fit, yielding after each iteration. The forests are those of the last iteration that did not grow worse."""
        mask = missing_mask | np.isnan(features)
        self._begin(features, mask)
        current = np.where(mask, self._initial(), features)
        before: Change | None = None
        for iteration in range(self.max_iterations):
            forests: dict[int, Forest] = {}
            new = current.copy()
            for number in self.order_:
                columns = self.metadata.slices[number]
                hidden = mask[:, columns.start]
                forests[number] = self._grow(number, new, ~hidden, iteration)
                if hidden.any():
                    new[hidden, columns] = self._predict(forests[number], number, new[hidden])
            change = self._change(current, new, mask)
            if before is not None and change.grew(before):
                break
            self.forests_, current, before = forests, new, change
            yield change
            if not mask.any():
                break

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features) with valid values in missing cells; observed cells are as they were.

        The forests are applied in their order, as often as they were grown, until nothing changes.
        """
        mask = missing_mask | np.isnan(features)
        current = np.where(mask, self._initial(), features)
        for _ in range(self.max_iterations if mask.any() else 0):
            new = current.copy()
            for number in self.order_:
                columns = self.metadata.slices[number]
                hidden = mask[:, columns.start]
                if hidden.any():
                    new[hidden, columns] = self._predict(self.forests_[number], number, new[hidden])
            if np.array_equal(new, current):
                break
            current = new
        return current

    @property
    def oob_error_(self) -> dict[str, float]:
        """The forests' own estimate of their error, by variable: normalised RMSE, or the share of wrong categories."""
        return {self.metadata.variables[number].name: forest.oob_error for number, forest in self.forests_.items()}

    def _begin(self, features: Floats, mask: Mask) -> None:
        missing = np.array([mask[:, columns.start].sum() for columns in self.metadata.slices])
        for variable, count in zip(self.metadata.variables, missing, strict=True):
            if count == len(features):
                raise DataError(f"variable {variable.name!r}", "has no observed cell to learn from")
        self.order_ = [int(number) for number in np.argsort(missing, kind="stable")]  # the fewest missing first
        self.initial_ = means_and_modes(self.metadata, features, mask)

    def _initial(self) -> Floats:
        assert self.initial_ is not None, "not fitted"
        return self.initial_

    def _grow(self, number: int, rows: Floats, observed: Mask, iteration: int) -> Forest:
        columns, variable = self.metadata.slices[number], self.metadata.variables[number]
        return grow(
            self._others(rows[observed], number),
            _codes(variable, rows[observed, columns]),
            classes=0 if variable.kind == "numerical" else max(variable.size, 2),
            n_estimators=self.n_estimators,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features or "sqrt",
            random_state=int(np.random.SeedSequence([self.seed, iteration, number]).generate_state(1)[0]),
            n_jobs=self.workers,
        )

    def _predict(self, forest: Forest, number: int, rows: Floats) -> Floats:
        variable, predicted = self.metadata.variables[number], forest.predict(self._others(rows, number))
        if variable.kind == "categorical":
            one_hot: Floats = np.eye(variable.size, dtype=np.float32)[predicted.astype(np.int64)]
            return one_hot
        return predicted.astype(np.float32)[:, np.newaxis]

    def _others(self, rows: Floats, number: int) -> Floats:
        columns = self.metadata.slices[number]
        return np.delete(rows, np.s_[columns.start : columns.stop], axis=1)

    def _change(self, old: Floats, new: Floats, mask: Mask) -> Change:
        numerical, changed, cells = [0.0, 0.0], 0, 0
        for variable, columns in zip(self.metadata.variables, self.metadata.slices, strict=True):
            hidden = mask[:, columns.start]
            if variable.kind == "numerical":
                after = new[hidden, columns].astype(np.float64)
                numerical[0] += float(np.square(after - old[hidden, columns]).sum())
                numerical[1] += float(np.square(after).sum())
            else:
                changed += int((new[hidden, columns] != old[hidden, columns]).any(axis=1).sum())
                cells += int(hidden.sum())
        return Change(numerical[0] / numerical[1] if numerical[1] else np.nan, changed / cells if cells else np.nan)

    def to_arrays(self) -> Arrays:
        """Return all that ``load_arrays`` needs."""
        arrays: Arrays = {
            "format": np.array(1),
            "names": np.array([_described(variable) for variable in self.metadata.variables]),
            "max_iterations": np.array(self.max_iterations),
            "order": np.array(self.order_, dtype=np.int64),
            "initial": self._initial(),
        }
        for number, forest in self.forests_.items():
            arrays |= {f"{number}.{name}": array for name, array in forest.to_arrays().items()}
        return arrays

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        needed = {"format", "names", "max_iterations", "order", "initial"}
        if not needed <= arrays.keys() or arrays["format"] != 1:
            raise DataError(place, "is no MissForest model of this library")
        if arrays["names"].tolist() != [_described(variable) for variable in self.metadata.variables]:
            raise DataError(place, "was trained on a table with other variables", arrays["names"].tolist()[:3])
        self.order_, self.initial_ = [int(one) for one in arrays["order"]], arrays["initial"].astype(np.float32)
        for number in self.order_:
            own = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")}
            self.forests_[number] = Forest.from_arrays(own, place)

    @classmethod
    def from_arrays(cls, metadata: Metadata, arrays: Arrays, place: str) -> "MissForest":
        """Return a fitted one; a model without metadata has a number of its own in every column."""
        named = "names" in arrays and arrays["names"].tolist()
        plain = numerical_columns(metadata.num_features)
        made = cls(plain if named == [_described(variable) for variable in plain.variables] else metadata)
        made.load_arrays(arrays, place)
        made.max_iterations = int(arrays["max_iterations"])
        return made


def numerical_columns(count: int) -> Metadata:
    """Return metadata in which every column is a numerical variable, named by its number."""
    return Metadata(tuple(Variable(str(column), "numerical") for column in range(count)))


def _described(variable: Variable) -> str:
    return f"{variable.kind} {variable.size} {variable.name}"


def _codes(variable: Variable, cells: Floats) -> Floats:
    """Return one value per row: a number, or the index of the category."""
    return cells.argmax(axis=1) if variable.kind == "categorical" else cells[:, 0]
