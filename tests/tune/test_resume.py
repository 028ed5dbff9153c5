"""Processes are killed, studies resumed, extended, and changed: what is found is what would have been."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dgm_ray.errors import StudyError
from dgm_ray.tune.journal import Decisions
from dgm_ray.tune.place import Place
from dgm_ray.tune.study import Study

from .conftest import ENVIRONMENT, Command

Write = Callable[[dict[str, Any]], Path]
OPTUNA = {"factory": "OptunaSearch", "arguments": {"startup_trials": 2}}


def found(folder: Path, name: str) -> pd.DataFrame:
    """Return what became of each trial of a study, but for the time that it took."""
    table = pd.read_parquet(folder / "results" / name / "results.parquet").sort_values("trial", ignore_index=True)
    return table.drop(columns="seconds")


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(Decisions(folder / "results" / name / "journal.jsonl"))


def saved_often(path: Path, folder: Path, cluster: str, name: str) -> list[str]:
    """Return the command of a study whose trials are saved after every epoch."""
    script = Path(__file__).with_name("saved_often.py")
    return [sys.executable, str(script), str(path), str(folder), cluster, name]


def killed(line: Sequence[str], journal: Path, *, when: str) -> None:
    """Start a study, and kill its driver when its journal has a line with these words."""
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as running:
        deadline = time.monotonic() + 180
        while not (journal.exists() and when in journal.read_text()):
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < deadline, "it trains nothing"
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate(timeout=120)
    assert running.returncode == -signal.SIGKILL


def ran(line: Sequence[str]) -> str:
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def trained(folder: Path, name: str) -> list[list[int]]:
    """Return the process and the epoch, for each that was trained."""
    return [json.loads(text) for text in (folder / f"{name}.epochs").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("search", [OPTUNA, {"factory": "RandomSearch"}], ids=["Optuna", "random"])
def test_a_study_whose_driver_was_killed_ends_as_if_it_had_not_been(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, search: dict[str, Any]
) -> None:
    small["tune"] |= {"samples": 6, "concurrent": 1, "search": search}
    small["trial"]["arguments"] |= {"epochs": 64}
    path = write(small)
    done = inside("dgm_ray.tune", path, "--address", cluster, "--name", "whole")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = found(tmp_path, "whole")
    longest = int(whole[whole["trial"].between(1, 4)]["epochs"].idxmax())  # one that goes far, to be cut in its middle
    middle = f'"trial": {longest}, "epoch": {whole["epochs"][longest] // 2},'
    line = saved_often(path, tmp_path, cluster, "cut")
    killed(line, tmp_path / "results" / "cut" / "journal.jsonl", when=middle)
    before, done_before = events(tmp_path, "cut"), len(trained(tmp_path, "cut"))
    assert sum("end" in one for one in before) < 6, "it had ended"
    said = ran([*line, "--resume"])
    pd.testing.assert_frame_equal(found(tmp_path, "cut"), whole)
    after = events(tmp_path, "cut")
    assert after[: len(before)] == before
    decided = [(one["trial"], one["epoch"]) for one in after if "decision" in one]
    assert len(decided) == len(set(decided)), "an epoch that is trained again is not decided again"
    ended = {one["trial"] for one in before if "end" in one}
    again = {int(number) for number in re.findall(r"^[* ] (\d{3})  val", said, re.MULTILINE)}
    assert again == set(range(6)) - ended, "what had ended is not trained again"
    assert trained(tmp_path, "cut")[done_before][1] > whole["epochs"][longest] // 4, "from its last checkpoint"


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_ends_as_if_it_had_not_been(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    small["tune"] |= {"samples": 4, "concurrent": 1, "max_failures": 1, "search": OPTUNA}
    small["trial"]["arguments"] |= {"epochs": 64}
    path = write(small)
    done = inside("dgm_ray.tune", path, "--address", cluster, "--name", "whole")
    assert done.returncode == 0, done.stdout + done.stderr
    ran(saved_often(path, tmp_path, cluster, "died"))
    pd.testing.assert_frame_equal(found(tmp_path, "died"), found(tmp_path, "whole"))
    (again,) = [one for one in events(tmp_path, "died") if "again" in one]
    assert again["again"] == 1
    process = trained(tmp_path, "died")[0][0]
    before = [epoch for pid, epoch in trained(tmp_path, "died") if pid == process]
    after = [epoch for pid, epoch in trained(tmp_path, "died") if pid != process]
    assert before[-1] == 30
    assert 20 < after[0] <= 30 + 1, "from its last checkpoint"


@pytest.mark.slow
def test_a_study_is_extended_and_keeps_the_checkpoints_of_the_best(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    small["tune"] |= {"samples": 12, "concurrent": 1, "search": OPTUNA, "keep": 2}
    path, options = write(small), ["--address", cluster, "--name"]
    for name, more in (("long", []), ("short", ["--samples", 3]), ("short", ["--samples", 12, "--resume"])):
        done = inside("dgm_ray.tune", path, *options, name, *more)
        assert done.returncode == 0, done.stdout + done.stderr
    ended = re.findall(r"^[* ] (\d{3})  val", done.stdout, re.MULTILINE)
    assert ended == [f"{number:03d}" for number in range(3, 12)], "the first are as they were"
    long = found(tmp_path, "long")
    pd.testing.assert_frame_equal(found(tmp_path, "short"), long)
    best = set(long.nsmallest(2, "val_imputation_rmse")["trial"])
    for name in ("long", "short"):
        there = {int(one.parts[-3][-4:]) for one in (tmp_path / "results" / name).rglob("checkpoint.pt")}
        assert there == best

    fewer = inside("dgm_ray.tune", path, *options, "short", "--samples", 5, "--resume")
    assert fewer.returncode == 2
    said = "tune.samples: this study has 12 trials already, and goes on with at least as many (--samples), not 5"
    assert fewer.stderr == f"error: {said}\n"


@pytest.fixture
def there(study: Study, tmp_path: Path) -> Place:
    """A study that was started."""
    place = Place(tmp_path / "results" / "small", "sqlite:///x.db")
    place.claim(study.node, study.resolved())
    Decisions(place.journal).begin()
    return place


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["trial.arguments.epochs=9"], "trial.arguments.epochs was 4, is 9"),
        (["trial.arguments.seed=1"], "trial.arguments.seed was nothing, is 1"),
        (["tune.search={factory: OptunaSearch}"], 'tune.search.factory was "RandomSearch", is "OptunaSearch"'),
        (["tune.scheduler.arguments.grace_period=1"], "tune.scheduler.arguments.grace_period was 2, is 1"),
        (["tune.resources.gpu=1"], 'tune.resources.device was "CPU", is "GPU"'),
        (["tune.seed=1"], "tune.seed was 0, is 1"),
        (["tune.metric=val_imputation_mae"], 'tune.metric was "val_imputation_rmse", is "val_imputation_mae"'),
    ],
)
def test_a_study_that_changed_does_not_go_on(
    small: Any, there: Place, write: Write, changes: list[str], said: str
) -> None:
    now = Study.read(write(small), changes)
    with pytest.raises(StudyError, match=f"cannot go on as another study: .*{re.escape(said)}"):
        there.check_unchanged(now.node, now.resolved())


def test_three_differences_are_shown(small: dict[str, Any], there: Place, write: Write) -> None:
    changes = [
        "trial.arguments.epochs=9",
        "trial.arguments.batch_size=16",
        "tune.seed=1",
        "tune.metric=val_x",
        "tune.experiment=e",
    ]
    now = Study.read(write(small), changes)
    with pytest.raises(StudyError) as caught:
        there.check_unchanged(now.node, now.resolved())
    assert str(caught.value).count(" was ") == 3
    assert str(caught.value).endswith("; and 2 more")


def test_what_may_change_may(small: dict[str, Any], there: Place, write: Write) -> None:
    stop = "tune.stop={factory: NoImprovement, arguments: {trials: 3}}"
    changes = [
        "tune.samples=40",
        "tune.concurrent=2",
        "tune.time_budget=60",
        stop,
        "tune.max_failures=3",
        "tune.keep=1",
    ]
    now = Study.read(write(small), [*changes, "tune.resources.memory=1GiB"])
    there.check_unchanged(now.node, now.resolved())


def test_the_command_says_what_changed(write: Write, small: dict[str, Any], there: Place, inside: Command) -> None:
    done = inside("dgm_ray.tune", write(small), "--resume", "--set", "trial.arguments.epochs=9")
    assert done.returncode == 2
    assert done.stderr == f"error: {there.folder}: cannot go on as another study: trial.arguments.epochs was 4, is 9\n"
    there.journal.unlink()
    done = inside("dgm_ray.tune", write(small), "--resume")
    assert done.returncode == 2
    assert done.stderr == f"error: {there.folder}: has no journal.jsonl, without which a study cannot go on\n"
