"""Why cells are missing: rates, what a mask depends on, and that it is a function of the row alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from dgm_ray.data import (
    MAR,
    MCAR,
    MNAR,
    Blocks,
    BreastCancer,
    CellHoldout,
    Holdout,
    Learned,
    Mechanism,
    Metadata,
    MNARQuantile,
    Npy,
    Patterns,
    Scored,
    Table,
    Variable,
    Wine,
    achieved,
    mar_check,
    mcar_mask,
)
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.registry import FACTORIES, build

SHARED = Path(__file__).parents[3] / "shared" / "data"
ROWS = 4000
NAMES = ("a", "b", "c", "d", "e", "kind", "flag")
METADATA = Metadata(
    (
        *(Variable(name, "numerical") for name in NAMES[:5]),
        Variable("kind", "categorical", 4),
        Variable("flag", "binary"),
    )
)
PATTERNS = Patterns([["a", "kind"], ["b"], ["c", "d", "flag"]], [1.0, 2.0, 3.0])
MECHANISMS: list[Mechanism] = [
    MCAR(),
    Blocks(2),
    Blocks(3, "random"),
    PATTERNS,
    MAR(),
    MAR(0.5, 4.0),
    MNAR(),
    MNARQuantile(0.3),
    Learned(),
]
every = pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda one: type(one).__name__)


def correlated(rows: int = ROWS) -> NDArray[np.float32]:
    """Complete rows of METADATA, all of whose variables hang together: (rows, 10)."""
    random = np.random.default_rng(3)
    common = random.normal(size=(rows, 1))
    numbers = 50 + 10 * (common + random.normal(size=(rows, 5)))
    kind = np.clip(np.round(1.5 + common[:, 0] + 0.7 * random.normal(size=rows)), 0, 3).astype(int)
    flag = common[:, 0] + random.normal(size=rows) > 0.5
    return np.hstack([numbers, np.eye(4)[kind], flag[:, np.newaxis]]).astype(np.float32)


@pytest.fixture(scope="module")
def whole() -> Table:
    return Table(METADATA, correlated(), scaled=False)


@pytest.fixture(scope="module")
def holed(whole: Table) -> Table:
    """With natural missing cells: b where a is large, c with b, kind at random."""
    features, random = whole.features.copy(), np.random.default_rng(5)
    a = (features[:, 0] - 50) / 14
    b = random.random(len(a)) < 1 / (1 + np.exp(1.5 - 2 * a))
    features[b, 1] = np.nan
    features[b & (random.random(len(a)) < 0.9), 2] = np.nan
    features[random.random(len(a)) < 0.1, 5:9] = np.nan
    return Table(METADATA, features, scaled=False)


class Given:
    """A source of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def read(self) -> Table:
        return self.table


def masked(mechanism: Mechanism, table: Table, rate: float | None, seed: int = 1) -> NDArray[np.bool_]:
    """Return which variables are hidden in each row, (rows, num_variables); naturally missing cells may be."""
    mask = mechanism.fit(table, seed).mask(table.features, np.arange(table.rows), rate, "x")
    for columns in METADATA.slices:
        assert (mask[:, columns] == mask[:, columns.start : columns.start + 1]).all(), "hidden whole"
    return mask[:, [columns.start for columns in METADATA.slices]]


def known_of(table: Table) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isnan(table.features[:, [columns.start for columns in METADATA.slices]])
    return known


def scored(table: Table, mechanism: Mechanism, rate: float, seed: int = 1) -> Scored:
    ids = np.arange(table.rows)
    mask = mechanism.fit(table, seed).mask(table.features, ids, rate, "x") & ~table.missing_mask
    return Scored(ids, np.where(mask, np.float32(np.nan), table.features), None, mask, table.features)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@every
def test_rates_are_within_binomial_bounds(mechanism: Mechanism, rate: float, holed: Table) -> None:
    if mechanism == PATTERNS and rate == 0.5:
        return  # beyond what it reaches
    hidden, known = masked(mechanism, holed, rate), known_of(holed)
    maskable = hidden.any(axis=0)
    counts, cells = (hidden & known).sum(axis=0), known.sum(axis=0)
    if isinstance(mechanism, Patterns | Learned):  # variables differ: the rate is their mean
        assert (counts / cells)[maskable].mean() == pytest.approx(rate, abs=0.015)
        return
    low, high = binom.interval(1 - 1e-6, cells, rate)
    assert (((counts >= low) & (counts <= high)) | ~maskable).all(), counts / cells
    assert maskable.sum() == (7 if not isinstance(mechanism, MAR) else 7 - round(7 * mechanism.observed_share))


@every
def test_no_rate_and_the_whole(mechanism: Mechanism, whole: Table, holed: Table) -> None:
    assert not masked(mechanism, holed, 0.0).any()
    if isinstance(mechanism, MAR):
        assert masked(mechanism, whole, 1.0).mean(axis=0).tolist().count(1.0) == 7 - round(7 * mechanism.observed_share)
    if type(mechanism) in (MCAR, Blocks, MNAR):
        assert masked(mechanism, whole, 1.0).all()


@every
def test_a_mask_is_a_function_of_the_row(mechanism: Mechanism, holed: Table) -> None:
    fitted, ids = mechanism.fit(holed, 3), np.arange(holed.rows)
    mask = fitted.mask(holed.features, ids, 0.3, "x")
    for size in (1, 7, 1000):
        parts = [ids[start : start + size] for start in range(0, ROWS if size > 7 else 5 * size, size)]
        shards = [mechanism.fit(holed, 3).mask(holed.features[part], part, 0.3, "x") for part in parts]
        np.testing.assert_array_equal(np.vstack(shards), mask[: sum(map(len, parts))])
    order = np.random.default_rng(0).permutation(ids)
    np.testing.assert_array_equal(fitted.mask(holed.features[order], order, 0.3, "x"), mask[order])


@every
def test_seeds_and_purposes_differ(mechanism: Mechanism, holed: Table) -> None:
    ids = np.arange(holed.rows)
    first, again, purpose, seed = (
        mechanism.fit(holed, seed).mask(holed.features, ids, 0.2, purpose)
        for seed, purpose in ((1, "x"), (1, "x"), (1, "y"), (2, "x"))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, purpose)
    assert not np.array_equal(first, seed)


def test_mcar_is_what_it_was(holed: Table) -> None:
    ids = np.arange(holed.rows)
    for purpose in ("mcar", "validation"):
        mask = MCAR().fit(holed, 4).mask(holed.features, ids, 0.3, purpose)
        np.testing.assert_array_equal(mask, mcar_mask(METADATA, ids, 0.3, 4, purpose))


def predictable(mask: NDArray[np.bool_], columns: NDArray[Any]) -> float:
    """Return the cross-validated area under the curve of "is hidden" given columns."""
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return float(cross_val_score(LogisticRegression(), columns, mask, scoring="roc_auc", cv=5).mean())


def test_who_can_predict_a_mask() -> None:
    whole = Table(METADATA, correlated(12_000), scaled=False)  # by chance the area is 0.5 +- 0.008
    hidden = masked(MCAR(), whole, 0.3)
    for variable in range(7):
        assert predictable(hidden[:, variable], whole.features) == pytest.approx(0.5, abs=0.03)
    hidden = masked(MAR(), whole, 0.3)
    observed = np.repeat(~hidden.any(axis=0), [one.size for one in METADATA.variables])
    for variable in np.flatnonzero(hidden.any(axis=0)):
        assert predictable(hidden[:, variable], whole.features[:, observed]) > 0.6
    for mechanism in (MNAR(), MNARQuantile()):
        hidden = masked(mechanism, whole, 0.3)
        for variable, columns in enumerate(METADATA.slices):
            assert predictable(hidden[:, variable], whole.features[:, columns]) > 0.6


@pytest.mark.parametrize("seed", range(4))
def test_a_mar_mask_does_not_depend_on_what_it_hides(whole: Table, holed: Table, seed: int) -> None:
    assert mar_check(METADATA, scored(whole, MAR(), 0.3, seed)).passed
    assert mar_check(METADATA, scored(holed, MCAR(), 0.3, seed)).passed
    for mechanism in (MNAR(), MNARQuantile()):
        found = mar_check(METADATA, scored(holed, mechanism, 0.3, seed))
        assert not found.passed
        assert abs(found.correlation) > 3 * found.bound


@pytest.mark.parametrize("observed", [0.3, 0.6])
def test_hidden_values_change_no_mar_mask(whole: Table, observed: float) -> None:
    fitted, ids = MAR(observed).fit(whole, 1), np.arange(whole.rows)
    mask = fitted.mask(whole.features, ids, 0.3, "x")
    never = ~mask.any(axis=0)
    other = Table(METADATA, np.where(never, whole.features, whole.features[::-1]), scaled=False)
    np.testing.assert_array_equal(MAR(observed).fit(other, 1).mask(other.features, ids, 0.3, "x"), mask)


def test_units_do_not_matter(holed: Table) -> None:
    scale = np.where(np.arange(METADATA.num_features) < 5, np.float32(2.0**-40), np.float32(1))
    tiny = Table(METADATA, holed.features * scale, scaled=False)
    for mechanism in (MAR(), MNAR(), MNARQuantile(), Learned()):
        np.testing.assert_array_equal(masked(mechanism, tiny, 0.3), masked(mechanism, holed, 0.3))


def test_strength_is_felt(whole: Table) -> None:
    mild, strong = (masked(MNAR(strength), whole, 0.3)[:, 0] for strength in (0.3, 4.0))
    values = whole.features[:, :1]
    assert predictable(mild, values) < 0.65 < 0.9 < predictable(strong, values)


def test_above_the_quantile_and_nowhere_else(whole: Table) -> None:
    hidden = masked(MNARQuantile(0.6), whole, 0.4)
    for variable in range(5):
        np.testing.assert_array_equal(
            hidden[:, variable], whole.features[:, variable] > np.quantile(whole.features[:, variable], 0.6)
        )
    ones = whole.features[:, 9] == 1
    assert hidden[ones, 6].all()
    assert 0 < hidden[~ones, 6].mean() < 0.2, "zeros draw lots for the rest of the share"


def test_blocks_are_hidden_together(whole: Table) -> None:
    hidden = masked(Blocks(3), whole, 0.3)
    groups = [[0, 1, 2], [3, 4, 5], [6]]
    for group in groups:
        assert (hidden[:, group] == hidden[:, group[:1]]).all()
    assert abs(np.corrcoef(hidden[:, 0], hidden[:, 3])[0, 1]) < 0.06
    first, second = (np.corrcoef(masked(Blocks(3, "random"), whole, 0.3, seed).T) > 0.99 for seed in (1, 2))
    assert first.sum() == second.sum() == 3 * 3 + 3 * 3 + 1
    assert not np.array_equal(first, second)


def test_patterns_occur_as_often_as_they_weigh(whole: Table) -> None:
    hidden = masked(PATTERNS, whole, 0.2)
    members = [[name in pattern for name in NAMES] for pattern in PATTERNS.patterns]
    counts = np.array([(hidden == np.array(pattern)).all(axis=1).sum() for pattern in members])
    assert counts.sum() == hidden.any(axis=1).sum()
    np.testing.assert_allclose(counts / counts.sum(), np.array([1, 2, 3]) / 6, atol=0.05)
    assert not hidden[:, 4].any()
    assert hidden.sum() / (6 * ROWS) == pytest.approx(0.2, abs=0.02)


def test_learned_repeats_rates_and_dependence(whole: Table, holed: Table) -> None:
    natural = ~known_of(holed)
    fitted, ids = Learned().fit(holed, 1), np.arange(holed.rows)
    hidden = fitted.mask(whole.features, ids, None, "x")[:, [columns.start for columns in METADATA.slices]]
    known = known_of(holed)
    np.testing.assert_allclose((hidden & known).sum(axis=0) / known.sum(axis=0), natural.mean(axis=0), atol=0.03)
    assert not hidden[:, [0, 3, 4, 6]].any(), "what misses nothing is not hidden"
    large = whole.features[:, 0] > 55
    for mask in (natural, hidden):
        assert mask[large, 1].mean() > 2 * mask[~large, 1].mean()
    assert np.corrcoef(hidden[:, 1], hidden[:, 2])[0, 1] > 0.7 < np.corrcoef(natural[:, 1], natural[:, 2])[0, 1]
    assert abs(np.corrcoef(hidden[:, 1], hidden[:, 5])[0, 1]) < 0.1
    more = fitted.mask(whole.features, ids, 0.5, "x")[:, [columns.start for columns in METADATA.slices]]
    assert (more & known).sum(axis=0)[[1, 5]].tolist() > (hidden & known).sum(axis=0)[[1, 5]].tolist()


@given(data=st.data(), seed=st.integers(0, 99), rate=st.floats(0.05, 0.3), natural=st.floats(0.02, 0.3))
@settings(max_examples=25)
def test_natural_validation_and_test_cells_are_disjoint(
    data: st.DataObject, seed: int, rate: float, natural: float
) -> None:
    mechanism = data.draw(st.sampled_from(MECHANISMS))
    features = correlated(200)
    features[mcar_mask(METADATA, np.arange(200), natural, seed, "natural")] = np.nan
    table = Table(METADATA, features, scaled=False)
    cells = CellHoldout(Given(table), rate, 0.1, seed, mechanism).prepare()
    assert cells.test is not None
    missing = np.isnan(features)
    assert not (cells.test.hidden_mask & cells.validation.hidden_mask).any()
    assert not (missing & (cells.test.hidden_mask | cells.validation.hidden_mask)).any()
    np.testing.assert_array_equal(
        cells.train.missing_mask, missing | cells.test.hidden_mask | cells.validation.hidden_mask
    )
    rows = Holdout(Given(table), missing_probability=rate, seed=seed, missing=mechanism).prepare()
    for part in (rows.validation, rows.test):
        assert part is not None
        assert not (part.hidden_mask & missing[part.row_ids]).any()


@every
def test_cells_that_are_left_are_hidden_at_their_rate(mechanism: Mechanism, holed: Table) -> None:
    """A mechanism that liked the test's cells would find fewer for validation."""
    prepared = CellHoldout(Given(holed), 0.2, 0.2, 1, mechanism).prepare()
    assert prepared.test is not None
    for part in (prepared.validation, prepared.test):
        rates = [rate for rate in achieved(METADATA, part).values() if rate]
        assert np.mean(rates) == pytest.approx(0.2, abs=0.02)


def test_learned_needs_no_probability(holed: Table) -> None:
    natural = 1 - known_of(holed).mean(axis=0)
    cells = CellHoldout(Given(holed), None, None, 1, Learned()).prepare()
    rows = Holdout(Given(holed), 0.3, 0.3, None, None, 1, Learned()).prepare()
    for part in (cells.validation, cells.test, rows.validation, rows.test):
        assert part is not None
        np.testing.assert_allclose(list(achieved(METADATA, part).values()), natural, atol=0.06)
    assert rows.train.missing_mask.sum() > np.isnan(holed.features[rows.train.row_ids]).sum()


def test_what_was_achieved(whole: Table) -> None:
    part = scored(whole, MCAR(), 0.25)
    truth = whole.features.copy()
    truth[:, 3] = np.nan
    rates = achieved(METADATA, replace(part, truth=truth, hidden_mask=part.hidden_mask & ~np.isnan(truth)))
    assert list(rates) == list(NAMES)
    assert np.isnan(rates["d"])
    assert rates["kind"] == part.hidden_mask[:, 5].mean()
    with pytest.raises(DataError, match="mar_check: no variable has both hidden and seen cells"):
        mar_check(METADATA, replace(part, hidden_mask=np.zeros_like(part.hidden_mask)))


def one_variable(rows: int = 20) -> Table:
    return Table(Metadata((Variable("n", "numerical"),)), np.arange(rows, dtype=np.float32)[:, np.newaxis], None, False)


@pytest.mark.parametrize(
    ("mechanism", "rate", "said"),
    [
        (MCAR(), None, "data.missing: has no rate of its own, as Learned has, so a probability must be given"),
        (MAR(), None, "data.missing: has no rate of its own"),
        (MNAR(), 1.2, "missing probability: must be within 0 and 1, not 1.2"),
        (MNARQuantile(0.7), 0.4, "data.missing: MNARQuantile hides a share of 0.3 of the cells at most"),
        (PATTERNS, 0.6, "data.missing: Patterns hides a share of 0.361 of its variables' cells at most"),
        (Patterns([["a"], ["knd"]]), 0.1, "data.missing.patterns: no variable is called 'knd'; did you mean 'kind'?"),
        (Blocks(7), 0.1, "data.missing.size: should be below the 7 variables of the table"),
        (Learned(), 0.1, "data.missing: Learned needs a variable that is missing in some rows"),
    ],
)
def test_what_does_not_fit_the_table(mechanism: Mechanism, rate: float, said: str, whole: Table) -> None:
    with pytest.raises(DataError) as caught:
        mechanism.fit(whole, 0).mask(whole.features, np.arange(whole.rows), rate, "x")
    assert str(caught.value).startswith(said)


def test_mar_needs_something_to_see() -> None:
    with pytest.raises(DataError, match="MAR needs two variables, one that is seen and one that is hidden, not 1"):
        MAR().fit(one_variable(), 0)
    same = Table(METADATA, np.repeat(correlated(1), 50, axis=0), scaled=False)
    with pytest.raises(DataError, match=r"what MAR never hides \(.*\) is the same in all rows"):
        MAR().fit(same, 0)
    for mechanism in (MNAR(), MNARQuantile()):
        hidden = masked(mechanism, same, 0.3)
        assert 0.15 < hidden.mean() < 0.45, "nothing depends on what does not vary"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("MAR", {"observed_share": 0}, "missing.arguments.observed_share: should be above 0, not 0"),
        ("MAR", {"observed_share": 1}, "missing.arguments.observed_share: Input should be less than 1"),
        ("MAR", {"strength": 0}, "missing.arguments.strength: Input should be greater than 0"),
        ("MAR", {"strenth": 1}, "missing.arguments.strenth: MAR has no argument 'strenth'; did you mean 'strength'?"),
        ("MNARQuantile", {"quantile": 1}, "missing.arguments.quantile: Input should be less than 1"),
        ("Blocks", {"members": "near"}, "missing.arguments.members: Input should be 'adjacent' or 'random'"),
        ("Patterns", {"patterns": []}, "missing.arguments.patterns: should be one pattern at least"),
        ("Patterns", {"patterns": [["a"], []]}, "missing.arguments.patterns: should be one pattern at least"),
        ("Patterns", {"patterns": [["a"]], "weights": [1.0, 2.0]}, "missing.arguments.weights: should be one per"),
        ("Patterns", {"patterns": [["a"]], "weights": [0.0]}, "missing.arguments.weights.0: Input should be greater"),
        ("Wine", {}, "missing: should be a Mechanism, not 'Wine'"),
    ],
)
def test_a_mistake_in_a_file_has_its_place(name: str, arguments: dict[str, Any], said: str) -> None:
    node = {"source": {"factory": "Wine"}, "missing": {"factory": name, "arguments": arguments}}
    with pytest.raises(ConfigurationError) as caught:
        build(node, Holdout)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("holdout", [Holdout, CellHoldout])
def test_a_file_names_a_mechanism(holdout: Callable[..., Any]) -> None:
    node = {"source": {"factory": "Wine"}, "missing": {"factory": "MAR", "arguments": {"strength": 3}}}
    assert build(node, holdout) == holdout(Wine(), missing=MAR(strength=3))
    for mechanism in MECHANISMS:
        assert isinstance(mechanism, Mechanism)
        assert type(mechanism).__name__ in FACTORIES
    assert not isinstance(BreastCancer(), Mechanism)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real tables are not at {SHARED}")
@pytest.mark.parametrize("folder", ["letter", "spambase", "credit"])
def test_real_tables(folder: str) -> None:
    path = SHARED / folder
    source = Npy(path / "features.npy", path / "metadata.json")
    for mechanism in (MAR(), MNAR(), MNARQuantile(0.3), Blocks(2)):
        prepared = CellHoldout(source, 0.2, 0.1, 0, mechanism).prepare()
        for part, wanted in ((prepared.validation, 0.1), (prepared.test, 0.2)):
            assert part is not None
            rates = np.array([rate for rate in achieved(prepared.metadata, part).values() if rate])
            np.testing.assert_allclose(rates, wanted, atol=0.03)
            assert len(rates) >= 0.6 * prepared.metadata.num_variables
