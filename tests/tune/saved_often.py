"""Run a study whose trials are saved after every epoch: ``python saved_often.py SPACE FOLDER ADDRESS NAME [--resume]``.

FOLDER/NAME.epochs has a line for each epoch that is trained. In a study called ``died`` the first trial that has
trained 30 epochs kills its process.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from hooked import run_hooked


def saving(log: Path) -> Callable[[], None]:
    """Return what makes a process save, log, and kill itself once."""

    def hook() -> None:
        import dgm_ray.tune.trial
        from dgm_ray.training import Training

        advance, killed = Training.advance, log.with_name("killed")
        dgm_ray.tune.trial.CHECKPOINT_SECONDS = 0.0

        def logged(training: Training) -> dict[str, float]:
            if log.stem == "died" and training.epoch == 30 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            figures = advance(training)
            with log.open("a") as file:
                file.write(json.dumps([os.getpid(), training.epoch]) + "\n")
            return figures

        Training.advance = logged

    return hook


if __name__ == "__main__":
    run_hooked(saving)
