"""Trials that several workers train, over gloo; without a GPU, NCCL is not tried."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dgm_ray.errors import ConfigurationError
from dgm_ray.tune.study import Study, task_of

from .conftest import ENVIRONMENT

Write = Callable[[dict[str, Any]], Path]


def alone(study: Study, values: dict[str, Any]) -> float:
    """Return the best score of a trial's values, trained by this process."""
    training = task_of(study.plan.configuration(values)).start(study.prepare())
    while not training.done:
        training.advance()
    assert training.best is not None
    return training.best.metric


@pytest.mark.slow
def test_two_workers_on_two_nodes_equal_one_process_though_one_dies(
    small: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    """The trial of the worker that dies goes on from its last checkpoint; one whose worker raises ends with its reason.

    Either way the next trial gets new workers.
    """
    small["tune"] = {"samples": 1, "resources": {"workers": 2}}
    small["trial"]["arguments"]["architecture"]["arguments"]["code_size"] = {"grid_search": [2, 3, 4]}
    path = write(small)
    script = Path(__file__).with_name("two_workers.py")
    line = [sys.executable, str(script), str(path), str(tmp_path)]
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, env=environment, start_new_session=True, **pipes) as running:
        try:
            said = running.communicate(timeout=560)[0]
        finally:
            with suppress(ProcessLookupError):  # Ray has ended its own
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    table = pd.read_parquet(tmp_path / "study" / "results.parquet")
    assert dict(zip(table["draw:code_size"], table["reason"], strict=True)) == {
        2: "all epochs done",
        3: "oom: MemoryError: 2 TiB",
        4: "all epochs done",
    }, said
    study = Study.read(path)
    for _, row in table[table["status"] == "completed"].iterrows():
        values = {label: row[f"draw:{label}"] for label in study.plan.draws}
        assert row["val_imputation_rmse"] == pytest.approx(alone(study, values), rel=1e-5)

    told = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    epochs = [[one["epoch"] for one in told if one["pid"] == pid] for pid in dict.fromkeys(one["pid"] for one in told)]
    assert epochs[0] == [1, 2], "this one died"
    later = sorted(epoch for one in epochs[1:] for epoch in one)
    assert later == [1, 1, 2, 2, 3, 3, 4, 4], "its trial went on with 3; of the others one ended after 2"
    assert "left: []" in said, "workers that outlive their trials"


@pytest.mark.parametrize(
    ("change", "workers", "said"),
    [
        ({}, 17, r"tune\.resources\.workers: should be at most the 16 rows of a batch, not 17"),
        ({"masked": True}, 2, r"tune\.resources\.workers: the loss of autoencoder is no mean over rows .* not 2"),
    ],
)
def test_a_space_that_workers_cannot_share_is_refused(
    small: dict[str, Any], write: Write, change: dict[str, Any], workers: int, said: str
) -> None:
    small["tune"] = {"resources": {"workers": workers}}
    arguments = small["trial"]["arguments"]
    arguments["imputation"] = {"factory": "ZeroImputation"}
    arguments["architecture"]["components"]["reconstruction_loss"]["arguments"] |= change
    study = Study.read(write(small))
    with pytest.raises(ConfigurationError, match=said):
        study.rehearse(study.prepare())


def test_several_workers_train_one_seed(small: dict[str, Any], write: Write) -> None:
    small["tune"] = {"seeds": 2, "resources": {"workers": 2}}
    with pytest.raises(ConfigurationError, match=r"^tune\.resources\.workers: does not go with tune\.seeds.*, not 2$"):
        Study.read(write(small))


def test_an_imputer_has_one_worker(small: dict[str, Any], write: Write) -> None:
    small["tune"] = {"samples": 1, "resources": {"workers": 2}}
    data = small["trial"]["arguments"]["data"]
    small["trial"] = {"task": "TrainImputer", "arguments": {"data": data, "imputer": {"factory": "ZeroImputation"}}}
    study = Study.read(write(small))
    with pytest.raises(ConfigurationError, match=r"tune\.resources\.workers: an imputer .* use 1, not 2"):
        study.rehearse(study.prepare())
