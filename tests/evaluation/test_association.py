"""How strongly columns go together, against SciPy, NumPy and values by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dgm_ray.evaluation.association import associations, correlation_ratio, cramers_v, pearson

RANDOM = np.random.default_rng(0)
AGE = RANDOM.normal(40, 10, 200)
INCOME = 3 * AGE + RANDOM.normal(0, 20, 200)
CITY = RANDOM.choice(["Oslo", "Bergen", "Voss"], 200)
SIZE = np.where((CITY == "Oslo") & (RANDOM.random(200) < 0.8), "large", "small")


def test_numbers_are_numpys_correlation() -> None:
    assert pearson(AGE, INCOME) == pytest.approx(np.corrcoef(AGE, INCOME)[0, 1])
    assert pearson(AGE, -AGE) == pytest.approx(-1)


def test_categories_are_scipys_cramers_v() -> None:
    counts = pd.crosstab(CITY, SIZE).to_numpy()
    expected = stats.contingency.association(counts, method="cramer", correction=False)
    assert cramers_v(CITY, SIZE) == pytest.approx(expected)
    assert cramers_v(CITY, CITY) == pytest.approx(1)


def test_the_correlation_ratio_is_that_of_an_analysis_of_variance() -> None:
    """eta² = F (k - 1) / (F (k - 1) + n - k), of SciPy's F."""
    groups = [INCOME[one == CITY] for one in np.unique(CITY)]
    f = stats.f_oneway(*groups).statistic
    assert correlation_ratio(INCOME, CITY) ** 2 == pytest.approx(f * 2 / (f * 2 + 200 - 3))
    by_hand = correlation_ratio(np.array([1.0, 3.0, 5.0, 7.0]), np.array(["a", "a", "b", "b"]))
    assert by_hand == pytest.approx(np.sqrt(16 / 20))  # means 2 and 6 around 4: 4 * 4; all around 4: 9 + 1 + 1 + 9


def test_a_table_has_each_measure_in_its_place_whatever_the_order_of_columns() -> None:
    table = pd.DataFrame({"city": CITY, "age": AGE, "size": SIZE, "income": INCOME})
    found = associations(table)
    assert (found.to_numpy() == found.to_numpy().T).all()
    assert (np.diag(found) == 1).all()
    assert found.loc["age", "income"] == pytest.approx(pearson(AGE, INCOME))
    assert found.loc["city", "age"] == pytest.approx(correlation_ratio(AGE, CITY))
    assert found.loc["income", "size"] == pytest.approx(correlation_ratio(INCOME, SIZE))
    assert found.loc["city", "size"] == pytest.approx(cramers_v(CITY, SIZE))


def test_rows_without_one_of_both_cells_are_left_out() -> None:
    table = pd.DataFrame({"city": pd.Series(CITY, dtype=object), "age": AGE, "income": INCOME})
    table.loc[:49, "age"], table.loc[50:99, "city"] = np.nan, None
    found = associations(table)
    assert found.loc["age", "income"] == pytest.approx(pearson(AGE[50:], INCOME[50:]))
    assert found.loc["age", "city"] == pytest.approx(correlation_ratio(AGE[100:], CITY[100:]))


def test_a_column_of_one_value_goes_with_nothing() -> None:
    table = pd.DataFrame({"age": AGE[:5], "one": 1.0, "same": "x", "none": np.full(5, np.nan)})
    found = associations(table).to_numpy()
    assert np.isnan(found[~np.eye(4, dtype=bool)]).all()
