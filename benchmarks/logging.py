"""What logging costs a study of 32 trials with 20 metrics in each of 20 epochs, in MLflow on SQLite.

    python -m benchmarks.logging               # ten minutes
    python -m benchmarks.logging --rounds 1 --trials 8

The overhead is that of a whole study, as the command says of itself: from its first statement to the moment that its
results are there, and in MLflow. The contestants differ in ``tune.mlflow.log`` alone. The database is there before, as
for all studies but the first; each study is the median of its rounds, a ratio the median of the ratios within rounds.

* all: a run for each trial, with every metric of every epoch.
* best: full runs of the best four, at the end.
* none: the study's own run alone; what it takes less is the price of the others.

Seconds spent in logging are those in which the study's own process can do nothing else. Both are told of the same
results, by the same study: our callback, which writes a line into the study's folder, and Ray's own
``MLflowLoggerCallback``, which calls MLflow, here on a database of its own. What both take is added up around
each call.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest.mock import patch

import typer
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.overhead import timed, write_space

EPOCHS = 20
MODES = {"all": "all", "best": "{best: 4}", "none": "none"}
# What Ray's callback is called with, and ours.
TOLD = ("on_trial_start", "on_trial_result", "on_trial_complete", "on_trial_error")


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    trials: Annotated[int, typer.Option(min=4)] = 32,
) -> None:
    console = Console()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    spent: list[dict[str, float]] = []
    for number in track(range(rounds), description="rounds", transient=True):
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_many_metrics(folder, trials)
            timed(folder, "-m", "dgm_ray.tune", "space.yaml", "--name", "first", "--samples", "1")  # makes the database
            modes = list(MODES) if number % 2 == 0 else list(MODES)[::-1]
            for mode in modes:
                log = f"tune.mlflow.log={MODES[mode]}"
                study = ("-m", "dgm_ray.tune", "space.yaml", "--name", mode, "--set", log)
                seconds[mode].append(timed(folder, *study).study)
            timed(folder, "-m", "benchmarks.logging", "--spent", "spent.json")
            spent.append(json.loads((folder / "spent.json").read_text()))
    metrics = spent[0]["metrics"]
    table = Table(title=f"{trials} trials of {EPOCHS} epochs with {metrics:.0f} metrics each, median of {rounds}")
    table.add_column("tune.mlflow.log")
    table.add_column("study, s", justify="right")
    table.add_column("more than none", justify="right")
    for mode in MODES:
        more = median(one / none - 1 for one, none in zip(seconds[mode], seconds["none"], strict=True))
        table.add_row(mode, f"{median(seconds[mode]):.1f}", f"{more:+.1%}" if mode != "none" else "")
    console.print(table)
    table = Table(title="seconds of the study's process spent in logging, the same results told to both")
    table.add_column("who")
    table.add_column("s", justify="right")
    table.add_column("times ours", justify="right")
    for who in ("ours", "Ray's MLflowLoggerCallback"):
        times = median(one[who] / one["ours"] for one in spent)
        table.add_row(who, f"{median(one[who] for one in spent):.3g}", f"{times:.3g}")
    console.print(table)


def write_many_metrics(folder: Path, trials: int) -> None:
    """Write a space whose trials report 20 metrics or more in each epoch."""
    write_space(folder, trials)
    path = folder / "space.yaml"
    space = yaml.safe_load(path.read_text())
    space["trial"]["arguments"]["epochs"] = EPOCHS
    path.write_text(yaml.safe_dump(space))


def spend(output: Path) -> None:
    """Run a study in this folder that tells Ray's callback what it tells ours; write what each took."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    from dgm_ray.tune import command, run
    from dgm_ray.tune.tracking.tracker import TrackingCallback

    took, most = {"ours": 0.0, "Ray's MLflowLoggerCallback": 0.0}, 0
    theirs = MLflowLoggerCallback(tracking_uri=f"sqlite:///{Path('ray.db').absolute()}", experiment_name="ray")

    class Both(TrackingCallback):
        """Told by Tune, tells both; Ray's gets what ours logs, since it would log much else."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            theirs.setup()

    def wrapped(name: str) -> Callable[..., None]:
        def call(self: Any, *given: Any, **named: Any) -> None:
            nonlocal most
            if name == "on_trial_result":
                most = max(most, len(named["result"]["history"][-1]) - 1)
            started = time.perf_counter()
            getattr(TrackingCallback, name)(self, *given, **named)
            between = time.perf_counter()
            took["ours"] += between - started
            tell(name, named)
            took["Ray's MLflowLoggerCallback"] += time.perf_counter() - between

        return call

    def tell(name: str, named: dict[str, Any]) -> None:
        trial = named["trial"]
        if name == "on_trial_start":
            theirs.log_trial_start(trial)
        elif name == "on_trial_result":
            for epoch in named["result"]["history"]:
                theirs.log_trial_result(named["iteration"], trial, epoch | {"training_iteration": epoch["epoch"]})
        else:
            theirs.log_trial_end(trial, failed=name == "on_trial_error")

    for name in TOLD:
        setattr(Both, name, wrapped(name))
    try:
        with patch.object(run, "TrackingCallback", Both), patch.object(sys, "argv", ["tune", "space.yaml"]):
            typer.run(command.tune)
    finally:
        output.write_text(json.dumps(took | {"metrics": most}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--spent"]:
        spend(Path(sys.argv[2]))
    else:
        typer.run(main)
