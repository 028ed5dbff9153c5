"""A trial's model, from MLflow: as a folder, by ``mlflow.pyfunc``, registered, and served over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import dgm_ray
from dgm_ray.cli import app
from dgm_ray.data import Csv, Holdout, Origin
from dgm_ray.tasks.exported import export, task_of
from dgm_ray.tasks.imputers import fitting, imputer_configuration
from dgm_ray.tasks.model_folder import TABLE
from dgm_ray.training import write_checkpoint, write_json
from dgm_ray.tune.outcomes import Outcome
from dgm_ray.tune.settings import MLflow
from dgm_ray.tune.tracking.model import log_model
from dgm_ray.tune.tracking.tracker import Tracker

pytestmark = pytest.mark.slow
LEARNED = ["age", "income", "city", "member", "flag", "since"]


def people(rows: int, seed: int) -> pd.DataFrame:
    """Return a table of every kind of column, with gaps."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "income": random.normal(3e4, 1e4, rows).round(2),
            "city": random.choice(["Bonn", "Oslo", "Rome"], rows),
            "member": random.random(rows) < 0.5,
            "flag": random.integers(0, 2, rows),
            "since": pd.Timestamp("2001-01-01") + pd.to_timedelta(random.integers(0, 5000, rows), unit="D"),
        }
    )
    return frame.mask(random.random(frame.shape) < 0.2)


class Logged:
    """A study of two trials in MLflow: the first has a model, the second no checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.folder = f"sqlite:///{folder / 'm.db'}", folder / "study" / "model"
        people(120, 0).astype({"age": "Int64", "flag": "Int64"}).to_csv(folder / "people.csv", index=False)
        data = Holdout(Csv(folder / "people.csv"), train_missing_probability=0.1).prepare()
        node = imputer_configuration("vae")
        node["arguments"] = fitting(node["arguments"], data.train.rows) | {"epochs": 2, "seed": 0}
        training = task_of(node, Holdout(Csv(folder / "people.csv"))).start(data, node)  # type: ignore[arg-type]
        while not training.done:
            training.advance()
        origin = Origin.of(data)
        export(self.folder, node, origin, training.state())
        write_json(folder / TABLE, origin.to_dict())
        write_checkpoint(folder / "checkpoint.pt", training.state())
        tracker = Tracker(folder / "study", self.uri, "e", folder / "artifacts", MLflow())
        tracker.open_study("s", {"metric": "val_x"}, {"study": str(folder)})
        tracker.log_file(folder / TABLE)
        for number, trial in enumerate(("a", "b")):
            tracker.open_trial(trial, number, {})
            tracker.log_text(json.dumps(node), "configuration.json", trial)
            measures = {"val_x": 0.5 + number}
            tracker.close_trial(Outcome(trial, number, {}, "completed", "", 0.5, measures, 1, 2, 1.0, ""))
        tracker.log_file(folder / "checkpoint.pt", "a", "checkpoint")
        tracker.log_model(self.folder, "a")
        tracker.close("FINISHED")
        tracker.settle(60.0)
        assert (tracker.problem, tracker.kept) == ("", 0)

    @property
    def model(self) -> str:
        """The URI of the MLflow model."""
        import mlflow

        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("e")
        (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 's 000'")
        (output,) = run.outputs.model_outputs
        assert run.info.status == "FINISHED"
        assert client.get_logged_model(output.model_id).source_run_id == run.info.run_id
        return f"models:/{output.model_id}"


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


@pytest.fixture
def served(logged: Logged) -> Any:
    import mlflow

    mlflow.set_tracking_uri(logged.uri)
    mlflow.set_registry_uri(logged.uri)
    return mlflow.pyfunc.load_model(logged.model)


def test_pyfunc_completes_rows(logged: Logged, served: Any) -> None:
    frame = people(25, 3)
    pd.testing.assert_frame_equal(served.predict(frame), dgm_ray.load(logged.folder).impute(frame))
    fewer = frame.drop(columns=["city", "income"])
    done = served.predict(fewer)
    assert list(done) == LEARNED
    assert not done.isna().any(axis=None), "a column that is not there is missing in every row"


def test_a_model_that_is_sent_again_is_there_once(logged: Logged, served: Any) -> None:
    import mlflow

    client = mlflow.MlflowClient(logged.uri)
    (found,) = client.search_logged_models([client.get_experiment_by_name("e").experiment_id])
    assert log_model(client, found.source_run_id, logged.folder) == f"models:/{found.model_id}" == logged.model
    assert [one.model_id for one in client.search_logged_models([found.experiment_id])] == [found.model_id]


def test_pyfunc_draws_rows(logged: Logged, served: Any) -> None:
    drawn = served.predict(people(1, 0), params={"sample": 7, "seed": 2})
    pd.testing.assert_frame_equal(drawn, dgm_ray.load(logged.folder).sample(7, seed=2))


def test_what_is_logged_holds_no_pickle(logged: Logged, served: Any) -> None:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(logged.model))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "model_code.py", "artifacts/model/weights.pt", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".cloudpickle"))]
    assert f"dgm-ray=={dgm_ray.__version__}" in (folder / "requirements.txt").read_text().splitlines()
    assert [(one.name, one.required) for one in served.metadata.signature.inputs] == [(name, False) for name in LEARNED]
    example = served.metadata.load_input_example(str(folder))
    assert example.isna().any(axis=1).all()
    assert not served.predict(example).isna().any(axis=None)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize("given", ["s", "s 000"])
def test_a_run_is_exported(logged: Logged, tmp_path: Path, given: str) -> None:
    done = run(given, tmp_path / "new", "--tracking-uri", logged.uri)
    assert done.exit_code == 0, done.output
    assert "it completes rows and draws rows" in done.output
    frame = people(25, 3)
    made = dgm_ray.load(tmp_path / "new").impute(frame)
    pd.testing.assert_frame_equal(made, dgm_ray.load(logged.folder).impute(frame))


def test_mistakes_are_one_line(logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for itself
    uri = ("--tracking-uri", logged.uri)
    for arguments, said in (
        (("s 001", "new", *uri), "(s 001): has no checkpoint: tune.keep says how many have; of its study run "),
        (("s 001", "new", *uri), "(s 000) has"),
        (("s 003", "new", *uri), "RUN_ID: there is no run of this id or name"),
        (("s", logged.folder, *uri), "DIR: is there already"),
        (("s", "new"), "there is no such database"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_it_is_registered_and_served(logged: Logged, served: Any, tmp_path: Path) -> None:
    import mlflow

    assert mlflow.register_model(logged.model, "people").version == 1
    frame = people(6, 4)
    wanted = dgm_ray.load(logged.folder).impute(frame)
    pd.testing.assert_frame_equal(mlflow.pyfunc.load_model("models:/people/1").predict(frame), wanted)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/people/1", "--port", str(port)]
    line += ["--env-manager", "local", "--host", "127.0.0.1", "--workers", "1"]
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the server is started by its name
    environment = os.environ | {"PATH": here, "MLFLOW_TRACKING_URI": logged.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True, env=environment)
        try:
            _wait(f"http://127.0.0.1:{port}/ping", server, log)
            rows = json.loads(frame.to_json(orient="split", date_format="iso"))
            answer = _ask(port, {"dataframe_split": {"columns": rows["columns"], "data": rows["data"]}})
            drawn = _ask(
                port, {"dataframe_split": {"columns": LEARNED, "data": []}, "params": {"sample": 3, "seed": 1}}
            )
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)
    made = pd.DataFrame(answer["predictions"]).astype({"since": wanted["since"].dtype})
    pd.testing.assert_frame_equal(made[LEARNED], wanted, check_dtype=False, rtol=1e-6)
    expected = dgm_ray.load(logged.folder).sample(3, seed=1)
    assert [row["city"] for row in drawn["predictions"]] == expected["city"].tolist()


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)


def _ask(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
