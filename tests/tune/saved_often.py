"""Run a study whose trials are saved after every epoch: ``python saved_often.py SPACE FOLDER ADDRESS NAME [--resume]``.

FOLDER/NAME.epochs has a line for each epoch that is trained. In a study called ``died`` the first trial that has
trained 30 epochs kills its process.
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


def saving(log: Path, *, dies: bool) -> Callable[[], None]:
    """Return what makes a process save, log, and kill itself once."""

    def hook() -> None:
        import dgm_ray.tune.trial
        from dgm_ray.training import Training

        advance, killed = Training.advance, log.with_name("killed")
        dgm_ray.tune.trial.CHECKPOINT_SECONDS = 0.0

        def logged(training: Training) -> dict[str, float]:
            if dies and training.epoch == 30 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            figures = advance(training)
            with log.open("a") as file:
                file.write(json.dumps([os.getpid(), training.epoch]) + "\n")
            return figures

        Training.advance = logged

    return hook


def main() -> None:
    _quiet()
    space, folder, address, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    hook = saving(folder / f"{name}.epochs", dies=name == "died")
    ray.init(address=address, runtime_env={"worker_process_setup_hook": hook}, log_to_driver=False)
    study = Study.read(space)
    place = Place(folder / "results" / name, f"sqlite:///{folder / 'mlflow.db'}", resume="--resume" in sys.argv)
    run_study(study, study.prepare(), place, Console(width=120), time.monotonic())


if __name__ == "__main__":
    main()
