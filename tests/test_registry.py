from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.registry import (
    FACTORIES,
    Fraction,
    Lazy,
    Node,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Registry,
    Scope,
    Shared,
    absolute_paths,
    build,
    call,
    fits,
    parameters,
)

LAZY: Any = Lazy  # as a value; mypy knows it as an annotation

# A small world of its own: engines and wheels make cars.


@runtime_checkable
class Rolls(Protocol):
    def roll(self) -> None: ...


class HasSize(Protocol):
    size: float


@dataclass
class Engine:
    power: PositiveInt = 1
    fuel: Literal["oil", "wind"] = "wind"


class FastEngine(Engine): ...


@dataclass
class Wheel:
    owner: str
    size: float = 1.0

    def roll(self) -> None: ...


class OwnedWheel(Wheel):
    def __init__(self, owner: str, /, size: float = 1.0) -> None:
        super().__init__(owner, size)


@dataclass
class Car:
    engine: Engine = field(default_factory=Engine)
    wheel: Lazy[OwnedWheel] = OwnedWheel
    spare: Lazy[Rolls] | None = None
    name: str | None = "car"

    def __post_init__(self) -> None:
        self.made = self.wheel("me")
        if self.name == "bad":
            raise ConfigurationError("name", "is taken", self.name)
        if self.name == "worse":
            raise ValueError("no such car")
        if self.name == "data":
            raise DataError("row 3", "is empty")


@dataclass
class Train:
    parts: list[Engine]
    stops: list[list[Engine]] = field(default_factory=list)


@dataclass
class Driver:
    engines: Shared[list[Engine]]
    size: Shared[PositiveInt]
    map: Shared[Path] | None = None


@dataclass
class Ring:
    ring_a: Shared[Any] = None
    ring_b: Shared[Any] = None


@dataclass
class NeedsB:
    b: Shared[Any]


@dataclass
class NeedsA:
    a: Shared[Any]


@dataclass
class Files:
    path: Path
    others: list[Path] = field(default_factory=list)
    inner: "Files | None" = None
    anything: Any = None
    label: str = ""


@dataclass
class Holder:
    node: Node = None


def make_engine(power: int = 3) -> Engine:
    return Engine(power)


def make_something(power: int = 3):  # type: ignore[no-untyped-def]
    return Engine(power)


WORLD = (Engine, FastEngine, Wheel, OwnedWheel, Car, Train, Driver, Ring, NeedsA, NeedsB, Files, Holder)


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {entry.__name__: entry for entry in (*WORLD, make_engine, make_something)}
    monkeypatch.setattr(FACTORIES, "_entries", entries)


def wrong(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        function(*arguments, **named)
    return str(error.value)


# Plain values


@pytest.mark.parametrize(
    ("value", "hint", "made"),
    [
        (5, int, 5),
        (5, float, 5.0),
        (0, Probability, 0.0),
        (1, Probability, 1.0),
        ("x", str, "x"),
        (None, int | None, None),
        (None, Shared[int] | None, None),
        (None, PositiveInt | None, None),
        (None, Engine | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 0.5], tuple[float, float], (1.0, 0.5)),
        ([[1], [2, 3]], tuple[tuple[int, ...], ...], ((1,), (2, 3))),
        ([], list[int], []),
        ([], list[Engine], []),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": [{"b": None}]}, Any, {"a": [{"b": None}]}),
        ("a/b", Path, Path("a/b")),
        ("oil", Literal["oil", "wind"], "oil"),
        (3, LAZY[OwnedWheel] | int, 3),
        (3, Shared[PositiveInt], 3),
    ],
)
def test_a_plain_value_becomes_what_the_annotation_says(value: Any, hint: Any, made: Any) -> None:
    result = build(value, hint)
    assert result == made
    assert type(result) is type(made)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("x", int, "p: Input should be a valid integer, not 'x'"),
        ("5", int, "p: Input should be a valid integer, not '5'"),
        ("5", float, "p: Input should be a valid number, not '5'"),
        (True, int, "p: Input should be a valid integer, not True"),
        (True, float, "p: Input should be a valid number, not True"),
        (1, bool, "p: Input should be a valid boolean, not 1"),
        (5.0, int, "p: Input should be a valid integer, not 5.0"),
        (5, str, "p: Input should be a valid string, not 5"),
        (None, int, "p: Input should be a valid integer, not None"),
        (None, Engine, "p: should be an Engine, not None"),
        (0, PositiveInt, "p: Input should be greater than or equal to 1, not 0"),
        (0, PositiveInt | None, "p: Input should be greater than or equal to 1, not 0"),
        (0, Shared[PositiveInt], "p: Input should be greater than or equal to 1, not 0"),
        (0, Shared[PositiveInt] | None, "p: Input should be greater than or equal to 1, not 0"),
        (0, PositiveFloat, "p: Input should be greater than 0, not 0"),
        (-0.1, NonNegativeFloat, "p: Input should be greater than or equal to 0, not -0.1"),
        (1, Fraction, "p: Input should be less than 1, not 1"),
        (1.1, Probability, "p: Input should be less than or equal to 1, not 1.1"),
        (float("inf"), float, "p: Input should be a finite number, not inf"),
        (float("nan"), PositiveFloat | None, "p: Input should be a finite number, not nan"),
        ([1, float("inf")], list[float], "p.1: Input should be a finite number, not inf"),
        (["x"], tuple[PositiveInt, ...], "p.0: Input should be a valid integer, not 'x'"),
        ([[1], [2, "x"]], list[list[int]], "p.1.1: Input should be a valid integer, not 'x'"),
        ({"a": {"b": "x"}}, dict[str, dict[str, int]], "p.a.b: Input should be a valid integer, not 'x'"),
        ("cheese", Literal["oil", "wind"], "p: Input should be 'oil' or 'wind', not 'cheese'"),
        ({"a": 1}, int, "p: Input should be a valid integer, not {'a': 1}"),
        ([{"a": 1}], int, "p: Input should be a valid integer, not [{'a': 1}]"),
        ([{"a": 1}], tuple[int, ...], "p.0: Input should be a valid integer, not {'a': 1}"),
        ({"a": 1}, Rolls, "p: should be a Rolls, not {'a': 1}"),
        (5, LAZY[OwnedWheel], "p: should be an OwnedWheel, not 5"),
        ([1], list[Engine], "p: should be a list, not [1]"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(value: Any, hint: Any, message: str) -> None:
    assert wrong(build, value, hint, path="p") == message


@given(st.integers() | st.floats() | st.booleans() | st.text() | st.none() | st.lists(st.integers()))
def test_an_integer_is_an_integer_and_nothing_else(value: Any) -> None:
    if type(value) is int:
        assert build(value, int) == value
    else:
        assert wrong(build, value, int, path="p").startswith("p: Input should be a valid integer")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_arrives_to_the_last_bit(value: float) -> None:
    assert build(value, float) == value
    assert build({"a": [value]}, Any) == {"a": [value]}


# Calls


def test_a_call_with_defaults() -> None:
    car = build({"factory": "Car"})
    assert car == Car()
    assert build({"factory": "Car", "arguments": {"name": None}}).name is None


@pytest.mark.parametrize("engine", [{"power": 7}, {"factory": "Engine", "arguments": {"power": 7}}])
def test_a_bare_mapping_is_the_arguments_of_the_class_that_is_wanted(engine: Any) -> None:
    assert build({"factory": "Car", "arguments": {"engine": engine}}).engine == Engine(7)
    assert build(engine, Engine | None) == Engine(7)


def test_a_subclass_or_a_function_that_makes_one_will_do() -> None:
    assert type(build({"factory": "FastEngine"}, Engine)) is FastEngine
    assert build({"factory": "make_something"}, Engine) == Engine(3)


def test_calls_in_lists() -> None:
    engines = [{"power": 2}, {"factory": "make_engine"}]
    train = build({"factory": "Train", "arguments": {"parts": engines, "stops": [[], engines]}})
    assert train == Train([Engine(2), Engine(3)], [[], [Engine(2), Engine(3)]])
    assert build([[{"factory": "Engine"}]]) == [[Engine()]]
    message = wrong(build, {"factory": "Train", "arguments": {"parts": [{"power": 2}, {"power": "x"}]}}, path="p")
    assert message == "p.arguments.parts.1.power: Input should be a valid integer, not 'x'"


CAR = "trial.architecture.components.car"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"factory": "Cra"}, ".factory: no factory is called 'Cra'; did you mean 'Car'?"),
        ({"factory": 5}, ".factory: no factory is called 5; there are Car, "),
        ({"factory": ["Car"]}, ".factory: no factory is called ['Car']; did you mean 'Car'?"),
        (
            {"factory": "Car", "argumens": {}},
            ".argumens: a factory's node has no argument 'argumens'; did you mean 'arg",
        ),
        ({"factory": "Car", "arguments": None}, ".arguments: the arguments of Car are a mapping, not None"),
        ({"factory": "Car", "arguments": [1]}, ".arguments: the arguments of Car are a mapping, not [1]"),
        (
            {"factory": "Car", "arguments": {"nam": "x"}},
            ".arguments.nam: Car has no argument 'nam'; did you mean 'name'?",
        ),
        (
            {"factory": "Car", "arguments": {"zz": 1}},
            ".arguments.zz: Car has no argument 'zz'; it has engine, wheel, spa",
        ),
        ({"factory": "Files"}, ".arguments: Files needs the argument 'path'"),
        ({"factory": "NeedsA"}, ".arguments (NeedsA): a component or shared argument 'a' is needed; there are []"),
        (
            {"factory": "Car", "arguments": {"engine": {"factory": "Wheel", "arguments": {"owner": "x"}}}},
            ".arguments.engine: should be an Engine, not 'Wheel'",
        ),
        (
            {"factory": "Car", "arguments": {"wheel": {"owner": "x"}}},
            ".arguments.wheel.owner: OwnedWheel has no argument 'owner'; it has size",
        ),
        (
            {"factory": "Car", "arguments": {"wheel": {"factory": "make_engine"}}},
            ".arguments.wheel: should be an OwnedWheel, not 'make_engine'",
        ),
        ({"factory": "Car", "arguments": {"name": "bad"}}, ".arguments.name: is taken, not 'bad'"),
        ({"factory": "Car", "arguments": {"name": "worse"}}, ".arguments: Car: no such car"),
    ],
)
def test_a_wrong_call_is_refused_with_its_place(node: Any, message: str) -> None:
    assert wrong(build, node, path=CAR).startswith(CAR + message)


def test_an_error_deep_down_is_placed_once() -> None:
    node = {"factory": "Holder", "arguments": {}}
    files = {"factory": "Files", "arguments": {"path": "x", "anything": {"a": [{"factory": "Car", "arguments": {}}]}}}
    assert build(files).anything == {"a": [Car()]}
    files["arguments"]["anything"]["a"][0]["arguments"]["name"] = "bad"  # type: ignore[index]
    assert wrong(build, files, path="p") == "p.arguments.anything.a.0.arguments.name: is taken, not 'bad'"
    assert build(node) == Holder()


def test_an_error_of_the_data_keeps_its_place() -> None:
    with pytest.raises(DataError, match=r"^row 3: is empty$"):
        build({"factory": "Car", "arguments": {"name": "data"}})


def test_a_value_error_becomes_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError) as error:
        call(Car, {"name": "worse"}, path="p")
    assert isinstance(error.value.__cause__, ValueError)


def test_what_is_positional_only_is_the_owners() -> None:
    def entry(a: int, /, b: int, *c: int, d: int, **e: int) -> None: ...

    assert list(parameters(OwnedWheel)) == ["size"]
    assert list(parameters(entry)) == ["b", "d"]


def test_the_owner_completes_what_is_lazy() -> None:
    wheel = build({"size": 2}, LAZY[OwnedWheel])
    assert isinstance(wheel, partial)
    assert wheel("you") == OwnedWheel("you", 2.0)
    assert build({"factory": "Car", "arguments": {"wheel": {"size": 3}}}).made.size == 3.0
    spare = build({"factory": "OwnedWheel"}, LAZY[Rolls] | None)
    assert spare("you") == OwnedWheel("you")
    assert wrong(build, {"size": "x"}, LAZY[OwnedWheel], path="p") == "p.size: Input should be a valid number, not 'x'"


@pytest.mark.parametrize(
    ("entry", "hint", "fit"),
    [
        (Engine, Engine, True),
        (FastEngine, LAZY[Engine], True),
        (Engine, FastEngine, False),  # a class makes itself
        (make_engine, FastEngine, True),  # an annotation may say less than is so
        (make_engine, Wheel, False),
        (make_engine, Wheel | Engine | None, True),
        (make_something, Wheel, True),
        (Wheel, Any, True),
        (Wheel, Rolls, True),
        (Engine, Rolls, False),
        (make_engine, Rolls, False),
        (Engine, HasSize, True),  # Python cannot tell
        (Engine, LAZY[make_engine], True),
        (Wheel, LAZY[make_engine], False),
    ],
)
def test_what_fits_where(entry: Any, hint: Any, fit: bool) -> None:
    assert fits(entry, hint) == fit


def test_a_node_is_handed_over_as_it_stands() -> None:
    node = {"factory": "no such factory", "arguments": [{"factory": 5}]}
    assert build({"factory": "Holder", "arguments": {"node": node}}).node is node


# Scopes

ENGINES = {"small": {"factory": "Engine"}, "big": {"factory": "Engine", "arguments": {"power": 9}}}


def scope(**shared: Any) -> Scope:
    return Scope(shared, ENGINES, places={"size": "p.arguments.size"}, path="p.components")


def test_shared_arguments_come_by_their_own_name_or_as_named_siblings() -> None:
    world = scope(size=3)
    driver = build({"factory": "Driver", "arguments": {"engines": ["big", "small"]}}, Any, world)
    assert driver == Driver([Engine(9), Engine(1)], 3)
    assert driver.engines[0] is world.get("big", Engine, ""), "a component is built once"
    assert world.used == {"size", "big", "small"}
    assert set(world.built) == {"big", "small"}
    assert build({"factory": "Driver", "arguments": {"engines": [], "size": 5}}, Any, world).size == 5
    inline = {"factory": "Driver", "arguments": {"engines": [{"power": 4}]}}
    assert build(inline, Any, world).engines == [Engine(4)]


def test_a_shared_argument_with_a_default_takes_the_scope_first() -> None:
    driver = {"factory": "Driver", "arguments": {"engines": []}}
    assert build(driver, Any, scope(size=1)).map is None
    assert build(driver, Any, scope(size=1, map="x")).map == Path("x")


@pytest.mark.parametrize(
    ("arguments", "shared", "message"),
    [
        (
            {"engines": ["bug"]},
            {"size": 1},
            "q.arguments.engines.0: a component or shared argument 'bug' is needed; did",
        ),
        ({"engines": "big"}, {"size": 1}, "q.arguments.engines: should be a list of names, not 'big'"),
        ({"engines": ["size"]}, {"size": 1}, "p.arguments.size: should be an Engine, not 1"),
        (
            {"engines": []},
            {},
            "q.arguments (Driver): a component or shared argument 'size' is needed; there are ['big', '",
        ),
        ({"engines": []}, {"size": "x"}, "p.arguments.size: Input should be a valid integer, not 'x'"),
        ({"engines": []}, {"size": 0}, "p.arguments.size: Input should be greater than or equal to 1, not 0"),
        ({"engines": [], "size": "big"}, {}, "p.components.big: should be a int, not 'Engine'"),
        ({}, {"size": 1, "engines": 7}, "p.components.engines: should be a list, not 7"),
    ],
)
def test_a_scope_refuses_with_the_place_at_fault(arguments: Any, shared: Any, message: str) -> None:
    node = {"factory": "Driver", "arguments": arguments}
    assert wrong(build, node, Any, scope(**shared), "q").startswith(message)


def test_a_cycle_prints_itself() -> None:
    world = Scope({}, {"a": {"factory": "NeedsB"}, "b": {"factory": "NeedsA"}})
    assert wrong(world.get, "a", Any, "") == "components.a: components need each other: a -> b -> a"


def test_a_component_is_a_call() -> None:
    """Whether anything asks for it or not: a misspelt name would else go unnoticed."""
    said = wrong(Scope, {}, {"a": {"power": 1}})
    assert said == "components.a: a component is a mapping with a factory, not {'power': 1}"


def test_components_are_finished_once() -> None:
    seen: list[Any] = []

    def finish(component: Any) -> Any:
        seen.append(component)
        return component

    world = Scope({}, ENGINES, finish=finish)
    assert world.get("big", Engine, "") is world.get("big", Engine, "")
    assert seen == [Engine(9)]


# Registries and paths


def test_a_name_means_one_thing() -> None:
    registry = Registry("thing")
    assert registry.register(Engine) is registry.register(Engine) is Engine
    with pytest.raises(ValueError, match="two entries of kind 'thing' are called 'Engine'"):
        registry.register(Wheel, "Engine")
    assert list(registry) == ["Engine"]
    assert "Engine" in registry
    assert Engine in registry
    assert Wheel not in registry


def test_relative_paths_are_made_absolute_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    bare = {"path": "a", "label": "a"}
    call_ = {"factory": "Files", "arguments": {"path": "a", "inner": bare}}
    node = {
        "path": {"choice": ["a", "/b"]},
        "others": ["a", "/b"],
        "inner": {**bare, "inner": call_},
        "anything": {"deep": [[call_]], "a": "a"},
    }
    made = {"path": f"{here}/a", "label": "a"}
    made_call = {"factory": "Files", "arguments": {"path": f"{here}/a", "inner": made}}
    assert absolute_paths(node, Files) == {
        "path": {"choice": [f"{here}/a", "/b"]},
        "others": [f"{here}/a", "/b"],
        "inner": {**made, "inner": made_call},
        "anything": {"deep": [[made_call]], "a": "a"},
    }


@pytest.mark.parametrize(
    "wrong_node",
    [{"factory": "Files", "arguments": None}, {"factory": "Fils", "arguments": {}}, {"factory": ["Files"]}, {"pth": 5}],
)
def test_what_is_wrong_is_left_to_be_refused_later(wrong_node: Any) -> None:
    assert absolute_paths({"inner": wrong_node, "unknown": "a"}, Files) == {"inner": wrong_node, "unknown": "a"}
