"""Run a study on a cluster of three nodes and lose one: ``python three_nodes.py SPACE FOLDER``.

A process of its own, because tests start Ray once. Trials write lines to FOLDER/told.jsonl: where the table is in the
memory of their node when they get it, and each epoch. They wait in their third epoch until a node is lost, which
happens when six wait. Prints what a node without a file, or without the folder, leads to; and how much each node's
object store holds.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from rich.console import Console

from dgm_ray.errors import StudyError
from dgm_ray.tune import cluster as where
from dgm_ray.tune.command import _quiet
from dgm_ray.tune.place import Place
from dgm_ray.tune.run import run_study
from dgm_ray.tune.study import Study

WAITING, PATIENCE = 6, 240.0


def told(folder: Path) -> list[dict[str, Any]]:
    path = folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def watched(folder: Path) -> Callable[[], None]:
    """Return what makes a worker process tell what it does."""

    def watch() -> None:
        import dgm_ray.tune.trial as module
        from dgm_ray.training import Training

        setup, advance, exists = module.Trial.setup, Training.advance, Path.exists
        module.CHECKPOINT_SECONDS = 0.0

        def tell(**line: Any) -> None:
            line |= {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
            with (folder / "told.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

        def memory(address: int) -> list[Any]:
            """Return the inode that is mapped at an address, and where in it the address is."""
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, _, offset, _, inode, *_ = line.split()
                first, last = (int(end, 16) for end in span.split("-"))
                if first <= address < last:
                    return [int(inode), address - first + int(offset, 16)]
            raise AssertionError(address)

        def goes_on() -> bool:
            """Tell whether a node was lost, and not this one, whose processes live a little longer than it."""
            lost = (folder / "lost").read_text() if exists(folder / "lost") else ""
            return lost not in ("", ray.get_runtime_context().get_node_id())

        def telling_setup(self: Any, *arguments: Any, **named: Any) -> None:
            tell(table=memory(named["table"]().train.features.ctypes.data))
            setup(self, *arguments, **named)

        def telling_advance(training: Training) -> dict[str, float]:
            arguments = json.loads(training._configuration)["arguments"]
            epoch = training.epoch + 1
            tell(trial=arguments["batch_size"], epoch=epoch)
            deadline = time.monotonic() + PATIENCE
            while epoch == 3 and not goes_on():
                assert time.monotonic() < deadline, "no node is lost"
                time.sleep(0.1)
            return advance(training)

        def lacking(path: Path, **options: Any) -> bool:
            """On other nodes than the head a folder ``lacking`` is not there."""
            here = ray.get_runtime_context().get_node_id() == (folder / "head").read_text()
            return exists(path, **options) and (here or "lacking" not in path.parts)

        module.Trial.setup, Training.advance, Path.exists = telling_setup, telling_advance, lacking

    return watch


def lose_a_node(there: Cluster, folder: Path) -> None:
    """Wait until all CPUs have a trial in its third epoch, then kill a node that is not the driver's."""
    deadline = time.monotonic() + PATIENCE
    while sum("epoch" in line and line["epoch"] == 3 for line in told(folder)) < WAITING:
        assert time.monotonic() < deadline, told(folder)
        time.sleep(0.1)
    for node in ray.nodes():
        stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats
        print(f"store {node['NodeID']} {stats.object_store_bytes_used}", flush=True)
    (node, *_) = there.worker_nodes
    print(f"lost {node.node_id}", flush=True)
    there.remove_node(node, allow_graceful=False)
    (folder / "lost").write_text(node.node_id)


def main() -> None:
    _quiet()
    space, folder = Path(sys.argv[1]), Path(sys.argv[2])
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(2):
        there.add_node(num_cpus=2)
    there.wait_for_nodes()
    study = Study.read(space)
    ray.init(address=there.address, runtime_env={"worker_process_setup_hook": watched(folder)}, log_to_driver=False)
    (folder / "head").write_text(ray.get_runtime_context().get_node_id())
    (folder / "lacking").mkdir()
    (folder / "lacking" / "means.npy").touch()
    for files, storage in (
        ([str(folder / "lacking" / "means.npy")], str(folder)),
        ([str(space)], str(folder / "lacking")),
        ([str(space)], str(folder)),
    ):
        try:
            where.check_nodes(files, storage)
        except StudyError as error:
            print(f"refused: {error}")
    assert list((folder / "lacking").iterdir()) == [folder / "lacking" / "means.npy"]
    data = study.prepare()
    print(f"table {data.train.features.nbytes + data.validation.features.nbytes}")
    thread = Thread(target=lose_a_node, args=(there, folder), daemon=True)
    thread.start()
    place = Place(folder / "study", f"sqlite:///{folder / 'mlflow.db'}")
    run_study(study, data, place, Console(width=120), time.monotonic())
    thread.join()
    ray.shutdown()
    there.shutdown()


if __name__ == "__main__":
    main()
