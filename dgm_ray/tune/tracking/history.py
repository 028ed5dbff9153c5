"""Every figure of every epoch of a study: ``history.parquet``, from what the study told its tracker."""

from pathlib import Path

import pandas as pd

from dgm_ray.training import atomic
from dgm_ray.tune.tracking.outbox import requests_of

KEYS = ["trial", "epoch"]


def history_of(folder: Path) -> pd.DataFrame:
    """Return a row for each trial and epoch, in this order: ``trial``, ``epoch``, and a column for each metric.

    What was not measured in an epoch is NaN; of an epoch that was trained twice the last counts.
    """
    numbers: dict[str, int] = {}
    rows: dict[tuple[int, int], dict[str, float]] = {}
    for _, request in requests_of(folder):
        if request["do"] == "trial":
            numbers[request["trial"]] = request["number"]
        elif request["do"] == "metrics":
            number = numbers[request["trial"]]
            for epoch in request["epochs"]:
                rows[number, epoch["epoch"]] = {"trial": number, **epoch}
    table = pd.DataFrame([rows[key] for key in sorted(rows)])
    if table.empty:
        return pd.DataFrame({"trial": [], "epoch": []}, dtype="int64")
    names = [name for name in table if name not in KEYS]
    return table[[*KEYS, *names]].astype(dict.fromkeys(KEYS, "int64") | dict.fromkeys(names, "float64"))


def write_history(folder: Path, path: Path) -> None:
    """Write what ``history_of`` returns. folder: the study's."""
    with atomic(path) as temporary:
        history_of(folder).to_parquet(temporary, index=False)
