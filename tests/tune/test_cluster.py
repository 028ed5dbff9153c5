"""What a trial may ask for, and what is said when no node has it. Nodes are given as Ray describes them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import Metadata, Variable
from dgm_ray.errors import ConfigurationError, StudyError
from dgm_ray.registry import call
from dgm_ray.tune.cluster import bundles, check_fits, placed, request, start_ray
from dgm_ray.tune.settings import Resources
from dgm_ray.tune.study import Study

from .conftest import ENVIRONMENT

GIB = 2**30
NODES = [{"CPU": 8.0, "memory": 4.0 * GIB, "node:a": 1.0}, {"CPU": 2.0, "GPU": 1.0, "memory": 16.0 * GIB}]


def read(**node: Any) -> Resources:
    made: Resources = call(Resources, node, path="tune.resources")
    return made


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"memory": "much"}, "tune.resources.memory: should be a number of bytes, or text with a unit"),
        ({"memory": "0GiB"}, "tune.resources.memory: should be a number of bytes, or text with a unit"),
        ({"memory": -1}, "tune.resources.memory: "),
        ({"gpu_memory": "2 bananas"}, "tune.resources.gpu_memory: should be a number of bytes, or text with a unit"),
        ({"gpu": 0.5, "gpu_memory": "2GiB"}, "tune.resources.gpu_memory: does not go with gpu: give one of both"),
        ({"gpu": 1.5}, "tune.resources.gpu: should be a fraction of a GPU, or a whole number of GPUs, not 1.5"),
    ],
)
def test_a_mistake_is_one_line(node: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(**node)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("memory", "count"), [(3 * 10**9, 3e9), ("2GiB", 2 * 2**30), ("1.5 GB", 1.5e9)])
def test_memory_reaches_ray_in_bytes(memory: int | str, count: float) -> None:
    assert request(read(cpu=2, memory=memory)) == {"cpu": 2, "gpu": 0, "memory": count}


def test_gpu_memory_is_a_fraction_of_the_smallest_gpu() -> None:
    assert placed(read(gpu_memory="4GiB"), lambda: 16 * GIB).gpu == 0.25
    assert placed(read(gpu_memory="16GiB"), lambda: 16 * GIB).gpu == 1
    third = placed(read(gpu_memory="1GiB"), lambda: 3 * GIB).gpu
    assert 3 * GIB * third >= GIB, "rounded up: a trial gets what it asked for"
    assert request(placed(read(gpu_memory="4GiB"), lambda: 16 * GIB)) == {"cpu": 1, "gpu": 0.25}
    assert placed(read(gpu=0.5), lambda: 1 // 0) == read(gpu=0.5), "nobody is asked"


@pytest.mark.parametrize(
    ("there", "rule"), [(GIB, "the smallest GPU there is has 1.0GiB, not '2GiB'"), (0, "there is no GPU, not '2GiB'")]
)
def test_more_gpu_memory_than_there_is(there: int, rule: str) -> None:
    with pytest.raises(StudyError) as caught:
        placed(read(gpu_memory="2GiB"), lambda: there)
    assert str(caught.value) == f"tune.resources.gpu_memory: {rule}"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"cpu": 9}, "tune.resources.cpu: a trial runs on one node, and none has more than 8 CPU (2 nodes), not 9.0"),
        ({"gpu": 2}, "tune.resources.gpu: a trial runs on one node, and none has more than 1 GPU (2 nodes), not 2.0"),
        (
            {"memory": "20GiB"},
            "tune.resources.memory: a trial runs on one node, and none has more than 16.0GiB of memory (2 nodes), "
            "not '20GiB'",
        ),
        (
            {"cpu": 4, "gpu": 1},
            "tune.resources: a trial runs on one node, and none has all of it: they have 8 CPU, 0 GPU; 2 CPU, 1 GPU, "
            "not {'cpu': 4.0, 'gpu': 1.0}",
        ),
    ],
)
def test_more_than_any_node_has(node: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_fits(read(**node), NODES)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            {"cpu": 9, "workers": 2},
            "tune.resources.cpu: a worker of a trial runs on one node, and none has more than 8",
        ),
        (
            {"workers": 11},
            "tune.resources.workers: there is room for 10 workers of this kind at a time (2 nodes), not 11",
        ),
        ({"cpu": 2, "workers": 6}, "tune.resources.workers: there is room for 5 workers of this kind"),
        (
            {"cpu": 2, "memory": "3GiB", "workers": 3},
            "tune.resources.workers: there is room for 2 workers of this kind",
        ),
        ({"gpu": 0.3, "workers": 3}, "tune.resources.workers: there is room for 2 workers of this kind"),
    ],
)
def test_more_workers_than_all_nodes_have_room_for(node: dict[str, Any], said: str) -> None:
    """Eight CPUs and 4 GiB on the first, two CPUs, 16 GiB and one GPU on the second."""
    with pytest.raises(StudyError) as caught:
        check_fits(read(**node), NODES)
    assert str(caught.value).startswith(said)


def test_each_worker_has_a_bundle() -> None:
    one = {"CPU": 2, "GPU": 0.5, "memory": 2 * GIB}
    assert bundles(read(cpu=2, gpu=0.5, memory="2GiB", workers=3)) == [one] * 3
    assert bundles(read(cpu=1)) == [{"CPU": 1}]


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"cpu": 8},
        {"cpu": 2, "gpu": 1, "memory": "10GiB"},
        {"gpu": 0.1},
        {"cpu": 2, "workers": 5},
        {"gpu": 0.1, "cpu": 0.2, "workers": 10},
    ],
)
def test_what_a_node_has_fits(node: dict[str, Any]) -> None:
    check_fits(read(**node), NODES)


@pytest.mark.slow
def test_the_command_refuses_in_one_line(small: dict[str, Any], write: Any, inside: Any, cluster: str) -> None:
    """On the tests' cluster: one node with 2 CPUs and no GPU."""
    path, wanted = write(small), ("memory=900TiB", "gpu_memory=1GiB", "cpu=3")
    for assignment, rule in zip(wanted, ("none has more than ", "there is no GPU", "2 CPU (1 node)"), strict=True):
        done = inside("dgm_ray.tune", path, "--address", cluster, "--set", f"tune.resources.{assignment}")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: tune.resources.{assignment.partition('=')[0]}: ")
        assert rule in line


def run_script(name: str, *arguments: object) -> str:
    """Run a script that has a cluster of its own, and return what it said."""
    script = Path(__file__).with_name(name)
    line = [sys.executable, str(script), *map(str, arguments)]
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, env=environment, start_new_session=True, **pipes) as running:
        try:
            said: str = running.communicate(timeout=560)[0]
        finally:
            with suppress(ProcessLookupError):  # Ray has ended its own
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    return said


@pytest.mark.slow
def test_fractions_of_gpus_on_two_nodes(small: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """Two trials on each of three GPUs at once; one that runs out of memory has a whole GPU the second time."""
    small["tune"] = {"samples": 2, "resources": {"gpu_memory": "4GiB"}}
    small["trial"]["arguments"]["architecture"]["arguments"]["code_size"] = {"grid_search": [2, 3, 4]}
    said = run_script("two_nodes.py", write(small), tmp_path)
    assert "refused: tune.resources.cpu: a trial runs on one node, and none has more than 4 CPU (2 nodes)" in said
    lines = [json.loads(line) for line in (tmp_path / "placed.jsonl").read_text().splitlines()]
    first, again = lines[:6], lines[6:]
    assert sorted(Counter((one["node"], one["gpu"]) for one in first).values()) == [2, 2, 2]
    assert len({one["node"] for one in first}) == 2
    assert {(one["share"], one["index"]) for one in first} == {(0.5, 0)}
    assert [(one["share"], one["index"]) for one in again] == [(1.0, 0)] * 4
    table = pd.read_parquet(tmp_path / "study" / "results.parquet").set_index("draw:code_size")
    assert set(table.loc[[2, 4], "status"]) == {"completed"}
    assert set(table.loc[3, "reason"]) == {"oom: OutOfMemoryError: CUDA out of memory"}
    history = pd.read_parquet(tmp_path / "study" / "history.parquet")
    assert set(history["gpu_memory_mb"]) == {3.0}


@pytest.mark.slow
def test_a_node_is_lost_in_the_middle(small: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """Eight trials on three nodes of two CPUs: those of the lost one go on elsewhere, where their checkpoints end."""
    metadata = Metadata(tuple(Variable(f"x{number}", "numerical") for number in range(50)), 200_000)
    (tmp_path / "metadata.json").write_text(json.dumps(metadata.to_dict()))
    np.save(tmp_path / "features.npy", np.random.default_rng(0).random((200_000, 50), dtype=np.float32))
    arguments = small["trial"]["arguments"]
    source = {"features": str(tmp_path / "features.npy"), "metadata": str(tmp_path / "metadata.json")}
    arguments["data"] = {"source": {"factory": "Npy", "arguments": source}}
    arguments |= {"epochs": 4, "batch_size": {"grid_search": [20_000 + number for number in range(8)]}}
    small["tune"] = {"samples": 1}
    said = run_script("three_nodes.py", write(small), tmp_path)

    lacking, address = str(tmp_path / "lacking"), r"[\d.]+"
    missing = rf"refused: {lacking}/means.npy: a trial reads this file where it runs, and it is not on 2 of 3 nodes: "
    assert re.search(f"^{missing}{address}, {address}$", said, re.MULTILINE), said
    rule = "should be a folder that all nodes share, or an URI, and is not seen by 2 of 3 nodes: "
    assert re.search(f"^refused: --storage: {rule}{address}, {address}, not '{lacking}'$", said, re.MULTILINE), said
    assert said.count("refused: ") == 2

    table = pd.read_parquet(tmp_path / "study" / "results.parquet")
    assert list(table["status"]) == ["completed"] * 8
    assert set(table["epochs"]) == {4}
    (lost,) = re.findall(r"^lost (\w+)$", said, re.MULTILINE)
    lines = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "epoch" in line]
    moved = {line["trial"] for line in epochs if line["node"] == lost}
    assert len(moved) == 2
    for trial in range(20_000, 20_008):
        told = [(line["epoch"], line["node"] == lost) for line in epochs if line["trial"] == trial]
        before = [(1, True), (2, True), (3, True)] if trial in moved else []
        again = [(3, False), (4, False)] if trial in moved else [(epoch, False) for epoch in (1, 2, 3, 4)]
        assert told == before + again

    # The table is in the memory of each node, and its processes see it there: not a copy for each.
    (size,) = map(int, re.findall(r"^table (\d+)$", said, re.MULTILINE))
    stores = {node: int(used) for node, used in re.findall(r"^store (\w+) (\d+)$", said, re.MULTILINE)}
    assert len(stores) == 3
    assert all(size <= used < 1.5 * size for used in stores.values()), (size, stores)
    places = {(line["node"], *line["table"]) for line in lines if "table" in line}
    processes = {line["pid"] for line in lines if "table" in line}
    assert len(places) == 3
    assert len(processes) >= 6


def test_a_server_for_jobs_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(StudyError, match=r"^RAY_ADDRESS: is of a server for jobs: submit one there"):
        start_ray(Resources(), None)
    with pytest.raises(StudyError, match=r"^--address: is of a server for jobs: submit one there"):
        start_ray(Resources(), "https://127.0.0.1:8265")


def test_files_that_trials_read(small: dict[str, Any], write: Any) -> None:
    assert Study.read(write(small)).files == []
    path = {"factory": "MeanAndModesImputation", "arguments": {"path": "means.npy"}}
    small["trial"]["arguments"]["imputation"] = path
    assert Study.read(write(small)).files == [str(Path("means.npy").absolute())]
