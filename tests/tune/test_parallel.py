"""Work on the processes of Ray. The functions are closures, so that Ray carries them to a process by value."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dgm_ray.errors import ConfigurationError, UnfinishedError
from dgm_ray.registry import TASKS, call
from dgm_ray.tune import parallel
from dgm_ray.tune.parallel import MultiProcessTaskRunner, Pool, Worker

QUIET = Console(quiet=True)


def read(node: dict[str, Any]) -> MultiProcessTaskRunner:
    made: MultiProcessTaskRunner = call(TASKS.get("MultiProcessTaskRunner", ""), node, path="arguments")
    return made


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ("two", r"arguments\.workers: Input should be a valid integer"),
        (0, r"arguments\.workers: Input should be greater than or equal to 1"),
        ([{"gpu": 0}], r"arguments\.workers\.0\.gpu: Worker has no argument 'gpu'"),
        ([{"gpu_device": -1}], r"arguments\.workers\.0\.gpu_device: .*greater than or equal to 0"),
        ([3], r"arguments\.workers"),
    ],
)
def test_defect_32_bad_workers_are_found_before_anything_starts(workers: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read({"workers": workers, "inputs": [], "output": "x.csv"})


def test_defect_31_workers_may_be_a_list() -> None:
    made = read({"workers": [{"gpu_device": 1}, {}], "inputs": [], "output": "x.csv"})
    assert made.workers == [Worker(1), Worker(None)]


def test_none_inside_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(parallel.INSIDE, "1")
    with pytest.raises(ConfigurationError, match="cannot run inside another"):
        read({"workers": 1, "inputs": ["a.json"], "output": str(tmp_path / "x.csv")}).run(QUIET)
    assert not (tmp_path / "x.csv").exists()


def closures() -> dict[str, Any]:
    """Return pieces of work that end in different ways."""

    def fail(item: Any) -> None:
        raise ValueError(f"no {item}\n twice")

    def leave(item: Any) -> None:
        raise SystemExit(3)

    def die(item: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(item: Any) -> None:
        time.sleep(600)

    return {"fail": fail, "leave": leave, "die": die, "hang": hang, "well": lambda item: (item, os.getpid())}


@pytest.mark.slow
def test_one_that_fails_hangs_or_dies_is_an_outcome(joined: None) -> None:
    works = closures()
    names = ["well", "fail", "die", "well", "hang", "leave", "well"]
    pool = Pool([Worker(), Worker()], QUIET, timeout=8, log_every=1)
    found = {
        one.label: one
        for one in pool.run(lambda item: works[item[0]](item), [(f"{i}", (name, i)) for i, name in enumerate(names)])
    }
    errors = {names[int(label)]: one.error for label, one in found.items()}
    assert errors == {
        "well": "",
        "fail": "ValueError: no ('fail', 1) twice",
        "die": "the process died",
        "hang": "took longer than 8 seconds",
        "leave": "SystemExit: 3",
    }
    assert len(found) == 7
    assert {one.worker for one in found.values()} == {0, 1}
    assert found["0"].result[0] == ("well", 0)
    assert found["4"].seconds >= 8


@pytest.mark.slow
def test_a_process_sees_its_gpu_and_one_thread(joined: None) -> None:
    def seen(item: Any) -> tuple[str | None, str]:
        device = os.environ["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else None
        return device, os.environ["OMP_NUM_THREADS"]

    outcomes = list(Pool([Worker(3), Worker()], QUIET).run(seen, [("a", 0), ("b", 1)]))
    before = os.environ["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else None
    assert {one.device: one.result for one in outcomes} == {3: ("3", "1"), None: (before, "1")}


def configurations(folder: Path, count: int) -> list[str]:
    """Write configurations of which the second is wrong."""
    paths = []
    for number in range(count):
        size = {"name": str(number), "metadata": "nowhere.json", "architecture": {"arguments": {}, "components": {}}}
        serial = {"task": "SerialTaskRunner", "arguments": {"tasks": []}}
        node = {"task": "ComputeParameterSize", "arguments": size} if number == 1 else serial
        (folder / f"{number}.json").write_text(json.dumps(node))
        paths.append(str(folder / f"{number}.json"))
    return paths


@pytest.mark.slow
def test_defect_32_the_file_has_a_row_for_each(joined: None, cluster: str, tmp_path: Path) -> None:
    paths = configurations(tmp_path, 4)
    output = tmp_path / "new" / "it.csv"
    task = read({"workers": [{"gpu_device": 2}], "inputs": paths, "output": str(output), "address": cluster})
    with pytest.raises(UnfinishedError, match=r"1 of 4 tasks failed: .*1\.json"):
        task.run(QUIET)
    with output.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "has_error", "error", "gpu_device", "worker", "time"]
    assert [row[:5] for row in rows] == [
        [
            path,
            str(i == 1),
            "DataError: nowhere.json: cannot be read: No such file or directory" if i == 1 else "",
            "2",
            "0",
        ]
        for i, path in enumerate(paths)
    ]
    assert output.read_bytes().count(b"\r\n") == 5


@pytest.mark.slow
def test_control_c_leaves_a_whole_file(cluster: str, tmp_path: Path) -> None:
    paths = configurations(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe")  # whoever reads it waits
    (tmp_path / "hang.json").write_text(
        json.dumps({"task": "SerialTaskRunner", "arguments": {"tasks": [str(tmp_path / "pipe")]}})
    )
    node = {"workers": 1, "inputs": [*paths, str(tmp_path / "hang.json"), *paths], "output": str(tmp_path / "it.csv")}
    node["address"] = cluster
    (tmp_path / "it.json").write_text(json.dumps({"task": "MultiProcessTaskRunner", "arguments": node}))
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "dgm_ray.tasks.runner", str(tmp_path / "it.json")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    ) as process:
        for _ in range(600):
            if (tmp_path / "it.csv").exists() and (tmp_path / "it.csv").read_bytes().count(b"\r\n") == 2:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=180)
    assert process.returncode == 130, error
    assert "stopped: 1 of 3 are done" in said
    assert "Traceback" not in error
    with (tmp_path / "it.csv").open(newline="") as file:
        assert [row[:2] for row in csv.reader(file)] == [["path", "has_error"], [paths[0], "False"]]
