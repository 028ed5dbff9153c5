"""Several workers that train one trial together: processes in its placement group, of which the trial's is the first.

Ray Train is not asked for them: its worker group makes a placement group of its own (2.60), beside the one that Tune
counts trials by, and starts new processes for each trial; these stay for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util import get_node_ip_address
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from dgm_ray.data import Prepared
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import Part, Training, packed, unpacked
from dgm_ray.tune.cluster import options
from dgm_ray.tune.shares import ran_out, take_gpu
from dgm_ray.tune.study import task_of

MEETING = timedelta(seconds=120)  # in which workers have to find each other
GRACE = 10.0  # seconds from a broken connection to Ray's word that a worker died


class Team:
    """The other workers of a trial's process.

    bundles: what each worker has, of the trial's placement group, the trial's process first. table: returns the data.
    data: the same, as this process has it.
    """

    def __init__(self, bundles: Sequence[Mapping[str, float]], table: Callable[[], Prepared], data: Prepared) -> None:
        self._bundles, self._table, self._data = bundles, table, data
        self._others: list[Any] = []
        self._begun: list[Any] = []
        self._epoch: int | None = None  # after which all have the same state

    def start(self, task: TrainingTask, configuration: dict[str, Any]) -> Training:
        """Return a task's training as this process has it; ``advance`` trains it. Raises as a task's ``start``."""
        if not self._others:
            self._gather()
        self._training = task.start(self._data, configuration, Part(0, len(self._bundles)))
        self._begun, self._epoch = [other.begin.remote(configuration) for other in self._others], None
        return self._training

    def advance(self) -> dict[str, float]:
        """Train an epoch together, as ``Training.advance``; this process alone measures.

        Raises what a worker raised, and RayActorError if one died; then the others are ended as well.
        """
        training = self._training
        state = None if training.epoch == self._epoch else packed(training.state())
        with self._watched([*self._begun, *(other.advance.remote(state) for other in self._others)]):
            metrics = training.advance()
        self._begun, self._epoch = [], training.epoch
        return metrics

    def stop(self) -> None:
        """End the other workers."""
        for other in self._others:
            ray.kill(other)
        self._others = []
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def _gather(self) -> None:
        """Start the others, and let all meet."""
        host, workers = get_node_ip_address(), len(self._bundles)
        group = get_current_placement_group()
        for rank, bundle in list(enumerate(self._bundles))[1:]:
            held = options(bundle)
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            worker = ray.remote(_Worker).options(scheduling_strategy=place, **held)
            self._others.append(worker.remote(Part(rank, workers), held, self._table))
        ray.get([other.ready.remote() for other in self._others])
        store = TCPStore(host, 0, workers, is_master=True, wait_for_workers=False, timeout=MEETING)
        backend = _backend(self._bundles[0])
        with self._watched([other.meet.remote(host, store.port, backend) for other in self._others]):
            distributed.init_process_group(backend, store=store, rank=0, world_size=workers)

    @contextmanager
    def _watched(self, work: list[Any]) -> Iterator[None]:
        """Inside, this process takes part in the work of the others; if one fails, nobody waits for it for ever."""
        failed: list[Exception] = []
        watching = Thread(target=self._watch, args=(work, failed), daemon=True)
        watching.start()
        try:
            yield
        except Exception as error:
            if isinstance(error, RuntimeError) and not ran_out(error):  # the connection to one that failed, perhaps
                watching.join(GRACE)
            found = failed[:1]
            self.stop()
            if found:
                raise found[0] from None
            raise
        watching.join()
        if failed:
            self.stop()
            raise failed[0]

    def _watch(self, work: list[Any], failed: list[Exception]) -> None:
        while work:
            done, work = ray.wait(work)
            try:
                ray.get(done)
            except Exception as error:
                cause = error.cause if isinstance(error, RayTaskError) else None
                failed.append(cause if isinstance(cause, Exception) else error)
                for other in self._others:
                    ray.kill(other)  # closes the connections on which this process waits
                return


class _Worker:
    """What another worker's process does. options: what it asked Ray for."""

    def __init__(self, part: Part, options: Mapping[str, Any], table: Callable[[], Prepared]) -> None:
        self._part, self._data = part, table()
        if "num_gpus" in options:
            take_gpu(options["num_gpus"])

    def ready(self) -> None:
        """Return when this process has started."""

    def meet(self, host: str, port: int, backend: str) -> None:
        store = TCPStore(host, port, self._part.workers, is_master=False, timeout=MEETING)
        distributed.init_process_group(backend, store=store, rank=self._part.rank, world_size=self._part.workers)

    def begin(self, configuration: dict[str, Any]) -> None:
        self._training = task_of(configuration).start(self._data, configuration, self._part)

    def advance(self, state: bytes | None) -> None:
        """Train an epoch, from ``state`` on if it is given."""
        if state is not None:
            self._training.load(unpacked(state), "worker 0")
        self._training.advance()


def _backend(bundle: Mapping[str, float]) -> str:
    """Return what connects workers: NCCL needs a GPU for each."""
    return "nccl" if "GPU" in bundle and bundle["GPU"] >= 1 else "gloo"
