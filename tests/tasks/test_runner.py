import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dgm_ray.tasks.runner import app, run

Arguments = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def node(arguments: Arguments) -> dict[str, Any]:
    return {"task": "TrainAutoEncoder", "arguments": arguments("TrainAutoEncoder", epochs=1)}


def draw(node: dict[str, Any]) -> None:
    node["arguments"]["batch_size"] = {"choice": [16, 32]}


MISTAKES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda node: node.update(task="TrainGaN"), "task: no task is called 'TrainGaN'; did you mean 'TrainGAN'?"),
    (lambda node: node.update(trial={}), "is a search space; run it with: python -m dgm_ray.tune"),
    (draw, "arguments.batch_size: a configuration has no draws"),
    (lambda node: node.pop("task"), "a configuration needs 'task'"),
    (lambda node: node.pop("arguments"), "a configuration needs 'arguments'"),
    (lambda node: node.update(argument={}), "no argument 'argument'; did you mean 'arguments'?"),
    (lambda node: node.update(arguments=[]), "arguments: the arguments of TrainAutoEncoder are a mapping"),
    (lambda node: node["arguments"].update(epochs="x"), "arguments.epochs: Input should be a valid integer"),
    (lambda node: node["arguments"]["data"].update(source={"factory": "Wines"}), "data.source.factory: no factory"),
    (lambda node: node["arguments"].update(batch_size=10**6), "batch_size: should be at most the"),
    (lambda node: node.update(expected=3), "expected"),
    (lambda node: node.update(logging={"levl": "INFO"}), "logging.levl: Logging has no argument 'levl'; did you mean"),
    (lambda node: node.update(logging={"level": "LOUD"}), "logging.level: should be one of CRITICAL, "),
    (lambda node: node["arguments"].update(logging={"force": 1}), "logging.force: Input should be a valid boolean"),
    (lambda node: node.update(expected={"best_epoch": "x"}), "expected"),
    (lambda node: node.update(expected={"not_repeated": 3}), "expected"),
]


def mistaken(node: dict[str, Any], spoil: Callable[[dict[str, Any]], Any], path: Path) -> Path:
    spoil(node)
    path.write_text(json.dumps(node))
    return path


def check(code: Any, error: str, message: str) -> None:
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert message in error


@pytest.mark.parametrize(("spoil", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_one_line(
    spoil: Callable[[dict[str, Any]], Any],
    message: str,
    node: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(mistaken(node, spoil, tmp_path / "it.json"))
    check(caught.value.code, capsys.readouterr().err, message)


@pytest.mark.parametrize("text", ["{", '{"task": "a", "task": "b"}', "[]", '{"task": NaN}', "", "\x00\xff"])
def test_a_file_that_cannot_be_read_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "it.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit) as caught:
        run(path)
    check(caught.value.code, capsys.readouterr().err, str(path))


def outcome(node: dict[str, Any], path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path.write_text(json.dumps(node))
    code = 0
    try:
        run(path)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, capsys.readouterr().out


def test_what_is_not_repeated_is_only_said(
    node: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = outcome(node | {"expected": {"not_repeated": "0.1 [of old]"}}, tmp_path / "c.json", capsys)
    assert code == 0
    assert "not_repeated: 0.1 [of old]\n" in text


def test_what_is_expected_is_compared(node: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "it.json"
    code, text = outcome(node, path, capsys)
    assert code == 0
    assert "epoch 1/1" in text
    figure = float(text.split("val_imputation_rmse")[-1].split()[0])
    code, text = outcome(node | {"expected": {"best_epoch": 1, "val_imputation_rmse": figure * 1.1}}, path, capsys)
    assert code == 1
    assert "reproduced: best_epoch expected 1, found 1\n" in text
    assert "DIFFERS: val_imputation_rmse expected" in text
    exact = float(text.rsplit("found ", 1)[-1])
    assert exact == pytest.approx(figure, rel=1e-3)
    code, text = outcome(node | {"expected": {"val_imputation_rmse": exact}}, path, capsys)
    assert code == 0
    assert "DIFFERS" not in text
    code, text = outcome(node | {"expected": {"val_imputation_rmse": exact * (1 + 1e-4)}}, path, capsys)
    assert code == 1, "the fourth digit is off"
    code, text = outcome(node | {"expected": {"fid": 0.5}}, path, capsys)
    assert code == 1
    assert "DIFFERS: fid expected 0.5, found nothing" in text


def invoked(path: Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(path)])


def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dgm_ray.tasks.runner", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command(node: dict[str, Any], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.json"
    wrong = invoked(missing)
    check(wrong.exit_code, wrong.stderr, f"{missing}: there is no such file")
    finished = runner(str(mistaken(node | {"task": "TrainGANN"}, draw, tmp_path / "wrong.json")))
    check(finished.returncode, finished.stderr, "error: ")
    assert "Traceback" not in finished.stdout
    path = tmp_path / "it.json"
    node["arguments"]["batch_size"] = 64
    path.write_text(json.dumps(node | {"expected": {"best_epoch": 1}}))
    finished = runner(str(path))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "reproduced: best_epoch expected 1, found 1" in finished.stdout
    path.write_text(json.dumps(node | {"expected": {"best_epoch": 2}}))
    differs = invoked(path)
    assert (differs.exit_code, differs.stderr) == (1, "")
    assert "DIFFERS: best_epoch expected 2, found 1" in differs.stdout


def test_the_command_wants_one_file() -> None:
    finished = runner()
    assert finished.returncode == 2
    assert "configuration" in finished.stderr.lower()
    assert "Traceback" not in finished.stderr
