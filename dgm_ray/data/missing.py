"""Missingness mechanisms: why cells of a table are missing, as Rubin (Inference and missing data, 1976) sorts them.

A rate is the share of the known cells of each variable that a mechanism may hide. Where variables differ (Patterns,
Learned), it is the mean of their shares. Variables are hidden whole: all the columns of a category together.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.hiding import PLACE, Above, Bools, Floats, Groups, OneOf, known_of
from dgm_ray.data.logistic import Logistic, Standard
from dgm_ray.data.masks import uniforms
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.table import Table
from dgm_ray.errors import ConfigurationError, DataError, nearest
from dgm_ray.registry import Fraction, PositiveFloat, PositiveInt, register


class FittedMechanism(Protocol):
    """A mechanism that knows its table."""

    def mask(self, features: NDArray[Any], row_ids: NDArray[Any], rate: float | None, purpose: str) -> Bools:
        """Return cells to hide, True where hidden, (rows, num_features): a function of each row, its id and the seed.

        features: (rows, num_features) in the units of the fitted table, before anything is hidden. rate: share of the
        known cells; None: the mechanism's own, which only Learned has. purpose: names the draw.

        Raises DataError for a rate that cannot be reached.
        """
        ...

    def among(self, known: Bools) -> Self:
        """Return the same mechanism whose rate is a share of these cells of its table, (rows, num_features)."""
        ...


@runtime_checkable
class Mechanism(Protocol):
    """Why cells are missing."""

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism for the whole of a table. Raises DataError if it does not fit the table."""
        ...


@register
@dataclass(frozen=True)
class MCAR:
    """Missing completely at random: every cell with the same probability, independently."""

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism; it looks at nothing but the number of variables."""
        return Groups(table.metadata, seed, tuple(range(table.metadata.num_variables)))


@register
@dataclass(frozen=True)
class Blocks:
    """Groups of variables are missing together, each group with the same probability, whatever the cells hold.

    size: variables of a group, at least 1 and fewer than the table has; the last group may have fewer.
    members: "adjacent": neighbours in the table; "random": chosen by the seed.
    """

    size: PositiveInt = 3
    members: Literal["adjacent", "random"] = "adjacent"

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism. Raises DataError for a group of all the variables: its rows would show nothing."""
        count = table.metadata.num_variables
        if self.size >= count:
            rule = f"should be below the {count} variables of the table, or whole rows are hidden"
            raise DataError(f"{PLACE}.size", rule, self.size)
        positions = np.arange(count)
        if self.members == "random":
            positions = np.argsort(np.argsort(uniforms(positions, 0, seed, "blocks")))
        return Groups(table.metadata, seed, tuple((positions // self.size).tolist()))


@register
@dataclass(frozen=True)
class Patterns:
    """In a share of the rows one of some sets of variables is missing, whatever the cells hold.

    patterns: the names of the variables that are missing together, of each pattern.
    weights: how often each pattern occurs, relative to the others; null: all alike.

    The rate is the mean over the variables that a pattern names; what no pattern names is never hidden.
    """

    patterns: list[list[str]]
    weights: list[PositiveFloat] | None = None

    def __post_init__(self) -> None:
        if not self.patterns or not all(self.patterns):
            raise ConfigurationError("patterns", "should be one pattern at least, with a variable each", self.patterns)
        if self.weights is not None and len(self.weights) != len(self.patterns):
            raise ConfigurationError("weights", f"should be one per pattern ({len(self.patterns)})", self.weights)

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism. Raises DataError for a name that is no variable's."""
        names = [variable.name for variable in table.metadata.variables]
        for name in chain(*self.patterns):
            if name not in names:
                raise DataError(f"{PLACE}.patterns", f"no variable is called {name!r}{nearest(name, names)}")
        patterns = np.array([[name in pattern for name in names] for pattern in self.patterns])
        weights = np.array(self.weights or [1] * len(patterns), dtype=np.float64)
        return OneOf(table.metadata, seed, patterns, weights / weights.sum())


@register
@dataclass(frozen=True)
class MAR:
    """Missing at random: some variables are always seen, and what they hold makes cells of the others missing.

    observed_share: share of the variables that are never hidden, chosen by the seed; one at least is, one is not.
    strength: standard deviation of the log odds that a cell is hidden; 1 is mild, above 3 the rows are nearly sorted.

    The log odds are a sum of the standardised columns of what is seen, with weights drawn for each hidden variable. A
    cell of these that is missing in the table counts as the mean.
    """

    observed_share: Fraction = 0.3
    strength: PositiveFloat = 2.0

    def __post_init__(self) -> None:
        if not self.observed_share:
            raise ConfigurationError("observed_share", "should be above 0", self.observed_share)

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism. Raises DataError unless there are two variables, and one to see that varies."""
        metadata, count = table.metadata, table.metadata.num_variables
        if count < 2:
            raise DataError(PLACE, "MAR needs two variables, one that is seen and one that is hidden", count)
        seen = max(1, min(count - 1, round(self.observed_share * count)))
        observed = np.argsort(uniforms(np.arange(count), 0, seed, "mar observed"))[:seen]
        standard, weights = Standard.fit(table.features), np.zeros((metadata.num_features, count))
        for variable in set(range(count)) - set(observed.tolist()):
            weights[:, variable] = 2 * uniforms(np.arange(metadata.num_features), variable, seed, "mar weights") - 1
        weights[~_columns_of(metadata, observed)] = 0
        if not np.isfinite(standard.deviation[_columns_of(metadata, observed)]).any():
            names = ", ".join(metadata.variables[variable].name for variable in sorted(observed))
            raise DataError(PLACE, f"what MAR never hides ({names}) is the same in all rows, so nothing depends on it")
        odds = np.zeros(count)
        odds[observed] = -np.inf
        known = known_of(metadata, table.features)
        return Logistic(table, known, seed, standard, weights, odds).of_strength(self.strength)


@register
@dataclass(frozen=True)
class MNAR:
    """Missing not at random: what a cell holds makes it missing (self-masking).

    strength: standard deviation of the log odds that a cell is hidden; 1 is mild, above 3 the cells are nearly sorted.

    The log odds grow with a number and with a binary cell; each category has its own, drawn by the seed. A variable
    that is the same in all rows is hidden completely at random.
    """

    strength: PositiveFloat = 2.0

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism."""
        metadata = table.metadata
        own = np.repeat(np.eye(metadata.num_variables), [one.size for one in metadata.variables], axis=0)
        weights = own * _value_of_columns(metadata, seed)[:, np.newaxis]
        standard, known = Standard.fit(table.features), known_of(metadata, table.features)
        fitted = Logistic(table, known, seed, standard, weights, np.zeros(metadata.num_variables))
        return fitted.of_strength(self.strength)


@register
@dataclass(frozen=True)
class MNARQuantile:
    """Missing not at random: cells above a quantile of their variable are missing with one probability, others never.

    quantile: in [0, 1); a rate can be 1 - quantile at most. Of cells that are equal to the quantile some count as
        above, drawn by lots; categories are in an order that the seed draws.
    """

    quantile: Fraction = 0.5

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism."""
        known = known_of(table.metadata, table.features)
        return Above(table, known, seed, _value_of_columns(table.metadata, seed), 1 - self.quantile)


@register
@dataclass(frozen=True)
class Learned:
    """As the table's own missing cells: a model of which are missing, fitted on it and replayed on the known cells.

    A logistic regression for each variable, in the order of the table: "is missing", given the standardised cells of
    the other variables (the mean where missing), and which of the variables before are missing. So what is missing
    together stays together; that a cell depends on its own value, no table can tell. Variables that miss no cell are
    never hidden. Without a rate each variable has that of the table; a rate shifts their log odds together.
    """

    def fit(self, table: Table, seed: int) -> FittedMechanism:
        """Return the mechanism. Raises DataError for a table without a missing cell."""
        from sklearn.linear_model import LogisticRegression

        metadata, known = table.metadata, known_of(table.metadata, table.features)
        rates = 1 - known.mean(axis=0)
        learnable = np.flatnonzero((rates > 0) & (rates < 1))
        if not len(learnable):
            raise DataError(PLACE, "Learned needs a variable that is missing in some rows and known in others")
        standard, missing = Standard.fit(table.features), (~known).astype(np.float64)
        cells, weights = standard(table.features), np.zeros((metadata.num_features, len(rates)))
        links, odds = np.zeros((len(rates), len(rates))), np.full(len(rates), -np.inf)
        for variable in learnable:
            others = ~_columns_of(metadata, [variable])
            design = np.hstack([cells[:, others], missing[:, :variable]])
            found = LogisticRegression(max_iter=1000).fit(design, missing[:, variable]).coef_[0]
            weights[others, variable], links[:variable, variable] = np.split(found, [np.count_nonzero(others)])
            odds[variable] = np.log(rates[variable] / (1 - rates[variable]))
        return Logistic(table, known, seed, standard, weights, odds, own_rate=True, chain=links)


def _columns_of(metadata: Metadata, variables: Any) -> Bools:
    """Return True for the columns of some variables, given by their positions, (num_features,)."""
    chosen = np.isin(np.arange(metadata.num_variables), variables)
    return np.repeat(chosen, [variable.size for variable in metadata.variables])


def _value_of_columns(metadata: Metadata, seed: int) -> Floats:
    """Return 1 for a number and a binary column, a number drawn by the seed for a category's, (num_features,)."""
    drawn = uniforms(np.arange(metadata.num_features), 0, seed, "categories") + 0.5  # not 0: a missing cell counts 0
    sizes = [variable.size for variable in metadata.variables]
    return np.where(np.repeat(sizes, sizes) > 1, drawn, 1.0)
