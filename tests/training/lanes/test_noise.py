"""A lane's random numbers are those that it draws alone."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm_ray.training.lanes.noise import Noise, Random, Recording, Replaying
from dgm_ray.training.training import random_states

DRAWS: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(7, 5),
    "rand, size by name": lambda: torch.rand(size=(7, 5)),
    "randn": lambda: torch.randn(130, 3),
    "few of randn": lambda: torch.randn(3),
    "rand_like": lambda: torch.rand_like(torch.ones(33)),
    "randn_like": lambda: torch.randn_like(torch.ones(5, 9)),
    "randint": lambda: torch.randint(5, (9,)),
    "randint from": lambda: torch.randint(2, 5, (9,)),
    "randint by name": lambda: torch.randint(high=5, size=(9,)),
    "randint_like": lambda: torch.randint_like(torch.ones(9), 3),
    "exponential_": lambda: torch.empty(40).exponential_(),
    "bernoulli_": lambda: torch.empty(40).bernoulli_(0.3),
    "normal_": lambda: torch.empty(20).normal_(1, 2),
    "uniform_": lambda: torch.empty(20).uniform_(-1, to=2),
    "dropout": lambda: F.dropout(torch.arange(50.0), 0.3),
    "a dropout layer": lambda: nn.Dropout(0.4)(torch.arange(50.0)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_lane_draws_what_it_draws_alone(name: str) -> None:
    draw = DRAWS[name]
    with Recording() as recording:
        draw()
    (drawn,) = recording.draws
    noise, seeds = Noise(recording.draws, 3), (3, 4)
    noise.draw({row: Random.seeded(seed) for row, seed in enumerate(seeds)})
    for row, seed in enumerate(seeds):
        torch.manual_seed(seed)
        alone = draw()
        with Replaying([tensor[row] for tensor in noise.tensors]):
            lane = draw()
        torch.testing.assert_close(lane, alone, rtol=1e-6, atol=0)
        assert (lane.dtype, lane.shape) == (alone.dtype, alone.shape)
    assert drawn.shape == alone.shape


def test_the_order_of_draws_is_kept() -> None:
    def both() -> list[Tensor]:
        return [torch.randn(4), torch.rand(3), torch.randint(9, (5,)), torch.randn(2)]

    with Recording() as recording:
        both()
    noise = Noise(recording.draws, 1)
    random = Random.seeded(11)
    torch.manual_seed(11)
    for _ in range(3):
        noise.draw({0: random})
        assert all(torch.equal(one, other[0]) for one, other in zip(both(), noise.tensors, strict=True))
    assert torch.equal(random.states()["cpu"], torch.get_rng_state())


@pytest.mark.parametrize("function", [lambda: F.dropout(torch.ones(3), 0.5, False), lambda: torch.ones(3) + 1])
def test_what_draws_nothing_is_left_alone(function: Callable[[], Tensor]) -> None:
    with Recording() as recording:
        found = function()
    assert recording.draws == []
    with Replaying([]):
        assert torch.equal(function(), found)


def test_random_states_go_in_and_out() -> None:
    torch.manual_seed(5)
    states = random_states()
    random = Random(states)
    assert torch.equal(random.states()["cpu"], states["cpu"])
    torch.manual_seed(6)
    random.set(random_states())
    assert torch.equal(random.states()["cpu"], torch.get_rng_state())
