"""Where trials run: Ray on this machine, or a cluster that is there."""

import logging
import socket

import ray

from dgm_ray.errors import StudyError
from dgm_ray.tune.settings import Resources

CONNECT_SECONDS = 5.0


def start_ray(needed: Resources, address: str | None) -> None:
    """Start Ray here, or join a cluster. Raises StudyError if one trial needs more than there is."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's error is in its line, its table, its run
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                _knock(address)
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, **quiet)
        except (OSError, ValueError) as error:
            raise StudyError("--address", f"no Ray cluster answers ({error})", address) from None
    available = ray.cluster_resources()
    for name, kind, amount in (("cpu", "CPU", needed.cpu), ("gpu", "GPU", needed.gpu)):
        there = available[kind] if kind in available else 0
        if amount > there:
            rule = f"a trial cannot have more than the {there:g} there are"
            raise StudyError(f"tune.resources.{name}", rule, amount)


def _knock(address: str) -> None:
    """Raise OSError within seconds if nothing listens at host:port; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
