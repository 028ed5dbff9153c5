"""What was hidden in fact: rates, and whether hidden values say which cells are hidden."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.hiding import Bools, Floats, known_of
from dgm_ray.data.logistic import Standard
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.splits import Scored
from dgm_ray.errors import DataError


class MarCheck(NamedTuple):
    """The hidden column that tells most about which of its cells are hidden, once what is seen is taken into account.

    correlation: partial, of the column and being hidden; the largest of all columns. bound: what chance alone stays
    below in 99 of 100 tables.
    """

    variable: str
    correlation: float
    bound: float

    @property
    def passed(self) -> bool:
        """Tell whether this may be chance."""
        return abs(self.correlation) <= self.bound


def achieved(metadata: Metadata, part: Scored) -> dict[str, float]:
    """Return the share of each variable's known cells that is hidden, by name; NaN where none is known."""
    known = known_of(metadata, part.truth).sum(axis=0)
    hidden = part.hidden_mask[:, [columns.start for columns in metadata.slices]].sum(axis=0)
    names = [variable.name for variable in metadata.variables]
    return {name: float(h / k) if k else np.nan for name, h, k in zip(names, hidden, known, strict=True)}


def mar_check(metadata: Metadata, part: Scored, *, confidence: float = 0.99) -> MarCheck:
    """Return how much hidden values say about being hidden, given the variables of which no cell is hidden.

    A score test for each hidden column: would the column make the logistic regression of being hidden on what is seen
    better? That is right for MCAR and for a MAR whose log odds are linear; rows should outnumber the seen columns.

    Raises DataError if no variable has both hidden and seen cells.
    """
    from scipy.stats import norm

    seen = ~part.hidden_mask.any(axis=0)
    given = Standard.fit(part.truth)(part.truth)[:, seen]
    known = known_of(metadata, part.truth)
    found: list[tuple[str, float, int]] = []  # (variable, standard normal by chance, rows)
    for number, (variable, columns) in enumerate(zip(metadata.variables, metadata.slices, strict=True)):
        rows = known[:, number]
        hidden = part.hidden_mask[rows, columns.start]
        if hidden.any() and not hidden.all():
            own = part.truth[rows, columns].astype(np.float64)
            found += [(variable.name, score, len(hidden)) for score in _scores(given[rows], hidden, own)]
    if not found:
        raise DataError("mar_check", "no variable has both hidden and seen cells")
    limit = float(norm.ppf(1 - (1 - confidence) / (2 * len(found))))  # one of so many columns, above or below
    name, score, count = max(found, key=lambda one: abs(one[1]))
    return MarCheck(name, score / count**0.5, limit / count**0.5)


def _scores(given: Floats, hidden: Bools, own: NDArray[Any]) -> list[float]:
    """Return the score statistic of each column of ``own``, (rows, columns), that is not constant."""
    chance = _chance(given, hidden).clip(1e-6, 1 - 1e-6)
    root = np.sqrt(chance * (1 - chance))[:, np.newaxis]
    design = np.hstack([np.ones((len(given), 1)), given]) * root
    left = own * root - design @ np.linalg.lstsq(design, own * root, rcond=None)[0]
    length = np.sqrt((left**2).sum(axis=0))
    total = left.T @ ((hidden - chance) / root[:, 0])
    varies = length > 1e-6 * np.sqrt(((own * root) ** 2).sum(axis=0)).clip(1e-12)
    return [float(score) for score in total[varies] / length[varies]]


def _chance(given: Floats, hidden: Bools) -> Floats:
    """Return the probability to be hidden, given what is seen, (rows,)."""
    from sklearn.linear_model import LogisticRegression

    if not given.shape[1]:
        return np.full(len(hidden), hidden.mean())
    model = LogisticRegression(C=1e4, max_iter=1000).fit(given, hidden)  # next to no penalty
    return np.asarray(model.predict_proba(given)[:, 1], dtype=np.float64)
