"""What a trial has of a GPU: which one, how much of its memory, and what happens when that is not enough."""

import os

import ray

OUT_OF_SHARE = "OutOfShareError"  # how Tune's text of an error names it


class OutOfShareError(Exception):
    """A trial needs more than its share of a GPU's memory, and a larger one may do."""


def take_gpu(share: float) -> None:
    """Compute on the GPU that Ray assigned to this process, with ``share`` of its memory at most.

    share: of one GPU, or so many GPUs, of which the first is used. Where PyTorch finds no GPU nothing is done: the
    task says so.
    """
    import torch

    assigned = ray.get_gpu_ids()
    if not torch.cuda.is_available() or not assigned:
        return
    visible = os.environ["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else None
    index = device_index(str(assigned[0]), visible)
    torch.cuda.set_device(index)
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), index)


def device_index(assigned: str, visible: str | None) -> int:
    """Return the number that CUDA gives, in this process, to the GPU that Ray calls ``assigned``.

    visible: CUDA_VISIBLE_DEVICES; None: the process sees all GPUs of its node.
    """
    return int(assigned) if visible is None else [one.strip() for one in visible.split(",")].index(assigned)


def larger_share(share: float) -> float:
    """Return twice the share, one GPU at most; a whole GPU, or more, cannot be made larger."""
    return share if share >= 1 else min(1.0, 2 * share)


def ran_out(error: BaseException) -> bool:
    """Tell whether memory ran out, of a GPU or of the node."""
    import torch

    # PyTorch says so of the node's memory in a RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def ran_out_of_gpu(error: BaseException) -> bool:
    """Tell whether it was a GPU's."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)
