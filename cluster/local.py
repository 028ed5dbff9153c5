"""A Ray cluster of several nodes on this machine, by several ``ray start``, to try what a study does on one.

    python cluster/local.py start --nodes 3 --cpus 2     # a head and two more; who has no token is refused
    eval "$(python cluster/local.py env)"                # the addresses and the token, for this shell
    python cluster/local.py status
    ray job submit --working-dir . -- python -m dgm_ray.tune search_spaces/medgan.yaml --storage "$PWD/results"
    python cluster/local.py stop

``stop`` ends the processes that ``start`` began, by their ids, and no others: ``ray stop`` would end every Ray process
of the machine. Each node has a folder of its own below --folder, whose path is short, because sockets lie in it.
"""

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS = 120.0, 20.0
RAY = str(Path(sys.executable).with_name("ray"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="cluster/local.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["start", "status", "env", "stop"])
    parser.add_argument("--nodes", type=int, default=3, help="with the head (3)")
    parser.add_argument("--cpus", type=float, default=2, help="of each node, whatever the machine has (2)")
    parser.add_argument("--gpus", type=float, default=0, help="of each node, whatever the machine has (0)")
    default = Path(tempfile.gettempdir()) / f"dgm_ray_cluster_{os.getuid()}"
    parser.add_argument("--folder", type=Path, default=default, help=f"of logs, token and ids ({default})")
    given = parser.parse_args(arguments)
    folder = given.folder.absolute()
    if given.command == "start":
        if given.nodes < 1:
            return refuse("--nodes", "should be 1 at least")
        return start(folder, given.nodes, ["--num-cpus", f"{given.cpus:g}", "--num-gpus", f"{given.gpus:g}"])
    if not (folder / "nodes.json").exists():
        return refuse(str(folder), "no cluster was started here")
    return {"status": status, "env": show, "stop": stop}[given.command](folder)


def start(folder: Path, count: int, has: Sequence[str]) -> int:
    """Start a head and more nodes, write their ids, and wait until all are there."""
    if find_spec("aiohttp_cors") is None:
        return refuse("ray[default]", "is not installed, and a head needs it: pip install 'dgm-ray[cluster]'")
    if (folder / "nodes.json").exists():
        return refuse(str(folder), "a cluster was started here: stop it first, or give another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    gcs, dashboard = free_ports(2)
    shared = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}  # a job's `python`
    variables = shared | {"RAY_ADDRESS": f"{HOST}:{gcs}", "RAY_API_SERVER_ADDRESS": f"http://{HOST}:{dashboard}"}
    cluster: dict[str, Any] = {"variables": variables, "nodes": []}
    head = ["--head", f"--port={gcs}", "--dashboard-host", HOST, f"--dashboard-port={dashboard}"]
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        kind = head if number == 0 else [f"--address={HOST}:{gcs}"]
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        line = [RAY, "start", "--block", *kind, f"--node-ip-address={HOST}", f"--temp-dir={place}", *has]
        line += ["--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
        line += [f"--{name}={port}" for name, port in ports.items() if number == 0 or name not in OF_THE_HEAD]
        environment = {name: value for name, value in os.environ.items() if name not in variables}
        with (place / "log").open("w") as log:
            node = subprocess.Popen(  # noqa: S603
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment | shared | path,
            )
        cluster["nodes"].append({"pid": node.pid, "began": began(node.pid), "log": str(place / "log")})
        (folder / "nodes.json").write_text(json.dumps(cluster, indent=2), encoding="utf-8")
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (place / "log").read_text(encoding="utf-8"):
            if node.poll() is not None or time.monotonic() > deadline:
                print((place / "log").read_text(encoding="utf-8"), file=sys.stderr)
                stop(folder)
                return refuse(f"node {number}", "did not start")
            time.sleep(0.2)
        print(f"node {number}: process {node.pid}", flush=True)
    print(f"{count} nodes at {HOST}:{gcs}, jobs at http://{HOST}:{dashboard}; for a shell:")
    print(f'eval "$({shlex.join([sys.executable, __file__, "env", "--folder", str(folder)])})"')
    return 0


PORTS = (
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
OF_THE_HEAD = ("ray-client-server-port",)


def status(folder: Path) -> int:
    """Say which nodes run, and what Ray says of them; 1 if one does not run."""
    cluster = read(folder)
    for number, node in enumerate(cluster["nodes"]):
        print(f"node {number}: process {node['pid']} {'runs' if runs(node) else 'has ended'}, log {node['log']}")
    line = [RAY, "status", "--address", cluster["variables"]["RAY_ADDRESS"]]
    said = subprocess.run(line, env=os.environ | cluster["variables"], check=False, timeout=60)  # noqa: S603
    return 0 if said.returncode == 0 and all(map(runs, cluster["nodes"])) else 1


def show(folder: Path) -> int:
    """Print what a shell needs to use the cluster."""
    for name, value in read(folder)["variables"].items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def stop(folder: Path) -> int:
    """End the nodes, the head last, and remove their folders."""
    nodes = read(folder)["nodes"]
    for node in reversed(nodes):
        if runs(node):
            os.kill(node["pid"], signal.SIGTERM)  # it ends what it has started
        deadline = time.monotonic() + STOP_SECONDS
        while runs(node) and time.monotonic() < deadline:
            time.sleep(0.1)
        if runs(node):
            os.killpg(node["pid"], signal.SIGKILL)
    shutil.rmtree(folder)
    print(f"{len(nodes)} nodes stopped")
    return 0


def read(folder: Path) -> dict[str, Any]:
    """Return what ``start`` wrote."""
    cluster: dict[str, Any] = json.loads((folder / "nodes.json").read_text(encoding="utf-8"))
    return cluster


def runs(node: dict[str, Any]) -> bool:
    """Tell whether a node's process runs, and is not another's that has its number now."""
    return node["began"] is not None and began(node["pid"]) == node["began"]


def began(pid: int) -> str | None:
    """Return when a process began, None if it has ended."""
    line = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    said = subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    state, _, when = said.partition(" ")
    return None if not said or state.startswith("Z") else when.strip()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at, and that Ray does not give to workers."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            taken = stack.enter_context(socket.socket())
            taken.bind((HOST, 0))
            if not 10002 <= (port := taken.getsockname()[1]) <= 19999:
                found.append(port)
        return found


def refuse(place: str, rule: str) -> int:
    """Say in one line what is wrong."""
    print(f"error: {place}: {rule}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
