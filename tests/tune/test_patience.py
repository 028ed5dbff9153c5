"""A study that finds nothing better stops."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from dgm_ray.errors import ConfigurationError
from dgm_ray.tune.patience import Patience, Stopper
from dgm_ray.tune.settings import NoImprovement
from dgm_ray.tune.study import Study

from .conftest import Command
from .test_command import runs_of

Write = Callable[[dict[str, Any]], Path]


def ended(number: int, score: float, *, finished: bool = True) -> Any:
    return SimpleNamespace(
        trial_id=f"t{number}", experiment_tag=f"{number}_x", score=score, is_finished=lambda: finished
    )


@pytest.mark.parametrize(
    ("scores", "by", "without"),
    [
        ([3.0, 2.0, 2.5, math.nan], 0.0, [0, 0, 1, 2]),
        ([math.nan, math.nan, 1.0, 1.0], 0.0, [1, 2, 0, 1]),
        ([3.0, 2.9, 2.8, 2.4], 0.5, [0, 1, 2, 0]),
    ],
)
def test_what_counts_as_better(scores: list[float], by: float, without: list[int]) -> None:
    patience = Patience(NoImprovement(2, by), lambda trial: float(trial.score))  # type: ignore[attr-defined]
    for number, (score, expected) in enumerate(zip(scores, without, strict=True)):
        patience.on_trial_end(ended(number, score))
        patience.on_trial_end(ended(number, score))  # Ray may say so twice
        assert patience.without == expected
        assert Stopper(patience).stop_all() == (expected >= 2)


def test_what_had_ended_before_a_study_is_resumed_counts() -> None:
    patience = Patience(NoImprovement(2), lambda trial: float(trial.score))  # type: ignore[attr-defined]
    trials = [ended(2, 3.0), ended(0, 1.0), ended(1, 2.0), ended(3, 0.5, finished=False)]
    patience.on_step_begin(1, trials)
    assert patience.over
    patience.on_step_begin(2, trials)
    assert patience.without == 2


def test_trials_that_end_together_cannot_be_waited_for(small: dict[str, Any], write: Write) -> None:
    small["tune"] = {"scheduler": {"factory": "HyperBand"}, "stop": {"trials": 3}}
    with pytest.raises(ConfigurationError, match=r"tune\.stop: HyperBand ends its trials together"):
        Study.read(write(small))


@pytest.mark.slow
def test_a_study_stops_when_nothing_is_better(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, database: str
) -> None:
    arguments = small["trial"]["arguments"]
    arguments["architecture"]["components"]["autoencoder_optimizer"]["arguments"]["lr"] = 1e-9  # no trial learns
    stop = {"factory": "NoImprovement", "arguments": {"trials": 3, "by": 10.0}}
    small["tune"] = {"samples": 20, "concurrent": 1, "stop": stop}
    path = write(small)
    done = inside("dgm_ray.tune", path, "--address", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped: val_imputation_rmse did not improve in 3 trials (tune.stop)" in done.stdout
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert list(table["status"]).count("completed") == 4, "the best and three that were not better by 10"
    assert (table["epochs"] > 0).sum() <= 6, "the others were not started"
    parent, _, _ = runs_of(tmp_path, database)
    assert parent.data.tags["status"] == "completed"
