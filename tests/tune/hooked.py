"""Run a study whose processes do something of a test's own as they start: what scripts of tests have in common."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray
from rich.console import Console

from dgm_ray.tune.command import _quiet
from dgm_ray.tune.place import Place
from dgm_ray.tune.run import run_study
from dgm_ray.tune.study import Study


def run_hooked(hook: Callable[[Path], Callable[[], None]]) -> None:
    """Take ``SPACE FOLDER ADDRESS NAME [--resume]`` from the command line and run the study FOLDER/results/NAME.

    hook: returns what each process calls first, for the file FOLDER/NAME.epochs.
    """
    _quiet()
    space, folder, address, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    environment = {"worker_process_setup_hook": hook(folder / f"{name}.epochs")}
    ray.init(address=address, runtime_env=environment, log_to_driver=False)
    study = Study.read(space)
    place = Place(folder / "results" / name, f"sqlite:///{folder / 'mlflow.db'}", resume="--resume" in sys.argv)
    run_study(study, study.prepare(), place, Console(width=120), time.monotonic())
