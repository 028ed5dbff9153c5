"""Callbacks that hold what cannot be pickled: a console, a thread, signal handlers."""

from typing import Any

from ray import tune


class Observer(tune.Callback):  # type: ignore[misc]
    """A callback of this process alone. Tune pickles callbacks into a study's state; of these nothing belongs there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
