import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dgm_ray.data import BreastCancer, Digits, Metadata, Npy, Source, Wine
from dgm_ray.errors import DataError
from dgm_ray.registry import FACTORIES, build

ROW = [0.25, 0, 1, 0, 1, 0, 0.75, 0, 0, 0, 1, 0, 1]


@pytest.fixture
def folder(tmp_path: Path, md7: Metadata) -> Path:
    (tmp_path / "metadata.json").write_text(json.dumps(md7.to_dict()))
    np.save(tmp_path / "features.npy", np.array([ROW, ROW], dtype=np.float32))
    return tmp_path


def npy(folder: Path, **changed: Any) -> Npy:
    return Npy(folder / "features.npy", folder / "metadata.json", **changed)


def test_npy_without_a_mask_shares_the_memory_map(folder: Path, md7: Metadata) -> None:
    np.save(folder / "labels.npy", np.array([1, 0]))
    table = npy(folder, labels=folder / "labels.npy").read()
    assert table.metadata == md7
    assert table.scaled
    assert isinstance(table.features.base, np.memmap)
    assert table.features.tolist() == [ROW, ROW]
    assert table.labels is not None
    assert table.labels.tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.int64])
def test_a_mask_puts_missing_cells_in(folder: Path, dtype: Any) -> None:
    mask = np.zeros((2, 13), dtype=dtype)
    mask[1, 3:7] = 1
    np.save(folder / "mask.npy", mask)
    table = npy(folder, missing_mask=folder / "mask.npy").read()
    assert np.array_equal(table.missing_mask, mask == 1)
    assert np.load(folder / "features.npy").tolist() == [ROW, ROW]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 12)), r"mask.npy: must have the shape of the features \(2, 13\), not \(2, 12\)"),
        (np.full((2, 13), 0.5), r"mask.npy: row 0, column 0: must be 0 or 1, not 0.5"),
        (np.full((2, 13), np.nan), r"mask.npy: row 0, column 0: must be 0 or 1, not nan"),
        (np.eye(2, 13, 3), r"features.npy: row 0, column 'c1': .* missing in all its columns or in none"),
    ],
)
def test_a_mask_that_does_not_fit(folder: Path, mask: NDArray[Any], message: str) -> None:
    np.save(folder / "mask.npy", mask)
    with pytest.raises(DataError, match=message):
        npy(folder, missing_mask=folder / "mask.npy").read()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([["a"] * 13]), "features.npy: must hold numbers, not '<U1'"),
        (np.full((1, 13), 1e300), "features.npy: row 0, column 'n1': must be finite"),
        (np.full((1, 12), 0.5), r"features.npy: must have the shape \(rows, 13\)"),
        (np.full((1, 13), 0.5), "features.npy: row 0, column 'b1': a binary cell must be 0 or 1, not 0.5"),
    ],
)
def test_features_that_do_not_fit(folder: Path, features: NDArray[Any], message: str) -> None:
    np.save(folder / "features.npy", features)
    with pytest.raises(DataError, match=message):
        npy(folder).read()


def test_doubles_are_read_as_float32(folder: Path) -> None:
    np.save(folder / "features.npy", np.array([ROW], dtype=np.float64))
    assert npy(folder).read().features.dtype == np.float32


@pytest.mark.parametrize(
    ("source", "rows", "kinds", "labels"),
    [
        (BreastCancer(), 569, {"numerical": 30}, 2),
        (Wine(), 178, {"numerical": 13, "categorical": 1}, 0),
        (Digits(), 1797, {"binary": 64}, 10),
    ],
)
def test_bundled_tables(source: Source, rows: int, kinds: dict[str, int], labels: int) -> None:
    table = source.read()
    assert table.rows == rows
    found = [variable.kind for variable in table.metadata.variables]
    assert {kind: found.count(kind) for kind in set(found)} == kinds
    assert table.metadata.num_classes == labels
    assert (0 if table.labels is None else len(np.unique(table.labels))) == labels
    assert table.scaled == (kinds.keys() == {"binary"})


def test_wine_has_its_class_as_a_variable() -> None:
    table = Wine().read()
    variable = table.metadata.variables[-1]
    assert (variable.name, variable.size, variable.categories) == ("class", 3, ("class_0", "class_1", "class_2"))
    assert table.features[:, 13:].sum(axis=0).tolist() == [59, 71, 48]


def test_digits_are_dark_from_the_middle_on() -> None:
    from sklearn.datasets import load_digits

    table = Digits().read()
    assert table.metadata.features[10] == "pixel_1_2"
    assert np.array_equal(table.features == 1, load_digits().data > 7)


@pytest.mark.parametrize("name", ["Npy", "BreastCancer", "Wine", "Digits", "Holdout"])
def test_sources_are_factories(name: str) -> None:
    assert name in FACTORIES


def test_a_configuration_builds_a_source(folder: Path) -> None:
    arguments = {"features": str(folder / "features.npy"), "metadata": str(folder / "metadata.json")}
    assert build({"factory": "Npy", "arguments": arguments}, Source) == npy(folder)


def test_importing_data_costs_no_heavy_library() -> None:
    heavy = "sklearn", "torch", "ray", "pandas", "mlflow"
    code = f"import sys, dgm_ray.data; print([name for name in {heavy} if name in sys.modules], 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[] True"
