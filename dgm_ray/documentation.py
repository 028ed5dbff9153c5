"""Pages about every task and factory, made of signatures and docstrings: ``python -m dgm_ray.documentation``."""

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from dgm_ray.registry import FACTORIES, MISSING, TASKS, Parameter, is_data, marks, options, parameters
from dgm_ray.schema import documentation

EXAMPLES = "examples/tasks"
_NAMES = {int: "integer", float: "number", bool: "boolean", str: "text", Path: "path", Any: "anything"}
_BOUNDS = ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"))
_TASKS = """# Tasks

Each runs from a file, `{"task": NAME, "arguments": {...}}`, with `python -m dgm_ray.tasks.runner FILE`, or `dgm-ray run
FILE`. Relative paths are relative to the working directory. Beside these arguments every task takes `logging`: what
Python's `logging.basicConfig` takes. The examples need `dgm-ray data fetch wine` first, and run in the order of
`examples/tasks/wine/task-all.json`. This page is made by `make docs`.
"""
_FACTORIES = """# Architectures

An architecture is `{"arguments": {...}, "components": {NAME: {"factory": FACTORY, "arguments": {...}}}}`. What a table
below calls *shared* comes, by its name, from the architecture's `arguments` (`noise_size`, `code_size`, `conditional`),
from another component, or from the table of data (`metadata`). It is not written where it is used, unless as names of
other components (`"parameters": ["generator"]`). Where one factory is named, its bare arguments will do. The
architecture's `initialization`, `xavier` (the default) or `he`, says how the weights of linear layers are drawn. This
page is made by `make docs`.
"""


def tasks_page(root: Path) -> str:
    """Return the page of all tasks, with the examples below ``root``."""
    examples = _examples(root)
    sections, first = [_TASKS], dict[Callable[..., Any], str]()
    for name, entry in TASKS.items():
        known = first.setdefault(entry, name)
        section = [
            f"## {name}",
            *(_about(entry) if known == name else [f"Another name of [{known}](#{known.lower()})."]),
        ]
        if name in examples:
            path = examples[name]
            command = f"    python -m dgm_ray.tasks.runner {path.as_posix()}"
            section += [f"Example: `{path.as_posix()}`", command, _fenced((root / path).read_text(encoding="utf-8"))]
        sections.append("\n\n".join(section) + "\n")
    return "\n".join(sections)


def architecture_page() -> str:
    """Return the page of what each model needs, and of all factories."""
    from dgm_ray.models import MODELS

    sections = [_FACTORIES, "## Models\n"]
    for model in MODELS:
        sections.append("\n\n".join([f"### {model.__name__} (task Train{model.__name__})", *_about(model)]) + "\n")
    places: dict[str, list[tuple[str, Callable[..., Any]]]] = {}
    for name, entry in FACTORIES.items():
        if entry.__module__.startswith("dgm_ray.") and not entry.__module__.startswith("dgm_ray.tune"):
            places.setdefault(entry.__module__, []).append((name, entry))
    for module in sorted(places):
        sections.append(f"## {_summary(sys.modules[module].__doc__)}\n")
        for name, entry in places[module]:
            sections.append("\n\n".join([f"### {name}", *_about(entry)]) + "\n")
    return "\n".join(sections)


def undescribed() -> list[str]:
    """Return the arguments of tasks that no docstring says anything about."""
    return [
        f"{name}.{argument}"
        for name, entry in TASKS.items()
        for argument in parameters(entry)
        if argument not in documentation(entry)[1]
    ]


def write(root: Path) -> None:
    """Write the pages below ``root``."""
    from dgm_ray.training import write_text

    for file, page in pages(root).items():
        write_text(root / file, page)


def pages(root: Path) -> dict[str, str]:
    """Return the pages by the path of their file."""
    import dgm_ray.tune.tasks  # noqa: F401 (registers the tasks that run on Ray)
    from dgm_ray.tasks.configuration import load_tasks

    load_tasks()
    return {"docs/tasks.md": tasks_page(root), "docs/architecture.md": architecture_page()}


def _examples(root: Path) -> dict[str, Path]:
    """Return the first example of each task, by the task's name."""
    found: dict[str, Path] = {}
    for path in sorted((root / EXAMPLES).rglob("*.json")):
        node = json.loads(path.read_text(encoding="utf-8"))
        if "task" in node:
            found.setdefault(node["task"], path.relative_to(root))
    return found


def _about(entry: Callable[..., Any]) -> list[str]:
    """Return what a docstring says, and the table of arguments."""
    summary, notes = documentation(entry)
    known = parameters(entry)
    if not known:
        return [summary]
    head = "| argument | what it is | default | meaning |\n|---|---|---|---|"
    rows = [_row(one, notes[name] if name in notes else "") for name, one in known.items()]
    return [summary, "\n".join([head, *rows])]


def _row(parameter: Parameter, note: str) -> str:
    default = "" if parameter.default is MISSING else _shown(parameter.default)
    default = default or ("shared" if parameter.shared else "**needed**")
    return "| " + " | ".join(_cell(text) for text in (f"`{parameter.name}`", kind(parameter), default, note)) + " |"


def kind(parameter: Parameter) -> str:
    """Return what may stand for an argument, for people."""
    if "node" in marks(parameter.hint):
        return "architecture, or the path of its file" if parameter.name == "architecture" else "a factory"
    return _kind(parameter.hint)


def _kind(hint: Any) -> str:
    described = list(dict.fromkeys(_one(option, hint) for option in options(hint)))
    if type(None) in get_args(hint):
        described.append("null")
    return " or ".join(described)


def _one(option: Any, hint: Any) -> str:
    origin, inner = get_origin(option), get_args(option)
    if origin in (list, tuple):
        return f"list of {_kind(inner[0])}" if inner else "list"
    if origin is dict:
        return "mapping"
    if inner and all(isinstance(one, str) for one in inner):
        return " or ".join(f'"{one}"' for one in inner)
    if hasattr(option, "__metadata__") or option in _NAMES:
        return _number(option, hint)
    name = getattr(option, "__name__", str(option))
    return {"Tensor": "tensor", "Module": "a factory", "Optimizer": "an optimizer"}.get(name) or f"`{name}`"


def _number(option: Any, hint: Any) -> str:
    plain = next((one for one in get_args(hint) if one in _NAMES), option)
    notes = getattr(hint, "__metadata__", ()) or next(
        (getattr(one, "__metadata__", ()) for one in get_args(hint) if hasattr(one, "__metadata__")), ()
    )
    ends = [(note, end) for note in notes for end in _BOUNDS if isinstance(note, end[0])]
    bounds = [f"{sign} {getattr(note, key):g}" for note, (_, key, sign) in ends]
    name = _NAMES[plain] if plain in _NAMES else str(plain)
    return " ".join([name, *bounds])


def _shown(default: Any) -> str:
    if isinstance(default, Path):
        default = str(default)
    if is_data(default):
        return f"`{json.dumps(default)}`"
    return f"`{getattr(default, '__name__', type(default).__name__)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _summary(text: str | None) -> str:
    return inspect.cleandoc(text or "").split("\n")[0].rstrip(".:")


def _fenced(text: str) -> str:
    return f"```json\n{text.strip()}\n```"


if __name__ == "__main__":
    write(Path.cwd())
