"""How the table gets to trials: which route is taken, and that streamed rows are the rows of the memory route."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dgm_ray.data import Holdout, Metadata, Npy, Prepared, Streamed, shards
from dgm_ray.data.variable import Variable
from dgm_ray.errors import ConfigurationError, DataError
from dgm_ray.training import Rows, part_sizes
from dgm_ray.tune import data as module
from dgm_ray.tune.comparison import Comparison
from dgm_ray.tune.data import Shared, streamed
from dgm_ray.tune.run import means_of
from dgm_ray.tune.settings import Reading
from dgm_ray.tune.study import Study

from .conftest import Command

Write = Callable[[dict[str, Any]], Path]
ROWS = 1200

# Ray Data warns of what its own context sets.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")


@pytest.fixture
def table(tmp_path: Path) -> Npy:
    """A table whose first column tells its rows apart, with two classes."""
    random = np.random.default_rng(0)
    features = np.stack([np.arange(ROWS) / ROWS, *random.random((3, ROWS))], axis=1).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    np.save(tmp_path / "l.npy", np.arange(ROWS) % 2)
    metadata = Metadata(tuple(Variable(name, "numerical") for name in "abcd"), ROWS, ("even", "odd"), 2)
    (tmp_path / "m.json").write_text(json.dumps(metadata.to_dict()))
    return Npy(tmp_path / "f.npy", tmp_path / "m.json", tmp_path / "l.npy")


@pytest.fixture
def large(small: dict[str, Any], table: Npy) -> dict[str, Any]:
    """A space over the table."""
    source = {"features": str(table.features), "metadata": str(table.metadata)}
    small["trial"]["arguments"]["data"] = {"source": {"factory": "Npy", "arguments": source}}
    return small


@pytest.mark.parametrize(
    ("mode", "free", "streams", "said"),
    [
        ("auto", 100, False, "table in memory: it takes 18.8KiB of 100B"),
        ("auto", 4 * 19200, False, "table in memory: it takes 18.8KiB of 75.0KiB"),
        ("auto", 4 * 19200 - 1, True, "table streamed from its file: it takes 18.8KiB of 75.0KiB, more than a quarter"),
        ("memory", 100, False, "table in memory: tune.data.mode says so"),
        ("stream", 10**12, True, "table streamed from its file: tune.data.mode says so"),
    ],
)
def test_the_route_is_chosen_by_size(
    large: dict[str, Any],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    free: int,
    streams: bool,
    said: str,
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: free)
    large["tune"]["data"] = {"mode": mode}
    if free == 100 and mode == "auto":
        large["trial"]["arguments"]["data"]["missing"] = {"factory": "MNAR"}
        said += ", and because MNAR looks at the whole table, unlike MCAR, Blocks, Patterns"
    study = Study.read(write(large))
    assert study.route.line.startswith(said)
    assert study.route.streams == streams
    assert isinstance(study.prepare().train, Streamed) == streams


def test_sizes_are_known_before_reading(large: dict[str, Any], write: Write, tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).random((5000, 3)), columns=list("abc"))
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv")
    for name, size in (("t.parquet", 5000 * 3 * 4), ("t.csv", (tmp_path / "t.csv").stat().st_size)):
        kind = "Parquet" if name == "t.parquet" else "Csv"
        large["trial"]["arguments"]["data"]["source"] = {"factory": kind, "arguments": {"path": str(tmp_path / name)}}
        task = Study.read(write(large)).corners[0]
        assert module._table_bytes(task) == size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"source": {"factory": "Wine"}}, "because Wine is no file"),
        ({"missing": {"factory": "MAR"}}, "because MAR looks at the whole table, unlike MCAR, Blocks, Patterns"),
        ({"missing": {"factory": "Learned"}}, "because Learned looks at the whole table"),
        ("CellHoldout", "because CellHoldout hides cells of all rows at once"),
    ],
)
def test_what_cannot_be_streamed(large: dict[str, Any], write: Write, data: Any, said: str) -> None:
    arguments = large["trial"]["arguments"]
    arguments["data"] = (
        {"factory": data, "arguments": arguments["data"]} if isinstance(data, str) else (arguments["data"] | data)
    )
    large["tune"]["data"] = {"mode": "stream"}
    with pytest.raises(ConfigurationError) as caught:
        Study.read(write(large)).prepare()
    assert str(caught.value).startswith(f"tune.data.mode: must be memory, {said}")


def test_imputers_and_comparisons_are_not_streamed(large: dict[str, Any], write: Write) -> None:
    arguments = {"data": large["trial"]["arguments"]["data"], "imputer": {"factory": "GaussianEM"}}
    space = {
        "tune": {"samples": 1, "data": {"mode": "stream"}},
        "trial": {"task": "TrainImputer", "arguments": arguments},
    }
    with pytest.raises(ConfigurationError, match=r"tune.data.mode: must be memory, because an imputer needs all rows"):
        Study.read(write(space)).prepare()
    imputers = Path(__file__).parents[2] / "search_spaces" / "imputers.yaml"
    with pytest.raises(ConfigurationError, match=r"tune.data.mode: must be memory, because imputers are compared"):
        Comparison.read(imputers, ["tune.data.mode=stream"])


def rows_of(table: Npy, classes: int | None, monkeypatch: pytest.MonkeyPatch, shuffled: int = 100) -> tuple[Rows, Any]:
    """Return streamed rows of eleven shards, and the training rows of the memory route."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 16 * 115)
    holdout = Holdout(table, train_missing_probability=0.1)

    class Task:
        data = holdout

    prepared = streamed(Task, Reading("stream", shuffled))  # type: ignore[arg-type]
    assert isinstance(prepared.train, Streamed)
    rows: Rows = prepared.train.open(torch.device("cpu"), classes)
    return rows, holdout.prepare().train


@pytest.mark.slow
def test_every_row_comes_once_an_epoch(joined: None, table: Npy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, memory = rows_of(table, 2, monkeypatch)
    assert len(rows) == memory.rows
    epochs = []
    for epoch in (1, 2, 1):
        parts = list(rows.parts(64, seed=3, epoch=epoch))
        assert [len(features) for features, _ in parts] == part_sizes(memory.rows, 64)
        features, labels = (torch.cat([part[index] for part in parts]) for index in (0, 1))  # type: ignore[misc]
        assert features.dtype == labels.dtype == torch.float32
        joined_rows = np.column_stack([features, labels])
        expected = np.column_stack([memory.features, memory.labels])
        columns = list(map(tuple, np.nan_to_num(joined_rows, nan=-1)))
        assert sorted(columns) == sorted(map(tuple, np.nan_to_num(expected, nan=-1)))
        epochs.append(features)
    assert torch.equal(epochs[0].nan_to_num(-1), epochs[2].nan_to_num(-1)), "the order is not a function of the epoch"
    assert not torch.equal(epochs[0].nan_to_num(-1), epochs[1].nan_to_num(-1))
    place = epochs[0][:, 0].nan_to_num(0.5).numpy()
    neighbours = np.abs(np.diff(place)) < 1.5 / ROWS
    assert neighbours.mean() < 0.1, "rows come as they stand in the file"


@pytest.mark.slow
def test_a_single_row_joins_the_batch_before_it(joined: None, table: Npy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, memory = rows_of(table, None, monkeypatch)
    parts = list(rows.parts(memory.rows - 1, seed=0, epoch=1, join_last=True))
    assert [len(features) for features, _ in parts] == [memory.rows]
    assert parts[0][1] is None


@pytest.mark.slow
def test_a_file_that_changes(joined: None, table: Npy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, memory = rows_of(table, None, monkeypatch)
    features = np.load(table.features)
    features[int(memory.row_ids[0]), 1] = np.inf
    np.save(table.features, features)
    with pytest.raises(DataError, match=rf"row {memory.row_ids[0]}, column 'b': must be finite"):
        list(rows.parts(64, seed=0, epoch=1))
    table.features.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(rows.parts(64, seed=0, epoch=1))


@pytest.mark.slow
def test_the_driver_reads_what_trials_read(joined: None, table: Npy) -> None:
    data: Prepared = Holdout(table).prepare()
    before = data.content_hash()
    shared = Shared(data)
    assert shared.for_trials().test is None
    assert shared.data.content_hash() == before
    address = {one.train.features.__array_interface__["data"][0] for one in (shared.data, shared.for_trials())}
    assert len(address) == 1, "each has a copy of its own"
    assert not shared.data.train.features.flags.owndata


@pytest.mark.slow
def test_a_study_streams_while_trials_hold_every_cpu(
    large: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    """Two trials of a CPU each, on a node with two."""
    large["tune"] |= {"data": {"mode": "stream"}, "scheduler": {"factory": "FIFO"}, "samples": 2}
    large["trial"]["arguments"]["epochs"] = 2
    path = write(large)
    done = inside("dgm_ray.tune", path, "--address", cluster)
    assert done.returncode == 0, done.stderr
    assert "table streamed from its file: tune.data.mode says so" in done.stdout
    baseline = re.search(r"means and modes: val_imputation_rmse (\S+)", done.stdout)
    assert baseline
    memory = Study.read(path, ["tune.data.mode=memory"]).prepare()
    assert float(baseline[1]) == pytest.approx(means_of(memory)["val_imputation_rmse"], rel=1e-3)
    folder = tmp_path / "results" / "small"
    results = pd.read_parquet(folder / "results.parquet")
    assert results["status"].tolist() == ["completed"] * 2
    assert results["epochs"].tolist() == [2, 2]
    assert (folder / "imputation.csv").exists(), "the winner is scored on the test cells"
    best = json.loads((folder / "best.json").read_text())
    assert "streamed rows" in best["expected"]["not_repeated"]
    alone = inside("dgm_ray.tasks.runner", folder / "best.json")
    assert alone.returncode == 0, alone.stderr
    resumed = inside("dgm_ray.tune", path, "--resume", "--address", cluster)
    assert resumed.returncode == 0, resumed.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), results)
    planned = inside("dgm_ray.tune", path, "--plan")
    assert planned.returncode == 2
    assert "tune.data.mode: --plan tries steps on rows in memory, so set it to memory, not 'stream'" in planned.stderr
