"""What the tracker writes is read back from a real MLflow database."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from dgm_ray.tune.outcomes import Outcome
from dgm_ray.tune.tracking.environment import environment
from dgm_ray.tune.tracking.tracker import Tracker, TrackingCallback

pytestmark = pytest.mark.slow


def outcome(trial_id: str, status: str = "completed") -> Outcome:
    return Outcome(trial_id, 1, {}, status, f"why {status}", 0.5, {"val_x": 0.5, "val_y": float("nan")}, 2, 3, 1.5, "T")


def test_a_study_reads_back_and_goes_on(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    tracker = Tracker(uri, "e", tmp_path / "artifacts")
    tracker.open_study("s", {"seed": 0}, {"study": "/s"})
    tracker.open_trial("a", "001", {"lr": 0.1})
    tracker.log_metrics("a", [("loss", float(epoch), 1000 + epoch, epoch) for epoch in range(1200)])
    tracker.close_trial(outcome("a"))
    tracker.open_trial("b", "002", {"lr": 0.2})
    tracker.close("KILLED")
    assert tracker.problem == ""

    resumed = Tracker(uri, "e", tmp_path / "artifacts")
    resumed.open_study("s", {"seed": 0}, {"study": "/s"}, resume=True)
    resumed.open_trial("b", "002", {"lr": 0.2})
    resumed.close_trial(outcome("b", "failed"))
    resumed.log_study({"best": 1.0}, {"status": "completed"})
    resumed.close("FINISHED")
    assert resumed.problem == ""

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"s", "001", "002"}
    assert runs["s"].info.status == "FINISHED"
    assert runs["s"].data.metrics == {"best": 1.0}
    children = [runs["001"], runs["002"]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {runs["s"].info.run_id}
    assert [run.info.status for run in children] == ["FINISHED", "FAILED"]
    assert [run.data.params for run in children] == [{"lr": "0.1"}, {"lr": "0.2"}]
    assert runs["002"].data.tags["reason"] == "why failed"
    assert runs["001"].data.metrics["best_val_x"] == 0.5
    history = client.get_metric_history(runs["001"].info.run_id, "loss")
    assert [metric.value for metric in history] == [float(epoch) for epoch in range(1200)]
    assert [file.path for file in client.list_artifacts(runs["002"].info.run_id)] == ["traceback.txt"]


def test_what_a_killed_driver_did_not_write_is_written(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    tracker = Tracker(uri, "e", tmp_path / "artifacts")
    tracker.open_study("s", {"seed": 0}, {"study": "/s"})
    tracker.open_trial("a", "001", {})
    tracker.close_trial(outcome("a"))
    tracker.open_trial("b", "002", {})
    tracker.close("KILLED")

    resumed = Tracker(uri, "e", tmp_path / "artifacts")
    resumed.open_study("s", {"seed": 0}, {"study": "/s"}, resume=True)
    for trial_id, number in (("a", 1), ("b", 2), ("c", 3)):
        resumed.catch_up(outcome(trial_id, "stopped"), f"00{number}")
    resumed.close("FINISHED")
    assert resumed.problem == ""

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"s", "001", "002", "003"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    statuses = [runs[name].data.tags["status"] for name in ("001", "002", "003")]
    assert statuses == ["completed", "stopped", "stopped"], "what had been written stays"


def test_a_tracker_that_cannot_write_says_so_and_stops_nobody() -> None:
    tracker = Tracker("nowhere://x", "e", None)
    tracker.open_study("s", {}, {})
    tracker.open_trial("a", "001", {})
    tracker.close("FINISHED")
    assert tracker.problem != ""


def test_the_environment_is_named() -> None:
    tags = environment()
    assert {"version.dgm_ray", "version.torch", "version.ray", "version.mlflow", "command"} <= tags.keys()


def test_a_trial_whose_process_did_not_come_up_has_a_run() -> None:
    tracker = MagicMock(study="s")
    callback = TrackingCallback(tracker, lambda trial: outcome(trial.trial_id, "failed"), {}, lambda one: {"task": "T"})
    trial = MagicMock(trial_id="a", experiment_tag="7_x", config={"lr": 0.1})
    callback.on_trial_error(1, [trial], trial)
    tracker.open_trial.assert_called_once_with("a", "s 007", {"lr": 0.1})
    tracker.log_text.assert_called_once_with('{\n  "task": "T"\n}', "configuration.json", "a")
    (closed,) = tracker.close_trial.call_args.args
    assert (closed.trial_id, closed.status) == ("a", "failed")
