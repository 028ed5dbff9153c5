"""An iteration of an imputer is timed on all rows."""

import numpy as np

from dgm_ray.data import Metadata, Variable
from dgm_ray.imputers import ImputerModel, Iterations, MissForest
from dgm_ray.nn import ZeroImputation

ROWS = np.where(np.random.default_rng(0).random((60, 3)) < 0.2, np.nan, 0.5).astype(np.float32)


def test_a_layer_has_nothing_to_learn_after_one_iteration() -> None:
    iterations = Iterations(ImputerModel(ZeroImputation()), ROWS)
    probed = iterations.probe(10)
    assert (probed.epochs, probed.steps, probed.optimizer) == (1, 1, 0)


def test_two_iterations_are_timed_at_most() -> None:
    rows = ROWS + np.random.default_rng(1).normal(size=ROWS.shape).astype(np.float32)
    metadata = Metadata(tuple(Variable(name, "numerical", 1) for name in "abc"))
    model = ImputerModel(MissForest(metadata=metadata, n_estimators=3, seed=0))
    iterations = Iterations(model, rows)
    probed = iterations.probe(10)
    assert probed.seconds > 0
    assert probed.epochs == (iterations._done if iterations.finished else None)
    assert iterations._done == 2
