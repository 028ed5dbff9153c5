"""The floors of the design: who may import whom, who writes files, and what importing costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dgm_ray"
FILES = sorted(PACKAGE.rglob("*.py"))
# Lowest first. A module imports from its own floor and from lower ones.
FLOORS = (
    ("__init__", "errors", "registry", "space", "schema"),
    ("data",),
    ("nn",),
    ("models",),
    ("imputers",),
    ("training",),
    ("evaluation",),
    ("tasks",),
    ("tune",),
    ("estimator",),
    ("cli", "convert", "documentation", "fetch", "impute_files", "testing"),
)
WRITING = (
    "write_text",
    "write_bytes",
    "save",
    "savez",
    "tofile",
    "dump",
    "to_parquet",
    "to_csv",
    "to_json",
    "to_pickle",
)
TABLES = ("to_parquet", "to_csv")


def floor_of(part: str) -> int:
    (found,) = [index for index, names in enumerate(FLOORS) if part in names]
    return found


def part_of(path: Path, package: Path = PACKAGE) -> str:
    """Return the part of the package that a file belongs to: a folder, or a module beside them.

    The task runner is a command, although it lives where its users know it from.
    """
    if path.relative_to(package).as_posix() == "tasks/runner.py":
        return "cli"
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield every module that is imported, in functions too; from ``package`` (dotted) relative ones are resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def upward(tree: ast.AST, part: str) -> list[str]:
    """Return the imports of a module of ``part`` that come from a higher floor."""
    own = [name.split(".") for name in imported(tree, f"dgm_ray.{part}") if name.split(".")[0] == "dgm_ray"]
    parts = {names[1] if len(names) > 1 and not names[1].startswith("__") else "__init__" for names in own}
    return sorted(other for other in parts if floor_of(other) > floor_of(part))


def writes(tree: ast.AST) -> list[str]:
    """Return the calls that write a file, but for a table that is written to the path of ``with atomic(...)``."""
    allowed = {
        id(call)
        for block in ast.walk(tree)
        if isinstance(block, ast.With)
        and any(isinstance(one.context_expr, ast.Call) and name_of(one.context_expr) == "atomic" for one in block.items)
        for call in ast.walk(block)
        if isinstance(call, ast.Call) and name_of(call) in TABLES
    }
    ours = {name.rpartition(".")[2] for name in imported(tree, "dgm_ray") if name.startswith("dgm_ray.training.")}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in allowed]
    calls = [call for call in calls if not (isinstance(call.func, ast.Name) and call.func.id in ours)]
    return [ast.unparse(call) for call in calls if name_of(call) in WRITING or opens_to_write(call)]


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def opens_to_write(call: ast.Call) -> bool:
    """Tell whether this is open(path, mode) or path.open(mode) with a mode that writes, or that is not spelt out."""
    if name_of(call) != "open":
        return False
    position = 0 if isinstance(call.func, ast.Attribute) else 1
    modes = [*call.args[position : position + 1], *(one.value for one in call.keywords if one.arg == "mode")]
    return any(not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") for mode in modes)


def repairing_gets(tree: ast.AST) -> list[str]:
    """Return calls of ``.get`` with a default on anything but a registry, whose second argument is a place."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and len(node.args) + len(node.keywords) == 2
        and ast.unparse(node.func.value) not in ("FACTORIES", "TASKS")
    ]


def trees() -> Iterator[tuple[str, str, ast.AST]]:
    for path in FILES:
        yield str(path.relative_to(ROOT)), part_of(path), ast.parse(path.read_text(encoding="utf-8"))


def test_all_files_are_read() -> None:
    assert len(FILES) >= 30
    assert {part_of(path) for path in FILES} <= {name for floor in FLOORS for name in floor}


def test_imports_go_down() -> None:
    assert {path: up for path, part, tree in trees() if (up := upward(tree, part))} == {}


def test_ray_and_mlflow_have_their_place() -> None:
    places: dict[str, set[str]] = {"ray": set(), "mlflow": set(), "torch": set(), "typer": set()}
    for _, part, tree in trees():
        for name in imported(tree, f"dgm_ray.{part}"):
            if name.split(".")[0] in places:
                places[name.split(".")[0]].add(part)
    assert places["ray"] == {"tune"}
    assert "tune" in places["mlflow"] <= {"tune", "tasks"}
    assert not places["torch"] & {"data", *FLOORS[0], "cli"}
    assert places["typer"] <= {"cli", "tune", "tasks"}


def test_only_training_and_tasks_write_files() -> None:
    found = {
        path: calls for path, part, tree in trees() if (calls := writes(tree)) and part not in ("training", "tasks")
    }
    assert found == {
        "dgm_ray/testing/checks.py": ["imputer.save(path)"],  # whether it can, in a temporary folder
        "dgm_ray/testing/rules.py": ["pickler.dump(imputer)"],  # in memory
        # The kernel's, of a process's priority.
        "dgm_ray/tune/tracking/sender.py": ["Path('/proc/self/autogroup').write_text(str(PRIORITY), encoding='ascii')"],
    }
    assert any(writes(tree) for _, part, tree in trees() if part == "training")


def test_configurations_are_not_repaired() -> None:
    known = {"dgm_ray/data/scaling.py": ["content.get('feature_range', [0, 1])"]}  # an optional key of a file format
    assert {path: gets for path, _, tree in trees() if (gets := repairing_gets(tree))} == known


@pytest.mark.parametrize(
    ("part", "code", "found"),
    [
        ("nn", "from dgm_ray.models import GAN", ["models"]),
        ("nn", "def f():\n    import dgm_ray.tune.run", ["tune"]),
        ("nn", "from dgm_ray import cli, data", ["cli"]),
        ("nn", "from ..tasks import train\nfrom .inputs import a", ["tasks"]),
        ("errors", "from dgm_ray.data import Metadata", ["data"]),
        ("tune", "from dgm_ray import __version__\nfrom dgm_ray.tasks import train\nimport dgm_raytune.cli", []),
    ],
)
def test_the_test_of_imports(part: str, code: str, found: list[str]) -> None:
    assert upward(ast.parse(code), part) == found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("open(path)", 0),
        ("path.open('rb')", 0),
        ("open(path, 'w')", 1),
        ("path.open('a', newline='')", 1),
        ("path.open(mode='xb')", 1),
        ("path.open('rb+')", 1),
        ("open(path, how)", 1),
        ("torch.save(state, path)", 1),
        ("table.to_csv(path)", 1),
        ("with atomic(path) as it:\n    table.to_csv(it)", 0),
        ("with atomic(path) as it:\n    torch.save(state, it)", 1),
        ("from dgm_ray.training import write_text\nwrite_text(path, page)", 0),
        ("with other(path) as it:\n    table.to_parquet(it)", 1),
        ("path.read_text()\njson.dumps(node)", 0),
    ],
)
def test_the_test_of_writing(code: str, count: int) -> None:
    assert len(writes(ast.parse(code))) == count


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("node.get('a', 1)", 1),
        ("self.config['a'].get('b', default=None)", 1),
        ("node.get('a')", 0),
        ("TASKS.get('a', 'task')", 0),
        ("scope.get('a', int, 'path')", 0),
    ],
)
def test_the_test_of_gets(code: str, count: int) -> None:
    assert len(repairing_gets(ast.parse(code))) == count


IMPORTED = "import sys; print(sorted({'torch', 'ray', 'mlflow', 'sklearn', 'pandas'} & set(sys.modules)))"


@pytest.mark.parametrize("module", ["dgm_ray", "dgm_ray.cli", "dgm_ray.tune", "dgm_ray.registry", "dgm_ray.data"])
def test_importing_is_cheap(module: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", f"import {module}; {IMPORTED}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "[]\n"


@pytest.mark.parametrize("module", ["dgm_ray.tune", "dgm_ray.tasks.runner", "dgm_ray.cli"])
def test_help_is_cheap(module: str) -> None:
    """``-X importtime`` writes a line for every module, on standard error."""
    main = f"from {module} import app; app()" if module == "dgm_ray.cli" else ""
    how = ["-c", main] if main else ["-m", module]
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", *how, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in finished.stderr.splitlines()}
    assert "Usage" in finished.stdout
    assert "dgm_ray" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "sklearn", "pandas"}
