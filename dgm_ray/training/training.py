"""A training: epochs, measures, the best weights, and when to stop. It writes nothing; its owner decides where."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from dgm_ray import __version__
from dgm_ray.models import Architecture, Probed
from dgm_ray.training.checkpoints import copy_states, load_states

Measure = Callable[[nn.Module], dict[str, float]]
# How the reasons of an end that may not be the last epoch begin.
DIVERGED, EARLY, CONVERGED = "diverged", "early stop", "converged"


class Epochs(Protocol):
    """What trains the model for an epoch and returns its figures; ``finished`` when another would change nothing."""

    @property
    def finished(self) -> bool: ...

    def __call__(self, epoch: int) -> dict[str, float]: ...

    def probe(self, cycles: int) -> Probed: ...


def random_states() -> dict[str, Any]:
    """Return the states of torch's random generators, by kind of device; of GPUs if this process has used one."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else {})


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set torch's random generators to what ``random_states`` returned, those of a GPU if there is one."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@dataclass(frozen=True)
class Best:
    """The best epoch so far, all that was measured in it, and a copy of every component's state dict."""

    epoch: int
    metric: float
    measures: dict[str, float]
    states: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has of it."""
        state: dict[str, Any] = {"best_architecture": self.states, "best_measures": self.measures}
        return state | {"best_epoch": self.epoch, "best_metric": self.metric}


class Training:
    """Train a model epoch by epoch.

    measure: scores the model on validation data, every ``evaluate_every`` epochs and after the last. metric: which
    measure keeps the best weights; smaller is better. patience: stop when it has not improved for so many epochs.
    configuration: what describes all this, as plain data; checkpoints carry it.
    """

    def __init__(
        self,
        architecture: Architecture,
        loop: Epochs,
        measure: Measure,
        *,
        epochs: int,
        seed: int,
        evaluate_every: int = 1,
        metric: str | None = None,
        patience: int | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.architecture, self.loop, self.measure = architecture, loop, measure
        self.epochs, self.seed, self._evaluate_every = epochs, seed, evaluate_every
        self.metric, self._patience = metric, patience
        self._configuration = json.dumps(configuration, sort_keys=True)
        self.epoch = 0
        self.best: Best | None = None
        self.reason = "" if epochs else "epochs"  # why it ended; empty while it goes on
        self.train_seconds = 0.0  # of the last epoch, without its measures

    @property
    def done(self) -> bool:
        return bool(self.reason)

    def advance(self) -> dict[str, float]:
        """Train one epoch and return its losses, its measures if it is one that is measured, and its seconds."""
        started = time.perf_counter()
        losses = self.loop(self.epoch + 1)
        measures = self.evaluate() if self.trained(losses, time.perf_counter() - started) else None
        self.measured(losses, measures)
        return losses | (measures or {}) | {"seconds": time.perf_counter() - started}

    def trained(self, losses: Mapping[str, float], seconds: float) -> bool:
        """Note that an epoch has been trained, and its losses; tell whether it is one that is measured.

        ``measured`` has to be called next.
        """
        self.epoch += 1
        self.train_seconds = seconds
        diverged = next((name for name, value in losses.items() if not math.isfinite(value)), None)
        if diverged is not None:
            self.reason = f"{DIVERGED}: {diverged} is {losses[diverged]} in epoch {self.epoch}"
            return False
        return self.epoch % self._evaluate_every == 0 or self._last

    def measured(self, losses: Mapping[str, float], measures: dict[str, float] | None) -> None:
        """Note the measures of the epoch that was trained, None if it is none that is measured, and whether it ends."""
        if measures is not None:
            self._keep_best({**losses, **measures}, measures)
        if not self.done and self._last:
            self.reason = "epochs" if self.epoch >= self.epochs else CONVERGED

    @property
    def _last(self) -> bool:
        return self.epoch >= self.epochs or self.loop.finished

    def evaluate(self) -> dict[str, float]:
        """Measure the current weights."""
        with self.aside():
            return self.measure(self.architecture.model)

    def probe(self, cycles: int) -> Probed:
        """Train so many cycles and measure twice, to learn what an epoch takes; afterwards the training is spoilt."""
        probed, seconds = self.loop.probe(cycles), []
        for _ in range(2):  # the first warms up
            started = time.perf_counter()
            self.evaluate()
            seconds.append(time.perf_counter() - started)
        return probed._replace(seconds=probed.seconds + min(seconds) / self._evaluate_every)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Draw the same noise whenever the model is used; training's own random stream is left as it was."""
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            yield

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs to go on as if nothing had happened, and the best weights."""
        state: dict[str, Any] = {
            "architecture": copy_states(self.architecture.components),
            "epoch": self.epoch,
            "reason": self.reason,
            "random_states": random_states(),
            "configuration": self._configuration,
            "versions": {"dgm_ray": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        }
        return state | (self.best.state() if self.best else {})

    def load(self, state: Mapping[str, Any], place: str) -> None:
        """Go on from a checkpoint's state. What stopped for a reason that still holds stays stopped."""
        load_states(self.architecture.components, state["architecture"], place)
        self.epoch = state["epoch"]
        self.best = None
        if "best_architecture" in state:
            measures = state["best_measures"] if "best_measures" in state else {}
            self.best = Best(state["best_epoch"], state["best_metric"], measures, state["best_architecture"])
        if "random_states" in state:
            set_random_states(state["random_states"])
        self.reason = "epochs" if self.epoch >= self.epochs else ""
        reason = state["reason"] if "reason" in state else ""
        if reason.startswith((DIVERGED, CONVERGED)) or (reason.startswith(EARLY) and self._impatient()):
            self.reason = reason

    def use_best(self) -> None:
        """Put the best weights into the model, if any were kept."""
        if self.best:
            load_states(self.architecture.components, self.best.states, "best weights")

    def _keep_best(self, metrics: Mapping[str, float], measures: dict[str, float]) -> None:
        if self.metric is None:
            return
        value = metrics[self.metric] if self.metric in metrics else math.nan  # a phase without a step has no loss
        if math.isfinite(value) and (self.best is None or value < self.best.metric):
            self.best = Best(self.epoch, value, measures, copy_states(self.architecture.components))
        if self._impatient():
            self.reason = f"{EARLY}: no better {self.metric} for {self._epochs_without()} epochs"

    def _epochs_without(self) -> int:
        """Return for how many epochs there was nothing better."""
        return self.epoch - (self.best.epoch if self.best else 0)

    def _impatient(self) -> bool:
        return self._patience is not None and self._epochs_without() >= self._patience
