"""Where a study ran, as the tags of its run."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dgm_ray import __version__

# What decides a result, or whether it can be read.
PACKAGES = ("torch", "ray", "mlflow", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "optuna", "xgboost")


def environment() -> dict[str, str]:
    """Return versions, processor, GPUs, system, command, and the commit if the working directory is a checkout.

    They are those of the study's own process; on a cluster its trials may be elsewhere.
    """
    versions = {"dgm_ray": __version__, "python": platform.python_version()} | _installed()
    tags = {f"version.{name}": installed for name, installed in versions.items()}
    tags |= {"os": platform.platform(), "cpu": _processor(), "cpus": str(os.cpu_count()), "gpu": _gpus()}
    commit = _said("git", "rev-parse", "HEAD")
    if commit:
        dirty = bool(_said("git", "status", "--porcelain"))
        tags |= {"mlflow.source.git.commit": commit, "git.dirty": str(dirty).lower()}
    return tags | {"command": json.dumps(sys.argv)}


def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of an extra
            continue
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> str:
    """Return the GPUs of this machine, as ``2 x NVIDIA H200``; torch would take memory of each to say it."""
    names = Counter(_said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines())
    return ", ".join(f"{count} x {name}" for name, count in names.items()) or "none"


def _said(*line: str) -> str:
    """Return what a command prints, "" if it is not there or fails."""
    if shutil.which(line[0]) is None:
        return ""
    try:
        return subprocess.run(  # noqa: S603
            line, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
