"""A function that is noted does what it does, to its inputs as well."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgm_ray.training.lanes.traced import PAYS, Traced, trace

Function = Callable[..., list[Tensor]]


def plain(one: Tensor, state: Tensor) -> list[Tensor]:
    return [one.detach().view(one.shape).expand(one.shape) * 1 + state, one.sum()]


def writing(one: Tensor, state: Tensor) -> list[Tensor]:
    state.add_(one)
    state.view(-1)[:2].mul_(2)
    return [state * 1, one + 1]


def writing_to_a_copy(one: Tensor, state: Tensor) -> list[Tensor]:
    copy = torch.mul(one, 1)
    copy.add_(state)
    return [copy, one * 2]


def reading_before_writing(one: Tensor, state: Tensor) -> list[Tensor]:
    before = torch.mul(state, 1)
    state.add_(one)
    return [before, state + 0]


def writing_to_a_part(one: Tensor, state: Tensor) -> list[Tensor]:
    before, row = torch.mul(state, 1), state.select(0, 1)
    row[1:3].copy_(one[0, :2])
    return [before, row + 0]


def unused(one: Tensor, state: Tensor) -> list[Tensor]:
    one.exp()
    state.sub_(one)
    return [one + 1]


def learning(one: Tensor, state: Tensor) -> list[Tensor]:
    weight = one.detach().requires_grad_()
    with torch.enable_grad():
        loss = (weight @ state.T).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
    return [loss.detach(), gradient]


FUNCTIONS = [plain, writing, writing_to_a_copy, reading_before_writing, writing_to_a_part, unused, learning]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_was_noted_is_done_again(function: Function) -> None:
    noted = trace(function, (torch.rand(3, 4), torch.rand(3, 4)))
    for _ in range(3):
        one, state = torch.randn(3, 4), torch.randn(3, 4)
        other, its = one.clone(), state.clone()
        with torch.no_grad():
            found, expected = noted(one, state), function(other, its)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert torch.equal(one, other)
        assert torch.equal(state, its)


def test_nothing_is_left_that_changes_nothing() -> None:
    noted = trace(plain, (torch.rand(3, 4), torch.rand(3, 4)))
    module = noted.__self__  # type: ignore[attr-defined]
    names = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    assert names == ["aten.add.Tensor", "aten.sum.default"]


def test_a_function_is_noted_once_it_has_been_called_often() -> None:
    made = []

    def make() -> Function:
        made.append(1)
        return writing

    traced, state, expected = Traced(), torch.zeros(2, 2), torch.zeros(2, 2)
    for _ in range(PAYS + 5):
        one = torch.rand(2, 2)
        traced(make, [one, state], range(1, 2))
        writing(one, expected)
        state.clamp_(max=9)
        expected.clamp_(max=9)
        assert torch.equal(state, expected), "noting it does not change what it changes"
    assert len(made) == PAYS + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch's own use of it, when its compiler is imported
def test_a_function_can_be_compiled() -> None:
    traced, one, state = Traced(compiled=True), torch.rand(3, 4), torch.rand(3, 4)
    for _ in range(3):
        found, expected = traced(lambda: learning, [one, state], range(0)), learning(one, state)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
