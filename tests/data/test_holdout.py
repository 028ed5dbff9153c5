from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dgm_ray.data import BreastCancer, Holdout, Metadata, MinMaxScaler, Source, Table, Wine, means_and_modes
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.registry import build


@dataclass(frozen=True, eq=False)
class Given:
    table: Table

    def read(self) -> Table:
        return self.table


@pytest.fixture
def wine() -> Table:
    """Wine with natural missing cells: a numerical column's and the class's."""
    table = Wine().read()
    table.features[::5, 2] = np.nan
    table.features[1::7, 13:] = np.nan
    return table


def test_rows_are_split_once(wine: Table) -> None:
    prepared = Holdout(Given(wine)).prepare()
    ids = [prepared.train.row_ids, prepared.validation.row_ids, prepared.test.row_ids]
    assert sorted(np.concatenate(ids).tolist()) == list(range(wine.rows))
    assert all(len(part) > 20 for part in ids)


def test_fractions_are_kept_within_chance() -> None:
    prepared = Holdout(BreastCancer(), validation_fraction=0.1, test_fraction=0.3).prepare()
    # 4 standard errors of a share of 569 rows
    assert abs(len(prepared.validation.row_ids) / 569 - 0.1) < 4 * (0.09 / 569) ** 0.5
    assert abs(len(prepared.test.row_ids) / 569 - 0.3) < 4 * (0.21 / 569) ** 0.5


def test_test_rows_stay_when_validation_grows(wine: Table) -> None:
    small, large = (Holdout(Given(wine), validation_fraction=share).prepare() for share in (0.1, 0.5))
    assert np.array_equal(small.test.row_ids, large.test.row_ids)
    assert len(small.validation.row_ids) < len(large.validation.row_ids)


def test_same_seed_same_content_and_another_seed_another(wine: Table) -> None:
    first, again, other = (Holdout(Given(wine), seed=seed).prepare().content_hash() for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_hash_sees_every_part(wine: Table) -> None:
    prepared = Holdout(Given(replace(wine, labels=np.arange(wine.rows)))).prepare()
    assert prepared.scaler is not None
    hashes = {prepared.content_hash()}
    for part in ("train", "validation", "test"):
        split = getattr(prepared, part)
        for name in vars(split):
            array = np.array(getattr(split, name))
            array.reshape(-1)[0] = 1 - np.nan_to_num(array.reshape(-1)[0]) if array.dtype != bool else ~array[0, 0]
            hashes.add(replace(prepared, **{part: replace(split, **{name: array})}).content_hash())
    column = replace(prepared.train, labels=np.asarray(prepared.train.labels)[:, np.newaxis])
    hashes.add(replace(prepared, train=column).content_hash())
    hashes.add(replace(prepared, scaler=None).content_hash())
    hashes.add(replace(prepared, means_and_modes=prepared.means_and_modes + 1).content_hash())
    hashes.add(replace(prepared, metadata=replace(prepared.metadata, num_samples=1)).content_hash())
    assert len(hashes) == 1 + 3 + 5 + 5 + 4


def test_truth_hidden_and_missing_agree(wine: Table) -> None:
    prepared = Holdout(Given(wine), missing_probability=0.4).prepare()
    for split in (prepared.validation, prepared.test):
        natural = np.isnan(wine.features[split.row_ids])
        assert natural.any()
        assert split.hidden_mask.any()
        assert not (split.hidden_mask & natural).any()
        assert np.array_equal(split.missing_mask, split.hidden_mask | natural)
        assert np.array_equal(np.isnan(split.truth), natural)
        assert np.array_equal(split.features[~split.missing_mask], split.truth[~split.missing_mask])
        assert (split.hidden_mask[:, 13:] == split.hidden_mask[:, 13:14]).all()
        assert split.features.dtype == split.truth.dtype == np.float32


def test_truth_comes_back_in_the_users_units(wine: Table) -> None:
    prepared = Holdout(Given(wine)).prepare()
    assert prepared.scaler is not None
    back = prepared.scaler.inverse_transform(prepared.test.truth)
    np.testing.assert_allclose(back, wine.features[prepared.test.row_ids], rtol=1e-5)


def test_the_scaler_sees_train_rows_only(wine: Table) -> None:
    before = Holdout(Given(wine)).prepare()
    held_out = np.concatenate([before.validation.row_ids, before.test.row_ids])
    wine.features[held_out, 0] = 1e6
    after = Holdout(Given(wine)).prepare()
    assert before.scaler is not None
    assert after.scaler is not None
    assert after.scaler.to_dict() == before.scaler.to_dict()
    assert np.array_equal(after.means_and_modes, before.means_and_modes)
    assert np.nanmax(after.validation.truth[:, 0]) > 1
    wine.features[before.train.row_ids[0], 0] = 1e6
    changed = Holdout(Given(wine)).prepare().scaler
    assert changed is not None
    assert changed.maximum[0] == 1e6


def test_train_is_whole_unless_asked(wine: Table) -> None:
    whole = Holdout(Given(wine)).prepare()
    assert np.array_equal(whole.train.missing_mask, np.isnan(wine.features[whole.train.row_ids]))
    hidden = Holdout(Given(wine), train_missing_probability=0.3).prepare()
    share = np.isnan(hidden.train.features[:, 0]).mean()
    assert 0.1 < share < 0.5
    assert (hidden.train.missing_mask | ~whole.train.missing_mask).all(), "natural missing cells stay missing"
    assert np.array_equal(hidden.validation.hidden_mask, whole.validation.hidden_mask)


def test_means_and_modes_are_those_of_what_train_shows(wine: Table) -> None:
    prepared = Holdout(Given(wine), train_missing_probability=0.3).prepare()
    train = prepared.train
    np.testing.assert_allclose(prepared.means_and_modes[:13], np.nanmean(train.features[:, :13], axis=0), rtol=1e-5)
    expected = means_and_modes(prepared.metadata, train.features, train.missing_mask)
    assert np.array_equal(prepared.means_and_modes, expected)


def test_a_scaled_table_stays_as_it_is(wine: Table) -> None:
    scaler = MinMaxScaler.fit(wine.metadata, wine.features)
    table = Table(wine.metadata, scaler.transform(wine.features), np.arange(wine.rows))
    before = table.features.copy()
    prepared = Holdout(Given(table), train_missing_probability=0.5).prepare()
    assert prepared.scaler is None
    assert np.array_equal(table.features, before, equal_nan=True), "the source's table was changed"
    assert np.array_equal(prepared.test.truth, before[prepared.test.row_ids], equal_nan=True)
    for split in (prepared.train, prepared.validation, prepared.test):
        assert np.array_equal(np.asarray(split.labels), split.row_ids)


def numbers(rows: int, metadata: Metadata) -> NDArray[np.float32]:
    row = [0.5, 0, 1, 0, 1, 0, 0.75, 0, 0, 0, 1, 0, 1]
    assert metadata.num_features == len(row)
    return np.array([row] * rows, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "rows", "place", "rule"),
    [
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, 50, "data.test_fraction", "a sum below 1, not 1.0"),
        ({"validation_fraction": 0.0}, 50, "data.validation_fraction", "no row of 50 for validation, not 0.0"),
        ({"validation_fraction": 0.99, "test_fraction": 0.0}, 3, "data.validation_fraction", "no row of 3 for train"),
        ({"missing_probability": 0.0}, 50, "data.missing_probability", "must hide a cell.*, not 0.0"),
    ],
)
def test_a_holdout_that_cannot_be_scored(
    md7: Metadata, arguments: dict[str, float], rows: int, place: str, rule: str
) -> None:
    holdout = Holdout(Given(Table(md7, numbers(rows, md7))), **arguments)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rule) as caught:
        holdout.prepare()
    assert caught.value.place == place


def test_no_test_rows_is_fine(md7: Metadata) -> None:
    prepared = Holdout(Given(Table(md7, numbers(50, md7))), test_fraction=0.0).prepare()
    assert prepared.test.features.shape == (0, 13)
    assert len(prepared.content_hash()) == 64


def test_a_configuration_builds_a_holdout() -> None:
    node = {"factory": "Holdout", "arguments": {"source": {"factory": "BreastCancer"}, "test_fraction": 0.1}}
    assert build(node, Holdout) == Holdout(BreastCancer(), test_fraction=0.1)
    assert isinstance(BreastCancer(), Source)
    for broken in ({"test_fraction": 1.0}, {"seed": -1}, {"source": {"factory": "Holdout"}}):
        arguments = {"source": {"factory": "BreastCancer"}} | broken
        with pytest.raises(ConfigurationError):
            build({"factory": "Holdout", "arguments": arguments}, Holdout)
