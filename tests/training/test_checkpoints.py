import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dgm_ray.errors import TrainingError
from dgm_ray.training import atomic, modules_of, read_checkpoint, write_checkpoint, write_json, write_text
from dgm_ray.training.checkpoints import copy_states, load_states

STATE = {"architecture": {"it": {"weight": torch.arange(3.0)}}, "epoch": 4, "best_metric": 0.25, "text": "a"}


class Evil:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "it.pt"
    write_checkpoint(path, STATE)
    for found in (read_checkpoint(path), torch.load(path, weights_only=True)):
        assert torch.equal(found["architecture"]["it"].pop("weight"), torch.arange(3.0))
        assert found == {"architecture": {"it": {}}, "epoch": 4, "best_metric": 0.25, "text": "a"}


def train(components: dict[str, Any]) -> None:
    for _ in range(3):
        components["optimizer"].zero_grad()
        components["network"](torch.ones(4, 2)).sum().backward()
        components["optimizer"].step()


def components() -> dict[str, Any]:
    network = nn.Linear(2, 1)
    return {"network": network, "optimizer": torch.optim.Adam(network.parameters(), lr=0.1), "loss": nn.MSELoss()}


def test_states_are_copied_out_and_in(tmp_path: Path) -> None:
    first, second = components(), components()
    train(first)
    write_checkpoint(tmp_path / "it.pt", {"architecture": copy_states(first), "epoch": 3})
    states = read_checkpoint(tmp_path / "it.pt")["architecture"]
    load_states(second, states, "it.pt")
    for one in (first, second):
        train(one)  # the second must not write into the states it was given
    assert torch.equal(first["network"].weight, second["network"].weight)
    third = components()
    load_states(third, states, "it.pt")
    train(third)
    assert torch.equal(third["network"].weight, first["network"].weight)
    assert modules_of(first).keys() == {"network", "loss"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_defect_35_an_interrupted_save_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "it.pt"
    write_checkpoint(path, STATE)
    before, save = path.read_bytes(), torch.save

    def half(state: Any, target: Path) -> None:
        save(state, target)
        target.write_bytes(target.read_bytes()[:100])
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(error):
        write_checkpoint(path, STATE | {"epoch": 5})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["it.pt"], "no temporary file stays"  # noqa: PTH208
    monkeypatch.undo()
    write_checkpoint(path, STATE | {"epoch": 5})
    assert read_checkpoint(path)["epoch"] == 5


def test_what_cannot_be_saved_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "it.json", {"a": float("nan")})
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "it") as temporary:
        temporary.write_text(f"half, and {1 / 0}")
    assert temporary.parent == tmp_path, "on the same file system, so that it can be moved at once"
    assert not any(tmp_path.iterdir())
    write_text(tmp_path / "a" / "it.txt", "ü\n")
    assert (tmp_path / "a" / "it.txt").read_text(encoding="utf-8") == "ü\n"


def damaged(path: Path, kind: str) -> None:
    if kind == "object":
        torch.save({"architecture": Evil(path.parent / "evil")}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(path.parent / "evil")))
    elif kind == "cut":
        torch.save(STATE, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "folder":
        path.mkdir()
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "keys":
        torch.save({"epoch": 1}, path)
    elif kind == "epoch":
        torch.save({"architecture": {}, "epoch": "1"}, path)
    elif kind != "missing":
        path.write_bytes(kind.encode())


@pytest.mark.parametrize(
    "kind", ["object", "pickle", "cut", "folder", "list", "keys", "epoch", "missing", "", "text\nof two"]
)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it.pt"
    damaged(path, kind)
    with pytest.raises(TrainingError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists(), "something was unpickled"


def test_components_that_do_not_fit_name_themselves() -> None:
    states = copy_states(components())
    wider = components() | {"network": nn.Linear(3, 1)}
    with pytest.raises(TrainingError, match=r"^it: network: the checkpoint does not fit: .*size mismatch"):
        load_states(wider, states, "it")
    del states["optimizer"]
    with pytest.raises(TrainingError, match=r"^it: optimizer: the checkpoint has no such component"):
        load_states(components(), states, "it")
