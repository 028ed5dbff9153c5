import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgm_ray.data import Metadata
from dgm_ray.errors import DataError

Json = dict[str, Any]
MANDATORY = [
    "variables", "variable_sizes", "variable_types", "features", "index_to_value", "value_to_index", "num_features",
    "num_variables", "num_binary_variables", "num_categorical_variables", "num_numerical_variables", "num_samples",
]  # fmt: skip


@pytest.fixture
def document(md7: Metadata) -> Json:
    return copy.deepcopy(md7.to_dict())


def as_companion(document: Json) -> Json:
    """The form that the companion pre-processing repository writes: see the contract, section 3.7."""
    kinds = dict(zip(document["variables"], document["variable_types"], strict=True))
    starts = {name: i for i, (name, _) in reversed(list(enumerate(document["index_to_value"])))}
    document["index_to_value"] = [pair for pair in document["index_to_value"] if kinds[pair[0]] == "categorical"]
    document["value_to_index"] |= {name: starts[name] for name, kind in kinds.items() if kind != "categorical"}
    return document


def put(*keys: Any, value: Any) -> Callable[[Json], None]:
    def change(document: Json) -> None:
        inner: Any = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def empty(document: Json) -> None:
    document.update({key: [] for key in MANDATORY[:5]} | {"value_to_index": {}} | dict.fromkeys(MANDATORY[6:], 0))


BROKEN = {
    "too few names": (lambda d: d["variables"].pop(), "variables", "must have num_variables (7) items"),
    "too few sizes": (lambda d: d["variable_sizes"].pop(), "variable_sizes", "must have num_variables (7) items"),
    "too few types": (lambda d: d["variable_types"].pop(), "variable_types", "must have num_variables (7) items"),
    "num_variables": (put("num_variables", value=8), "variables", "must have num_variables (8) items"),
    "no variable": (empty, "num_variables", "must be above 0"),
    "binary count": (put("num_binary_variables", value=2), "num_binary_variables", "number of binary variables (3)"),
    "categorical count": (
        put("num_categorical_variables", value=3),
        "num_categorical_variables",
        "number of categorical variables (2)",
    ),
    "numerical count": (
        put("num_numerical_variables", value=0),
        "num_numerical_variables",
        "number of numerical variables (2)",
    ),
    "negative count": (put("num_binary_variables", value=-1), "num_binary_variables", "an integer of 0 or above"),
    "categorical of size 1": (
        put("variable_sizes", 3, value=1),
        "variable_sizes.3",
        "a categorical variable must have a size above 2, not 1",
    ),
    "categorical of size 2": (put("variable_sizes", 3, value=2), "variable_sizes.3", "a size above 2, not 2"),
    "wide binary": (put("variable_sizes", 1, value=2), "variable_sizes.1", "a binary variable must have size 1, not 2"),
    "wide numerical": (put("variable_sizes", 0, value=0), "variable_sizes.0", "must have size 1, not 0"),
    "num_features": (put("num_features", value=12), "num_features", "must be the sum of variable_sizes (13), not 12"),
    "too few features": (lambda d: d["features"].pop(), "features", "must have num_features (13) items, not 12"),
    "too few values": (
        lambda d: d["index_to_value"].pop(),
        "index_to_value",
        "must have num_features (13) items, or one per categorical feature (8), not 12",
    ),
    "wrong owner": (put("index_to_value", 2, 0, value="b1"), "index_to_value.2.0", "must be 'b2'"),
    "not inverse": (put("value_to_index", "c1", "0", value=4), "value_to_index.c1.0", "must be ['c1', '0'], not 4"),
    "another's index": (put("value_to_index", "c1", "0", value=7), "value_to_index.c1.0", "must be ['c1', '0']"),
    "no such value": (put("value_to_index", "c1", "z", value=3), "value_to_index.c1.z", "must be ['c1', 'z']"),
    "index as text": (put("value_to_index", "c1", "0", value="3"), "value_to_index.c1.0", "not '3'"),
    "unknown variable": (put("value_to_index", "c11", value={}), "value_to_index.c11", "did you mean 'c1'?"),
    "wrong plain index": (put("value_to_index", "n2", value=5), "value_to_index.n2", "feature (6), not 5"),
    "plain categorical": (put("value_to_index", "c1", value=3), "value_to_index.c1", "must be an object"),
    "twice": (put("variables", 2, value="b1"), "variables.2", "'b1' is named again"),
    "unknown type": (
        put("variable_types", 3, value="categoric"),
        "variable_types.3",
        "must be 'numerical', 'binary' or 'categorical', not 'categoric'; did you mean 'categorical'?",
    ),
    "no classes": (put("num_classes", value=0), "num_classes", "must be above 0"),
    "classes": (put("num_classes", value=3), "classes", "must have num_classes (3) items, not 2"),
    "number for a name": (put("variables", 0, value=7), "variables.0", "must be a string, not 7"),
    "text for a size": (put("variable_sizes", 0, value="1"), "variable_sizes.0", "must be an integer, not '1'"),
    "true for a size": (put("variable_sizes", 0, value=True), "variable_sizes.0", "must be an integer, not True"),
    "text for a list": (put("features", value="n1"), "features", "must be a list"),
    "true for a count": (put("num_samples", value=True), "num_samples", "must be an integer of 0 or above"),
    "fraction": (put("num_features", value=13.0), "num_features", "must be an integer of 0 or above"),
    "no pair": (put("index_to_value", 0, value=["n1"]), "index_to_value.0", "must be a pair [variable, value]"),
    "list for an object": (put("value_to_index", value=[]), "value_to_index", "must be an object, not []"),
    "number for a class": (put("classes", 1, value=1), "classes.1", "must be a string"),
}


@pytest.mark.parametrize(("change", "key", "rule"), BROKEN.values(), ids=BROKEN)
def test_defect_48_each_broken_constraint_is_named_with_its_place(
    document: Json, change: Callable[[Json], Any], key: str, rule: str
) -> None:
    Metadata.from_dict(document)  # whole before it is broken
    change(document)
    with pytest.raises(DataError) as caught:
        Metadata.from_dict(document, "folder/metadata.json")
    assert caught.value.place == f"folder/metadata.json: {key}"
    assert rule in str(caught.value)


@pytest.mark.parametrize("key", MANDATORY)
def test_each_missing_key_is_named_with_its_misspelling(document: Json, key: str) -> None:
    document[f"{key}_"] = document.pop(key)
    with pytest.raises(DataError, match=rf"^metadata: {key}: this key is missing; did you mean '{key}_'\?$"):
        Metadata.from_dict(document)


@pytest.mark.parametrize(
    ("change", "key", "rule"),
    [
        (lambda d: d["index_to_value"].pop(), "index_to_value", "per categorical feature (8), not 7"),
        (put("index_to_value", 0, 0, value="c2"), "index_to_value.0.0", "must be 'c1'"),
        (put("value_to_index", "b3", value=11), "value_to_index.b3", "feature (12), not 11"),
        (put("value_to_index", "c2", "3", value=3), "value_to_index.c2.3", "must be ['c2', '3'], not 3"),
    ],
)
def test_the_companion_form_is_checked_too(
    document: Json, change: Callable[[Json], Any], key: str, rule: str
) -> None:  # fmt: skip
    companion = as_companion(document)
    change(companion)
    with pytest.raises(DataError) as caught:
        Metadata.from_dict(companion)
    assert caught.value.place == f"metadata: {key}"
    assert rule in str(caught.value)


def test_both_forms_say_the_same(md7: Metadata, document: Json) -> None:
    assert Metadata.from_dict(document) == md7
    companion = as_companion(document)
    assert len(companion["index_to_value"]) == 8
    assert companion["value_to_index"]["b3"] == 12
    assert Metadata.from_dict(companion) == md7


def test_numbers_as_category_values_match_their_json_keys(document: Json) -> None:
    for pair in document["index_to_value"][3:6]:
        pair[1] = int(pair[1])
    assert Metadata.from_dict(document).variables[3].categories == ("0", "1", "2")


def test_names_of_classes_and_features_survive_a_file(tmp_path: Path, document: Json) -> None:
    document["features"][3] = "colour=red"
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(document | {"class_distribution": {"no": 1}}))
    metadata = Metadata.read(path)
    assert metadata.features[2:5] == ("b2", "colour=red", "c1_1")
    assert metadata.classes == ("no", "yes")
    assert Metadata.from_dict(metadata.to_dict()) == metadata
    assert metadata.to_dict() == document


def test_classes_are_optional(document: Json) -> None:
    classes = document.pop("classes")
    assert Metadata.from_dict(document).num_classes == 2
    del document["num_classes"]
    assert Metadata.from_dict(document).num_classes == 0
    assert "num_classes" not in Metadata.from_dict(document).to_dict()
    assert Metadata.from_dict(document | {"classes": classes}).num_classes == 2


@pytest.mark.parametrize(("content", "rule"), [(None, "cannot be read"), (b"{", "must be JSON"), (b"\xff", "must be"),
                                               (b"[]", "must be a JSON object")])  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, rule: str) -> None:
    path = tmp_path / "metadata.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Metadata.read(path)
    assert str(caught.value).startswith(f"{path}: {rule}")
    assert "\n" not in str(caught.value)


def test_numerical_columns(md7: Metadata) -> None:
    assert md7.numerical_columns.nonzero()[0].tolist() == [0, 6]
    assert len(md7.numerical_columns) == md7.num_features
