import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgm_ray.errors import ConfigurationError
from dgm_ray.space import (
    DISTRIBUTIONS,
    INTEGER,
    LISTED,
    Draw,
    Place,
    assign,
    corners,
    draws_of,
    fill,
    labels_of,
    parse_yaml,
    read_draws,
    read_file,
)

WORDS = st.text("abcdefghijklmnopqrstuvwxyz_0123456789 .:#-'\"{}[],&*!|>%@é☃", max_size=8)
KEYS = WORDS.filter(lambda key: key not in (*DISTRIBUTIONS, "eval"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
FILES = st.dictionaries(KEYS, DATA, max_size=4)
NUMBERS = st.floats(1e-3, 1e6)


def ordered(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(strategy, strategy).map(sorted)


def with_step(ends: list[int], step: float) -> list[float]:
    return [ends[0] * step, ends[1] * step, step]


INTEGERS = st.integers(1, 10**6)
STEPPED = st.builds(with_step, ordered(st.integers(1, 1000)), st.sampled_from([0.1, 0.5, 1, 3]))
DRAWS = st.one_of(
    st.tuples(st.sampled_from(["uniform", "loguniform"]), ordered(NUMBERS)),
    st.tuples(st.sampled_from(["quniform", "qloguniform"]), STEPPED),
    st.tuples(st.sampled_from(["randint", "lograndint"]), ordered(INTEGERS)),
    st.tuples(st.just("qrandint"), st.builds(with_step, ordered(INTEGERS), INTEGERS)),
    st.tuples(st.just("normal"), st.tuples(NUMBERS, NUMBERS).map(list)),
    st.tuples(st.sampled_from(LISTED), st.lists(DATA, min_size=1, max_size=3)),
).map(lambda pair: {pair[0]: pair[1]})
SPACES = st.dictionaries(
    KEYS, st.recursive(DATA | DRAWS, lambda inner: st.dictionaries(KEYS, inner, max_size=3)), max_size=4
)


def wrong(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        function(*arguments)
    return str(error.value)


# Files


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("-.5e-3", -0.5e-3),
        ("5.", 5.0),
        ("3.25", 3.25),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("007", 7),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *((word, word) for word in ("no", "on", "Yes", "off", "y", "tRue", "NaN", ".nan", ".inf", "-.inf", "Infinity")),
        *((word, word) for word in ("2001-01-01", "2001-01-01 10:00:00", "12:30", "1:30.5", "1_000", "0x1F", "0o7")),
        *((word, word) for word in ("1e", "e5", ".", "-x", "1.2.3", "=", "1e5x")),
        ("'1e-5'", "1e-5"),
        ("[1, a, {b: 1e3}]", [1, "a", {"b": 1000.0}]),
    ],
)
def test_scalars_are_read_by_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_merge_may_be_overridden() -> None:
    text = "a: &a {lr: 1, eps: 2}\nb: &b\n  <<: *a\n  lr: 3\nc: {<<: *b, eps: 4}\n"
    assert parse_yaml(text) == {"a": {"lr": 1, "eps": 2}, "b": {"lr": 3, "eps": 2}, "c": {"lr": 3, "eps": 4}}


@given(FILES)
def test_json_is_yaml(data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False)
    found = parse_yaml(text)
    assert found == data == json.loads(text)
    assert json.dumps(found) == json.dumps(data), "1, 1.0 and true are equal in Python"


@given(FILES)
def test_a_file_is_read_by_its_ending(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name in ("a.json", "a.yaml"):
        (folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        assert read_file(folder / name) == data


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("a.yaml", "a: 1\nb:\n  c: 2\n  c: 3\n", "line 4, column 3: the key 'c' stands twice"),
        ("a.yaml", "a: 1\n'a': 2\n", "line 2, column 1: the key 'a' stands twice"),
        ("a.yaml", "a: {<<: {b: 1, b: 2}}\n", "line 1, column 16: the key 'b' stands twice"),
        ("a.json", '{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice"),
        ("a.yaml", "a: 1\nb: [1,\n", "line 3, column 1: "),
        ("a.yaml", "a: 1\n\tb: 2\n", "line 2, column 1: "),
        ("a.yaml", "a: b: c", "line 1, column 5: "),
        ("a.yaml", "a: *b", "line 1, column 4: "),
        ("a.yaml", "a: !!python/name:os.system x", "line 1, column 4: "),
        ("a.yaml", "a: 1\n--- \nb: 1", "line 2, column 1: "),
        ("a.yaml", "a: \x01", "unacceptable character"),
        ("a.json", '{"a": 1,\n "b" 2}', "line 2, column 6: Expecting ':' delimiter"),
        ("a.json", "", "line 1, column 1: "),
        ("a.yaml", "- 1\n- 2\n", "the file should hold a mapping, not [1, 2]"),
        ("a.yaml", "", "the file should hold a mapping, not None"),
        ("a.json", "5", "the file should hold a mapping, not 5"),
        ("a.yaml", "a: 1\n2: b", "line 2, column 1: a key should be text, not 2"),
        ("a.yaml", "true: b", "line 1, column 1: a key should be text, not true"),
        ("a.yaml", "a: {[1]: b}", "line 1, column 5: a key should be text"),
        ("a.json", '{"a": NaN}', "NaN is not a JSON number"),
        ("a.json", '{"a": [-Infinity]}', "-Infinity is not a JSON number"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, name: str, text: str, rule: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    message = wrong(read_file, path)
    assert message.startswith(f"{path}: {rule}")
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert wrong(read_file, tmp_path / "a.yaml") == f"{tmp_path / 'a.yaml'}: there is no such file"
    assert "cannot be read" in wrong(read_file, tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff")
    assert "cannot be read" in wrong(read_file, tmp_path / "b.yaml")


@pytest.mark.parametrize(
    "node",
    [{"eval": "1"}, {"a": {"eval": None}}, {"a": [1, [{"b": {"eval": "x", "c": 1}}]]}, {"choice": [{"eval": 1}]}],
)
@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_eval_is_refused_anywhere(tmp_path: Path, node: Any, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(node))
    assert "eval: is refused: values are data and are never evaluated, not " in wrong(read_file, tmp_path / name)


# Draws

NO_LISTS: list[Any] = [[], {}, None, 5, "ab", {"low": 1}]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        *((name, wrong_, ": a draw's arguments are a list that is not empty") for name in DISTRIBUTIONS
          for wrong_ in NO_LISTS),
        *((name, [1], ": takes 2 numbers, not [1]") for name in DISTRIBUTIONS
          if name not in LISTED and not name.startswith("q")),
        *((name, [1, 2], ": takes 3 numbers, not [1, 2]") for name in DISTRIBUTIONS if name.startswith("q")),
        *((name, [1, 2, 1, 1], ": takes ") for name in DISTRIBUTIONS if name not in LISTED),
        *((name, ["1", 2, 1][: 2 + name.startswith("q")], ".0: should be a") for name in DISTRIBUTIONS
          if name not in LISTED),
        *((name, [1, True, 1][: 2 + name.startswith("q")], ".1: should be a") for name in DISTRIBUTIONS
          if name not in LISTED),
        *((name, [1, 2.5, 1][: 2 + name.startswith("q")], ".1: should be an integer, not 2.5") for name in INTEGER),
        *((name, [3, 2, 1][: 2 + name.startswith("q")], ": the low end should not be above the high end, not [3, 2")
          for name in DISTRIBUTIONS if name not in (*LISTED, "normal")),
        *((name, [0, 2, 1][: 2 + name.startswith("q")], ".0: the low end of a logarithmic range should be above 0")
          for name in DISTRIBUTIONS if "log" in name),
        *((name, [2, 4, step], ".2: the step should be above 0") for name in DISTRIBUTIONS if name.startswith("q")
          for step in (0, -1)),
        *((name, ends, ": both ends should be multiples of the step 2") for name in DISTRIBUTIONS
          if name.startswith("q") for ends in ([1, 4, 2], [2, 5, 2])),
        ("normal", [0, 0], ".1: the standard deviation should be above 0, not 0"),
        ("uniform", [0, math.inf], ".1: should be a finite number, not inf"),
        ("uniform", [math.nan, 1], ".0: should be a finite number, not nan"),
        ("uniform", [0, 10**400], ".1: should be a finite number, not 1000"),
    ],
)  # fmt: skip
def test_a_wrong_draw_is_refused_with_its_place(name: str, arguments: Any, message: str) -> None:
    assert wrong(read_draws, {"a": {"b": {name: arguments}}}).startswith(f"a.b.{name}{message}")
    assert wrong(read_draws, {name: arguments}).startswith(f"{name}{message}")


@pytest.mark.parametrize(
    ("node", "draw"),
    [
        ({"uniform": [-1, 1]}, Draw("uniform", (-1.0, 1.0))),
        ({"loguniform": [1, 1]}, Draw("loguniform", (1.0, 1.0))),
        ({"quniform": [0, 1e308, 1e-5]}, Draw("quniform", (0.0, 1e308, 1e-5))),
        ({"quniform": [0, 0.3, 0.1]}, Draw("quniform", (0.0, 0.3, 0.1))),
        ({"randint": [-3, 3]}, Draw("randint", (-3, 3))),
        ({"qrandint": [0, 9, 3]}, Draw("qrandint", (0, 9, 3))),
        ({"normal": [-2, 1]}, Draw("normal", (-2.0, 1.0))),
        ({"choice": [[1, 2], None]}, Draw("choice", ([1, 2], None))),
        ({"grid_search": ["a"]}, Draw("grid_search", ("a",))),
    ],
)
def test_a_draw_is_read(node: Any, draw: Draw) -> None:
    (found,) = [each for _, each in draws_of(read_draws({"a": node}))]
    assert found == draw
    assert list(map(type, found.arguments)) == list(map(type, draw.arguments))
    assert len({type(end) for end in found.ends}) == 1 or draw.distribution == "choice"


@given(st.sampled_from(DISTRIBUTIONS), st.lists(st.integers() | st.floats() | st.text() | st.none(), max_size=4))
def test_whatever_a_draw_is_given_it_is_read_or_refused(name: str, arguments: list[Any]) -> None:
    with suppress(ConfigurationError):
        draw = read_draws({name: arguments})
        assert draw.distribution == name
        assert len(draw.ends) == 2


@pytest.mark.parametrize("node", [{"uniform": [0, 1], "b": 1}, {"b": {"Uniform": [0, 1]}}, {"a": "uniform"}])
def test_what_is_not_exactly_a_draw_is_data(node: Any) -> None:
    assert read_draws(node) == node


INNER = {"uniform": [0, 1]}


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"a": [1, INNER]}, "a.1"),
        ({"a": [[1], [INNER]]}, "a.1.0"),
        ({"a": [{"b": {"c": INNER}}]}, "a.0"),
        ({"a": [{"b": [INNER]}]}, "a.0.b.0"),
        ({"a": {"choice": [1, INNER]}}, "a.choice.1"),
        ({"a": {"grid_search": [[{"b": INNER}]]}}, "a.grid_search.0.0"),
    ],
)
def test_a_draw_in_a_list_is_refused_at_any_depth(node: Any, place: str) -> None:
    assert wrong(read_draws, node).startswith(f"{place}: a draw cannot stand inside a list")


@given(FILES)
def test_what_has_no_draws_comes_back_unchanged(data: dict[str, Any]) -> None:
    node = read_draws(data)
    assert list(draws_of(node)) == []
    assert fill(node, {}) == data
    assert list(corners(node)) == [{}]


@given(SPACES)
def test_corners_have_a_value_in_range_for_every_draw_and_fill_leaves_none(data: dict[str, Any]) -> None:
    node = read_draws(data)
    draws = dict(draws_of(node))
    tried: dict[Place, list[Any]] = {place: [] for place in draws}
    for values in corners(node):
        assert values.keys() == draws.keys()
        for where, value in values.items():
            draw = draws[where]
            tried[where].append(value)
            if draw.distribution in LISTED:
                assert value in draw.arguments
            elif draw.distribution == "normal":
                assert math.isclose(abs(value - draw.arguments[0]), 2 * draw.arguments[1], rel_tol=1e-6)
            else:
                assert draw.arguments[0] <= value <= draw.arguments[1]
        assert next(draws_of(fill(node, values)), None) is None
    for place, draw in draws.items():
        wanted = draw.arguments if draw.distribution in LISTED else draw.ends
        assert all(value in tried[place] for value in wanted)


def test_corners_by_hand() -> None:
    node = read_draws({"a": {"uniform": [0, 1]}, "b": {"c": {"choice": ["x", "y", "z"]}}, "d": {"randint": [2, 2]}})
    a, c, d = ("a",), ("b", "c"), ("d",)
    assert list(corners(node)) == [
        {a: 0.0, c: "x", d: 2},
        {a: 1.0, c: "x", d: 2},
        {a: 0.0, c: "y", d: 2},
        {a: 0.0, c: "z", d: 2},
        {a: 1.0, c: "z", d: 2},
    ]
    assert fill(node, {a: 0.5, c: "y", d: 2}) == {"a": 0.5, "b": {"c": "y"}, "d": 2}
    with pytest.raises(KeyError):
        fill(node, {a: 0.5})


@pytest.mark.parametrize(
    ("distribution", "arguments", "held", "others"),
    [
        ("uniform", (0.0, 2.0), [0.0, 1, 2.0], [-0.1, 2.1, True, "1", None]),
        ("loguniform", (1e-3, 1e-1), [1e-2], [1.0]),
        ("randint", (1, 4), [1, 4], [0, 5, 2.0, True]),
        ("normal", (0.0, 1.0), [-9.0, 3], [None, False]),
        ("choice", (None, 1, [64], "a"), [None, 1, [64], "a"], [1.0, True, [65], "b", 0]),
    ],
)
def test_a_draw_knows_what_it_holds(distribution: str, arguments: Any, held: list[Any], others: list[Any]) -> None:
    draw = Draw(distribution, arguments)
    assert [draw.holds(value) for value in held] == [True] * len(held)
    assert [draw.holds(value) for value in others] == [False] * len(others)


def test_a_draw_shows_itself() -> None:
    assert str(Draw("loguniform", (1e-5, 0.1))) == "loguniform(1e-05, 0.1)"


# Labels

FILLERS = ["trial", "arguments", "architecture", "components"]
PLACES = st.lists(st.sampled_from(["a", "b", "lr", *FILLERS]), min_size=1, max_size=5).map(tuple)


@given(st.lists(PLACES, unique=True, max_size=8))
def test_labels_are_unique_and_shortest(places: list[tuple[str, ...]]) -> None:
    labels = labels_of(places)
    assert list(labels) == places
    assert len(set(labels.values())) == len(places)
    own = {place: [step for step in place if step not in FILLERS] or list(place) for place in places}
    for place, label in labels.items():
        steps = label.split(".")
        if steps == list(place):
            continue
        assert own[place][-len(steps) :] == steps
        shorter = steps[1:]
        others = [own[other][-len(shorter) :] for other in places if other != place]
        assert not shorter or shorter in others, "a shorter label would do"


def test_labels_by_hand() -> None:
    lr = ("arguments", "lr")
    places: list[tuple[str, ...]] = [
        ("generator_optimizer", *lr),
        ("discriminator_optimizer", *lr),
        ("trial", "arguments", "code_size"),
    ]
    assert list(labels_of(places).values()) == ["generator_optimizer.lr", "discriminator_optimizer.lr", "code_size"]


# --set


@pytest.mark.parametrize(
    ("assignment", "result"),
    [
        ("a.b=2", {"a": {"b": 2, "c": [1]}}),
        ("a.b=1e-3", {"a": {"b": 1e-3, "c": [1]}}),
        ("a.b=", {"a": {"b": None, "c": [1]}}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": [1]}}),
        ("a.new={uniform: [0, 1]}", {"a": {"b": 1, "c": [1], "new": {"uniform": [0, 1]}}}),
        ("a=5", {"a": 5}),
        ("b={}", {"a": {"b": 1, "c": [1]}, "b": {}}),
    ],
)
def test_set(assignment: str, result: dict[str, Any]) -> None:
    node = {"a": {"b": 1, "c": [1]}}
    assign(node, assignment)
    assert node == result


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "--set: should be a.b.c=value, not 'a.b'"),
        ("=5", "--set: should be a.b.c=value, not '=5'"),
        ("a..b=5", "--set: should be a.b.c=value, not 'a..b=5'"),
        ("arch.size.x=5", "--set arch.size.x: arch.size is not a mapping"),
        ("arch.size.x.y=5", "--set arch.size.x.y: arch.size is not a mapping, not 1"),
        ("arch.size=[1", "--set arch.size: line 1, column 3: "),
        ("arch.size={a: 1, a: 2}", "--set arch.size: line 1, column 8: the key 'a' stands twice"),
        ("arch.eval=5", "--set arch.eval: eval: is refused"),
        ("arch.size={a: [{eval: 5}]}", "--set arch.size: eval: is refused"),
    ],
)
def test_set_refuses(assignment: str, message: str) -> None:
    assert wrong(assign, {"arch": {"size": 1}}, assignment).startswith(message)


def test_set_does_not_reach_an_alias() -> None:
    node = parse_yaml("a: &x {b: {lr: 1}}\nc: *x\n")
    assign(node, "c.b.lr=2")
    assert node == {"a": {"b": {"lr": 1}}, "c": {"b": {"lr": 2}}}
