"""A study's figures by trial and epoch, as one table."""

from typing import Any

import pandas as pd
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.training import atomic
from dgm_ray.tune.observer import Observer
from dgm_ray.tune.outcomes import number_of
from dgm_ray.tune.place import Place


class History(Observer):
    """Keeps what trials report of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[tuple[int, int], dict[str, float]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        for epoch in result["history"]:
            self._rows[number_of(trial), int(epoch["epoch"])] = epoch

    def write(self, place: Place) -> None:
        """Write one row per trial and epoch, in their order."""
        rows = [{"trial": trial, **self._rows[trial, epoch]} for trial, epoch in sorted(self._rows)]
        if rows:
            with atomic(place.history) as temporary:
                pd.DataFrame(rows).astype({"epoch": int}).to_parquet(temporary, index=False)
