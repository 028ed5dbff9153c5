"""One Ray Tune trial trains one configuration, whatever its model. Its process is used again by the next trial.

torch is imported by the first step: Tune also starts processes that it never gives a trial, if trials are short, and
waits for them at a study's end.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.exceptions import RayActorError

from dgm_ray.data import Prepared
from dgm_ray.tune.outcomes import FAILED, OOM
from dgm_ray.tune.plan import Plan, Schedule, plain
from dgm_ray.tune.shares import OutOfShareError, larger_share, ran_out, ran_out_of_gpu, take_gpu

if TYPE_CHECKING:
    from dgm_ray.training import Repeats, Training
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
        self._training: Training | Repeats | None = None
        self._failure, self._saved, self._seconds = "", time.monotonic(), 0.0
        self._schedule: Schedule = []
        self._last: dict[str, float] = {}  # figures of the last epoch
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next measure and report it, with the losses of each epoch in ``history``."""
        history: list[dict[str, float]] = []
        if not self._failure:
            try:
                training = self._begin()
                self._note_values(training.epoch + 1)
                advance = (self._team or training).advance
                while not training.done and not (history and self._measured(history[-1])):
                    figures = advance()
                    history.append({"epoch": training.epoch, **figures, **self._pace(training.train_seconds)})
            except Exception as error:
                self._fail(error)
        return self._report(history)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write what is needed to go on, and to use or repeat the trial without Ray."""
        self._saved = time.monotonic()
        if self._failure or self._training is None:
            return
        from dgm_ray.training import write_checkpoint

        more = {"schedule": self._schedule, "seconds": self._seconds, "last": self._last}
        write_checkpoint(Path(checkpoint_dir) / CHECKPOINT, self._training.state() | more)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint folder, which may be another trial's: its weights, with the values of this one."""
        path = Path(checkpoint) / CHECKPOINT
        if not path.exists():
            return
        from dgm_ray.training import read_checkpoint

        try:
            training = self._begin()
        except Exception as error:
            self._fail(error)
        else:
            state = read_checkpoint(path)
            training.load(state, str(path))
            self._schedule = state["schedule"] if "schedule" in state else []
            self._seconds = state["seconds"] if "seconds" in state else 0.0
            self._last = state["last"] if "last" in state else {}

    def _begin(self) -> Training | Repeats:
        if self._training is None:
            from dgm_ray.tune.study import task_of

            configuration = self._plan.configuration(self.config)
            if self._gpu:
                take_gpu(self._share)
            task = task_of(configuration)
            if self._workers > 1:
                self._training = self._gathered().start(task, configuration)
            elif self._plan.seeds > 1:
                seeds = self._plan.seeds
                self._training = task.repeats(seeds, self._data, configuration, together=self._together)
            else:
                self._training = task.start(self._data, configuration)
        return self._training

    def _gathered(self) -> Team:
        if self._team is None:
            from dgm_ray.tune.team import Team

            self._team = Team(self.trial_resources.bundles, self._table, self._data)
        return self._team

    def cleanup(self) -> None:
        """Called by Ray when this process ends."""
        if self._team is not None:
            self._team.stop()

    def _pace(self, seconds: float) -> dict[str, float]:
        """Return the training rows of a second of training, and the most that it had of a GPU, in MiB."""
        rows = self._data.train.rows / seconds if seconds else math.nan
        if not self._gpu:
            return {"rows_per_second": rows}
        import torch

        most = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return {"rows_per_second": rows, "gpu_memory_mb": most}

    def _note_values(self, epoch: int) -> None:
        """Note the values that this process was given, if they are not those of the epochs before."""
        values = {name: plain(value) for name, value in self.config.items()}
        if not self._schedule or self._schedule[-1]["values"] != values:
            self._schedule = [*self._schedule, {"epoch": epoch, "values": values}]

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
        kind = OOM if ran_out(error) else FAILED
        self._failure = f"{kind}: {type(error).__name__}: {' '.join(str(error).split())}"
        self._training = None  # what it held is free for the next trial
        self._trace = traceback.format_exc()

    def _measured(self, metrics: Mapping[str, float]) -> bool:
        return any(name.startswith("val_") for name in metrics)

    def _report(self, history: list[dict[str, float]]) -> dict[str, Any]:
        best = dict.fromkeys([f"best_{name}" for name in (self._plan.metric, *self._plan.others)], math.nan)
        self._seconds += sum(epoch["seconds"] for epoch in history)
        self._last = history[-1] if history else self._last
        # Schedulers need the metric in every result, a trial's last one too, which may have no measure.
        result: dict[str, Any] = {self._plan.metric: math.nan, **self._last, "history": history}
        result |= {"seconds": self._seconds, "schedule": self._schedule}
        if self._failure:
            return result | best | {"epoch": 0, "done": True, "reason": self._failure, "trace": self._trace}
        from dgm_ray.training import Repeats

        training = self._begin()
        result |= best | {"epoch": training.epoch, "done": training.done, "reason": training.reason}
        if training.best:
            result |= {f"best_{name}": value for name, value in training.best.measures.items()}
            result["best_epoch"] = training.best.epoch
            if isinstance(training, Repeats):
                result["by_seed"] = training.by_seed
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            result["should_checkpoint"] = True
        return result
