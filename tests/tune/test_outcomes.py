"""Why a trial ended, whether it can win, and in which order."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.tune import Checkpoint

from dgm_ray.tune.outcomes import Outcome, best_first, outcome_of, pareto, reasons


def ray_trial(
    result: dict[str, Any] | None,
    status: str = "TERMINATED",
    error: Exception | None = None,
    error_file: Path | None = None,
) -> Any:
    return SimpleNamespace(
        last_result=result,
        status=status,
        trial_id="t",
        experiment_tag="7_lr=0.1",
        config={"lr": 0.1},
        checkpoint=None,
        error_file=error_file,
        get_error=lambda: error,
    )


def reported(reason: str, *, done: bool, score: float = 0.25) -> dict[str, Any]:
    return {"epoch": 3, "reason": reason, "done": done, "seconds": 1.5, "best_val_x": score, "best_epoch": 2}


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        (reported("epochs", done=True), "completed", "all epochs done"),
        (reported("", done=True), "stopped", "stopped by ASHA at epoch 3"),
        (reported("early stop: no better", done=True), "early stop", "early stop: no better"),
        (reported("diverged: loss is nan", done=True), "diverged", "diverged: loss is nan"),
        (reported("failed: ValueError: x", done=True), "failed", "failed: ValueError: x"),
        (reported("oom: OutOfMemoryError: x", done=True), "oom", "oom: OutOfMemoryError: x"),
        (reported("", done=False), "interrupted", "the study was stopped first"),
        ({"config": {}}, "interrupted", "the study was stopped first"),
        (None, "interrupted", "the study was stopped first"),
    ],
)
def test_status_and_reason(result: dict[str, Any] | None, status: str, said: str) -> None:
    outcome = outcome_of(ray_trial(result), "val_x", scheduler="ASHA")
    assert (outcome.status, outcome.reason, outcome.number) == (status, said, 7)


@pytest.mark.parametrize(
    ("error", "said"),
    [(None, "its process died"), (RayActorError(), "its process died"), (RuntimeError("no\nspace"), "no space")],
)
def test_an_error_of_rays_is_a_failure(error: Exception | None, said: str) -> None:
    trial = ray_trial(reported("", done=False), "ERROR", error)
    outcome = outcome_of(trial, "val_x", scheduler="ASHA")
    assert (outcome.status, outcome.reason) == ("failed", f"failed: {said}")


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        ("ray::OutOfShareError: 2 MiB", "oom", "oom: a trial's share of a GPU is too small"),
        ("Task was killed due to the node running low on memory.", "oom", "oom: its node ran low on memory"),
        ("The actor died unexpectedly.", "failed", "failed: its process died"),
    ],
)
def test_only_the_last_failure_counts(tmp_path: Path, last: str, status: str, said: str) -> None:
    """Tune's file has all failures of a trial."""
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1 (occurred at x)\nOutOfShareError\nFailure # 2 (occurred at y)\n{last}\n")
    outcome = outcome_of(ray_trial(reported("", done=False), "ERROR", error_file=file), "val_x", scheduler="ASHA")
    assert (outcome.status, outcome.reason) == (status, said)


def test_figures_are_those_of_the_best_epoch() -> None:
    outcome = outcome_of(ray_trial(reported("epochs", done=True)), "val_x", scheduler="FIFO")
    assert (outcome.score, outcome.measures, outcome.best_epoch, outcome.epochs, outcome.seconds) == (
        0.25,
        {"val_x": 0.25},
        2,
        3,
        1.5,
    )


def made(number: int, status: str, score: float) -> Outcome:
    return Outcome(str(number), number, {}, status, f"because of {status}", score)


def test_a_trial_that_failed_or_diverged_or_has_no_score_cannot_win() -> None:
    outcomes = [
        made(1, "failed", 0.1),
        made(2, "diverged", 0.1),
        made(3, "completed", math.nan),
        made(4, "stopped", 0.3),
        made(5, "completed", 0.2),
        made(6, "early stop", 0.2),
    ]
    assert [one.number for one in best_first(outcomes)] == [5, 6, 4]
    assert reasons([*outcomes, made(7, "failed", 0)]) == {
        "because of failed": 2,
        "because of completed": 2,
        "because of diverged": 1,
        "because of stopped": 1,
        "because of early stop": 1,
    }


def test_the_pareto_front_is_what_nothing_beats() -> None:
    points = {"a": (1.0, 4.0), "b": (2.0, 2.0), "c": (2.0, 3.0), "d": (4.0, 1.0), "e": (2.0, 2.0), "f": (0.5, math.nan)}
    outcomes = [
        Outcome(name, number, {}, "completed", "", x, {"x": x, "y": y})
        for number, (name, (x, y)) in enumerate(points.items())
    ]
    assert [one.trial_id for one in pareto(outcomes, ("x", "y"))] == ["a", "b", "e", "d"]


def test_a_trial_that_was_changed_but_did_not_go_on_is_as_it_was(tmp_path: Path) -> None:
    """Its values and its checkpoint are another trial's by then."""
    trial = ray_trial(reported("", done=False))
    trial.checkpoint = Checkpoint(str(tmp_path))
    trial.last_result["schedule"] = [{"epoch": 1, "values": {"lr": 0.1}}]
    assert outcome_of(trial, "val_x", scheduler="PBT").checkpoint == str(tmp_path)
    trial.config = {"lr": 0.12}
    outcome = outcome_of(trial, "val_x", scheduler="PBT")
    assert (outcome.values, outcome.checkpoint) == ({"lr": 0.1}, None)


def test_a_checkpoint_that_was_removed_is_none(tmp_path: Path) -> None:
    trial = ray_trial(reported("", done=True))
    trial.checkpoint = Checkpoint(str(tmp_path / "removed"))
    assert outcome_of(trial, "val_x", scheduler="ASHA").checkpoint is None


def test_values_are_those_of_the_best_epoch() -> None:
    result = reported("epochs", done=True) | {"best_epoch": 5}
    result["schedule"] = [{"epoch": epoch, "values": {"lr": epoch / 10}} for epoch in (1, 4, 7)]
    assert outcome_of(ray_trial(result), "val_x", scheduler="PBT").values == {"lr": 0.4}
