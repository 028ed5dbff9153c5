"""What the project's own files promise."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MADE = ("results/", "examples/data/")  # by the commands that stand before


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    constraints = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    return [*project["dependencies"], *extras, *(line for line in constraints if not line.startswith("#"))]


def test_defect_46_requirements_are_text_and_name_packages() -> None:
    """The original's file was UTF-16, and named packages that only stand for others."""
    names = {re.split(r"[^\w.-]", one)[0].lower() for one in requirements()}
    assert len(names) > 10
    assert not names & {"sklearn", "imblearn", ""}


def test_defect_47_what_the_readme_names_is_there() -> None:
    pattern = r"\b(?:search_spaces|examples|docs|benchmarks|dgm_ray|results)/[\w./-]*\w"
    paths = {path for path in re.findall(pattern, README) if not path.startswith(MADE)}
    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = set(re.findall(r"python -m ([\w.]+)", README))
    assert len(modules) >= 4
    for module in modules:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_defect_47_the_readmes_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


@pytest.mark.parametrize("block", re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
def test_defect_47_commands_are_for_a_shell(block: str) -> None:
    assert "\\" not in block
    commands = [line.split("#")[0].strip() for line in block.splitlines()]
    assert all(command.split()[0] in ("make", "python", "mlflow", "dgm-ray") for command in commands)
