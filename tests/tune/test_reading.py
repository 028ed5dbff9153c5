"""Runs are found by id, prefix and name; what is not there, or is not ours, is one line."""

import json
import math
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.errors import StudyError
from dgm_ray.tasks.configuration import NOT_REPEATED
from dgm_ray.tune.outcomes import RANKED
from dgm_ray.tune.tracking import reading
from dgm_ray.tune.tracking.listing import best_of, sparkline
from dgm_ray.tune.tracking.reading import (
    WINNING,
    client_of,
    find_run,
    find_study,
    history,
    number_of,
    studies,
    trials_of,
    winner_of,
)

METRIC = "val_imputation_rmse"
Ids = dict[str, str]


def trial(client: Any, experiment: str, parent: str, name: str, score: float | None, status: str) -> str:
    """Write a trial of three epochs as studies do."""
    tags = {"mlflow.parentRunId": parent, "trial_id": name[-3:], "status": status, "reason": f"why {status}"}
    run: str = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    client.log_param(run, "lr", "0.1")
    for epoch in (1, 2, 3):
        client.log_metric(run, METRIC, (score or 1.0) * 2 ** (3 - epoch), timestamp=epoch, step=epoch)
    client.log_metric(run, METRIC, (score or 1.0), timestamp=9, step=3)  # again, after a resume
    if score is not None:
        client.log_metric(run, f"best_{METRIC}", score)
    client.log_metric(run, "epochs", 3)
    client.set_terminated(run)
    return run


def study(client: Any, experiment: str, name: str, **tags: str) -> str:
    own = {"study": f"/studies/{name}", "task": "TrainGAIN", "status": "completed"} | tags
    run: str = client.create_run(experiment, run_name=name, tags=own).info.run_id
    for key, value in {"metric": METRIC, "trials": 4, "seeds": 1, "resources": {"workers": 1}}.items():
        client.log_param(run, key, json.dumps(value))
    client.set_terminated(run)
    return run


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the study "gain" of four trials, "lost" of one that failed, a comparison, and another's run."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'm.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("dgm_ray", (folder / "artifacts").as_uri())
    gain = study(client, experiment, "gain", comparison="imputers")
    client.log_metric(gain, "trials_ended", 5)
    for number, score, status in ((0, 0.3, "completed"), (1, 0.2, "stopped"), (2, 0.2, "completed"), (3, 0.1, "oom")):
        run = trial(client, experiment, gain, f"gain {number:03d}", score, status)
        expected: dict[str, Any] = {METRIC: score} if status != "oom" else {}
        expected = {NOT_REPEATED: "its values changed"} if number == 0 else expected
        node = {"task": "TrainImputer", "arguments": {"data": {"source": {"factory": "Wine"}}, "imputer": "x"}}
        client.log_text(run, json.dumps(node | {"expected": expected}), "configuration.json")
    lost = study(client, experiment, "lost")
    trial(client, experiment, lost, "lost 000", None, "failed")
    compared = study(client, experiment, "imputers", comparison="imputers", best="gain")
    client.log_metric(compared, "gain_validation_mean", 0.25)
    other = client.create_run(client.create_experiment("else"), run_name="other").info.run_id
    client.log_metric(other, "loss", 1.0)
    return uri


@pytest.fixture(scope="module")
def client(uri: str) -> Any:
    return client_of(uri)


@pytest.fixture(scope="module")
def ids(client: Any) -> Ids:
    return {
        run.info.run_name: run.info.run_id
        for one in client.search_experiments()
        for run in client.search_runs([one.experiment_id])
    }


@pytest.fixture
def call(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call ``dgm-ray`` from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_run_is_found_by_its_name_its_id_and_the_beginning_of_it(client: Any, ids: Ids) -> None:
    wanted = ids["gain 002"]
    short = next(
        wanted[:length] for length in range(1, 33) if sum(i.startswith(wanted[:length]) for i in ids.values()) == 1
    )
    for given in ("gain 002", wanted, wanted[:-1], short):
        assert find_run(client, given).info.run_id == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gian", "RUN_ID: there is no run of this id or name; did you mean 'gain'?, not 'gian'"),
        ("gain 07", "RUN_ID: there is no run of this id or name; did you mean 'gain'?, not 'gain 07'"),
        ("x", "RUN_ID: there is no run of this id or name; the last studies are imputers, lost, gain, not 'x'"),
        ('it\'s "x"', "RUN_ID: there is no run of this id or name; the last studies are imputers, lost, gain, not"),
        ("%", "RUN_ID: there is no run of this id or name; the last"),
        ("0" * 33, "RUN_ID: there is no run of this id or name; the last"),
    ],
)
def test_an_unknown_run_is_one_line(client: Any, given: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        find_run(client, given)
    assert str(caught.value).startswith(said)


def test_a_prefix_of_several_names_them(client: Any, ids: Ids) -> None:
    first = [run[0] for run in ids.values()]
    several = max(first, key=first.count)
    if first.count(several) == 1:
        pytest.skip("by chance no two ids begin alike")
    with pytest.raises(StudyError, match=r"should be the beginning of one run's id, and is that of .*, not"):
        find_run(client, several)


def test_a_run_of_another_program_is_named(client: Any, ids: Ids) -> None:
    for given in (ids["other"], ids["other"][:12], "other"):
        with pytest.raises(StudyError, match=r"\(other\): was written by another program: it has neither the tag"):
            find_run(client, given)


def test_the_winner_is_the_first_of_the_best_that_can_win(client: Any) -> None:
    """The trial that is best by its figures ran out of memory."""
    assert winner_of(client, find_run(client, "gain")).info.run_name == "gain 001"
    assert winner_of(client, find_run(client, "imputers")).info.run_name == "gain 001"
    assert winner_of(client, find_run(client, "gain 003")).info.run_name == "gain 003", "a trial's own"
    with pytest.raises(StudyError, match=f"study lost: no trial of it can win: none has ended with a {METRIC}"):
        winner_of(client, find_run(client, "lost"))
    assert set(WINNING) == set(RANKED)


def test_studies_and_their_trials(client: Any) -> None:
    assert [run.info.run_name for run in studies(client)] == ["imputers", "lost", "gain"]
    assert [run.info.run_name for run in studies(client, last=1)] == ["imputers"]
    assert [run.info.run_name for run in studies(client, "else")] == []
    with pytest.raises(StudyError, match="--experiment: there is no such experiment; did you mean 'dgm_ray'"):
        list(studies(client, "dgm-ray"))
    assert next(number_of(run) for run in trials_of(client, find_study(client, "gain"))) == 3
    assert find_study(client, "/studies/lost").info.run_name == "lost"
    with pytest.raises(StudyError, match="STUDY: is a trial, of the study gain, not 'gain 001'"):
        find_study(client, "gain 001")


def test_many_trials_come_in_pages(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 1)
    assert sorted(number_of(run) for run in trials_of(client, find_study(client, "gain"))) == [0, 1, 2, 3]
    assert winner_of(client, find_run(client, "gain")).info.run_name == "gain 001"


def test_figures_of_epochs(client: Any) -> None:
    """Of an epoch that was logged twice the last; what has no epoch is left out."""
    assert history(client, find_run(client, "gain 002")) == {METRIC: {1: 0.8, 2: 0.4, 3: 0.2}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "--tracking-uri: there is no such database: run a study first"),
        (b"no database at all" * 99, "--tracking-uri: is no database, or a damaged one (file is not a database)"),
        ("CREATE TABLE other (x)", "--tracking-uri: is the database of another program"),
    ],
)
def test_a_database_that_is_none(call: Callable[..., Result], tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "x.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        database = sqlite3.connect(path)
        database.execute(content)
        database.close()
    before = path.read_bytes() if content else None
    for command in (["runs"], ["show", "x"], ["best", "x"], ["reproduce", "x"]):
        result = call(*command, "--tracking-uri", f"sqlite:///{path}")
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert (path.read_bytes() if path.exists() else None) == before, "nothing is made or changed"


def test_a_database_that_is_cut_short(uri: str, call: Callable[..., Result], tmp_path: Path) -> None:
    whole = Path(uri.removeprefix("sqlite:///")).read_bytes()
    (tmp_path / "x.db").write_bytes(whole[: len(whole) // 3])
    result = call("runs", "--tracking-uri", f"sqlite:///{tmp_path / 'x.db'}")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --tracking-uri: ")
    assert result.stderr.count("\n") == 1


def test_a_server_that_is_not_there(call: Callable[..., Result]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = call("runs", "--tracking-uri", f"http://127.0.0.1:{port}")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --tracking-uri: does not answer (MlflowException: ")
    assert "Connection refused" in result.stderr
    assert result.stderr.count("\n") == 1
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == 1, "MLflow's own would take minutes"


def test_a_server_that_is_silent(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WAIT", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        result = call("runs", "--tracking-uri", f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}")
    assert result.exit_code == 2
    assert "error: --tracking-uri: does not answer in 1 s, not 'http://me@127.0.0.1:" in result.stderr


def test_runs(call: Callable[..., Result], ids: Ids) -> None:
    lines = [line.split() for line in call("runs").stdout.splitlines() if line.strip()]
    assert lines[0] == ["id", "study", "task", "data", "status", "metric", "best", "trials", "time", "when"]
    assert [line[:2] for line in lines[2:5]] == [[ids[name][:8], name] for name in ("imputers", "lost", "gain")]
    assert lines[2][2:8] == ["comparison,", "best:", "gain", "completed", METRIC, "0.25"]
    assert lines[3][5:8] == ["0", "of", "4"]
    assert lines[4][5] == "5", "it was extended"
    result = call("runs", "--study", "gain", "--last", "3")
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert [line[2:6] for line in lines[2:5]] == [
        ["001", "stopped", "0.2", "3"],
        ["002", "completed", "0.2", "3"],
        ["000", "completed", "0.3", "3"],
    ]
    assert "gain: 3 of 4 trials, best first" in result.stdout
    result = call("runs", "--study", "gian")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "error: --study: there is no run of this id or name; did you mean 'gain'?" in result.stderr
    assert "its imputers are studies of their own" in call("runs", "--study", "imputers").stderr


def test_show(call: Callable[..., Result], ids: Ids) -> None:
    said = call("show", ids["gain 001"]).stdout
    assert f"{METRIC} █▃▁ 0.8 to 0.2, best 0.2 in epoch 3 of 3" in said
    assert f"of the study gain ({ids['gain'][:8]}), TrainGAIN, stopped: why stopped, " in said
    assert "artifacts: configuration.json" in said
    assert f"repeat it: dgm-ray reproduce {ids['gain 001'][:8]}" in said
    said = call("show", "gain").stdout
    assert f"{METRIC} of 4 trials █▅▅▁ best 0.1" in said
    assert call("show", "imputers").exit_code == 0
    assert "repeat it" not in call("show", "lost 000").stdout, "there is nothing that does"


def test_best(call: Callable[..., Result], tmp_path: Path) -> None:
    for given in ("gain", "imputers", "/studies/gain"):
        assert json.loads(call("best", given).stdout)["expected"] == {METRIC: 0.2}
    said = call("best", "gain", "--table").stdout
    assert said.splitlines()[0] == "TrainImputer"
    assert ["data.source", '"Wine"'] in [line.split() for line in said.splitlines()]
    assert call("best", "lost").exit_code == 2
    assert "error: STUDY: there is no run of this id or name; did you mean 'gain'?" in call("best", "gian").stderr


def test_best_of_a_folder_needs_no_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, nowhere = tmp_path / "results" / "mine", f"sqlite:///{tmp_path / 'none.db'}"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    with pytest.raises(StudyError, match=r"has no best\.json yet: it has not ended"):
        best_of("mine", nowhere)
    (folder / "results.parquet").write_text("")
    with pytest.raises(StudyError, match="no trial of it can win"):
        best_of("mine", nowhere)
    (folder / "best.json").write_text('{"task": "T"}')
    assert best_of("mine", nowhere) == best_of(str(folder), nowhere) == {"task": "T"}
    with pytest.raises(
        StudyError, match=r"STUDY: there is no such folder, nor is it in results; did you mean 'mine'.*no such"
    ):
        best_of("mines", nowhere)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gain 000", "(gain 000): cannot be repeated: its values changed"),
        ("gain 003", "(gain 003): has no figures to compare with (why oom); --epochs N compares those of its epochs"),
        ("lost 000", "(lost 000): has no configuration.json: it is still running, older than this version, or its"),
        ("lost", "study lost: no trial of it can win"),
        ("gain 001", "imputer: should be a BaseImputer"),
    ],
)
def test_what_cannot_be_reproduced_is_one_line(call: Callable[..., Result], given: str, said: str) -> None:
    result = call("reproduce", given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1.0, 2.0, 8.0], "▁▂█"),
        ([3.0, 3.0], "▁▁"),
        ([0.0, math.nan, 7.0, math.inf], "▁ █ "),
        ([], ""),
        ([math.nan], ""),
        (
            [float(value // 10) for value in range(600)],
            "▁" * 5 + "▂" * 8 + "▃" * 9 + "▄" * 8 + "▅" * 8 + "▆" * 9 + "▇" * 8 + "█" * 5,
        ),
    ],
)
def test_a_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values) == line
