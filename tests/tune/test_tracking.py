"""What a tracker writes down, how it is sent, and what MLflow then has."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.errors import ConfigurationError, StudyError
from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.tasks.lines import Lines
from dgm_ray.tune.observer import Publisher
from dgm_ray.tune.outcomes import Outcome
from dgm_ray.tune.run import Found, dispensable, log_found
from dgm_ray.tune.settings import BestTrials, MLflow
from dgm_ray.tune.tracking import sender
from dgm_ray.tune.tracking import tracker as tracking
from dgm_ray.tune.tracking.address import check_uri
from dgm_ray.tune.tracking.delivery import Busy, Delivery, passing
from dgm_ray.tune.tracking.environment import environment
from dgm_ray.tune.tracking.history import history_of
from dgm_ray.tune.tracking.outbox import REQUESTS, SENT, Outbox, Sent, requests_of, without_password
from dgm_ray.tune.tracking.tracker import Tracker, TrackingCallback

from .conftest import ENVIRONMENT, Command, stopped

URI = "sqlite:////x.db"
Write = Callable[[dict[str, Any]], Path]


def outcome(trial_id: str, status: str = "completed", number: int = 1) -> Outcome:
    measures = {"val_x": 0.5, "val_y": float("nan")}
    return Outcome(trial_id, number, {}, status, f"why {status}", 0.5, measures, 2, 3, 1.5, "T")


class RefusedError(Exception):
    """What MLflow says of a request that will never do."""

    def get_http_status_code(self) -> int:
        return 400


class FakeMLflow:
    """MLflow's client: keeps runs in memory and counts calls. fail: called before each call, with its name."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.calls: list[str] = []
        self.fail: Callable[[str], None] = lambda name: None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.fail(name)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7")

    def create_run(self, experiment: str, start: int, tags: dict[str, str], name: str) -> Any:
        run = SimpleNamespace(
            info=SimpleNamespace(run_id=f"run{len(self.runs)}", status="RUNNING", run_name=name),
            data=SimpleNamespace(tags=dict(tags), params={}, metrics=defaultdict(set)),
            texts={},
        )
        self.runs[run.info.run_id] = run
        self._called("create_run")  # made, although the answer may be lost
        return run

    def search_runs(self, experiments: list[str], where: str, **options: Any) -> Any:
        self._called("search_runs")
        tag, _, value = where.removeprefix("tags.").partition(" = ")
        pages = [one for one in self.runs.values() if one.data.tags.get(tag.strip("`")) == value.strip("'")]

        class Page(list[Any]):
            token = None

        return Page(pages[::-1])

    def update_run(self, run: str, status: str) -> None:
        self._called("update_run")
        self.runs[run].info.status = status

    def log_batch(self, run: str, metrics: Any, params: Any, tags: Any) -> None:
        assert max(len(params), len(tags)) <= 100
        assert len(metrics) + len(params) + len(tags) <= 1000
        self._called("log_batch")
        if any(param.key == "bad" for param in params):
            raise RefusedError("this parameter will not do")
        data = self.runs[run].data
        for metric in metrics:
            data.metrics[metric.key].add((metric.step, metric.value, metric.timestamp))
        data.params |= {param.key: param.value for param in params}
        data.tags |= {tag.key: tag.value for tag in tags}

    def log_text(self, run: str, text: str, name: str) -> None:
        self._called("log_text")
        self.runs[run].texts[name] = text

    def set_terminated(self, run: str, status: str, end_time: int | None = None) -> None:
        self._called("set_terminated")
        self.runs[run].info.status = status

    def by_name(self) -> dict[str, Any]:
        return {run.info.run_name: run for run in self.runs.values()}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow leaves in the environment where it wrote last, and ``dgm-ray sync`` would write there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started."""
    monkeypatch.setattr(tracking, "sender_of", lambda uri: MagicMock())


def tracker_of(folder: Path, log: Any = "all", uri: str = URI) -> Tracker:
    return Tracker(folder, uri, "e", folder.parent / "artifacts", MLflow(log))


def write_study(folder: Path, trials: int = 3, epochs: int = 4, log: Any = "all") -> Tracker:
    tracker = tracker_of(folder, log)
    tracker.open_study("s", {"seed": 0}, {"study": "/s"})
    for number in range(trials):
        write_trial(tracker, number, epochs)
    ranked = [outcome(f"t{number}", number=number) for number in range(trials)]
    tracker.log_best(ranked)
    tracker.log_text("hello", "notes.txt", "t0")
    tracker.close("FINISHED")
    return tracker


def write_trial(tracker: Tracker, number: int, epochs: int) -> None:
    tracker.open_trial(f"t{number}", number, {"lr": 0.1}, {"model": "m"})
    for epoch in range(1, epochs + 1):
        tracker.log_metrics(f"t{number}", [{"epoch": epoch, "loss": number + 1 / epoch}])
    tracker.close_trial(outcome(f"t{number}", number=number))


def delivery(folder: Path, client: FakeMLflow, uri: str = URI) -> Delivery:
    return Delivery(folder, uri, lambda: client)


def steps(run: Any, name: str = "loss") -> list[int]:
    return sorted(step for step, _, _ in run.data.metrics[name])


def test_requests_are_sent_in_few_calls(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "s", trials=3, epochs=50)
    client = FakeMLflow()
    one = delivery(tmp_path / "s", client)
    assert one.left == 1 + 3 * 52 + 2
    assert one.deliver() == 159
    assert (one.left, one.deliver(), one.closed) == (0, 0, True)
    assert client.calls.count("create_run") == 4
    assert client.calls.count("log_batch") == 4, "parameters, metrics and tags of a trial in one; the study's"
    runs = client.by_name()
    assert set(runs) == {"s", "s 000", "s 001", "s 002"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert steps(runs["s 001"]) == list(range(1, 51))
    assert {value for _, value, _ in runs["s 001"].data.metrics["loss"]} == {1 + 1 / epoch for epoch in range(1, 51)}
    assert runs["s 000"].data.params == {"lr": "0.1"}
    assert runs["s 000"].data.tags["model"] == "m"
    assert runs["s 000"].data.tags["mlflow.parentRunId"] == runs["s"].info.run_id
    assert "best_val_y" not in runs["s 000"].data.metrics
    assert runs["s 000"].texts == {"traceback.txt": "T", "notes.txt": "hello"}


def test_no_call_has_more_than_mlflow_takes(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {f"p{i}": i for i in range(250)}, {"study": "/s"})
    tracker.open_trial("a", 0, {f"p{i}": "x" * 9000 for i in range(130)}, {f"tag{i}": "y" for i in range(90)})
    tracker.log_metrics("a", [{"epoch": epoch} | {f"m{i}": float(i) for i in range(30)} for epoch in range(1, 101)])
    tracker.close_trial(outcome("a"))
    client = FakeMLflow()
    delivery(tmp_path / "s", client).deliver()  # the client asserts
    runs = client.by_name()
    assert len(runs["s"].data.params) == 250
    assert len(runs["s 000"].data.params) == 130
    assert {len(value) for value in runs["s 000"].data.params.values()} == {6000}
    assert all(steps(runs["s 000"], f"m{i}") == list(range(1, 101)) for i in range(30))


@pytest.mark.parametrize("failing", range(18))
def test_what_an_error_interrupts_is_sent_again_and_nothing_is_there_twice(
    offline: None, tmp_path: Path, failing: int
) -> None:
    """Whichever call fails, and whether the same process goes on or another."""
    write_study(tmp_path / "s", trials=3)
    untouched, client = FakeMLflow(), FakeMLflow()
    delivery(tmp_path / "s", untouched, "http://untouched").deliver()

    def fail(name: str) -> None:
        if len(client.calls) == failing + 1:
            raise ConnectionError("gone")

    client.fail = fail
    one = delivery(tmp_path / "s", client)
    assert len(untouched.calls) <= 18, "all are tried"
    if failing < len(untouched.calls):
        with pytest.raises(ConnectionError):
            one.deliver()
        if failing % 2:
            one.release()
            one = delivery(tmp_path / "s", client)
    one.deliver()
    assert one.left == 0
    expected, found = untouched.by_name(), client.by_name()
    assert len(client.runs) == len(found) == len(expected)
    for name, run in found.items():
        assert run.data.metrics == expected[name].data.metrics
        assert (run.data.params, run.info.status) == (expected[name].data.params, expected[name].info.status)
        assert run.texts == expected[name].texts


def test_what_is_refused_is_left_out_and_named(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {}, {"study": "/s"})
    write_trial(tracker, 0, 4)
    tracker.open_trial("t1", 1, {"bad": 1})
    tracker.log_metrics("t1", [{"epoch": 1, "loss": 0.5}])
    tracker.log_file(tmp_path / "s" / "gone.csv")
    write_trial(tracker, 2, 4)
    tracker.close("FINISHED")
    client = FakeMLflow()
    one = delivery(tmp_path / "s", client)
    one.deliver()
    assert (one.left, one.sent.refused) == (0, 2)
    assert one.sent.refusal == "RefusedError: this parameter will not do"
    runs = client.by_name()
    assert steps(runs["s 000"]) == steps(runs["s 002"]) == [1, 2, 3, 4]
    assert steps(runs["s 001"]) == [1]
    tracker.settle(1.0)
    assert tracker.problem == "it refused 2 requests, the first with RefusedError: this parameter will not do"
    assert tracker.kept == 0


def test_a_study_whose_run_is_refused_is_kept(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "s")

    def refuse(name: str) -> None:
        if name == "search_runs":
            raise RefusedError("not now")

    client = FakeMLflow()
    client.fail = refuse
    one = delivery(tmp_path / "s", client)
    count = one.left
    with pytest.raises(RefusedError):
        one.deliver()
    assert (one.left, one.sent.refused) == (count, 0)
    client.fail = lambda name: None
    assert one.deliver() == count
    assert (one.left, one.sent.refused) == (0, 0)
    assert steps(client.by_name()["s 002"]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("status", "text", "later"),
    [
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}', False),
        (404, "<html>no such page</html>", True),
        (200, "<html>log in</html>", True),
        (503, "", True),
    ],
)
def test_what_a_proxy_answers_is_no_refusal(status: int, text: str, later: bool) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import verify_rest_response

    with pytest.raises(MlflowException) as caught:
        verify_rest_response(SimpleNamespace(status_code=status, text=text), "/api/2.0/mlflow/runs/create")
    assert passing(caught.value) == later


def test_the_best_get_their_runs_at_the_end(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "all")
    write_study(tmp_path / "best", log=BestTrials(2))
    write_study(tmp_path / "none", log="none")
    found = {}
    for name in ("all", "best", "none"):
        client = FakeMLflow()
        delivery(tmp_path / name, client).deliver()
        found[name] = client.by_name()
        assert len(history_of(tmp_path / name)) == 12, "the folder has all of it"
    assert set(found["best"]) == {"s", "s 000", "s 001"}
    assert set(found["none"]) == {"s"}
    for name in ("s 000", "s 001"):
        assert steps(found["best"][name]) == steps(found["all"][name]) == [1, 2, 3, 4]
        assert found["best"][name].data.tags.items() >= {"status": "completed", "model": "m"}.items()
        assert found["best"][name].info.status == "FINISHED"
    assert found["best"]["s 000"].texts["notes.txt"] == "hello"


def test_a_study_that_goes_on_may_log_more(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "s", log="none")
    resumed = tracker_of(tmp_path / "s")
    resumed.open_study("s", {"seed": 0}, {"study": "/s"}, resume=True)
    write_trial(resumed, 3, 2)
    resumed.close("FINISHED")
    client = FakeMLflow()
    delivery(tmp_path / "s", client).deliver()
    assert {name: len(steps(run)) for name, run in client.by_name().items()} == {
        "s": 0,
        "s 000": 4,
        "s 001": 4,
        "s 002": 4,
        "s 003": 2,
    }


def test_a_database_that_was_lost_gets_all_again(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "s")
    delivery(tmp_path / "s", FakeMLflow()).deliver()
    resumed = tracker_of(tmp_path / "s")
    resumed.open_study("s", {"seed": 0}, {"study": "/s"}, resume=True)
    write_trial(resumed, 3, 2)
    other = FakeMLflow()
    one = delivery(tmp_path / "s", other)
    with pytest.raises(ConnectionError, match="all is sent again"):
        one.deliver()
    one.deliver()
    assert [len(steps(run)) for run in other.runs.values()] == [0, 4, 4, 4, 2]


def test_each_mlflow_gets_all_and_one_process_sends_at_a_time(offline: None, tmp_path: Path) -> None:
    write_study(tmp_path / "s")
    first, second = FakeMLflow(), FakeMLflow()
    one = delivery(tmp_path / "s", first)
    one.deliver()
    with pytest.raises(Busy, match="another process sends"):
        delivery(tmp_path / "s", second, "http://other").deliver()
    one.release()
    delivery(tmp_path / "s", second, "http://other").deliver()
    assert first.by_name().keys() == second.by_name().keys()
    assert Sent(tmp_path / "s", URI).offset == Sent(tmp_path / "s", "http://other").offset > 0


def test_the_runs_of_a_process_that_died_are_ended(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {}, {"study": "/s"})
    write_trial(tracker, 0, 1)
    tracker.open_trial("t1", 1, {})
    client = FakeMLflow()
    one = delivery(tmp_path / "s", client)
    one.deliver()
    one.release()
    delivery(tmp_path / "s", client).kill()
    assert [run.info.status for run in client.runs.values()] == ["KILLED", "FINISHED", "KILLED"]


def test_a_sender_goes_on_until_all_is_sent_or_nothing_is_left_to_try(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "a")
    tracker = tracker_of(tmp_path / "b")
    tracker.open_study("b", {}, {"study": "/b"})
    client, now = FakeMLflow(), 0.0
    monkeypatch.setattr(sender, "connect", lambda uri: client)
    monkeypatch.setattr(sender.time, "monotonic", lambda: now)

    def fail(name: str) -> None:
        raise ConnectionError("gone")

    client.fail = fail
    one = sender.Round(URI)
    for name in ("a", "b", "removed"):
        one.add(str(tmp_path / name))
    pauses = []
    for _ in range(8):
        one.go()
        pauses.append(one.pause)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert Sent(tmp_path / "a", URI).waiting == "ConnectionError: gone"
    assert not (tmp_path / "removed").exists()
    now = 1000.0
    one.finish()
    one.go()
    assert not one.over, "the study's process has only just ended"
    client.fail = lambda name: None
    one.go()
    assert one.over
    runs = client.by_name()
    assert {name: run.info.status for name, run in runs.items() if name in "sb"} == {"s": "FINISHED", "b": "KILLED"}
    assert Sent(tmp_path / "a", URI).waiting == ""


def test_a_sender_that_is_alone_gives_up(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path / "s")
    client, now = FakeMLflow(), 0.0
    client.fail = MagicMock(side_effect=ConnectionError)
    monkeypatch.setattr(sender, "connect", lambda uri: client)
    monkeypatch.setattr(sender.time, "monotonic", lambda: now)
    one = sender.Round(URI)
    one.add(str(tmp_path / "s"))
    one.finish()
    one.go()
    assert not one.over
    now = sender.LOST + 1
    assert one.over


def test_a_line_that_was_cut_short_is_no_request(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add("text", text="ä", name="n", trial=None)
    outbox.close()
    path = tmp_path / REQUESTS
    with path.open("ab") as file:
        file.write(b'{"do": "te')
    assert len(list(requests_of(tmp_path))) == 1
    again = Outbox(tmp_path)
    end = again.add("close", status="FINISHED")
    found = list(requests_of(tmp_path))
    assert [request["do"] for _, request in found] == ["text", "close"]
    assert found[-1][0] == end == path.stat().st_size
    assert [request["do"] for _, request in requests_of(tmp_path, found[0][0])] == ["close"]


def test_lines_are_there_for_others_at_once(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "new" / "file")
    assert lines.add("a") == 2
    assert (tmp_path / "new" / "file").read_bytes() == b"a\n"


def test_history_has_a_row_for_each_trial_and_epoch(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {}, {"study": "/s"})
    for number in (1, 0):
        tracker.open_trial(f"t{number}", number, {})
    tracker.log_metrics("t1", [{"epoch": 2, "loss": 0.2, "val_x": 1.0}, {"epoch": 1, "loss": 0.1}])
    tracker.log_metrics("t0", [{"epoch": 1, "loss": 0.3}])
    tracker.log_metrics("t0", [{"epoch": 1, "loss": 0.4}])
    expected = pd.DataFrame(
        {"trial": [0, 1, 1], "epoch": [1, 1, 2], "loss": [0.4, 0.1, 0.2], "val_x": [np.nan, np.nan, 1.0]}
    )
    pd.testing.assert_frame_equal(history_of(tmp_path / "s"), expected)
    assert list(history_of(tmp_path / "nothing")) == ["trial", "epoch"]


def test_an_epoch_that_is_trained_again_is_logged_once(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {}, {"study": "/s"})
    trial = MagicMock(trial_id="a", experiment_tag="7_x", config={"lr": np.float32(0.5)})
    for session in range(2):
        callback = TrackingCallback(tracker, lambda one: outcome(one.trial_id), {}, lambda one: {}, "val_x")
        callback.on_trial_start(1, [trial], trial)
        for epochs in ((1, 2), (2, 3 + session)):
            result = {"history": [{"epoch": epoch, "loss": epoch + session / 10} for epoch in epochs]}
            callback.on_trial_result(1, [trial], trial, result)
        tracker = tracker_of(tmp_path / "s")
        tracker.open_study("s", {}, {"study": "/s"}, resume=True)
    assert history_of(tmp_path / "s")["loss"].tolist() == [1.0, 2.0, 3.0, 4.1]
    (params,) = {json.dumps(one["params"]) for _, one in requests_of(tmp_path / "s") if one["do"] == "trial"}
    assert params == '{"lr": 0.5}'


def test_the_study_tells_how_far_it_is() -> None:
    tracker = MagicMock(study="s")
    scores = iter([0.5, 0.7, 0.3])
    ranked = lambda one: Outcome(one.trial_id, 0, {}, "completed", "", next(scores))  # noqa: E731
    callback = TrackingCallback(tracker, ranked, {}, lambda one: {}, "val_x")
    for name in "abc":
        callback.on_trial_complete(1, [], MagicMock(trial_id=name, experiment_tag="0_", config={}))
    said = [call.args for call in tracker.log_study.call_args_list]
    assert said == [
        ({"trials_ended": count, "best_so_far_val_x": best}, {}, count)
        for count, best in ((1, 0.5), (2, 0.5), (3, 0.3))
    ]


def test_a_trial_whose_process_did_not_come_up_has_a_run() -> None:
    tracker = MagicMock(study="s")
    callback = TrackingCallback(
        tracker, lambda trial: outcome(trial.trial_id, "failed"), {}, lambda one: {"task": "T"}, tags={"model": "m"}
    )
    trial = MagicMock(trial_id="a", experiment_tag="7_x", config={"lr": 0.1})
    callback.on_trial_error(1, [trial], trial)
    tracker.open_trial.assert_called_once_with("a", 7, {"lr": 0.1}, {"model": "m"})
    tracker.log_text.assert_called_once_with('{\n  "task": "T"\n}', "configuration.json", "a")
    (closed,) = tracker.close_trial.call_args.args
    assert (closed.trial_id, closed.status) == ("a", "failed")


@pytest.mark.parametrize("written", [True, False])
def test_a_model_that_could_not_be_written_ends_no_study(tmp_path: Path, written: bool) -> None:
    console, tracker, folder = Console(file=StringIO(), width=40), MagicMock(), tmp_path / "trial_0001"
    with dispensable("models/", console):
        if written:
            folder.mkdir()
        else:
            raise OSError(28, "No space left on device")
    said = "" if written else "warning: models/ could not be written (OSError: [Errno 28] No space left on device)\n"
    assert console.file.getvalue() == said  # type: ignore[attr-defined]
    there = MagicMock(model=lambda number: folder)
    one = replace(outcome("a"), checkpoint="checkpoint_1")
    log_found(tracker, MagicMock(settings=MagicMock(keep=1)), there, Found([one], {}, FinalReport(), 0))
    assert tracker.log_model.called == written
    assert tracker.log_file.call_args_list[0].args[1:] == ("a", "checkpoint")


def test_a_study_that_did_not_begin_writes_nothing(offline: None, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path / "s")
    tracker.close("FAILED")
    tracker.settle(60.0)
    assert list(tmp_path.iterdir()) == []


def test_publishing_a_large_file_takes_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, published = 0.0, []
    monkeypatch.setattr("dgm_ray.tune.observer.time.monotonic", lambda: now)

    def publish() -> None:
        nonlocal now
        now += 3
        published.append(now)

    publisher = Publisher(publish)
    for _ in range(1000):
        now += 1
        publisher.on_step_end(1, [])
    assert len(published) * 3 / now <= 0.05
    assert len(published) > 10


def test_a_full_disk_ends_no_study(offline: None, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("no folder")
    tracker = tracker_of(tmp_path / "s")
    tracker.open_study("s", {}, {})
    tracker.open_trial("a", 0, {})
    tracker.close("FINISHED")
    tracker.settle(1.0)
    assert "File exists" in tracker.problem


def test_the_environment_is_named() -> None:
    tags = environment()
    versions = {f"version.{name}" for name in ("dgm_ray", "python", "torch", "ray", "mlflow", "numpy", "pandas")}
    assert versions | {"command", "os", "cpu", "cpus", "gpu"} <= tags.keys()
    assert tags["version.numpy"] == np.__version__
    assert all(tags.values())


def test_passwords_are_not_written() -> None:
    assert without_password("postgresql://me:secret@host:1/db?a=b") == "postgresql://me@host:1/db?a=b"
    assert without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nowhere://x", "should begin with one of sqlite, http"),
        ("sqlit:///m.db", "did you mean 'sqlite'?"),
        ("mlruns", "is a folder, which MLflow writes no more"),
        ("sqlite:///{folder}/damaged.db", "is no database, or a damaged one"),
        ("sqlite:///{folder}/other.db", "is the database of another program"),
        ("sqlite:///{folder}/none/m.db", "there is no folder"),
        ("sqlite:///{folder}", "should name a file"),
    ],
)
def test_an_address_that_cannot_be_one(tmp_path: Path, uri: str, said: str) -> None:
    (tmp_path / "damaged.db").write_text("SQLite format 3, or not" * 100)
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE songs (name)")
    database.close()
    with pytest.raises(StudyError) as caught:
        check_uri(uri.format(folder=tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_that_can_be_one(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for uri in (f"sqlite:///{tmp_path}/new.db", f"sqlite:///{tmp_path}/empty.db", "http://127.0.0.1:1", "databricks"):
        check_uri(uri)
    assert not (tmp_path / "new.db").exists()


def test_only_what_can_be_logged_is_taken(small: dict[str, Any], write: Write) -> None:
    from dgm_ray.tune.study import Study

    path = write(small)
    assert Study.read(path).settings.mlflow == MLflow("all", 60.0)
    assert Study.read(path, ["tune.mlflow.log=none"]).settings.mlflow.log == "none"
    assert Study.read(path, ["tune.mlflow.log={best: 50}"]).settings.mlflow.log == BestTrials(50)
    for wrong in ("some", "{best: 0}", "{worst: 3}", "3"):
        with pytest.raises(ConfigurationError, match=r"tune\.mlflow\.log"):
            Study.read(path, [f"tune.mlflow.log={wrong}"])


def test_a_study_has_tags_that_tell_it_from_others(small: dict[str, Any], write: Write) -> None:
    from dgm_ray.tune.study import Study

    tags = Study.read(write(small)).tags
    assert tags == {
        "model": "AutoEncoder",
        "data": "Wine",
        "mechanism": "MCAR",
        "missing_rate": "0.2",
        "metric": "val_imputation_rmse",
    }


def test_a_study_that_is_kept_elsewhere_is_sent_from_there(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of checkpoints lie in folders of their own, and are named by where the study's process had copies."""
    working, store = tmp_path / "working" / "s", tmp_path / "store" / "s"
    checkpoint = store / "trial_0000" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("weights")
    tracker = tracker_of(working)
    tracker.open_study("s", {}, {"study": "/s"})
    write_trial(tracker, 0, 2)
    tracker.log_file(working.with_name("s.copies") / str(checkpoint).lstrip("/"), "t0", "checkpoint")
    (working / "best.json").write_text("{}")
    tracker.log_file(working / "best.json")
    tracker.close("FINISHED")
    for path in list(working.iterdir()):
        path.rename(store / path.name)
    working.rmdir()
    client, logged = FakeMLflow(), []
    monkeypatch.setattr(client, "search_experiments", lambda **options: [], raising=False)
    monkeypatch.setattr(client, "get_run", client.runs.__getitem__, raising=False)
    log = lambda run, path, folder: logged.append((Path(path).read_text(), folder))  # noqa: E731
    monkeypatch.setattr(client, "log_artifact", log, raising=False)
    monkeypatch.setattr("dgm_ray.tune.tracking.sync.connect", lambda uri: client)
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    for said in ("requests sent, 2 runs made", "all was sent before"):
        done = CliRunner().invoke(app, ["sync", f"file://{store}", "--tracking-uri", uri])
        assert done.exit_code == 0, done.output
        assert said in done.output
        assert "warning" not in done.output
    assert logged == [("weights", "checkpoint"), ("{}", None)]
    assert Sent(store, uri).offset > 0, "what was sent is written there"


def test_what_cannot_be_sent_is_one_line(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "results" / "small")
    (tmp_path / "empty").mkdir()
    for study, said in (("smal", "did you mean 'small'?"), ("empty", "has no tracking.jsonl"), ("x://y", "x://y")):
        refused = CliRunner().invoke(app, ["sync", study])
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


# From here on with MLflow itself.


@pytest.mark.slow
def test_a_study_reads_back_and_goes_on(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    tracker = tracker_of(tmp_path / "s", uri=uri)
    tracker.open_study("s", {"seed": 0}, {"study": "/s"})
    tracker.open_trial("a", 1, {"lr": 0.1})
    tracker.log_metrics("a", [{"epoch": epoch, "loss": float(epoch)} for epoch in range(1200)])
    tracker.close_trial(outcome("a"))
    tracker.open_trial("b", 2, {"lr": 0.2})
    tracker.close("KILLED")
    tracker.settle(60.0)
    assert (tracker.problem, tracker.kept) == ("", 0)

    for path in (tmp_path / "s").iterdir():
        path.unlink()  # the runs are found by their tags
    resumed = tracker_of(tmp_path / "s", uri=uri)
    resumed.open_study("s", {"seed": 0}, {"study": "/s"}, resume=True)
    resumed.catch_up(outcome("a", "stopped"))
    resumed.open_trial("b", 2, {"lr": 0.2})
    resumed.close_trial(outcome("b", "failed"))
    resumed.catch_up(outcome("c", "stopped", 3))
    resumed.log_study({"best": 1.0}, {"status": "completed"})
    resumed.close("FINISHED")
    resumed.settle(60.0)
    assert (resumed.problem, resumed.kept) == ("", 0)

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"s", "s 001", "s 002", "s 003"}
    assert runs["s"].info.status == "FINISHED"
    assert runs["s"].data.metrics == {"best": 1.0}
    children = [runs[f"s 00{number}"] for number in (1, 2, 3)]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {runs["s"].info.run_id}
    assert [run.info.status for run in children] == ["FINISHED", "FAILED", "FINISHED"]
    assert [run.data.params for run in children] == [{"lr": "0.1"}, {"lr": "0.2"}, {}]
    assert [run.data.tags["status"] for run in children] == ["completed", "failed", "stopped"]
    assert runs["s 002"].data.tags["reason"] == "why failed"
    assert runs["s 001"].data.metrics["best_val_x"] == 0.5
    history = client.get_metric_history(runs["s 001"].info.run_id, "loss")
    assert [metric.value for metric in history] == [float(epoch) for epoch in range(1200)]
    assert [file.path for file in client.list_artifacts(runs["s 002"].info.run_id)] == ["traceback.txt"]

    (tmp_path / "s" / SENT).unlink()  # all is sent again: nothing is there twice
    again = CliRunner().invoke(app, ["sync", str(tmp_path / "s")])
    assert again.exit_code == 0, again.output
    assert len(client.search_runs([experiment.experiment_id])) == 4


class Server:
    """An MLflow server on a port of its own; started again, it is at the same."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import requests

        line = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--host", "127.0.0.1"]
        line += ["--port", str(self._port), "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        line += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 240
        while True:
            try:
                assert requests.get(f"{self.uri}/health", timeout=5).ok
                return
            except requests.RequestException:
                assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
                time.sleep(0.5)

    def stop(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(60)
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    one.stop()


def complete(uri: str, folder: Path) -> None:
    """Assert that an MLflow has every epoch of every metric of every trial, as the study's folder has it."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("dgm_ray")
    runs = client.search_runs([experiment.experiment_id])
    history, table = (pd.read_parquet(folder / name) for name in ("history.parquet", "results.parquet"))
    by_trial = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    assert by_trial.keys() == set(table["trial_id"])
    assert len(runs) == len(table) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = [name for name in history if name not in ("trial", "epoch")]
    assert len(names) >= 4
    for row in table.itertuples():
        of_trial = history[history["trial"] == row.trial]
        assert of_trial["epoch"].tolist() == list(range(1, row.epochs + 1))
        for name in names:
            there = client.get_metric_history(by_trial[row.trial_id].info.run_id, name)
            expected = of_trial[["epoch", name]].dropna()
            assert [(one.step, one.value) for one in there] == list(expected.itertuples(index=False, name=None))


def many_epochs(small: dict[str, Any], trials: int = 4, epochs: int = 300) -> dict[str, Any]:
    small["tune"] = {"samples": trials, "concurrent": 1, "mlflow": {"wait": 90}}
    small["trial"]["arguments"] |= {"epochs": epochs, "evaluate_every": 20}
    return small


@pytest.mark.slow
def test_a_server_that_is_started_again_has_it_all(
    small: dict[str, Any], write: Write, tmp_path: Path, cluster: str, server: Server
) -> None:
    server.start()
    line = [sys.executable, "-u", "-m", "dgm_ray.tune", str(write(many_epochs(small))), "--address", cluster]
    with subprocess.Popen(
        [*line, "--tracking-uri", server.uri],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    ) as running:
        assert running.stdout is not None
        said, deadline = "", time.monotonic() + 240
        while " 000  val" not in said and running.poll() is None and time.monotonic() < deadline:
            said += running.stdout.readline()
        server.stop()
        while " 001  val" not in said and running.poll() is None and time.monotonic() < deadline:
            said += running.stdout.readline()  # it goes on without a server
        server.start()
        said += running.communicate(timeout=180)[0]
    assert running.returncode == 0, said
    assert "warning" not in said
    complete(server.uri, tmp_path / "results" / "small")


@pytest.mark.slow
def test_without_a_server_nothing_is_lost(
    small: dict[str, Any], write: Write, command: Command, tmp_path: Path, cluster: str, server: Server
) -> None:
    small["tune"] |= {"mlflow": {"wait": 1}}
    done = command("dgm_ray.tune", write(small), "--address", cluster, "--tracking-uri", server.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / "small"
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert f"sync {folder} sends the {len(list(requests_of(folder)))} requests that are left" in warning
    refused = CliRunner().invoke(app, ["sync", str(folder), "--wait", "1"])
    assert refused.exit_code == 2
    server.start()
    sent = CliRunner().invoke(app, ["sync", str(folder)])
    assert sent.exit_code == 0, sent.output
    complete(server.uri, folder)
    assert "all was sent before" in CliRunner().invoke(app, ["sync", str(folder)]).output


@pytest.mark.slow
def test_what_a_killed_study_has_written_is_sent(
    small: dict[str, Any], write: Write, command: Command, tmp_path: Path, cluster: str
) -> None:
    from mlflow import MlflowClient

    path = write(many_epochs(small, trials=3, epochs=200))
    code, said = stopped(tmp_path, path, "--address", cluster, stop=signal.SIGKILL)
    assert code == -signal.SIGKILL, said
    folder, uri = tmp_path / "results" / "small", f"sqlite:///{tmp_path / 'mlflow.db'}"
    deadline = time.monotonic() + 240
    one = Delivery(folder, uri, lambda: MlflowClient(uri))
    while one.sent.update() or one.left or "KILLED" not in statuses(uri):
        assert time.monotonic() < deadline, "the sender does not deliver"
        time.sleep(0.5)
    assert set(statuses(uri)) <= {"FINISHED", "KILLED"}
    resumed = command("dgm_ray.tune", path, "--address", cluster, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    complete(uri, folder)


def statuses(uri: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("dgm_ray")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])] if experiment else []
