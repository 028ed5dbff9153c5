"""Tune's flat draws and a trial's configuration say the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgm_ray.space import Draw, read_draws
from dgm_ray.tune.plan import Plan, decoded, encoded
from dgm_ray.tune.search import param_space

OPTIONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2).map(lambda x: x + 0.5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@given(st.lists(OPTIONS.filter(lambda option: not isinstance(option, str)), min_size=1, max_size=5))
def test_an_option_comes_back_as_it_was(options: list[Any]) -> None:
    draw = Draw("choice", tuple(options))
    for option in options:
        back = decoded(draw, encoded(option))
        # 1 and 1.0 are the same option to a searcher; True and 1 are not.
        assert same(back, option) or (back == option and isinstance(back, bool) == isinstance(option, bool))


def test_numbers_come_back_as_pythons_own() -> None:
    value = decoded(Draw("uniform", (0.0, 1.0)), np.float64(0.25))
    assert type(value) is float


def test_a_plan_names_draws_shortly_and_fills_them() -> None:
    template = read_draws(
        {
            "task": "T",
            "arguments": {
                "a": {"lr": {"uniform": [0, 1]}},
                "b": {"lr": {"uniform": [0, 1]}},
                "sizes": {"choice": [[1, 2], [3]]},
            },
        }
    )
    plan = Plan(template, "m")
    assert list(plan.draws) == ["a.lr", "b.lr", "sizes"]
    made = plan.configuration({"a.lr": 0.1, "b.lr": 0.2, "sizes": "[3]"})
    assert made == {"task": "T", "arguments": {"a": {"lr": 0.1}, "b": {"lr": 0.2}, "sizes": [3]}}


@pytest.mark.parametrize(
    ("draw", "low", "high", "step"),
    [
        ({"randint": [2, 4]}, 2, 4, 1),
        ({"lograndint": [1, 3]}, 1, 3, 1),
        ({"qrandint": [2, 8, 2]}, 2, 8, 2),
    ],
)
def test_both_ends_of_an_integer_range_are_drawn(draw: Any, low: int, high: int, step: int) -> None:
    domain = param_space(Plan(read_draws({"k": draw}), "m"))["k"]
    drawn = {int(value) for value in domain.sample(size=400)}
    assert drawn == set(range(low, high + 1, step))


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        ({"uniform": [2.0, 3.0]}, 2, 3),
        ({"loguniform": [1e-3, 1e-1]}, 1e-3, 1e-1),
        ({"quniform": [0.0, 1.0, 0.25]}, 0, 1),
        ({"qloguniform": [0.25, 4.0, 0.25]}, 0.25, 4),
    ],
)
def test_numbers_are_drawn_from_their_range(draw: Any, low: float, high: float) -> None:
    domain = param_space(Plan(read_draws({"k": draw}), "m"))["k"]
    drawn = np.asarray(domain.sample(size=300))
    assert drawn.min() >= low
    assert drawn.max() <= high
    assert np.ptp(drawn) > (high - low) / 2
    if len(draw[next(iter(draw))]) == 3:
        step = draw[next(iter(draw))][2]
        np.testing.assert_allclose(drawn / step, np.round(drawn / step), atol=1e-9)


def test_a_normal_draw_has_its_mean_and_deviation() -> None:
    domain = param_space(Plan(read_draws({"k": {"normal": [5.0, 0.5]}}), "m"))["k"]
    drawn = np.asarray(domain.sample(size=2000))
    assert abs(drawn.mean() - 5) < 0.1
    assert abs(drawn.std() - 0.5) < 0.1


def test_a_grid_is_a_grid() -> None:
    assert param_space(Plan(read_draws({"k": {"grid_search": [1, [2]]}}), "m")) == {"k": {"grid_search": [1, "[2]"]}}


def test_a_plan_says_which_draws_a_configuration_could_be() -> None:
    draws = {"lr": {"loguniform": [1e-4, 1e-2]}, "sizes": {"choice": [[8], [16]]}, "k": {"randint": [1, 5]}}
    plan = Plan(
        read_draws({"task": "T", "arguments": draws | {"g": {"grid_search": [1, 2]}, "x": {"choice": [None]}}}), "m"
    )
    drawn = plan.drawn({"task": "T", "arguments": {"lr": 1e-3, "sizes": [16], "k": 9, "g": 1}})
    assert drawn == {"lr": 1e-3, "sizes": "[16]"}, "k is beyond its draw, g is a grid, x is not there"
    assert plan.drawn({"arguments": 3}) == {}
