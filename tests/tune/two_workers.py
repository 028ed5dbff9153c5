"""Run a study on two nodes of one CPU each: ``python two_workers.py SPACE FOLDER``.

A process of its own, because tests start Ray once. Each second worker writes a line to FOLDER/epochs.jsonl after each
epoch. The first of them to come to its third kills itself, and one of a trial with code_size 3 never comes to it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from dgm_ray.tune.cluster import start_ray
from dgm_ray.tune.command import _quiet
from dgm_ray.tune.place import Place
from dgm_ray.tune.run import run_study
from dgm_ray.tune.study import Study


def dying(log: Path) -> Callable[[], None]:
    """Return what makes worker processes save every epoch, and one of them die."""

    def patch() -> None:
        import dgm_ray.tune.trial
        from dgm_ray.tune.team import _Worker

        dgm_ray.tune.trial.CHECKPOINT_SECONDS = 0.0
        advance = _Worker.advance

        def told(worker: Any, state: bytes | None) -> None:
            size = json.loads(worker._training._configuration)["arguments"]["architecture"]["arguments"]["code_size"]
            if worker._training.epoch == 2 and size == 3:
                raise MemoryError("2 TiB")
            if worker._training.epoch == 2 and len(log.read_text().splitlines()) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            advance(worker, state)
            line = {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
            with log.open("a") as file:
                file.write(json.dumps(line | {"epoch": worker._training.epoch}) + "\n")

        _Worker.advance = told

    return patch


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    _quiet()
    space, folder = Path(sys.argv[1]), Path(sys.argv[2])
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    there.add_node(num_cpus=1)
    study = Study.read(space)
    hook = dying(folder / "epochs.jsonl")
    ray.init(address=there.address, runtime_env={"worker_process_setup_hook": hook}, log_to_driver=False)
    start_ray(study.settings.resources, None)
    place = Place(folder / "study", f"sqlite:///{folder / 'mlflow.db'}")
    run_study(study, study.prepare(), place, Console(width=120), time.monotonic())
    pids = {json.loads(line)["pid"] for line in (folder / "epochs.jsonl").read_text().splitlines()}
    deadline = time.monotonic() + 60
    while (left := list(filter(alive, pids))) and time.monotonic() < deadline:
        time.sleep(0.2)
    print(f"left: {left}")
    ray.shutdown()
    there.shutdown()


if __name__ == "__main__":
    main()
