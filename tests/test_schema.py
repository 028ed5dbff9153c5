import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

import dgm_ray.tasks.train
import dgm_ray.tune.tasks  # noqa: F401 (registers the tasks that run on Ray)
from dgm_ray.registry import FACTORIES, TASKS, Lazy, Node, PositiveInt, Registry, Shared
from dgm_ray.schema import INITIALIZATIONS, schema
from dgm_ray.space import corners, fill, read_draws, read_file
from dgm_ray.tasks.configuration import load_tasks
from dgm_ray.tasks.imputers import imputer_names
from dgm_ray.tune.settings import Settings

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
assert len(SPACES) >= 4
MEDGAN = read_file(SPACES[0].parent / "medgan.yaml")


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    load_tasks()
    return Draft202012Validator(schema(Settings, imputer_names()))


def changed(place: str, value: Any, node: Any = MEDGAN) -> Any:
    node = copy.deepcopy(node)
    *parents, last = place.split(".")
    inner = node
    for step in parents:
        inner = inner[step]
    inner[last] = value
    return node


def configuration() -> Any:
    node = read_draws(MEDGAN["trial"])
    return fill(node, next(iter(corners(node))))


ARGUMENTS = "trial.arguments"
COMPONENTS = f"{ARGUMENTS}.architecture.components"


def test_it_is_a_json_schema(validator: Draft202012Validator) -> None:
    validator.check_schema(validator.schema)
    references = set(json.dumps(validator.schema).split('"$ref": "#/$defs/')[1:])
    for reference in references:
        assert reference.split('"')[0] in validator.schema["$defs"]
    for name in (*FACTORIES, *(f"task.{task}" for task in TASKS)):
        assert validator.schema["$defs"][name]["description"]


def test_every_example_is_valid(validator: Draft202012Validator) -> None:
    paths = list((ROOT / "examples").rglob("task-*.json"))
    assert len(paths) >= 36
    assert [path.stem for path in paths if not validator.is_valid(json.loads(path.read_text()))] == []


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_search_space_and_its_corners_are_valid(path: Path, validator: Draft202012Validator) -> None:
    space = read_file(path)
    validator.validate(space)
    if "imputers" in space:
        return
    trial = read_draws(space["trial"])
    for values in corners(trial):
        validator.validate({**fill(trial, values), "expected": {"val_imputation_rmse": 0.1}})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("tune.search", {"factory": "OptunaSearch", "arguments": {"startup_trials": 5}}),
        ("tune.search", {}),
        ("tune.concurrent", None),
        (f"{ARGUMENTS}.architecture", "architecture.json"),
        (f"{ARGUMENTS}.architecture.arguments.initialization", "he"),
        (f"{ARGUMENTS}.imputation", {"factory": "ZeroImputation"}),
        (f"{ARGUMENTS}.imputation", None),
        (f"{ARGUMENTS}.noise_search", {"max_iterations": {"randint": [1, 9]}}),
        (f"{ARGUMENTS}.noise_search", {"factory": "NoiseSearch"}),
        (f"{ARGUMENTS}.checkpoints", {"output": "x.pt"}),
        (f"{COMPONENTS}.extra", {"factory": "Wine"}),
        (f"{COMPONENTS}.generator", {"choice": [{"factory": "CodeGenerator"}, {"factory": "SingleOutputGenerator"}]}),
        (f"{COMPONENTS}.generator.factory", {"choice": ["CodeGenerator", "SingleOutputGenerator"]}),
        (f"{COMPONENTS}.generator.arguments", {"choice": [{}, {"noise_size": 5}]}),
        (f"{COMPONENTS}.generator.arguments.hidden_layers", {"factory": "HiddenLayers", "arguments": {"sizes": []}}),
        (f"{COMPONENTS}.generator.arguments.hidden_layers.activation", {"factory": "Tanh"}),
        (f"{COMPONENTS}.generator_optimizer.arguments.betas", [0, 0.5]),
    ],
)
def test_what_the_reader_takes_is_valid(place: str, value: Any, validator: Draft202012Validator) -> None:
    validator.validate(changed(place, value))


COMPARISON = read_file(SPACES[0].parent / "imputers.yaml")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("imputers.gan", {}),
        ("imputers", {"zero": {}}),
        ("data.missing", {"factory": "MAR", "arguments": {"strength": 3}}),
        ("repeats", 1),
    ],
)
def test_what_the_reader_of_a_comparison_takes_is_valid(
    place: str, value: Any, validator: Draft202012Validator
) -> None:
    validator.validate(changed(place, value, COMPARISON))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("imputers.gian", {}),
        ("imputers.gan", 3),
        ("imputers", {}),
        ("data.missing", {"factory": "MARR"}),
        ("data.test_fraction", 0.1),
        ("repeats", 0),
        ("tune.sample", 3),
        ("trial", {}),
    ],
)
def test_what_the_reader_of_a_comparison_refuses_is_not(
    place: str, value: Any, validator: Draft202012Validator
) -> None:
    assert not validator.is_valid(changed(place, value, COMPARISON))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("trail", {}),
        ("tune.sample", 5),
        ("tune.samples", "5"),
        ("tune.samples", 0),
        ("tune.samples", {"randint": [1, 2]}),
        ("tune.scheduler", {"factory": "RandomSearch"}),
        ("tune.scheduler.arguments.grace_period", {"randint": [1, 2]}),
        ("trial.task", "TrainMedGun"),
        ("trial.task", {"choice": ["TrainMedGAN"]}),
        ("trial.task", "TrainAutoEncoder"),  # has no generator_steps
        ("trial.arguments", None),
        ("trial.argument", {}),
        (f"{ARGUMENTS}.batchsize", 32),
        (f"{ARGUMENTS}.batch_size", True),
        (f"{ARGUMENTS}.batch_size", None),
        (f"{ARGUMENTS}.data", {"validation_fraction": 0.2}),
        (f"{ARGUMENTS}.data.source", {"factory": "ReLU"}),
        (f"{ARGUMENTS}.data.source", {"factory": "Npy"}),
        (f"{ARGUMENTS}.data.validation_fraction", 1),
        (f"{ARGUMENTS}.imputation", {"factory": "ZeroImputatio"}),
        (f"{ARGUMENTS}.imputation", "ZeroImputation"),
        (f"{ARGUMENTS}.architecture", {"components": {}}),
        (f"{ARGUMENTS}.architecture.arguments.nose_size", 5),
        (f"{ARGUMENTS}.architecture.arguments.initialization", "she"),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", "5"),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"randint": [1, 2, 3]}),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"randint": [1, 2.5]}),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"qrandint": [2, 4]}),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"choice": []}),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"choice": [{"randint": [1, 2]}]}),
        (f"{ARGUMENTS}.architecture.arguments.noise_size", {"randinteger": [1, 2]}),
        (f"{COMPONENTS}.generator", {}),
        (f"{COMPONENTS}.generator.factory", "CodeGenerater"),
        (f"{COMPONENTS}.generator.argument", {}),
        (f"{COMPONENTS}.generator.arguments.hidden_layers.sizes", [64, {"choice": [1, 2]}]),
        (f"{COMPONENTS}.generator.arguments.hidden_layers.sizes", {"a": 1}),
        (f"{COMPONENTS}.generator.arguments.hidden_layers", {"factory": "Sigmoid"}),
        (f"{COMPONENTS}.generator_loss", {"factory": "AutoEncoderLoss"}),
        (f"{COMPONENTS}.generator_optimizer.arguments.lr", {"loguniform": 1}),
        (f"{COMPONENTS}.generator_optimizer.arguments.lr", {"loguniform": [1], "uniform": [0, 1]}),
        (f"{COMPONENTS}.generator_optimizer.arguments.lr", -1),
        (f"{COMPONENTS}.generator_optimizer.arguments.parameters", "generator"),
        (f"{COMPONENTS}.generator_optimizer.arguments.parameters", [{"choice": ["generator"]}]),
        (f"{COMPONENTS}.generator_optimizer.arguments.betas", [0.5]),
    ],
)
def test_what_the_reader_refuses_is_invalid(place: str, value: Any, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(changed(place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("expected", {"val_imputation_rmse": "0.1"}),
        ("trial", {}),
        ("arguments", {}),
        ("arguments.batch_size", {"choice": [1, 2]}),
        ("arguments.architecture.components.generator", {"choice": [{"factory": "CodeGenerator"}]}),
        ("arguments.architecture.components.generator_optimizer.arguments.lr", {"uniform": [0, 1]}),
    ],
)
def test_a_configuration_has_no_draws(place: str, value: Any, validator: Draft202012Validator) -> None:
    assert validator.is_valid(configuration())
    assert not validator.is_valid(changed(place, value, configuration()))


def test_arguments_are_described(validator: Draft202012Validator) -> None:
    definitions = validator.schema["$defs"]
    properties = definitions["task.TrainMedGAN"]["properties"]
    assert properties["generator_steps"]["description"] == "steps per cycle."
    assert properties["generator_steps"]["default"] == 1
    assert properties["patience"]["description"] == "stop when it has not improved for so many epochs."
    assert definitions["Resources"]["description"] == "What one trial holds."
    assert "input_size" not in definitions["HiddenLayers"]["properties"]


class Thing:
    """A thing. size, weight: of it."""

    def __init__(self, size: PositiveInt, others: Shared[list[Callable[..., Any]]], weight: float = 1.0) -> None: ...


def many(things: list[Thing], later: Lazy[Thing] | int | None = None, node: Node = None) -> Thing:
    return things[0]


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"things": []}, True),
        ({"things": [{"size": 1}, {"factory": "Thing", "arguments": {"size": 1, "others": ["a"]}}]}, True),
        ({"things": [{"factory": "many", "arguments": {"things": []}}], "later": 5}, True),
        ({"things": {"choice": [[], [{"size": 2}]]}, "later": {"size": {"randint": [1, 2]}}}, True),
        ({"things": [], "later": None, "node": {"factory": "Thing", "arguments": {"size": 1}}}, True),
        ({}, False),
        ({"things": [{"size": {"randint": [1, 2]}}]}, False),
        ({"things": [{"factory": "Thing"}]}, False),
        ({"things": [{"size": 1, "others": "a"}]}, False),
        ({"things": [], "later": "x"}, False),
        ({"things": [], "node": {"factory": "Thing", "arguments": {"size": 0}}}, False),
    ],
)
def test_every_form_of_a_value(monkeypatch: pytest.MonkeyPatch, arguments: Any, valid: bool) -> None:
    for registry, entries in ((FACTORIES, {"Thing": Thing, "many": many}), (TASKS, {"many": many})):
        assert isinstance(registry, Registry)
        monkeypatch.setattr(registry, "_entries", entries)
    validator = Draft202012Validator(schema(Thing))
    assert validator.is_valid({"trial": {"task": "many", "arguments": arguments}}) is valid


def test_initializations_are_those_of_the_networks() -> None:
    from dgm_ray.nn import Initialization

    assert get_args(Initialization) == INITIALIZATIONS
