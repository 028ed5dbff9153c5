import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dgm_ray.errors import ConfigurationError, DataError, DGMError, UnfinishedError
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.configuration import duration, read_task
from dgm_ray.tasks.runner import run

Original = Callable[..., dict[str, Any]]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration file and return its path: ``write("a.json", "TrainGAN", {...}, logging={...})``."""

    def make(name: str, task: str, arguments: Any, **more: Any) -> str:
        (tmp_path / name).write_text(json.dumps({"task": task, "arguments": arguments, **more}))
        return str(tmp_path / name)

    return make


@pytest.fixture
def train(write: Write, original: Original) -> str:
    return write("train.json", "TrainGAN", original("TrainGAN", epochs=1))


def sampling(original: Original, tmp_path: Path, **more: Any) -> dict[str, Any]:
    trained = original("TrainGAN")
    files = {"checkpoint": trained["checkpoints"]["output"], "output": str(tmp_path / "sample.npy")}
    return {name: trained[name] for name in ("metadata", "architecture")} | files | {
        "batch_size": 8, "sample_size": 8, **more,
    }  # fmt: skip


def test_one_after_the_other(
    train: str, write: Write, original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = write("sample.json", "SampleGAN", sampling(original, tmp_path))
    outer = write("outer.json", "SerialTaskRunner", {"tasks": [train, sample]})
    run(Path(write("all.json", "SerialTaskRunner", {"tasks": [outer]})))
    assert (tmp_path / "sample.npy").exists()
    said = capsys.readouterr().out.replace("\n", "")
    assert f"1/2 {train}: TrainGAN" in said
    assert f"2/2 {sample}: SampleGAN" in said


def test_every_file_is_checked_before_the_first_starts(
    train: str, write: Write, original: Original, tmp_path: Path
) -> None:
    wrong = write("sample.json", "SampleGAN", sampling(original, tmp_path, sample_sise=3))
    task = read_task(Path(write("all.json", "SerialTaskRunner", {"tasks": [train, wrong]}))).task
    with pytest.raises(ConfigurationError, match=r"sample\.json: arguments\.sample_sise: .*did you mean 'sample_size'"):
        task.run(Console(quiet=True))
    assert not (tmp_path / "new").exists()


def test_a_file_may_be_written_by_an_earlier_task(train: str, write: Write) -> None:
    task = read_task(Path(write("all.json", "SerialTaskRunner", {"tasks": [train, "nowhere.json"]}))).task
    with pytest.raises(DGMError, match=r"nowhere\.json: there is no such file"):
        task.run(Console(quiet=True))


def test_the_first_that_fails_ends_it(train: str, write: Write, original: Original, tmp_path: Path) -> None:
    (tmp_path / "train.npy").unlink()
    sample = write("sample.json", "SampleGAN", sampling(original, tmp_path))
    task = read_task(Path(write("all.json", "SerialTaskRunner", {"tasks": [train, sample]}))).task
    with pytest.raises(DataError, match=r"train\.json: .*train\.npy: cannot be read"):
        task.run(Console(quiet=True))
    assert not (tmp_path / "sample.npy").exists()


def test_a_file_cannot_run_itself(write: Write, tmp_path: Path) -> None:
    inner = write("inner.json", "SerialTaskRunner", {"tasks": [str(tmp_path / "outer.json")]})
    outer = write("outer.json", "SerialTaskRunner", {"tasks": [inner]})
    with pytest.raises(ConfigurationError, match="a file cannot run itself"):
        read_task(Path(outer)).task.run(Console(quiet=True))


def test_figures_that_differ_are_the_exit_code(write: Write, original: Original) -> None:
    train = write("train.json", "TrainGAN", original("TrainGAN", epochs=1), expected={"best_epoch": 7})
    with pytest.raises(UnfinishedError, match="figures differ"):
        read_task(Path(write("all.json", "SerialTaskRunner", {"tasks": [train]}))).task.run(Console(quiet=True))


# Logging and other keys of a file


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, and afterwards as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    for handler in logger.handlers[:]:
        if handler not in handlers:
            logger.removeHandler(handler)
            handler.close()
    logger.setLevel(level)


@pytest.mark.parametrize("inside", [False, True])
def test_defect_33_logging_is_heeded_wherever_it_stands(
    inside: bool, write: Write, original: Original, tmp_path: Path, root: logging.Logger
) -> None:
    said = {"filename": str(tmp_path / "log.txt"), "level": "INFO", "format": "%(message)s", "force": True}
    arguments = original("TrainGAN", epochs=0)
    path = write(
        "it.json",
        "TrainGAN",
        arguments | ({"logging": said} if inside else {}),
        **({} if inside else {"logging": said}),
    )
    read_task(Path(path)).run(Console(quiet=True))
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0] == "TrainGAN: starting"
    assert lines[-1].startswith("TrainGAN: ended in 0.")
    assert lines[-1].endswith(" seconds")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.5, "1.50 seconds"), (90, "1.50 minutes"), (5400, "1.50 hours"), (129600, "1.50 days")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_other_keys_have_no_effect(write: Write, original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    """The original ignores them; what is nearly a key is a mistake (test_runner)."""
    run(Path(write("it.json", "TrainGAN", original("TrainGAN", epochs=0), comment="of 2020")))
    assert "has no effect: comment\n" in capsys.readouterr().out


# ComputeParameterSize


def test_the_contracts_count(
    write: Write, original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contract 9.6: MultiOutputGenerator noise 5 [8] and Discriminator [8] on md7."""
    trained = original("TrainGAN")
    arguments = {"name": "ours", "metadata": trained["metadata"], "architecture": trained["architecture"]}
    run(Path(write("it.json", "ComputeParameterSize", arguments)))
    assert "ours: 286\n" in capsys.readouterr().out
    found = call(TASKS.get("ComputeParameterSize", ""), arguments, path="arguments").run(Console(quiet=True))
    assert found == {"generator": 165, "discriminator": 121, "parameters": 286}
