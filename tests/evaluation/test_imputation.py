from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer

from dgm_ray.data import BreastCancer, Holdout, Metadata, Prepared, Scored
from dgm_ray.evaluation import baseline, complete, score_imputation

NAN = np.nan


def array(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def scored_of(truth: np.ndarray, hidden: np.ndarray) -> Scored:
    features = np.where(hidden, np.float32(NAN), truth)
    return Scored(np.arange(len(truth)), features, None, hidden, truth)


def test_scores_by_hand() -> None:
    truth = array([[0.5, 0.25], [NAN, 1], [0, 0]])
    scored = scored_of(truth, np.array([[True, False], [False, True], [True, False]]))
    scores = score_imputation(array([[0.75, 0.25], [0.9, 0.5], [0.25, 0]]), scored)
    assert scores == pytest.approx(
        {"imputation_rmse": ((0.25**2 + 0.5**2 + 0.25**2) / 3) ** 0.5, "imputation_mae": 1 / 3}
    )


@given(data=st.data())
def test_only_hidden_cells_count(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    truth, completed = random.random((2, 6, 4), dtype=np.float32)
    hidden, natural = random.random((6, 4)) < 0.4, random.random((6, 4)) < 0.3
    hidden[0, 0], natural[0, 0] = True, False
    truth[natural], hidden = NAN, hidden & ~natural
    expected = score_imputation(completed, scored_of(truth, hidden))
    other = np.where(hidden, completed, random.random((6, 4), dtype=np.float32) * 99)
    assert score_imputation(other, scored_of(truth, hidden)) == expected
    other[~hidden] = NAN
    assert score_imputation(other, scored_of(truth, hidden)) == expected
    worse = completed.copy()
    worse[hidden] += np.sign(completed - truth)[hidden]
    assert score_imputation(worse, scored_of(truth, hidden))["imputation_rmse"] > expected["imputation_rmse"]


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 300), columns=st.integers(1, 40), models=st.integers(1, 9))
def test_several_models_at_once_score_as_each_alone_to_the_bit(seed: int, rows: int, columns: int, models: int) -> None:
    random = np.random.default_rng(seed)
    truth, completed = random.random((rows, columns)), random.random((models, rows, columns), dtype=np.float32)
    scored = scored_of(truth.astype(np.float32), random.random((rows, columns)) < 0.4)
    together = score_imputation(completed, scored)
    assert together.keys() == score_imputation(completed[0], scored).keys()
    for name, values in together.items():
        assert values.tolist() == [score_imputation(own, scored)[name] for own in completed]


def test_observed_cells_stay_bit_for_bit(md7: Metadata, prepared7: Prepared) -> None:
    observed = prepared7.validation.features
    proposed = np.random.default_rng(0).random(observed.shape, dtype=np.float32)
    before = observed.copy()
    completed = complete(md7, proposed, observed)
    known = ~np.isnan(observed)
    assert completed.dtype == np.float32
    assert completed[known].tobytes() == observed[known].tobytes()
    assert observed.tobytes() == before.tobytes()
    assert not np.isnan(completed).any()
    for variable, columns in zip(md7.variables, md7.slices, strict=True):
        cells, missing = completed[:, columns], ~known[:, columns.start]
        assert missing.any()
        if variable.kind == "numerical":
            assert (cells[missing] == proposed[:, columns][missing]).all()
        elif variable.kind == "binary":
            assert (cells[missing] == (proposed[:, columns][missing] > 0.5)).all()
        else:
            assert (cells[missing].argmax(axis=1) == proposed[:, columns][missing].argmax(axis=1)).all()
            assert (np.sort(cells, axis=1) == [0] * (variable.size - 1) + [1]).all()


@pytest.mark.parametrize("train_missing", [0.0, 0.3])
def test_the_baseline_is_the_simple_imputers(train_missing: float) -> None:
    data = Holdout(BreastCancer(), train_missing_probability=train_missing).prepare()
    imputer = SimpleImputer(strategy="mean").fit(data.train.features.astype(np.float64))
    hidden = data.validation.hidden_mask
    errors = imputer.transform(data.validation.features)[hidden] - data.validation.truth[hidden]
    found = baseline(data.metadata, data.means_and_modes, data.validation)
    assert found["imputation_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert found["imputation_mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)


def test_the_baseline_of_mixed_types_takes_modes(md7: Metadata, prepared7: Prepared) -> None:
    """By hand on one hidden categorical cell: two columns are wrong by 1, or none."""
    truth = prepared7.validation.truth[:1]
    hidden = np.zeros_like(truth, dtype=bool)
    hidden[:, md7.slices[md7.index_of("c2")]] = True
    one: Any = replace(scored_of(truth, hidden))
    right, wrong = np.where(hidden[0], truth[0], 0), np.where(hidden[0], np.roll(truth[0], 1), 0)
    wrong[7], wrong[8:12] = truth[0, 11], truth[0, 7:11]  # the next category
    assert baseline(md7, right, one) == {"imputation_rmse": 0, "imputation_mae": 0}
    assert baseline(md7, wrong, one) == pytest.approx({"imputation_rmse": (2 / 5) ** 0.5, "imputation_mae": 2 / 5})
