"""missingpy's MissForest on current scikit-learn and NumPy: a second engine, to compare ours with.

missingpy 0.2.0 (2018, GPL-3.0, github.com/epsilon-machine/missingpy) is the MissForest that papers in Python used. It
no longer imports. Its file of MissForest is executed as it is; what it asks for by old names is answered here.

Its own ways stay: it keeps no forest, so ``transform`` learns anew from the rows that it completes; it returns the
round before the last (with one round: means and modes); a split of a regression looks at all columns, not at the square
root of their number.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from dgm_ray.data import Metadata, from_codes, means_and_modes, to_codes
from dgm_ray.errors import ConfigurationError
from dgm_ray.imputers.columns import Shapes, check_arrays, check_observed, described, missing_cells
from dgm_ray.imputers.imputer import Arrays, BaseImputer, Change, Floats, Mask
from dgm_ray.imputers.miss_forest import Share
from dgm_ray.registry import NonNegativeInt, PositiveInt, Shared, register


@register
@dataclass
class MissingpyMissForest(BaseImputer):
    """MissForest as the package missingpy has it; it needs the extra "missingpy".

    n_estimators: trees of a forest. max_features: share of the other columns that a split looks at, in (0, 1]; null:
    the package's own. max_iterations: rounds at most. seed: of the forests. workers: processors that grow a forest.

    Raises ConfigurationError if the package is not installed.
    """

    metadata: Shared[Metadata]
    n_estimators: PositiveInt = 100
    max_features: Share | None = None
    max_iterations: PositiveInt = 10
    seed: Shared[NonNegativeInt] = 0
    workers: Shared[PositiveInt] = 1
    initial_: Floats | None = field(default=None, init=False)  # (num_features,) means and modes

    def __post_init__(self) -> None:
        missforest()

    def iterations(self, features: Floats, missing_mask: Mask) -> Iterator[Change]:
        """Learn the means and modes. Raises DataError for a variable without an observed cell."""
        mask = missing_cells(self.metadata, features, missing_mask)
        check_observed(self.metadata, mask)
        self.initial_ = means_and_modes(self.metadata, features, mask)
        yield from ()

    def transform(self, features: Floats, missing_mask: Mask) -> Floats:
        """Return (rows, num_features), completed by forests that are grown on these very rows.

        Raises DataError for a variable without an observed cell in them.
        """
        assert self.initial_ is not None, "not fitted"
        mask = missing_cells(self.metadata, features, missing_mask)
        if not mask.any():
            return features.copy()
        check_observed(self.metadata, mask)
        codes = to_codes(self.metadata, np.where(mask, self.initial_, features)).astype(np.float64)
        hidden = mask[:, [columns.start for columns in self.metadata.slices]]
        codes[hidden] = np.nan
        alone = codes.shape[1] == 1  # a table of one variable has a predictor that says nothing
        engine = self._engine(np.insert(codes, 1, 0, axis=1) if alone else codes)
        with np.errstate(all="ignore"):  # its stopping rule divides by the cells of a kind, of which there may be none
            completed = engine.transform(np.insert(codes, 1, 0, axis=1) if alone else codes)
        proposed = from_codes(self.metadata, completed[:, : codes.shape[1]].astype(np.float32))
        return np.where(missing_mask | np.isnan(features), proposed, features)

    def _engine(self, codes: Any) -> Any:
        """Return the package's imputer, with the means and modes that were learnt in the place of those of the rows."""
        kinds = [variable.kind for variable in self.metadata.variables]
        categories = [number for number, kind in enumerate(kinds) if kind != "numerical"]
        engine = missforest().MissForest(
            max_iter=self.max_iterations,
            n_estimators=self.n_estimators,
            max_features=self.max_features or "auto",
            n_jobs=self.workers,
            random_state=self.seed,
        )
        engine.fit(codes, cat_vars=categories or None)
        assert self.initial_ is not None
        learnt = to_codes(self.metadata, self.initial_[np.newaxis])[0]
        numbers = [number for number, kind in enumerate(kinds) if kind == "numerical"]
        spare = [0.0] * (codes.shape[1] - len(kinds))
        engine.statistics_ = {"col_means": [*learnt[numbers], *spare], "col_modes": learnt[categories]}
        return engine

    def to_arrays(self) -> Arrays:
        """Return the means and modes: the package keeps no forest."""
        assert self.initial_ is not None, "not fitted"
        return {
            "format": np.array(1),
            "names": described(self.metadata),
            "initial": self.initial_,
            "seed": np.array(self.seed),
        }

    def load_arrays(self, arrays: Arrays, place: str) -> None:
        """Take what ``to_arrays`` returned. Raises DataError for what is something else, or of another table."""
        shapes: Shapes = {"initial": (self.metadata.num_features,), "seed": ()}
        check_arrays(arrays, "MissingpyMissForest", 1, self.metadata, shapes, place)
        self.initial_, self.seed = arrays["initial"].astype(np.float32), int(arrays["seed"])


@cache
def missforest() -> Any:
    """Return the package's module of MissForest, loaded without the rest of it, and mended.

    Raises ConfigurationError if it is not installed.
    """
    package = find_spec("missingpy")  # finds it, and does not execute it: that would fail
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError("missingpy", "needs the extra 'missingpy': pip install 'dgm-ray[missingpy]'")
    file = Path(package.submodule_search_locations[0]) / "missforest.py"
    spec = spec_from_file_location("_missingpy.missforest", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Its neighbour is asked for one function, and imports what scikit-learn has taken away.
    neighbour = ModuleType("_missingpy.pairwise_external")
    neighbour._get_mask = lambda rows, _: np.isnan(rows)  # type: ignore[attr-defined]
    sys.modules[neighbour.__name__] = neighbour
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[neighbour.__name__]
    return _mended(module)


def _mended(module: Any) -> Any:
    """Answer what the module asks for by old names. Only its own globals are changed: nobody else sees them."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.utils import check_array

    def checked(rows: Any, *, force_all_finite: Any, **more: Any) -> Any:
        return check_array(rows, ensure_all_finite=force_all_finite, **more)

    def regressor(*, criterion: str, max_features: Any, **more: Any) -> Any:
        criterion = "squared_error" if criterion == "mse" else criterion
        return RandomForestRegressor(criterion=criterion, max_features=_auto(max_features, 1.0), **more)

    def classifier(*, max_features: Any, **more: Any) -> Any:
        return RandomForestClassifier(max_features=_auto(max_features, "sqrt"), **more)

    module.check_array = checked
    module.RandomForestRegressor, module.RandomForestClassifier = regressor, classifier
    module.np = SimpleNamespace(**{name: getattr(np, name) for name in np.__all__ if name != "in1d"}, in1d=np.isin)
    module.print = lambda *_: None  # it prints the number of each round
    return module


def _auto(max_features: Any, meant: Any) -> Any:
    """Return what "auto" meant until scikit-learn 1.1."""
    return meant if max_features == "auto" else max_features
