"""Where a study runs."""

import json
import subprocess
import sys
from importlib.metadata import version

from dgm_ray import __version__


def environment() -> dict[str, str]:
    """Return the tags that say where a study ran: versions, and the commit if the working directory is a checkout."""
    versions = {"dgm_ray": __version__, "python": sys.version.split()[0]}
    versions |= {name: version(name) for name in ("torch", "ray", "mlflow", "numpy")}
    tags = {f"version.{name}": installed for name, installed in versions.items()}
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags |= {"mlflow.source.git.commit": commit, "git.dirty": str(bool(_git("status", "--porcelain"))).lower()}
    return tags | {"command": json.dumps(sys.argv)}


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
