"""Data sets in the original library's files: downloaded and prepared, or taken from a folder that holds them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data import Metadata, MinMaxScaler, Table, Variable, Wine, checked, read_floats, read_npy
from dgm_ray.errors import DataError, nearest
from dgm_ray.tasks.arrays import write_npy
from dgm_ray.training import write_json

TRAIN_SHARE = 0.9
WINE = "wine"  # bundled with scikit-learn: the examples need no network


@dataclass(frozen=True)
class DataSet:
    """A table of the UCI Machine Learning Repository (or of scikit-learn, if it has no number there).

    columns: the repository's name of each variable, by our name, in our order. categories: what the values of a
    binary or categorical variable stand for, by value; other variables are numbers. others: the category of values
    that are not listed, by variable. target: the repository's name of the label. classes: the labels' names, by value.
    """

    uci_id: int
    columns: Mapping[str, str]
    target: str
    classes: Mapping[Any, str]
    categories: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)


_DELAYS = {-2: "no consumption", -1: "paid in full", 0: "use of revolving credit", 1: "delay of 1 month"}
_DELAYS |= {months: f"delay of {months} months" for months in range(2, 9)}
_PAY = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")
_CREDIT = {"SEX": "X2", "EDUCATION": "X3", "MARRIAGE": "X4", **{name: f"X{6 + i}" for i, name in enumerate(_PAY)}}
_CREDIT |= {"AGE": "X5", **{f"BILL_AMT{i}": f"X{11 + i}" for i in range(1, 7)}, "LIMIT_BAL": "X1"}
_CREDIT |= {f"PAY_AMT{i}": f"X{17 + i}" for i in range(1, 7)}

DATA_SETS = {
    "default_of_credit_card_clients": DataSet(
        350,
        _CREDIT,
        "Y",
        {0: "no default payment next month", 1: "default payment next month"},
        {
            "SEX": {1: "male", 2: "female"},
            "EDUCATION": {1: "graduate school", 2: "university", 3: "high school", 4: "others"},
            "MARRIAGE": {1: "married", 2: "single", 3: "divorce", 0: "others"},
            **dict.fromkeys(_PAY, _DELAYS),
        },
        {"EDUCATION": "others"},
    ),
}


def fetch(name: str, directory: Path, source: Path | None, seed: int) -> list[Path]:
    """Write a data set's files to ``directory`` and return their paths.

    source: a folder that holds features.npy, labels.npy and metadata.json (and scaler.json); None downloads. Writes
    those, and the rows split into train and test, 90 to 10 in each class, by ``seed``.
    """
    if name not in names():
        hint = nearest(name, names()) or f"; there are {', '.join(names())}"
        raise DataError("NAME", f"no data set is called {name!r}{hint}")
    if source is not None:
        table, scaler = _held(source)
    else:
        table, scaler = _wine() if name == WINE else _downloaded(DATA_SETS[name])
    assert table.labels is not None
    train, test = split(table.labels, seed)
    parts = {"": np.arange(len(table.labels)), "-train": train, "-test": test}
    paths = [write_npy(directory / f"features{part}.npy", table.features[rows]) for part, rows in parts.items()]
    paths += [write_npy(directory / f"labels{part}.npy", table.labels[rows]) for part, rows in parts.items()]
    contents = {"metadata.json": table.metadata.to_dict()} | ({"scaler.json": scaler.to_dict()} if scaler else {})
    for file, content in contents.items():
        write_json(directory / file, content)
    return [*paths, *(directory / file for file in contents)]


def names() -> list[str]:
    """Return the names of the data sets."""
    return [*DATA_SETS, WINE]


def split(labels: NDArray[Any], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the shuffled rows of train and test: of each class the same share."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    try:
        train, test = train_test_split(rows, train_size=TRAIN_SHARE, stratify=labels, random_state=seed)
    except ValueError as error:
        raise DataError("labels", f"cannot be split within each class ({error})") from None
    return train, test


def prepare(data_set: DataSet, frame: Any) -> tuple[Table, MinMaxScaler]:
    """Return the scaled, one-hot table of a DataFrame with the repository's columns.

    Raises DataError for a column that is missing, or a value that is no category.
    """
    for column in (*data_set.columns.values(), data_set.target):
        if column not in frame:
            raise DataError(f"column {column!r}", "is not in what was downloaded")
    variables, blocks = [], []
    for name, column in data_set.columns.items():
        values = frame[column].to_numpy()
        if name not in data_set.categories:
            variables.append(Variable(name, "numerical"))
            blocks.append(values.astype(np.float64)[:, np.newaxis])
            continue
        categories = list(dict.fromkeys(data_set.categories[name].values()))
        codes = _codes(name, values, data_set, categories)
        if len(categories) == 2:
            variables.append(Variable(name, "binary"))
            blocks.append(codes[:, np.newaxis].astype(np.float64))
        else:
            variables.append(Variable(name, "categorical", len(categories), tuple(categories)))
            blocks.append(np.eye(len(categories))[codes])
    values = frame[data_set.target].to_numpy()
    labels = np.array([list(data_set.classes).index(value) for value in values], dtype=np.int64)
    classes = tuple(data_set.classes.values())
    names = tuple(
        f"{one.name}={category}" if category else one.name for one in variables for category in one.categories or ("",)
    )
    metadata = Metadata(tuple(variables), len(frame), classes, len(classes), names)
    features = np.hstack(blocks)
    scaler = MinMaxScaler.fit(metadata, features)
    return checked(Table(metadata, scaler.transform(features), labels), "prepared"), scaler


def _codes(name: str, values: NDArray[Any], data_set: DataSet, categories: list[str]) -> NDArray[np.int64]:
    known = {value: categories.index(category) for value, category in data_set.categories[name].items()}
    otherwise = categories.index(data_set.others[name]) if name in data_set.others else None
    unknown = sorted({value for value in values.tolist() if value not in known})
    if unknown and otherwise is None:
        raise DataError(f"column {name!r}", f"should be one of {', '.join(map(str, known))}", unknown[0])
    return np.array([known[value] if value in known else otherwise for value in values.tolist()], dtype=np.int64)


def _downloaded(data_set: DataSet) -> tuple[Table, MinMaxScaler]:
    try:
        from ucimlrepo import fetch_ucirepo
    except ImportError:
        raise DataError("fetch", "needs the extra 'data': pip install 'dgm-ray[data]'") from None
    try:
        data = fetch_ucirepo(id=data_set.uci_id).data
    except Exception as error:  # ucimlrepo and urllib raise many kinds
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError("fetch", f"the UCI repository does not answer ({said}); --from takes a folder") from None
    return prepare(data_set, data.features.join(data.targets))


def _held(folder: Path) -> tuple[Table, MinMaxScaler | None]:
    metadata = Metadata.read(folder / "metadata.json")
    table = Table(metadata, read_floats(folder / "features.npy"), read_npy(folder / "labels.npy"))
    scaler = None
    if (folder / "scaler.json").exists():
        scaler = MinMaxScaler.from_dict(json.loads((folder / "scaler.json").read_bytes()), str(folder / "scaler.json"))
    return checked(table, str(folder / "features.npy")), scaler


def _wine() -> tuple[Table, MinMaxScaler]:
    """Return the Wine data, with the class as a variable and, for conditional models, as the label as well."""
    table = Wine().read()
    scaler = MinMaxScaler.fit(table.metadata, table.features)
    kind = table.metadata.variables[-1]
    metadata = replace(table.metadata, classes=kind.categories, num_classes=kind.size)
    labels = table.features[:, -kind.size :].argmax(axis=1)
    return checked(Table(metadata, scaler.transform(table.features), labels), WINE), scaler
