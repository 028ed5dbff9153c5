"""Stacked optimizers against torch's own, each lane with its own rates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.nn import WGANOptimizer
from dgm_ray.training.lanes.optimizers import Clamp, Part, options_of, step_of

SHAPES = [(3, 4), (4,), (2, 2)]
WIDTH = 20
Make = Callable[[list[nn.Parameter], int], torch.optim.Optimizer]


def adam(amsgrad: bool, decay: float) -> Make:
    def make(parameters: list[nn.Parameter], lane: int) -> torch.optim.Optimizer:
        rates: dict[str, Any] = {"lr": 10.0 ** -(lane + 1), "betas": (0.5 + 0.1 * lane, 0.999 - 0.05 * lane)}
        more = {"eps": 1e-8 * 10**lane, "weight_decay": decay * lane, "amsgrad": amsgrad}
        return torch.optim.Adam(parameters, **rates, **more)

    return make


def sgd(momentum: float, nesterov: bool = False, dampening: float = 0.0) -> Make:
    def make(parameters: list[nn.Parameter], lane: int) -> torch.optim.Optimizer:
        rates = {"lr": 0.1 / (lane + 1), "momentum": momentum * (lane + 1 if nesterov else lane)}
        more = {"weight_decay": 0.01 * lane, "dampening": dampening, "nesterov": nesterov}
        return torch.optim.SGD(parameters, **rates, **more)

    return make


def unknown(parameters: list[nn.Parameter], lane: int) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=0.01 * (lane + 1))


MAKES: dict[str, Make] = {
    "adam": adam(False, 0.0),
    "adam with decay": adam(False, 0.1),
    "amsgrad": adam(True, 0.1),
    "sgd": sgd(0.0),
    "momentum": sgd(0.4),
    "nesterov": sgd(0.4, nesterov=True),
    "dampening": sgd(0.4, dampening=0.5),
    "one that is not known": unknown,
}


def parameters(lane: int) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(lane)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


def stacked(lanes: dict[int, list[nn.Parameter]], rows: int) -> Tensor:
    """Return a matrix with the parameters, which become views of it."""
    matrix = torch.randn(rows, WIDTH)
    for row, own in lanes.items():
        torch.cat([one.detach().reshape(-1) for one in own], out=matrix[row])
        for one, part in zip(own, matrix[row].split([one.numel() for one in own]), strict=True):
            one.data = part.view(one.shape)
    return matrix


def alone(optimizer: torch.optim.Optimizer, own: list[nn.Parameter], gradient: Tensor) -> None:
    for one, part in zip(own, gradient.split([one.numel() for one in own]), strict=True):
        one.grad = part.view(one.shape)
    optimizer.step()


@pytest.mark.parametrize("name", MAKES)
def test_each_lane_is_stepped_as_alone(name: str) -> None:
    make, rows = MAKES[name], {0: 0, 1: 1, 3: 2}  # lanes by rows; row 2 has none
    lanes, others = ({row: parameters(lane) for row, lane in rows.items()} for _ in range(2))
    ours = {row: make(lanes[row], lane) for row, lane in rows.items()}
    theirs = {row: make(others[row], lane) for row, lane in rows.items()}
    random = torch.Generator().manual_seed(9)
    matrix = stacked(lanes, 4)
    for _ in range(2):  # the second takes over what was gathered
        step = step_of([Part(matrix, {row: (ours[row], lanes[row]) for row in rows})])
        for _ in range(4):
            gradient = torch.randn(4, WIDTH, generator=random)
            with torch.no_grad():
                step([gradient])
            for row in rows:
                alone(theirs[row], others[row], gradient[row])
            for row in rows:
                for one, other in zip(lanes[row], others[row], strict=True):
                    torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-7)
    for row in rows:
        state, expected = (own[row].state_dict()["state"] for own in (ours, theirs))
        for place, gathered in expected.items():
            for key, value in gathered.items():
                if isinstance(value, Tensor):
                    torch.testing.assert_close(state[place][key], value, rtol=2e-6, atol=1e-7)


def test_a_lane_goes_on_alone_with_what_was_gathered() -> None:
    make = MAKES["amsgrad"]
    lanes, other = {0: parameters(0), 1: parameters(1)}, parameters(1)
    ours, theirs = {row: make(lanes[row], row) for row in lanes}, make(other, 1)
    step = step_of([Part(stacked(lanes, 2), {row: (ours[row], lanes[row]) for row in lanes})])
    random = torch.Generator().manual_seed(1)
    for together in (True, True, False, False):
        gradient = torch.randn(2, WIDTH, generator=random)
        if together:
            with torch.no_grad():
                step([gradient])
        else:
            alone(ours[1], lanes[1], gradient[1])
        alone(theirs, other, gradient[1])
        for one, expected in zip(lanes[1], other, strict=True):
            torch.testing.assert_close(one, expected, rtol=2e-6, atol=1e-7)


def test_a_lane_without_steps_beside_one_with_many() -> None:
    """Bias corrections are each lane's own: a row is refilled while its neighbours go on."""
    make = MAKES["adam"]
    lanes, others = ({0: parameters(0), 1: parameters(1)} for _ in range(2))
    ours, theirs = ({row: make(own[row], row) for row in own} for own in (lanes, others))
    random = torch.Generator().manual_seed(2)
    for _ in range(5):
        gradient = torch.randn(WIDTH, generator=random)
        alone(ours[0], lanes[0], gradient)
        alone(theirs[0], others[0], gradient)
    step = step_of([Part(stacked(lanes, 2), {row: (ours[row], lanes[row]) for row in lanes})])
    gradient = torch.randn(2, WIDTH, generator=random)
    with torch.no_grad():
        step([gradient])
    for row in lanes:
        alone(theirs[row], others[row], gradient[row])
        for one, other in zip(lanes[row], others[row], strict=True):
            torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-7)


def test_a_lane_of_nan_does_not_touch_its_neighbours() -> None:
    found = []
    for poison in (1.0, float("nan")):
        lanes = {0: parameters(0), 1: parameters(1)}
        ours = {row: MAKES["adam with decay"](lanes[row], row) for row in lanes}
        matrix = stacked(lanes, 2)
        step = step_of([Part(matrix, {row: (ours[row], lanes[row]) for row in lanes})])
        gradient = torch.ones(2, WIDTH)
        gradient[0] = poison
        with torch.no_grad():
            step([gradient])
        found.append(matrix[1].clone())
    assert torch.equal(*found)


def test_each_lane_is_clamped_to_its_own_bound() -> None:
    matrix = torch.tensor([[-2.0, 0.1, 3.0], [-2.0, 0.1, 3.0], [9.0, 9.0, 9.0]])
    Clamp(matrix[:, :2], {0: 1.0, 1: 0.05})()
    assert matrix[:2].tolist() == [[-1.0, pytest.approx(0.1), 3.0], [pytest.approx(-0.05), pytest.approx(0.05), 3.0]]


def test_what_lanes_may_not_have_otherwise() -> None:
    one = nn.Linear(1, 1)
    kinds = [
        options_of(MAKES[name](list(one.parameters()), 1)) for name in ("adam", "adam with decay", "amsgrad", "sgd")
    ]
    assert kinds[0] == kinds[1]
    assert kinds[0] != kinds[2]
    assert kinds[0] != kinds[3]
    inner = torch.optim.SGD(one.parameters(), lr=0.1)
    assert options_of(WGANOptimizer(inner, one, 0.1)) != options_of(inner)
