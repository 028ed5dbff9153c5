"""``MultipleImputation``: the same rows imputed by several runs of the same training, each with its own seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import TASKS, NonNegativeInt, PositiveInt, call, check_keys
from dgm_ray.space import read_file
from dgm_ray.tasks.arrays import write_npy


@dataclass(frozen=True)
class MultipleImputation:
    """Train a model several times, impute with each, and save all results: float32 (runs, rows, num_features).

    How far the runs are apart says how uncertain an imputed cell is; observed cells are the same in all. MIDA imputes
    so (Gondara and Wang 2018, arXiv:1705.02737, section 3); any model can.

    train: the path of a configuration that trains (TrainMIDA, ...). impute: of one that imputes with its checkpoint.
    output: the .npy file. Checkpoints, logs and results of run N stand beside those of the configurations, as NAME-N.
    runs: how often. seed: of the first run; each next run has the next number.
    """

    train: Path
    impute: Path
    output: Path
    runs: PositiveInt = 5
    seed: NonNegativeInt = 0

    def run(self, console: Console, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Train, impute and save; return the mean standard deviation of the cells that differ between runs."""
        train, impute = (_arguments(path, kind) for path, kind in ((self.train, "Train"), (self.impute, "Impute")))
        results = []
        for number in range(1, self.runs + 1):
            console.print(f"run {number}/{self.runs}", highlight=False)
            own = {"seed": self.seed + number - 1}
            checkpoints = {**train[1]["checkpoints"], "output": _numbered(train[1]["checkpoints"]["output"], number)}
            logs = {"logs": _numbered(train[1]["logs"], number)} if "logs" in train[1] else {}
            _call(self.train, train[0], train[1] | own | logs | {"checkpoints": checkpoints}).run(console)
            result = _numbered(impute[1]["output"], number)
            files = {"checkpoint": checkpoints["output"], "output": result}
            _call(self.impute, impute[0], impute[1] | own | files).run(console)
            results.append(np.load(result if result.endswith(".npy") else f"{result}.npy"))
        runs = np.stack(results)
        saved = write_npy(self.output, runs)
        differ = (runs != runs[0]).any(axis=0)  # (rows, num_features)
        apart = float(runs[:, differ].std(axis=0, dtype=np.float64).mean()) if differ.any() else 0.0
        console.print(f"{self.runs} runs, apart by {apart:.4g} where they differ: {saved}", soft_wrap=True)
        return {"runs": self.runs, "standard_deviation": apart}


def _arguments(path: Path, kind: str) -> tuple[str, dict[str, Any]]:
    """Return the task of a configuration and its arguments. Raises ConfigurationError for one of another kind."""
    node = read_file(path)
    for key in ("task", "arguments"):
        if key not in node:
            raise ConfigurationError(str(path), f"a configuration needs {key!r}")
    if not str(node["task"]).startswith(f"{kind}With" if kind == "Impute" else kind):
        raise ConfigurationError(f"{path}: task", f"should be a task that begins with {kind!r}", node["task"])
    needed = ("checkpoints",) if kind == "Train" else ("output",)
    task = TASKS.get(node["task"], f"{path}: task")
    arguments = {key: value for key, value in node["arguments"].items() if key != "logging"}
    check_keys(arguments, arguments, f"{path}: arguments", node["task"], needed=needed)
    call(task, arguments, path=f"{path}: arguments")  # a mistake in either is found before the first run
    return node["task"], arguments


def _call(path: Path, task: str, arguments: Mapping[str, Any]) -> Any:
    return call(TASKS.get(task, f"{path}: task"), arguments, path=f"{path}: arguments")


def _numbered(path: str, number: int) -> str:
    return str(Path(path).with_stem(f"{Path(path).stem}-{number}"))


TASKS.register(MultipleImputation)
