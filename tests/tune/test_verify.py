"""``dgm-ray verify-lanes``, as its user calls it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.training.lanes import verify

SPACES = Path(__file__).parents[2] / "search_spaces"


def called(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["verify-lanes", *arguments])


def test_lanes_are_the_same_but_for_rounding() -> None:
    found = called(str(SPACES / "vae.yaml"), "--lanes", "3", "--steps", "5")
    assert found.exit_code == 0
    assert "3 lanes" in found.output
    assert found.output.count("autoencoder") == 5
    assert "the same but for rounding: they differ by" in found.output


def test_what_is_not_the_same_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify._distance
    monkeypatch.setattr(verify, "_distance", lambda *given: real(*given) + 0.01)
    found = called(str(SPACES / "vae.yaml"), "--steps", "2")
    assert found.exit_code == 1
    assert "NOT the same: they differ by 1.0e-02" in found.output


@pytest.mark.parametrize(
    ("space", "more", "said"),
    [
        ("miss_forest.yaml", (), "error: trial: its trainings cannot be lanes: an imputer is no network"),
        ("nothing.yaml", (), "there is no such file"),
        ("vae.yaml", ("--set", "trial.arguments.batch_size=0"), "trial.arguments.batch_size"),
    ],
)
def test_bad_input_is_one_line(space: str, more: tuple[str, ...], said: str) -> None:
    found = called(str(SPACES / space), *more)
    assert found.exit_code == 2
    assert said in found.output
    assert "Traceback" not in found.output
