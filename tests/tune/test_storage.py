"""Studies in an object store: moto's, which speaks S3 on this machine."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from moto.server import ThreadedMotoServer
from pyarrow import fs

from dgm_ray.errors import StudyError
from dgm_ray.training import write_text
from dgm_ray.tune.place import Place
from dgm_ray.tune.study import Study

from .conftest import ENVIRONMENT, KEYS, Command, stopped

OPTIONS = "?region=us-east-1&endpoint_override=http://"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The options of the URIs of a server with one bucket, ``bucket``."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        there, _ = fs.FileSystem.from_uri(f"s3://bucket{OPTIONS}{host}:{port}&allow_bucket_creation=true")
        there.create_dir("bucket")
        yield f"{OPTIONS}{host}:{port}"
    server.stop()


@pytest.fixture
def storage(server: str, tmp_path: Path) -> str:
    """A folder of the bucket for one test."""
    return f"s3://bucket/{tmp_path.name}{server}"


def read(storage: str, name: str) -> Any:
    there, folder = fs.FileSystem.from_uri(storage)
    with there.open_input_file(f"{folder}/{name}") as file:
        return pd.read_parquet(file) if name.endswith(".parquet") else json.loads(file.read())


def names(storage: str) -> set[str]:
    there, folder = fs.FileSystem.from_uri(storage)
    found = there.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return {info.path.removeprefix(f"{folder}/") for info in found if info.type == fs.FileType.File}


def test_a_study_is_found_again_from_anywhere(storage: str, study: Study) -> None:
    def place(**options: bool) -> Place:
        return Place.of(storage, "a", "sqlite:////somewhere/mlflow.db", **options)

    first = place()
    first.check()
    first.claim(study.node, study.resolved())
    write_text(first.best, "{}")
    first.publish()
    assert names(storage) == {"a/study.json", "a/best.json"}
    assert first.artifacts == Path("/somewhere/mlflow-artifacts"), "not in a folder that goes when the process ends"
    with pytest.raises(StudyError, match="--resume it, --overwrite it, or give another --name"):
        place().check()
    second = place(resume=True)
    second.check()
    assert second.folder != first.folder
    assert second.best.read_text() == "{}"
    assert second.local(f"bucket/{storage.partition('?')[0].rpartition('/')[2]}/a/best.json").read_text() == "{}"
    second.best.unlink()
    second.publish()
    assert names(storage) == {"a/study.json"}
    again = place(overwrite=True)
    again.check()
    with pytest.raises(StudyError, match="there is no study here to resume"):
        Place.of(storage, "b", "sqlite://", resume=True).check()


def test_a_folder_of_another_kind_is_not_overwritten(storage: str) -> None:
    there, folder = fs.FileSystem.from_uri(storage)
    with there.open_output_stream(f"{folder}/thesis/chapter/one") as file:
        file.write(b"years of work")
    with pytest.raises(StudyError, match="is not a study's folder"):
        Place.of(storage, "thesis", "sqlite://", overwrite=True).check()
    assert names(storage) == {"thesis/chapter/one"}


def test_what_cannot_be_written_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for storage, rule in (
        (str(tmp_path / "file" / "x"), "cannot be written (Not a directory)"),
        ((tmp_path / "file").as_uri(), "cannot be written (File exists)"),
        (f"s3://other/x{server}", "cannot be written (Bucket 'other' not found."),
        ("ftp://host/x", "Unrecognized filesystem type in URI"),
        ("s3://", "Missing bucket name in S3 URI"),
    ):
        with pytest.raises(StudyError) as caught:
            Place.of(storage, "a", "sqlite://").check()
        assert str(caught.value).startswith(f"--storage: {rule}"), storage
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_a_study_that_is_stopped_goes_on(
    small: dict[str, Any],
    write: Callable[[dict[str, Any]], Path],
    inside: Command,
    tmp_path: Path,
    storage: str,
    cluster: str,
) -> None:
    small["tune"] = {"samples": 3, "concurrent": 1}
    small["trial"]["arguments"] |= {"epochs": 400, "evaluate_every": 20}
    path, given = write(small), ["--storage", storage, "--address", cluster]
    code, said = stopped(tmp_path, path, *given, until=" 000", environment=ENVIRONMENT | KEYS)
    assert code == 128 + signal.SIGINT, said
    finished = set(read(storage, "small/results.parquet").query("status == 'completed'")["trial"])
    assert 1 <= len(finished) < 3

    resumed = inside("dgm_ray.tune", path, *given, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    again = {int(number) for number in re.findall(r"^[* ] (\d{3})  val", resumed.stdout, re.MULTILINE)}
    assert not again & finished, "what was finished is not run again"
    assert again | finished == set(range(3))
    table = read(storage, "small/results.parquet")
    assert list(table["status"]) == ["completed"] * 3
    best = read(storage, "small/best.json")
    assert best["expected"]["val_imputation_rmse"] == table["val_imputation_rmse"].iloc[0]
    ours = {"study.json", "best.json", "results.parquet", "results.csv", "missing.csv", "imputation.csv"}
    assert {f"small/{name}" for name in ours} < names(storage)
    for line in ("best: ", "all trials: "):
        (uri,) = re.findall(rf"^{line}(.*)$", resumed.stdout, re.MULTILINE)
        there, path = fs.FileSystem.from_uri(uri)
        assert there.get_file_info(path).is_file
    assert "repeat it, with a copy: " in resumed.stdout
    assert {one.name for one in tmp_path.iterdir()} == {"small.json", "mlflow.db", "mlflow-artifacts"}
    assert len(list((tmp_path / "mlflow-artifacts").glob("*/artifacts/checkpoint/checkpoint.pt"))) == 3


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was(inside: Command, tmp_path: Path, storage: str, cluster: str) -> None:
    node = {
        "tune": {"samples": 1},
        "data": {"source": {"factory": "Wine"}},
        "repeats": 1,
        "imputers": {"k_nearest": {}},
    }
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(node))
    given = [path, "--storage", storage, "--address", cluster]
    first = inside("dgm_ray.tune", *given)
    assert first.returncode == 0, first.stdout + first.stderr
    written = names(storage)
    assert {"few/best.json", "few/runs.jsonl", "few/leaderboard.html", "few/k_nearest/results.parquet"} < written
    best = read(storage, "few/best.json")
    there, folder = fs.FileSystem.from_uri(storage)
    there.delete_file(f"{folder}/few/best.json")
    second = inside("dgm_ray.tune", *given, "--resume")
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("(done before)") == 2
    assert read(storage, "few/best.json") == best
