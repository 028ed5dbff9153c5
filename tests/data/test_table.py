from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dgm_ray.data import Metadata, Npy, Table, checked, read_npy
from dgm_ray.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
FOLDERS = ["breast_diagnostic", "credit", "letter", "news_sample", "spambase"]


@pytest.fixture
def features() -> NDArray[np.float32]:
    """Three whole rows of MD7."""
    row = [0.25, 0, 1, 0, 1, 0, 0.75, 0, 0, 0, 1, 0, 1]
    return np.array([row, row, row], dtype=np.float32)


def test_a_whole_table_is_returned_as_it_is(md7: Metadata, features: NDArray[np.float32]) -> None:
    features[1, [0, 1, 3, 4, 5]] = np.nan
    table = Table(md7, features, np.zeros(3))
    before = features.copy()
    assert checked(table, "here") is table
    assert np.array_equal(table.features, before, equal_nan=True)
    assert table.rows == 3
    assert np.argwhere(table.missing_mask).tolist() == [[1, 0], [1, 1], [1, 3], [1, 4], [1, 5]]


@pytest.mark.parametrize(
    ("column", "values", "name", "rule"),
    [
        (0, [1.5], "n1", r"scaled to \[0, 1\], not 1.5"),
        (6, [-0.25], "n2", r"scaled to \[0, 1\], not -0.25"),
        (0, [np.inf], "n1", "finite.*, not inf"),
        (7, [-np.inf], "c2_0", "finite.*, not -inf"),
        (2, [0.5], "b2", "a binary cell must be 0 or 1, not 0.5"),
        (12, [2], "b3", "a binary cell must be 0 or 1, not 2.0"),
        (4, [0.5], "c1_1", "a categorical cell must be 0 or 1, not 0.5"),
        (3, [0, 0, 0], "c1", r"must be one-hot, not \[0.0, 0.0, 0.0\]"),
        (7, [1], "c2", r"must be one-hot, not \[1.0, 0.0, 0.0, 1.0, 0.0\]"),
        (3, [np.nan], "c1", "missing in all its columns or in none"),
    ],
)
def test_an_impossible_cell_is_named_by_row_and_column(
    md7: Metadata, features: NDArray[np.float32], column: int, values: list[float], name: str, rule: str
) -> None:
    features[2, column : column + len(values)] = values
    with pytest.raises(DataError, match=rule) as caught:
        checked(Table(md7, features), "data.npy")
    assert caught.value.place == f"data.npy: row 2, column {name!r}"


def test_unscaled_numericals_may_be_anything_finite(md7: Metadata, features: NDArray[np.float32]) -> None:
    features[0, 0] = -1e6
    assert checked(Table(md7, features, scaled=False), "x").rows == 3
    features[0, 0] = np.inf
    with pytest.raises(DataError, match="finite"):
        checked(Table(md7, features, scaled=False), "x")


def test_rounding_of_a_float32_scaler_is_no_error(md7: Metadata, features: NDArray[np.float32]) -> None:
    features[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert checked(Table(md7, features), "x").features[0, 0] > 1


@pytest.mark.parametrize(
    ("change", "place", "rule"),
    [
        (lambda x: (x[:, :12], None), "x", r"shape \(rows, 13\)"),
        (lambda x: (x[0], None), "x", r"shape \(rows, 13\)"),
        (lambda x: (x[:0], None), "x", r"a row at least"),
        (lambda x: (x.astype(np.float64), None), "x", "must be float32, not 'float64'"),
        (lambda x: (x, np.zeros(2)), "x: labels", r"one item per row \(3\), not \(2,\)"),
        (lambda x: (x, np.zeros(())), "x: labels", r"one item per row \(3\)"),
    ],
)
def test_shapes(md7: Metadata, features: NDArray[np.float32], change: Any, place: str, rule: str) -> None:
    broken, labels = change(features)
    with pytest.raises(DataError, match=rule) as caught:
        checked(Table(md7, broken, labels), "x")
    assert caught.value.place == place


def test_read_npy_is_a_copy_on_write_memory_map(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 2)))
    array = read_npy(path)
    assert isinstance(array, np.memmap)
    array[0, 0] = 5
    assert read_npy(path)[0, 0] == 0


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, "cannot be read"),
        (b"", "must be a .npy file"),
        (b"\x80\x04K\x01.", "must be a .npy file"),
        (b"PK\x03\x04 an archive", "must be a .npy file"),
        (b"\x93NUMPY", "is cut short or damaged"),
        (b"\x93NUMPY\x01\x00\x08\x00not one\n", "is cut short or damaged"),
    ],
)
def test_read_npy_says_what_is_wrong_in_one_line(tmp_path: Path, content: bytes | None, rule: str) -> None:
    path = tmp_path / "x.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_npy(path)
    assert str(caught.value).startswith(f"{path}: {rule}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [8, 100, 160, 250])
def test_read_npy_notices_a_file_cut_short(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 4)))
    assert path.stat().st_size == 256
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="is cut short or damaged"):
        read_npy(path)


def test_read_npy_refuses_pickled_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled object arrays are refused"):
        read_npy(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real tables are not at {SHARED}")
@pytest.mark.parametrize(
    ("folder", "suffix"), [(f, "") for f in FOLDERS] + [("credit", "_flat"), ("news_sample", "_flat")]
)
def test_real_tables_follow_the_rules(folder: str, suffix: str) -> None:
    path = SHARED / folder
    table = Npy(path / f"features{suffix}.npy", path / f"metadata{suffix}.json", path / "labels.npy").read()
    metadata = table.metadata
    assert table.rows == metadata.num_samples > 0
    assert isinstance(table.features.base, np.memmap), "a copy was made"
    assert Metadata.from_dict(metadata.to_dict()) == metadata
