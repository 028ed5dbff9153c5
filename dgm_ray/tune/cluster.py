"""Where trials run: Ray on this machine, or a cluster that is there."""

import logging
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ray
from pydantic import ByteSize
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dgm_ray.errors import StudyError
from dgm_ray.tasks.progress import some
from dgm_ray.training.storage import probe
from dgm_ray.tune.settings import Resources, bytes_of

ADDRESS = "RAY_ADDRESS"
TOKEN = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"  # noqa: S105 (names, not a secret)
CONNECT_SECONDS = 5.0
SHARES = 10_000  # Ray counts in ten thousandths of a GPU
NAMES = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}  # of resources, ours and Ray's
_OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}  # Ray's names of a resource, and of its option


def start_ray(needed: Resources, address: str | None) -> None:
    """Start Ray here, or join a cluster.

    address: of a cluster; by default that of RAY_ADDRESS, which Ray sets in a job; "local" starts Ray all the same.

    Raises StudyError if no cluster answers, or if one trial needs more than any node has.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's error is in its line, its table, its run
    given = "--address" if address else ADDRESS
    address = address or os.environ.get(ADDRESS) or "local"
    if address.startswith(("http://", "https://")):
        rule = "is of a server for jobs: submit one there (ray job submit), or give Ray's own host:port, or local"
        raise StudyError(given, rule, address)
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address == "local":
                ray.init(address=address, include_dashboard=False, **quiet)
            else:
                _knock(address)
                _join(address, given, quiet)
        except (OSError, ValueError) as error:
            raise StudyError(given, f"no Ray cluster answers ({error})", address) from None
    check_fits(placed(needed), nodes())


def _join(address: str, given: str, quiet: Mapping[str, Any]) -> None:
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        said = " ".join(str(error).split()).partition(". ")[0]
        rule = f"Ray answers, but not to this process: if it wants a token, set {TOKEN} here as there ({said})"
        raise StudyError(given, rule, address) from None


def check_nodes(files: Sequence[str], storage: str) -> None:
    """Ask every other node for what trials need there; storage is the path of a folder, or an URI.

    Raises StudyError for a file or a folder that a node does not see, and for a node without this library.
    """
    here = ray.get_runtime_context().get_node_id()
    there = [node for node in ray.nodes() if node["Alive"]]
    others = [node for node in there if node["NodeID"] != here and _amount(node["Resources"], "cpu")]
    if not others:
        return
    with probe(storage) as probed:
        task = ray.remote(num_cpus=0, max_retries=0)(_lacking)
        asked = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            for node in others
        ]
        answers = [_answer(one) for one in [one.remote([*files, *probed]) for one in asked]]
    for node, answer in zip(others, answers, strict=True):
        if isinstance(answer, str):
            raise StudyError(f"node {node['NodeManagerAddress']}", f"cannot run a trial ({answer})")
    for path in (*files, *probed):
        without = [node["NodeManagerAddress"] for node, paths in zip(others, answers, strict=True) if path in paths]
        which = f"{len(without)} of {some(len(there), 'node')}: {', '.join(without)}"
        if without and path in files:
            raise StudyError(path, f"a trial reads this file where it runs, and it is not on {which}")
        if without:
            rule = f"should be a folder that all nodes share, or an URI, and is not seen by {which}"
            raise StudyError("--storage", rule, storage)


def _lacking(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def _answer(asked: Any) -> list[str] | str:
    """Return what a node lacks, or why it cannot answer."""
    try:
        found: list[str] = ray.get(asked)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]
    return found


def nodes() -> list[dict[str, float]]:
    """Return what each node that is alive has, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def placed(needed: Resources, smallest_gpu: Callable[[], int] | None = None) -> Resources:
    """Return resources with a fraction of a GPU in place of its memory.

    smallest_gpu: returns the bytes of the smallest GPU there is, 0 for none; the nodes are asked by default.
    Raises StudyError if no GPU has so much.
    """
    if needed.gpu_memory is None:
        return needed
    wanted, there = bytes_of(needed.gpu_memory, "tune.resources.gpu_memory"), (smallest_gpu or smallest_gpu_memory)()
    if wanted > there:
        rule = f"the smallest GPU there is has {_size(there)}" if there else "there is no GPU"
        raise StudyError("tune.resources.gpu_memory", rule, needed.gpu_memory)
    return replace(needed, gpu=math.ceil(wanted / there * SHARES) / SHARES, gpu_memory=None)


def request(placed: Resources) -> dict[str, float]:
    """Return what each worker of a trial asks Ray for."""
    memory = {"memory": bytes_of(placed.memory, "tune.resources.memory")} if placed.memory is not None else {}
    return {"cpu": placed.cpu, "gpu": placed.gpu, **memory}


def bundles(placed: Resources) -> list[dict[str, float]]:
    """Return what a trial asks Ray for, by Ray's names: a bundle for each of its workers."""
    return [{NAMES[name]: amount for name, amount in request(placed).items() if amount}] * placed.workers


def options(bundle: Mapping[str, float]) -> dict[str, Any]:
    """Return what of a trial's bundles a process of our own holds, as the options of a remote class."""
    return {"num_cpus": 0, **{_OPTIONS[name]: amount for name, amount in bundle.items()}}


def check_fits(placed: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise StudyError unless there is all that a trial asks for: Ray itself would wait for it for ever.

    nodes: what each has, by Ray's names.
    """
    wanted = {name: amount for name, amount in request(placed).items() if amount}
    who = "a trial" if placed.workers == 1 else "a worker of a trial"
    there = [{name: _amount(node, name) for name in wanted} for node in nodes]
    for name, amount in wanted.items():
        most = max((node[name] for node in there), default=0.0)
        if amount > most:
            rule = f"{who} runs on one node, and none has more than {_shown(name, most)} ({some(len(there), 'node')})"
            raise StudyError(f"tune.resources.{name}", rule, getattr(placed, name))
    if not any(all(node[name] >= amount for name, amount in wanted.items()) for node in there):
        has = "; ".join(", ".join(_shown(name, node[name]) for name in wanted) for node in there)
        rule = f"{who} runs on one node, and none has all of it: they have {has}"
        raise StudyError("tune.resources", rule, {name: getattr(placed, name) for name in wanted})
    room = sum(min(int(node[name] / amount) for name, amount in wanted.items()) for node in there)
    if placed.workers > room:
        rule = f"there is room for {some(room, 'worker')} of this kind at a time ({some(len(there), 'node')})"
        raise StudyError("tune.resources.workers", rule, placed.workers)


@cache
def smallest_gpu_memory() -> int:
    """Ask a task on each node with GPUs; return the bytes of the smallest, 0 if there is none."""
    task = ray.remote(num_cpus=0, max_calls=1)(_gpu_memory)  # holds nothing: it need not wait for what others hold
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in ray.nodes()
        if node["Alive"] and _amount(node["Resources"], "gpu")
    ]
    return min((size for sizes in ray.get(asked) for size in sizes), default=0)


def _gpu_memory() -> list[int]:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides GPUs from who asks for none
    import torch

    return [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]


def _amount(node: Mapping[str, float], name: str) -> float:
    return node[NAMES[name]] if NAMES[name] in node else 0.0


def _shown(name: str, amount: float) -> str:
    return f"{_size(amount)} of memory" if name == "memory" else f"{amount:g} {NAMES[name]}"


def _size(amount: float) -> str:
    return ByteSize(int(amount)).human_readable()


def _knock(address: str) -> None:
    """Raise OSError within seconds if nothing listens at host:port; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
