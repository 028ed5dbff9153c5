"""Run a study with lanes, a process of which kills itself once: ``python lanes_dying.py SPACE FOLDER ADDRESS NAME``.

Trials are saved after every epoch. FOLDER/NAME.epochs has a line for each epoch that a pack is trained.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hooked import run_hooked


def dying(log: Path) -> Callable[[], None]:
    """Return what makes a process save, log, and kill itself once."""

    def hook() -> None:
        import dgm_ray.tune.lanes.worker as worker
        from dgm_ray.training.lanes import Pack

        advance, killed = Pack.advance, log.with_name("killed")
        worker.CHECKPOINT_SECONDS = worker.REPORT_SECONDS = 0.0

        def logged(pack: Pack) -> Any:
            epoch = max(lane.training.epoch for lane in pack.lanes)
            if epoch == 30 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            with log.open("a") as file:
                file.write(json.dumps([os.getpid(), epoch + 1, len(pack.lanes)]) + "\n")
            return advance(pack)

        Pack.advance = logged

    return hook


if __name__ == "__main__":
    run_hooked(dying)
