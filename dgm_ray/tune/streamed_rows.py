"""Training rows that Ray Data reads from their file, shard by shard, while a trial trains."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.data import Datasource, ReadTask
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.context import DataContext
from ray.exceptions import RayTaskError
from torch import Tensor

from dgm_ray.data import class_numbers
from dgm_ray.data.shards import Shard
from dgm_ray.data.streaming import TrainParts
from dgm_ray.errors import DataError, DGMError
from dgm_ray.training import part_sizes

BLOCK_BYTES = 32 * 2**20  # of what is read in one go
STORE_BYTES = 256 * 2**20  # of the object store, for one trial
PREFETCHED = 2  # batches


class ShardSource(Datasource):  # type: ignore[misc]
    """One read task for each shard. parts: what of it is trained on."""

    def __init__(self, parts: "ray.ObjectRef[TrainParts]", shards: Sequence[Shard], labelled: bool) -> None:
        super().__init__()
        self._parts, self._shards, self._labelled = parts, shards, labelled

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_blocks, self._parts, one, self._labelled), unknown) for one in self._shards]


def _blocks(parts: "ray.ObjectRef[TrainParts]", shard: Shard, labelled: bool) -> Iterator[Any]:
    for features, labels in ray.get(parts).read(shard):
        if len(features):
            yield BlockAccessor.batch_to_block({"features": features} | ({"labels": labels} if labelled else {}))


class StreamedRows:
    """The training rows of a table in shards; see ``Rows``.

    An epoch reads the shards in an order of its own, and draws batches from the ``shuffle_rows`` rows read last.
    classes: of labels, if batches have them.

    The tasks that read ask for no CPU: they could wait for ever for the CPUs that trials hold. Each trial has one of
    them at a time, on its own node, and Ray Data waits when it is ahead by STORE_BYTES.
    """

    def __init__(
        self, parts: TrainParts, rows: int, device: torch.device, classes: int | None, shuffle_rows: int
    ) -> None:
        self._stored, self._shards, self._rows = ray.put(parts), parts.shards.shards, rows
        self.device, self._classes, self._shuffle_rows = device, classes, shuffle_rows

    def __len__(self) -> int:
        return self._rows

    def parts(
        self, batch_size: int, *, seed: int, epoch: int, join_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        read, waiting = self._read(batch_size, seed=seed, epoch=epoch), dict[str, Tensor]()
        for size in part_sizes(self._rows, batch_size, join_last=join_last):
            while not waiting or len(waiting["features"]) < size:  # Ray's own last batches are of any size
                more = next(read, None)
                if more is None:
                    raise DataError("data", "the file has fewer rows than when the study began")
                waiting = {name: torch.cat([waiting[name], one]) if waiting else one for name, one in more.items()}
            batch = {name: one[:size] for name, one in waiting.items()}
            waiting = {name: one[size:] for name, one in waiting.items()}
            yield batch["features"], self._labels(batch)

    def _labels(self, batch: dict[str, Tensor]) -> Tensor | None:
        if self._classes is None:
            return None
        numbers = class_numbers(batch["labels"].cpu().numpy(), self._classes, "data: labels")
        return torch.as_tensor(numbers, dtype=torch.float32, device=self.device)

    def _read(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        order = np.random.default_rng([seed, epoch])
        shards = [self._shards[index] for index in order.permutation(len(self._shards))]
        source = ShardSource(self._stored, shards, self._classes is not None)
        here = ray.get_runtime_context().get_node_id()
        dataset = ray.data.read_datasource(
            source,
            num_cpus=0,
            concurrency=1,
            override_num_blocks=len(shards),
            label_selector={"ray.io/node-id": here},
        )
        _settle(dataset.context)
        try:
            yield from dataset.iter_torch_batches(
                batch_size=batch_size,
                prefetch_batches=PREFETCHED,
                local_shuffle_buffer_size=max(self._shuffle_rows, batch_size),
                local_shuffle_seed=int(order.integers(2**31)),
                device=str(self.device),
            )
        except RayTaskError as error:
            if isinstance(error.cause, DGMError):
                raise error.cause from None
            raise


def _settle(context: DataContext) -> None:
    """Read in the order of the shards, and no more than is soon needed."""
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=STORE_BYTES
    )
