"""What lies in ``cluster/`` fits its schemas, this library's commands, and the page that walks through it."""

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from dgm_ray.tune.__main__ import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")

# By hand, after KubeRay's Go types (ray.io/v1): the fields in use, and those that are required.
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}


def record(required: list[str], **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = record(
    ["name", "image"],
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    image=TEXT,
    envFrom={"type": "array", "items": record(["secretRef"], secretRef=record(["name"], name=TEXT))},
    resources=record([], requests=TEXTS, limits=TEXTS),
)
POD = record(["spec"], spec=record(["containers"], containers={"type": "array", "items": CONTAINER, "minItems": 1}))
WORKERS = record(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
RAY_JOB = record(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=record(["name"], name=TEXT),
    spec=record(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=record(
            ["headGroupSpec"],
            rayVersion=TEXT,
            authOptions=record(["mode"], mode={"enum": ["disabled", "token"]}),
            headGroupSpec=record(["rayStartParams", "template"], rayStartParams=TEXTS, template=POD),
            workerGroupSpecs={"type": "array", "items": WORKERS},
        ),
    ),
)


def read(name: str) -> dict[str, Any]:
    text = (ROOT / "cluster" / name).read_text(encoding="utf-8")
    assert "# Not run: " in text
    node: dict[str, Any] = yaml.safe_load(text)
    return node


def test_the_launcher_takes_its_file() -> None:
    node = read("launcher.yaml")
    filled = prepare_config(node)
    validate_config(filled)
    starts = [line for name in ("head", "worker") for line in node[f"{name}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    with pytest.raises(jsonschema.ValidationError):
        validate_config(filled | {"worker_ips": ["a"]})


def test_the_ray_job_has_fields_that_there_are() -> None:
    node = read("rayjob.yaml")
    jsonschema.validate(node, RAY_JOB)
    assert "ray==" + node["spec"]["rayClusterSpec"]["rayVersion"] in (ROOT / "constraints.txt").read_text()
    sent = yaml.safe_load(node["spec"]["runtimeEnvYAML"])["env_vars"]
    assert all(isinstance(value, str) for value in sent.values())
    check_command(node["spec"]["entrypoint"])


def check_command(line: str) -> None:
    """Fail unless the command line parses, and its search space is there."""
    python, _, module, space, *_ = shlex.split(line)
    assert (python, module) == ("python", "dgm_ray.tune")
    assert (ROOT / space).exists()
    command = typer.main.get_command(app)
    context = command.make_context("tune", shlex.split(line)[3:])
    assert context.params["storage"]


def test_the_page_names_what_there_is() -> None:
    paths = set(re.findall(r"\b(?:cluster|search_spaces)/[\w.]+\w", PAGE))
    assert paths == {
        "cluster/local.py",
        "cluster/launcher.yaml",
        "cluster/rayjob.yaml",
        "search_spaces/medgan.yaml",
    }
    assert all((ROOT / path).exists() for path in paths)
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    commands = re.findall(r"python -m dgm_ray\.tune .*", blocks)
    assert len(commands) == 3
    for line in commands:
        check_command(line)
