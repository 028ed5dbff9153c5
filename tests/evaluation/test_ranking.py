"""Statistics over data sets, against Demsar's worked numbers, against SciPy, and by hand."""

import math
import statistics
from itertools import product

import numpy as np
import pytest
from scipy import stats

from dgm_ray.evaluation.ranking import (
    alike,
    critical_difference,
    friedman,
    front,
    holm,
    interval,
    least_pairs,
    pairwise,
    ranks,
    signed_rank,
)

# Demsar 2006, table 6: the ranks of C4.5, with m, with cf, with both, on 14 data sets; the smallest is the best AUC.
DEMSAR = np.array(
    [
        [4, 3, 2, 1],
        [1, 2, 3, 4],
        [4, 1, 2, 3],
        [4, 1, 3, 2],
        [4, 2, 3, 1],
        [1, 2.5, 4, 2.5],
        [3, 2, 4, 1],
        [2.5, 2.5, 4, 1],
        [4, 3, 2, 1],
        [2.5, 2.5, 2.5, 2.5],
        [4, 2.5, 1, 2.5],
        [3, 2, 4, 1],
        [4, 1, 2, 3],
        [3, 1, 4, 2],
    ]
)
# The same paper, table 2: AUC of C4.5 and of C4.5 with m.
PLAIN = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957]
WITH_M = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978]


def test_demsars_ranks_and_friedman() -> None:
    found = ranks(DEMSAR)
    np.testing.assert_array_equal(found, DEMSAR)
    np.testing.assert_allclose(found.mean(axis=0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    tested = friedman(DEMSAR)
    ties = 4 * (2**3 - 2) + (4**3 - 4) - (2**3 - 2)  # three data sets with a pair of equals, one with four
    assert tested.chi_square * (1 - ties / (14 * 4 * (4**2 - 1))) == pytest.approx(9.28, abs=0.01)  # his has no ties
    assert tested.f == pytest.approx(13 * tested.chi_square / (14 * 3 - tested.chi_square))
    assert tested.p == pytest.approx(stats.f.sf(tested.f, 3, 39))
    assert tested.p < 0.05, "he rejects that all are alike"


def test_demsars_critical_difference() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)
    # his table 5 (a), the critical values of Nemenyi's test at 5%, where sqrt(k (k + 1) / 6 N) is 1
    for methods, q in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)):
        assert critical_difference(methods, 1) / math.sqrt(methods * (methods + 1) / 6) == pytest.approx(q, abs=1e-3)


def test_demsars_signed_ranks() -> None:
    """He finds T = 12 with zeros split, and rejects at 5%; scipy's statistic of the same convention is that."""
    differences = np.round(np.subtract(PLAIN, WITH_M), 3)
    assert stats.wilcoxon(differences, zero_method="zsplit").statistic == 12
    z = (12 - 14 * 15 / 4) / math.sqrt(14 * 15 * 29 / 24)
    assert z == pytest.approx(-2.54, abs=0.01), "his z"
    assert signed_rank(PLAIN, WITH_M) == pytest.approx(2 * stats.norm.cdf(z), abs=0.005)


def test_signed_ranks_are_exact_for_few() -> None:
    differences = np.array([0.4, -0.1, 0.3, 0.2, 0.7, -0.5])
    places = stats.rankdata(abs(differences))
    least = min(places[differences > 0].sum(), places[differences < 0].sum())
    sums = [places[np.array(signs)].sum() for signs in product([False, True], repeat=6)]
    by_hand = 2 * np.mean(np.array(sums) <= least)
    assert signed_rank(differences, np.zeros(6)) == pytest.approx(min(by_hand, 1))


def test_a_failure_is_the_largest_difference() -> None:
    one, other = [1.0, 2.0, 3.0, 4.0, 5.0, np.inf], [2.0, 4.0, 6.0, 8.0, 10.0, np.inf]
    assert signed_rank(one, other) == signed_rank([*one[:5], 0.0], [*other[:5], 0.0])
    lost = [2.0, 4.0, 6.0, 8.0, 10.0, 0.0]
    assert signed_rank(one, lost) == signed_rank([*one[:5], 1000.0], lost)
    assert signed_rank([1.0, np.inf], [1.0, np.inf]) == 1
    np.testing.assert_array_equal(ranks([[np.inf, 1.0, np.inf, 0.5]]), [[3.5, 2, 3.5, 1]])


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    assert len(holm([])) == 0


def test_pairs_are_corrected_together() -> None:
    random = np.random.default_rng(0)
    values = random.normal([0, 1, 3], size=(8, 3))
    alone = [stats.wilcoxon(values[:, i] - values[:, j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    found = pairwise(values)
    np.testing.assert_allclose([found[0, 1], found[0, 2], found[1, 2]], holm(alone))
    np.testing.assert_array_equal(found, found.T)
    assert np.isnan(np.diag(found)).all()


@pytest.mark.parametrize("tests", [1, 3, 10, 55])
def test_with_fewer_pairs_nothing_is_found(tests: int) -> None:
    needed = least_pairs(tests)
    p = [stats.wilcoxon(np.arange(1.0, n + 1)).pvalue for n in (needed - 1, needed)]
    assert p[0] * tests > 0.05 >= p[1] * tests
    assert least_pairs() == 6


def test_the_interval_is_students() -> None:
    values = [0.11, 0.14, 0.10, 0.19, 0.13]
    mean, half = interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert half == pytest.approx(2.776 * statistics.stdev(values) / math.sqrt(5), rel=1e-3)
    assert interval([0.5])[0] == 0.5
    assert math.isnan(interval([0.5])[1])
    assert all(map(math.isnan, interval([])))


def test_groups_that_are_alike() -> None:
    mean_ranks = DEMSAR.mean(axis=0)
    groups = alike(list(mean_ranks), critical_difference(4, 14))
    assert groups == [[3, 1, 2, 0]], "1.18 between the ends is less than 1.25: at 5% Nemenyi's test finds nothing"
    assert alike(list(mean_ranks), critical_difference(4, 14, 0.10)) == [[3, 1, 2], [2, 0]], "at 10% the ends differ"
    assert alike([1.0, 2.0, 3.0, 9.0], 1.5) == [[0, 1], [1, 2]]


def test_friedman_of_extremes() -> None:
    assert friedman(np.ones((4, 3))).p == 1
    agreed = friedman([[1, 2, 3]] * 4)
    assert agreed.chi_square == pytest.approx(8)
    assert agreed.p == 0


def test_the_front() -> None:
    values, seconds = [0.3, 0.2, 0.25, 0.1, np.nan, 0.1], [1.0, 2.0, 3.0, 10.0, 0.1, 12.0]
    assert front(values, seconds) == [0, 1, 3]
