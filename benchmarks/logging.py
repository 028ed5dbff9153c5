"""What logging costs a study of 32 trials with 20 metrics in each of 20 epochs, in MLflow on SQLite.

    python -m benchmarks.logging               # ten minutes
    python -m benchmarks.logging --rounds 1 --trials 8 --no-overhead

Trials report what they do in any study, and as many more numbers as 20 takes. The overhead is that of a whole study, as
the command says of itself: from its first statement to the moment that its results are there, and in MLflow. The
contestants differ in ``tune.mlflow.log`` alone. The database is there before, as for all studies but the first; each
study is the median of its rounds, a ratio the median of the ratios within rounds.

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
from collections.abc import Callable, Sequence
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

EPOCHS, METRICS = 20, 20
MODES = {"all": "all", "best": "{best: 4}", "none": "none"}
OURS, RAYS = "ours", "Ray's MLflowLoggerCallback"
TOLD = ("on_trial_start", "on_trial_result", "on_trial_complete", "on_trial_error")


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    trials: Annotated[int, typer.Option(min=4)] = 32,
    overhead: Annotated[bool, typer.Option(help="Measure the overhead as well, which takes longest.")] = True,
) -> None:
    console = Console()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    spent: list[dict[str, float]] = []
    for number in track(range(rounds), description="rounds", transient=True):
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_study(folder, trials)
            timed(folder, *PADDED, "no", "space.yaml", "--name", "first", "--samples", "1")  # makes the database
            for mode in (list(MODES) if number % 2 == 0 else list(MODES)[::-1]) if overhead else ():
                log = f"tune.mlflow.log={MODES[mode]}"
                seconds[mode].append(timed(folder, *PADDED, "no", "space.yaml", "--name", mode, "--set", log).study)
            timed(folder, *PADDED, "both", "space.yaml", "--name", "both")
            spent.append(json.loads((folder / "spent.json").read_text()))
    if overhead:
        table = Table(title=f"{trials} trials of {EPOCHS} epochs with {METRICS} metrics each, median of {rounds}")
        table.add_column("tune.mlflow.log")
        table.add_column("study, s", justify="right")
        table.add_column("more than none", justify="right")
        for mode in MODES:
            more = median(one / none - 1 for one, none in zip(seconds[mode], seconds["none"], strict=True))
            table.add_row(mode, f"{median(seconds[mode]):.1f}", f"{more:+.1%}" if mode != "none" else "")
        console.print(table)
    results = trials * EPOCHS
    table = Table(title=f"seconds of the study's process spent in logging {results} epochs, told to both")
    table.add_column("who")
    table.add_column("s", justify="right")
    table.add_column("times ours", justify="right")
    for who in (OURS, RAYS):
        times = median(one[who] / one[OURS] for one in spent)
        table.add_row(who, f"{median(one[who] for one in spent):.3g}", f"{times:.3g}")
    console.print(table)


def write_study(folder: Path, trials: int) -> None:
    """Write a space whose trials have so many epochs."""
    write_space(folder, trials)
    path = folder / "space.yaml"
    space = yaml.safe_load(path.read_text())
    space["trial"]["arguments"]["epochs"] = EPOCHS
    path.write_text(yaml.safe_dump(space))


def padded(arguments: Sequence[str], *, both: bool) -> None:
    """Run a study whose epochs have 20 metrics. both: tell Ray's callback too; write to spent.json what each took."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    from dgm_ray.tune import command, run
    from dgm_ray.tune.tracking.tracker import TrackingCallback

    took = {OURS: 0.0, RAYS: 0.0}
    theirs = MLflowLoggerCallback(tracking_uri=f"sqlite:///{Path('ray.db').absolute()}", experiment_name="ray")

    class Padded(TrackingCallback):
        """Told by Tune, tells Ray's callback as well: what ours logs, since it would log much else."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            if both:
                theirs.setup()

    def told(name: str) -> Callable[..., None]:
        def call(self: Any, **named: Any) -> None:
            if name == "on_trial_result":
                named["result"] = {**named["result"], "history": [pad(epoch) for epoch in named["result"]["history"]]}
            started = time.perf_counter()
            getattr(TrackingCallback, name)(self, **named)
            between = time.perf_counter()
            if both:
                tell(name, **named)
            took[OURS] += between - started
            took[RAYS] += time.perf_counter() - between

        return call

    def tell(name: str, iteration: int, trial: Any, result: Any = None, **info: Any) -> None:
        if name == "on_trial_start":
            theirs.log_trial_start(trial)
        elif name == "on_trial_result":
            for epoch in result["history"]:
                theirs.log_trial_result(iteration, trial, epoch | {"training_iteration": epoch["epoch"]})
        else:
            theirs.log_trial_end(trial, failed=name == "on_trial_error")

    for name in TOLD:
        setattr(Padded, name, told(name))
    try:
        with patch.object(run, "TrackingCallback", Padded), patch.object(sys, "argv", ["tune", *arguments]):
            typer.run(command.tune)
    finally:
        Path("spent.json").write_text(json.dumps(took))


def pad(epoch: dict[str, float]) -> dict[str, float]:
    """Return an epoch's figures with as many more as make 20 metrics."""
    more = METRICS + 1 - len(epoch)  # the number of the epoch is none
    return epoch | {f"more_{number}": number / 7 + epoch["epoch"] for number in range(more)}


PADDED = ("-m", "benchmarks.logging", "--padded")

if __name__ == "__main__":
    if sys.argv[1:2] == ["--padded"]:
        padded(sys.argv[3:], both=sys.argv[2] == "both")
    else:
        typer.run(main)
