import sys
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE
from sklearn.metrics import f1_score

from dgm_ray.data import Metadata, Variable, discretize, from_codes, to_codes
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.evaluation.augmentation import (
    Fold,
    ImbalancedLearn,
    from_sample,
    imbalanced_learn,
    quality,
    random_under,
    scores,
    summary,
)

LABELS = (np.arange(200) < 41).astype(np.int64)


@pytest.fixture(scope="module")
def rows(md7: Metadata) -> Any:
    """200 rows of md7, of which the first 41 (the minority) lie apart."""
    random = np.random.default_rng(0)
    rows = discretize(md7, random.random((200, 13), dtype=np.float32))
    rows[:41, 0] = rows[:41, 0] / 2 + 0.5
    return rows


def test_the_contracts_figures() -> None:
    found = quality(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    assert found == {"pr_auc": pytest.approx(0.7916667), "f1": pytest.approx(0.6666667)}
    assert found["f1"] == pytest.approx(f1_score([0, 0, 1, 1], [0, 0, 0, 1]))


def test_a_sample_is_added(rows: Any) -> None:
    """Contract 9.6: 200 rows, 41 of the minority, ratio .8 -> 127 of the minority, 286 rows."""
    sample = rows[:41].repeat(3, axis=0) + 5
    features, labels = from_sample(sample, 0.8)(rows, LABELS, 0)
    assert (len(features), len(labels), labels.sum()) == (286, 286, 127)
    assert (features[:, 0] > 2).sum() == 86
    assert (labels[features[:, 0] > 2] == 1).all()
    assert not np.array_equal(labels[:200], LABELS), "they are shuffled"
    np.testing.assert_array_equal(from_sample(sample, 0.8)(rows, LABELS, 0)[0], features)
    with pytest.raises(DataError, match=r"over_sampling\.ratio: is reached already"):
        from_sample(sample, 0.1)(rows, LABELS, 0)
    with pytest.raises(DataError, match=r"sample_path_by_fold: needs 86 rows at least, not 9"):
        from_sample(sample[:9], 0.8)(rows, LABELS, 0)


@pytest.mark.parametrize("name", get_args(ImbalancedLearn))
def test_imbalanced_learns_samplers(name: ImbalancedLearn, rows: Any, md7: Metadata) -> None:
    if name == "KMeansSMOTE":  # it needs clusters of the minority
        rows = rows.copy()
        rows[:41, [0, 1, 2]] += 5
    features, labels = imbalanced_learn(name, 0.8, md7)(rows, LABELS, 1)
    assert labels.sum() / (labels == 0).sum() == pytest.approx(0.8, abs=0.2)  # ADASYN and SVMSMOTE aim at it
    np.testing.assert_array_equal(features[:200], rows)
    again, _ = imbalanced_learn(name, 0.8, md7)(rows, LABELS, 1)
    np.testing.assert_array_equal(again, features)
    if name == "SMOTE":
        np.testing.assert_array_equal(
            SMOTE(sampling_strategy=0.8, random_state=1).fit_resample(rows, LABELS)[0], features
        )


def test_under_sampling(rows: Any) -> None:
    _, labels = random_under(0.5)(rows, LABELS, 0)
    assert (labels.sum(), len(labels)) == (41, 123)
    with pytest.raises(DataError, match="RandomUnderSampler: "):
        random_under(0.1)(rows, LABELS, 0)


def test_defect_12_smote_nc_gives_valid_rows(rows: Any, md7: Metadata) -> None:
    features, _ = imbalanced_learn("SMOTENC", 1.0, md7)(rows, LABELS, 0)
    assert len(features) == 318
    np.testing.assert_array_equal(features, discretize(md7, features))
    assert (features[:, 3:6].sum(axis=1) == 1).all()
    assert (features[:, 7:12].sum(axis=1) == 1).all()


@given(seed=st.integers(0, 10**6), kinds=st.lists(st.sampled_from("nbc"), min_size=1, max_size=5))
@settings(max_examples=40)
def test_defect_12_codes_come_back_as_they_were(seed: int, kinds: list[str]) -> None:
    names = {"n": ("numerical", 1), "b": ("binary", 1), "c": ("categorical", 4)}
    metadata = Metadata(tuple(Variable(f"{kind}{i}", *names[kind]) for i, kind in enumerate(kinds)))  # type: ignore[arg-type]
    rows = discretize(metadata, np.random.default_rng(seed).random((9, metadata.num_features), dtype=np.float32))
    assert to_codes(metadata, rows).shape == (9, len(kinds))
    np.testing.assert_array_equal(from_codes(metadata, to_codes(metadata, rows)), rows)


@pytest.mark.parametrize("kind", ["numerical", "binary"])
def test_smote_nc_needs_a_mixed_table(kind: Any) -> None:
    metadata = Metadata((Variable("a", kind), Variable("b", kind)))
    with pytest.raises(DataError, match="SMOTENC: needs numerical and other variables"):
        imbalanced_learn("SMOTENC", 0.8, metadata)
    with pytest.raises(ConfigurationError, match="metadata_path: is needed"):
        imbalanced_learn("SMOTENC", 0.8)


def test_samplers_see_the_training_rows_alone(rows: Any) -> None:
    seen = []

    def note(features: Any, labels: Any, seed: int) -> Any:
        seen.append(len(features))
        return features, labels

    fold = Fold(rows[::2], LABELS[::2], rows[1::2], LABELS[1::2])
    found = scores(fold, [note, note], 5, 2, 0)
    assert seen == [100, 100]
    assert set(found) == {f"{part}_{name}" for part in ("train", "test") for name in ("pr_auc", "f1")}
    assert found == scores(fold, [], 5, 2, 0)
    assert all(0 <= value <= 1 for value in found.values())


def test_the_summary_of_folds() -> None:
    assert summary([{"a": 1.0}, {"a": 3.0}]) == {"a_mean": 2.0, "a_std": 1.0}


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(ConfigurationError, match=r"imblearn: needs the extra.*dgm-ray\[augmentation\]"):
        imbalanced_learn("SMOTE", 0.8)(rows, LABELS, 0)
