"""Run a study on a cluster of two nodes with three fake GPUs: ``python two_nodes.py SPACE FOLDER``.

A process of its own, because tests start Ray once. Each trial writes a line to FOLDER/placed.jsonl when it takes its
GPU, and waits in its first epoch until six have theirs. One with code_size 3 never has memory enough, one with 4 has it
on a whole GPU.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from dgm_ray.errors import StudyError
from dgm_ray.tune import cluster as where
from dgm_ray.tune.command import _quiet
from dgm_ray.tune.place import Place
from dgm_ray.tune.run import run_study
from dgm_ray.tune.settings import Resources
from dgm_ray.tune.study import Study


def fake_gpus(log: Path, trials: int) -> Callable[[], None]:
    """Return what makes a worker process believe in GPUs: all but the arithmetic."""

    def fake() -> None:
        import torch

        import dgm_ray.tasks.train
        from dgm_ray.training import Training

        advance, share = Training.advance, [0.0]

        def placed(fraction: float, index: int) -> None:
            share[0] = fraction
            line = {"node": ray.get_runtime_context().get_node_id(), "share": fraction, "index": index}
            with log.open("a") as file:
                file.write(json.dumps(line | {"gpu": os.environ["CUDA_VISIBLE_DEVICES"]}) + "\n")

        def hungry(training: Training) -> dict[str, float]:
            deadline = time.monotonic() + 240
            while log.read_text().count("\n") < trials:
                assert time.monotonic() < deadline, "not all trials run at once"
                time.sleep(0.1)
            size = json.loads(training._configuration)["arguments"]["architecture"]["arguments"]["code_size"]
            if training.epoch == 1 and (size == 3 or (size == 4 and share[0] < 1)):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return advance(training)

        torch.cuda.is_available = lambda: True
        torch.cuda.set_device = lambda index: None
        torch.cuda.set_per_process_memory_fraction = placed
        torch.cuda.max_memory_allocated = lambda: 3 * 2**20
        torch.cuda.reset_peak_memory_stats = lambda: None
        dgm_ray.tasks.train.device_of = lambda device: torch.device("cpu")
        Training.advance = hungry

    return fake


def main() -> None:
    _quiet()
    space, folder = Path(sys.argv[1]), Path(sys.argv[2])
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
    there.add_node(num_cpus=4, num_gpus=1)
    study = Study.read(space)
    hook = fake_gpus(folder / "placed.jsonl", study.trials)
    ray.init(address=there.address, runtime_env={"worker_process_setup_hook": hook}, log_to_driver=False)
    where.smallest_gpu_memory = lambda: 8 * 2**30
    try:
        where.start_ray(Resources(cpu=5), None)
    except StudyError as error:
        print(f"refused: {error}")
    where.start_ray(study.settings.resources, None)
    place = Place(folder / "study", f"sqlite:///{folder / 'mlflow.db'}")
    run_study(study, study.prepare(), place, Console(width=120), time.monotonic())
    ray.shutdown()
    there.shutdown()


if __name__ == "__main__":
    main()
