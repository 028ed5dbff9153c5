"""One Ray Tune trial trains one configuration, whatever its model. Its process is used again by the next trial.

torch is imported by the first step: Tune also starts processes that it never gives a trial, if trials are short, and
waits for them at a study's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.exceptions import RayActorError

from dgm_ray.data import Prepared
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.progress import Progress, gpu_memory
from dgm_ray.tune.shares import OutOfShareError, larger_share, ran_out_of_gpu, take_gpu

if TYPE_CHECKING:
    from dgm_ray.training.lanes import Lane
    from dgm_ray.tune.team import Team

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 10.0  # a trial that dies loses at most so much


class Trial(tune.Trainable):  # type: ignore[misc]
    """Train ``plan`` with the values that Tune drew. A step is the epochs up to the next measure.

    A mistake of the configuration ends the trial with a reason, not the process: the next trial can use it. A share of
    a GPU that is too small ends the process once: Tune starts the trial again, with a larger one.
    """

    def setup(
        self,
        config: dict[str, Any],
        plan: Plan,
        table: Callable[[], Prepared],
        gpu: float = 0.0,
        workers: int = 1,
        together: bool = False,
    ) -> None:
        """Called by Ray once per process, with what all trials share: the plan, and the table in shared memory.

        table: returns it. workers: that train a trial. gpu: the share of a GPU that each of them is started with.
        together: train the seeds of a trial as lanes.
        """
        self._together = together
        self._plan, self._table, self._data, self._gpu, self._workers = plan, table, table(), gpu, workers
        self._team: Team | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray when this process goes on with another trial."""
        self._progress, self._saved = Progress(self._plan, self._data, together=self._together), time.monotonic()
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next measure and report it, with the losses of each epoch in ``history``."""
        progress = self._progress
        if not progress.failure:
            try:
                advance = self._begin()
                progress.note(self.config)
                while not (progress.done or progress.measured):
                    progress.add(advance(), gpu_memory() if self._gpu else {})
            except Exception as error:
                self._fail(error)
        result = progress.report()
        if not progress.failure and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            result["should_checkpoint"] = True
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write what is needed to go on, and to use or repeat the trial without Ray."""
        self._saved = time.monotonic()
        if self._progress.training is None:
            return
        from dgm_ray.training import write_checkpoint

        write_checkpoint(Path(checkpoint_dir) / CHECKPOINT, self._progress.state())

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint folder, which may be another trial's: its weights, with the values of this one."""
        path = Path(checkpoint) / CHECKPOINT
        if not path.exists():
            return
        from dgm_ray.training import read_checkpoint

        try:
            self._begin()
        except Exception as error:
            self._fail(error)
        else:
            self._progress.load(read_checkpoint(path), str(path))

    def _begin(self) -> Callable[[], dict[str, float]]:
        """Start the training, unless it has been; return what trains an epoch."""
        progress = self._progress
        if progress.training is None:
            from dgm_ray.tune.study import task_of

            configuration = self._plan.configuration(self.config)
            if self._gpu:
                take_gpu(self._share)
            task = task_of(configuration)
            team = self._gathered() if self._workers > 1 else None
            progress.begin(task, configuration, partial(team.start, task, configuration) if team else None)
        assert progress.training is not None
        return progress.training.advance if self._plan.seeds > 1 else partial(self._advance, progress.lanes[0])

    def _advance(self, lane: Lane) -> dict[str, float]:
        from dgm_ray.training.lanes import Pack

        if self._team is None:
            return Pack([lane]).advance()[0]
        with lane.alone():
            return self._team.advance()

    def _gathered(self) -> Team:
        if self._team is None:
            from dgm_ray.tune.team import Team

            self._team = Team(self.trial_resources.bundles, self._table, self._data)
        return self._team

    def cleanup(self) -> None:
        """Called by Ray when this process ends."""
        if self._team is not None:
            self._team.stop()

    @property
    def _share(self) -> float:
        """What this trial has of a GPU: more than others if it is started again."""
        return float(self.trial_resources.bundles[0]["GPU"])

    def _fail(self, error: Exception) -> None:
        """Keep the reason. Raises OutOfShareError if a larger share of a GPU has not been tried and may do.

        Raises RayActorError if it is one: a trial whose worker died ends as one whose own process did.
        """
        if isinstance(error, RayActorError):
            raise error
        if self._gpu and ran_out_of_gpu(error) and self._share == self._gpu < larger_share(self._gpu):
            raise OutOfShareError(" ".join(str(error).split())) from None
        self._progress.fail(error)
