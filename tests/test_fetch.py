import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dgm_ray import fetch
from dgm_ray.cli import app
from dgm_ray.data import Metadata, MinMaxScaler
from dgm_ray.errors import DataError

CREDIT = Path(__file__).parents[2] / "shared" / "data" / "credit"
NAME = "default_of_credit_card_clients"
DATA_SET = fetch.DATA_SETS[NAME]


@pytest.fixture
def credit() -> Path:
    if not CREDIT.exists():
        pytest.skip(f"the credit table is not here: {CREDIT}")
    return CREDIT


@pytest.fixture
def frame(credit: Path) -> pd.DataFrame:
    """The repository's own table, made again of the prepared one: 30,000 rows."""
    metadata, features = Metadata.read(credit / "metadata.json"), np.load(credit / "features.npy")
    scaler = MinMaxScaler.from_dict(json.loads((credit / "scaler.json").read_text()))
    numbers, columns = scaler.inverse_transform(features), {}
    for variable, where in zip(metadata.variables, metadata.slices, strict=True):
        cells = numbers[:, where]
        values = cells[:, 0].round().astype(np.int64)
        if variable.name in DATA_SET.categories:
            keys = list(DATA_SET.categories[variable.name])
            values = np.array(keys)[cells.argmax(axis=1) if variable.size > 1 else values]
        columns[DATA_SET.columns[variable.name]] = values
    return pd.DataFrame(columns | {DATA_SET.target: np.load(credit / "labels.npy").astype(np.int64)})


def test_what_is_prepared_is_the_known_table(credit: Path, frame: pd.DataFrame) -> None:
    table, scaler = fetch.prepare(DATA_SET, frame)
    known = Metadata.read(credit / "metadata.json")
    assert [(one.name, one.kind, one.categories) for one in table.metadata.variables] == [
        (one.name, one.kind, one.categories) for one in known.variables
    ]
    assert table.metadata.features == known.features
    assert table.metadata.classes == known.classes
    np.testing.assert_allclose(table.features, np.load(credit / "features.npy"), atol=1e-6)
    assert table.labels is not None
    np.testing.assert_array_equal(table.labels, np.load(credit / "labels.npy"))
    stored = json.loads((credit / "scaler.json").read_text())
    np.testing.assert_allclose(scaler.maximum, stored["max"])
    frame.loc[5, "X3"] = 0  # not documented: one of the others
    assert fetch.prepare(DATA_SET, frame)[0].features[5, 1:5].tolist() == [0, 0, 0, 1]
    frame.loc[5, "X4"] = 9
    with pytest.raises(DataError, match=r"column 'MARRIAGE': should be one of 1, 2, 3, 0, not 9"):
        fetch.prepare(DATA_SET, frame)
    with pytest.raises(DataError, match="column 'X4': is not in what was downloaded"):
        fetch.prepare(DATA_SET, frame.drop(columns="X4"))


def test_the_download(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network itself was never there where this was written: ucimlrepo is stood in for."""
    asked = []

    def fetch_ucirepo(id: int) -> Any:  # noqa: A002
        asked.append(id)
        data = types.SimpleNamespace(features=frame.drop(columns="Y"), targets=frame[["Y"]])
        return types.SimpleNamespace(data=data)

    monkeypatch.setitem(sys.modules, "ucimlrepo", types.SimpleNamespace(fetch_ucirepo=fetch_ucirepo))
    paths = fetch.fetch(NAME, tmp_path / "new", None, 0)
    assert asked == [350]
    assert {path.name for path in paths} == {
        *(f"{kind}{part}.npy" for kind in ("features", "labels") for part in ("", "-train", "-test")),
        "metadata.json",
        "scaler.json",
    }
    assert Metadata.read(tmp_path / "new" / "metadata.json").num_features == 89


@pytest.mark.parametrize("problem", ["extra", "network"])
def test_without_a_network_or_the_extra(problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_ucirepo(id: int) -> Any:  # noqa: A002
        raise ConnectionError("Error connecting to server")

    stand_in = None if problem == "extra" else types.SimpleNamespace(fetch_ucirepo=fetch_ucirepo)
    monkeypatch.setitem(sys.modules, "ucimlrepo", stand_in)
    message = r"pip install 'dgm-ray\[data\]'" if problem == "extra" else "does not answer .*; --from takes a folder"
    with pytest.raises(DataError, match=message):
        fetch.fetch(NAME, tmp_path / "new", None, 0)
    assert not (tmp_path / "new").exists(), "nothing half-written"


def test_from_a_folder(credit: Path, tmp_path: Path) -> None:
    fetch.fetch(NAME, tmp_path, credit, 4)
    labels = {part: np.load(tmp_path / f"labels{part}.npy") for part in ("", "-train", "-test")}
    assert {part: len(one) for part, one in labels.items()} == {"": 30000, "-train": 27000, "-test": 3000}
    assert labels["-test"].mean() == pytest.approx(labels[""].mean(), abs=1e-3), "the same share of each class"
    train, test = (np.load(tmp_path / f"features{part}.npy") for part in ("-train", "-test"))
    np.testing.assert_allclose(
        np.vstack([train, test]).sum(axis=0, dtype=np.float64),
        np.load(tmp_path / "features.npy").sum(axis=0, dtype=np.float64),
    )
    first = test[:5].copy()
    fetch.fetch(NAME, tmp_path, credit, 4)
    np.testing.assert_array_equal(np.load(tmp_path / "features-test.npy")[:5], first)
    fetch.fetch(NAME, tmp_path, credit, 5)
    assert not np.array_equal(np.load(tmp_path / "features-test.npy")[:5], first)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (("data", "fetch", "default_of_credit_cards"), f"did you mean '{NAME}'?"),
        (("data", "fetch", NAME, "--from", tmp_path), "metadata.json: cannot be read"),
        (("convert", tmp_path / "a", tmp_path / "b"), "unpickling runs code from the file: add --trust"),
    ):
        found = CliRunner().invoke(app, [*map(str, arguments)])
        assert found.exit_code == 2
        assert found.stderr.count("\n") == 1
        assert message in found.stderr
    line = [sys.executable, "-c", "from dgm_ray.cli import app; app()", "data", "list"]
    listed = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert listed.stdout == f"{NAME}\nwine\n"
