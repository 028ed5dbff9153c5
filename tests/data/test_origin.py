"""What a model keeps of its table comes back from JSON, and shows nothing that was hidden from the model."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import FrameEncoder, Holdout, InMemory, Metadata, Origin, Table, Variable, Wine
from dgm_ray.errors import DataError


@pytest.fixture(scope="module")
def wine() -> Origin:
    return Origin.of(Holdout(Wine()).prepare(), left_out=("id",))


def test_it_comes_back_from_json(wine: Origin, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(wine.to_dict(), allow_nan=False))
    made = Origin.read(path)
    assert made.to_dict() == wine.to_dict()
    assert made.metadata.features == Wine().read().metadata.features
    frame = made.example_frame()
    assert np.array_equal(made.scaled(frame), wine.scaled(frame), equal_nan=True)


def test_the_units_are_the_users(wine: Origin) -> None:
    table = Wine().read()
    frame = wine.encoder.decode(table.features)
    assert frame["alcohol"].iloc[0] == np.float32(14.23)
    assert frame["class"].iloc[[0, 177]].tolist() == ["class_0", "class_2"]
    scaled = wine.scaled(frame)
    assert scaled[:, -3:].tolist() == table.features[:, -3:].tolist()
    assert np.allclose(wine.units(scaled), table.features, rtol=1e-6)


def test_the_example_shows_training_rows_alone() -> None:
    data = Holdout(Wine(), train_missing_probability=0.3).prepare()
    shown, table = Origin.of(data).example_frame(), Wine().read()
    rows = Origin.of(data).encoder.encode(shown)
    ids = data.train.row_ids[: len(rows)]
    seen = ~np.isnan(rows)
    assert np.isnan(rows).any(axis=1).all()
    assert np.allclose(rows[seen], table.features[ids][seen], rtol=1e-6)
    assert np.isnan(rows)[np.isnan(data.train.features[: len(rows)])].all(), "what is hidden stays hidden"


def test_columns_of_metadata() -> None:
    codes, words = ("1", "2", "3"), ("a", "01", "2")
    variables = (
        Variable("n", "numerical"),
        Variable("b", "binary"),
        Variable("c", "categorical", 3, codes),
        Variable("w", "categorical", 3, words),
    )
    encoder = FrameEncoder.of_metadata(Metadata(variables))
    frame = pd.DataFrame({"n": [0.5, None], "b": [1.0, None], "c": [3, 1], "w": ["01", None]})
    features = encoder.encode(frame)
    assert encoder.metadata.variables == variables
    assert features[0].tolist() == [0.5, 1, 0, 0, 1, 0, 1, 0]
    assert encoder.decode(features).iloc[0].tolist() == [0.5, 1, 3, "01"]


@pytest.mark.parametrize(
    ("classes", "labels", "numbers"),
    [
        (("no", "yes"), ["yes", "no"], [1, 0]),
        (("no", "yes"), "yes", [1, 1]),
        ((), [2, 0.0], [2, 0]),
        ((), np.int64(1), [1, 1]),
        (("0", "1", "2"), pd.Series([2.0, 1.0]), [2, 1]),
    ],
)
def test_classes_have_names_or_numbers(classes: tuple[str, ...], labels: Any, numbers: list[int]) -> None:
    origin = of_classes(classes or 3)
    assert origin.class_numbers(labels, 2).tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["good", "bda"], "labels: there is no class 'bda'; did you mean 'bad'"),
        ("x", "there is no class 'x'; there are ['good', 'bad']"),
        (["good"], "must be one for each of the 2 rows, or one for all, not 1"),
        (["good", None], "there is no class None"),
    ],
)
def test_classes_that_are_not_there(labels: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        of_classes(("good", "bad")).class_numbers(labels, 2)
    assert said in str(caught.value)


def of_classes(classes: tuple[str, ...] | int) -> Origin:
    number, names = (classes, ()) if isinstance(classes, int) else (len(classes), classes)
    metadata = Metadata((Variable("n", "numerical"),), 4, names, number)
    rows = np.linspace(0, 1, 40, dtype=np.float32)[:, np.newaxis]
    table = Table(metadata, rows, np.arange(40) % number)
    return Origin.of(Holdout(InMemory(table), missing_probability=0.5).prepare())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda node: node.pop("encoder"), "does not describe a table"),
        (lambda node: node["means_and_modes"].pop(), "means_and_modes: must have 16 items"),
        (lambda node: node.update(scaler={"min": [0]}), "must be a list of finite numbers"),
        (lambda node: node["encoder"]["columns"][0].update(type="os"), "does not describe columns"),
        (lambda node: node.update(num_classes="many"), "does not describe a table"),
    ],
)
def test_json_of_something_else(wine: Origin, change: Any, said: str) -> None:
    node = copy.deepcopy(wine.to_dict())
    change(node)
    with pytest.raises(DataError, match=said):
        Origin.from_dict(node)
