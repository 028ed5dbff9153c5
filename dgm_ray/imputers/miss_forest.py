"""Imputation by random forests: each variable's missing cells are predicted from the others, again and again.

Source: Stekhoven and Buehlmann 2012, "MissForest: non-parametric missing value imputation for mixed-type data",
doi 10.1093/bioinformatics/btr597, algorithm 1.

Differs from the paper: the forests are kept, so that rows that were not there are imputed without growing any; a
variable that was complete has a forest too, for such rows, grown once, after the first round. The other categorical
variables are predictors as the numbers of their categories, because scikit-learn's trees have no categories.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from dgm_ray.data import Metadata, Variable, from_codes, means_and_modes, to_codes
from dgm_ray.errors import DataError
from dgm_ray.imputers.columns import Shapes, change_of, check_arrays, check_observed, described, missing_cells
from dgm_ray.imputers.forest import Forest, Grown, grow
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared, register

Share = Annotated[float, Gt(0), Le(1)]
FORMAT = 2  # of the arrays; in 1 the predictors were one-hot columns


@register
@dataclass
class MissForest(BaseImputer):
    """Impute mixed tables with random forests.

    n_estimators: trees of a forest. max_depth: of a tree; null grows it out. min_samples_leaf: rows of a leaf at
    least. max_features: share of the other columns that a split looks at, in (0, 1]; null: the square root of their
    number, as in the paper.
    max_iterations: rounds over all variables at most, to fit and to transform.
    seed: of the forests. workers: threads that grow the trees of a forest.
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
    completed_: Floats | None = field(default=None, init=False)  # (rows, variables), of the fit; it is not saved

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
        mask = missing_cells(self.metadata, features, missing_mask)
        self._begin(features, mask)
        current, before = self._start(features, mask), None
        for iteration in range(self.max_iterations):
            new, forests = current.copy(), dict(self.forests_)
            for number in self.order_:
                hidden = mask[:, self.metadata.slices[number].start]
                if hidden.any() or number not in forests:
                    forests[number], new[hidden, number] = self._grow(number, new, hidden, iteration)
            change = self._change(current, new, mask)
            if before is not None and change.grew(before):
                break
            self.forests_, self.completed_, current, before = forests, new, new, change
            yield change
            if not mask.any():
                break

    def fit_transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Fit, and return these rows as the paper does: as they were completed while the forests were grown.

        ``transform`` has the last round's forests alone, from means and modes on: it comes near.
        """
        self.fit(features, missing_mask)
        assert self.completed_ is not None
        completed, self.completed_ = self.completed_, None
        return np.where(missing_mask | np.isnan(features), from_codes(self.metadata, completed), features)

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features) with valid values in missing cells; observed cells are as they were.

        The forests are applied in their order, as often as they are grown at most, until nothing changes.
        """
        mask = missing_cells(self.metadata, features, missing_mask)
        current = self._start(features, mask)
        for _ in range(self.max_iterations):
            before = current.copy()
            self._round(current, mask, Forest.predict)
            if np.array_equal(before, current):
                break
        return np.where(missing_mask | np.isnan(features), from_codes(self.metadata, current), features)

    def draw(self, features: Floats, missing_mask: Mask, random: np.random.Generator) -> Floats:
        """Return (rows, num_features): a round in which a tree, drawn for each cell, gives a value of its leaf."""
        mask = missing_cells(self.metadata, features, missing_mask)
        current = self._start(self.transform(features, missing_mask), np.zeros_like(mask))
        self._round(current, mask, partial(Forest.draw, random=random))
        return np.where(missing_mask | np.isnan(features), from_codes(self.metadata, current), features)

    def figures(self) -> dict[str, float]:
        """Return the means of the forests' own errors, for numbers and for categories: no cell has to be hidden."""
        kinds = {"oob_nrmse": True, "oob_pfc": False}  # the paper's: normalised RMSE, proportion of falsely classified
        errors = {
            name: [
                forest.oob_error
                for number, forest in self.forests_.items()
                if (self.metadata.variables[number].kind == "numerical") == numerical
            ]
            for name, numerical in kinds.items()
        }
        return {name: float(np.mean(found)) for name, found in errors.items() if found}

    @property
    def oob_error_(self) -> dict[str, float]:
        """The forests' own estimate of their error, by variable: normalised RMSE, or the share of wrong categories."""
        return {self.metadata.variables[number].name: forest.oob_error for number, forest in self.forests_.items()}

    def _begin(self, features: Floats, mask: Mask) -> None:
        check_observed(self.metadata, mask)
        missing = np.array([mask[:, columns.start].sum() for columns in self.metadata.slices])
        fewest = np.argsort(missing, kind="stable")
        self.order_ = [*map(int, fewest[missing[fewest] > 0]), *map(int, fewest[missing[fewest] == 0])]
        self.initial_, self.forests_ = means_and_modes(self.metadata, features, mask), {}

    def _start(self, features: Floats, mask: Mask) -> Floats:
        """Return a number per variable, (rows, variables), means and modes where missing."""
        assert self.initial_ is not None, "not fitted"
        return to_codes(self.metadata, np.where(mask, self.initial_, features))

    def _grow(self, number: int, codes: Floats, hidden: Mask, iteration: int) -> Grown:
        others = self._others(codes, number)
        return grow(
            others[~hidden],
            codes[~hidden, number],
            others[hidden],
            classes=self.metadata.variables[number].kind != "numerical",
            n_estimators=self.n_estimators,
            seed=int(np.random.SeedSequence([self.seed, iteration, number]).generate_state(1)[0]),
            workers=self.workers,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features or "sqrt",
        )

    def _round(self, codes: Floats, mask: Mask, value: Callable[[Forest, Floats], NDArray[Any]]) -> None:
        """Put what the forests say in missing cells, variable by variable."""
        for number in self.order_:
            hidden = mask[:, self.metadata.slices[number].start]
            if hidden.any():
                codes[hidden, number] = value(self.forests_[number], self._others(codes[hidden], number))

    def _others(self, codes: Floats, number: int) -> Floats:
        """Return the predictors of a variable; a table of one variable has one that says nothing."""
        return np.delete(codes, number, axis=1) if codes.shape[1] > 1 else np.zeros_like(codes)

    def _change(self, old: Floats, new: Floats, mask: Mask) -> Change:
        return change_of(self.metadata, from_codes(self.metadata, old), from_codes(self.metadata, new), mask)

    def to_arrays(self) -> Arrays:
        """Return all that ``load_arrays`` needs."""
        assert self.initial_ is not None, "not fitted"
        arrays: Arrays = {
            "format": np.array(FORMAT),
            "names": described(self.metadata),
            "max_iterations": np.array(self.max_iterations),
            "order": np.array(self.order_, dtype=np.int64),
            "initial": self.initial_,
        }
        for number, forest in self.forests_.items():
            arrays |= {f"{number}.{name}": array for name, array in forest.to_arrays().items()}
        return arrays

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        variables = self.metadata.num_variables
        shapes: Shapes = {"max_iterations": (), "order": (variables,), "initial": (self.metadata.num_features,)}
        check_arrays(arrays, "MissForest", FORMAT, self.metadata, shapes, place)
        if sorted(arrays["order"].tolist()) != list(range(variables)):
            raise DataError(place, "is damaged: 'order' is not whole")
        forests: dict[int, dict[str, NDArray[Any]]] = {number: {} for number in range(variables)}
        for name in arrays.keys() - {"names", "format", *shapes}:
            number, _, part = name.partition(".")
            if not number.isdecimal() or int(number) not in forests:
                raise DataError(place, f"is damaged: {name!r} belongs to no variable")
            forests[int(number)][part] = arrays[name]
        columns = max(variables - 1, 1)
        self.forests_ = {number: Forest.from_arrays(own, columns, place) for number, own in forests.items()}
        self.order_, self.initial_ = [int(one) for one in arrays["order"]], arrays["initial"].astype(np.float32)
        self.max_iterations = int(arrays["max_iterations"])

    @classmethod
    def from_arrays(cls, metadata: Metadata, arrays: Arrays, place: str) -> "MissForest":
        """Return a fitted one; a model without metadata has a number of its own in every column."""
        plain = numerical_columns(metadata.num_features)
        unnamed = "names" in arrays and arrays["names"].tolist() == described(plain).tolist()
        made = cls(plain if unnamed else metadata)
        made.load_arrays(arrays, place)
        return made


def numerical_columns(count: int) -> Metadata:
    """Return metadata in which every column is a numerical variable, named by its number."""
    return Metadata(tuple(Variable(str(column), "numerical") for column in range(count)))
