"""Run a study in which one process of a trial is killed: ``python dying_trial.py SPACE FOLDER ADDRESS``.

The first trial that has trained 30 epochs kills itself. Trials are saved after every epoch, and FOLDER/epochs.jsonl has
a line for each epoch that is trained.
"""

import json
import os
import signal
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


def dying(log: Path) -> Callable[[], None]:
    """Return what makes a process kill itself once."""

    def hook() -> None:
        import dgm_ray.tune.trial
        from dgm_ray.training import Training

        advance, killed = Training.advance, log.with_name("killed")
        dgm_ray.tune.trial.CHECKPOINT_SECONDS = 0.0

        def mortal(training: Training) -> dict[str, float]:
            if training.epoch == 30 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            figures = advance(training)
            with log.open("a") as file:
                file.write(json.dumps([os.getpid(), training.epoch]) + "\n")
            return figures

        Training.advance = mortal

    return hook


def main() -> None:
    _quiet()
    space, folder, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    hook = dying(folder / "epochs.jsonl")
    ray.init(address=address, runtime_env={"worker_process_setup_hook": hook}, log_to_driver=False)
    study = Study.read(space)
    place = Place(folder / "results" / "died", f"sqlite:///{folder / 'mlflow.db'}")
    run_study(study, study.prepare(), place, Console(width=120), time.monotonic())


if __name__ == "__main__":
    main()
