"""What can be lanes of one pack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.models import GAN, AutoEncoder
from dgm_ray.nn import Dropout, LeakyReLU, SoftmaxSampling, ZeroImputation
from dgm_ray.nn.activations import GumbelSoftmaxSampling
from dgm_ray.training import Training
from dgm_ray.training.lanes import check, key_of, why_alone
from dgm_ray.training.lanes.shape import Whole, knobs_of, state_of
from dgm_ray.training.lanes.stack import ordered

from ..conftest import Make, Start
from ..test_training import all_models


def test_knobs_and_states() -> None:
    whole = Whole(nn.Sequential(nn.Linear(2, 2), Dropout(0.1), nn.BatchNorm1d(2)), ZeroImputation())
    assert knobs_of(whole) == {"model.1.p"}
    assert state_of(whole) == {f"model.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


@all_models
def test_seeds_have_one_shape(make: Make, model: Any) -> None:
    assert key_of(make(model, seed=0), 8) == key_of(make(model, seed=1), 8)
    assert key_of(make(model, seed=0), 8) != key_of(make(model, seed=0), 9)


def keyed(make: Make, change: Callable[[Any], None]) -> str:
    made = make(GAN)
    change(made)
    return key_of(made, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.components["generator_optimizer"].param_groups[0].update(lr=0.5),
        lambda made: made.model._noise_search.learning_rate.fill_(0.5),
    ],
)
def test_numbers_are_no_shape(make: Make, change: Callable[[Any], None]) -> None:
    assert keyed(make, lambda made: None) == keyed(make, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.model.add_module("more", nn.Linear(1, 1)),
        lambda made: made.model.add_module("more", LeakyReLU(0.3)),
        lambda made: setattr(made.model, "_noise_size", 99),
        lambda made: made.model.register_buffer("columns", torch.tensor([1, 2]), persistent=False),
        lambda made: made.phases.reverse(),
        lambda made: made.components["generator_optimizer"].defaults.update(amsgrad=True),
        lambda made: setattr(made.model, "unknown", object()),
    ],
)
def test_all_else_is_shape(make: Make, change: Callable[[Any], None]) -> None:
    assert keyed(make, lambda made: None) != keyed(make, change)


def test_slopes_and_tables_are_compared_by_value(make: Make) -> None:
    def adding(module: nn.Module) -> str:
        return keyed(make, lambda made: made.model.add_module("more", module))

    assert adding(LeakyReLU(0.3)) == adding(LeakyReLU(0.3)) != adding(LeakyReLU(0.4))
    assert adding(GumbelSoftmaxSampling(0.3)) == adding(GumbelSoftmaxSampling(0.4)) != adding(SoftmaxSampling())


class Asking(nn.Module):
    """A loss that asks what a tensor holds."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: Any) -> Tensor:
        loss: Tensor = self.inner(*given)
        return loss if loss.item() > 0 else loss * 2


class Counting(nn.Module):
    """A loss that is another each time, by a number that no buffer holds."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *given: Any) -> Tensor:
        self.calls += 1
        loss: Tensor = self.inner(*given) * self.calls
        return loss


class Drawing(nn.Module):
    """A loss that draws in a way that lanes do not know."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: Any) -> Tensor:
        loss: Tensor = self.inner(*given) * (1 + torch.multinomial(torch.ones(5), 1)[0])
        return loss


@pytest.mark.parametrize(("spoilt", "said"), [(Asking, "cannot be stacked"), (Counting, "others"), (Drawing, "random")])
def test_what_cannot_be_stacked_is_found(
    start: Start, monkeypatch: pytest.MonkeyPatch, spoilt: type[Asking], said: str
) -> None:
    monkeypatch.setattr(check, "_REASONS", {})

    def begin(seed: int) -> Training:
        training = start(AutoEncoder, seed=seed, epochs=1)
        model: Any = training.architecture.model
        model.reconstruction_loss = spoilt(model.reconstruction_loss)
        return training

    reason = why_alone(begin(0).architecture, begin)
    assert said in reason
    assert "\n" not in reason
    assert why_alone(begin(0).architecture, lambda seed: pytest.fail("it is known")) == reason


@all_models
def test_every_model_can_be_stacked(start: Start, monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr(check, "_REASONS", {})
    assert why_alone(start(model).architecture, lambda seed: start(model, seed=seed, epochs=1)) == ""


def test_an_imputer_is_not_stacked(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_REASONS", {})

    def begin(seed: int) -> Training:
        training = start(AutoEncoder, seed=seed, epochs=1)
        other: Any = object()
        training.loop = other
        return training

    assert why_alone(begin(0).architecture, begin) == "it is not trained by phases"


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        ([["a", "b"], ["b", "c"]], 2),
        ([["a", "b"], ["c"], ["b", "d"]], 3),
        ([["a"], ["a"]], 2),
        ([["a", "b"], ["b", "c"], ["c", "a"]], 4),
    ],
)
def test_what_a_phase_reaches_stands_side_by_side(reach: list[list[str]], expected: int) -> None:
    order = ordered(["a", "b", "c", "d", "e"], reach)
    assert sorted(order) == ["a", "b", "c", "d", "e"]
    runs = sum(
        1
        for names in reach
        for place, name in enumerate(order)
        if name in names and (place == 0 or order[place - 1] not in names)
    )
    assert runs == expected
