import copy

import torch
from torch import nn

from dgm_ray.nn import Averaged


def test_the_average_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    made = Averaged(nn.Linear(2, 1, bias=False), decay=0.8)
    seen, expected = [], torch.zeros(1, 2)
    for step in range(60):
        with torch.no_grad():
            made.network.weight.copy_(torch.randn(1, 2))
        seen.append(made.network.weight.detach().clone())
        made.train()(torch.ones(3, 2))
        keep = min(0.8, step / (step + 9))
        expected = keep * expected + (1 - keep) * seen[-1]
    torch.testing.assert_close(made.get_buffer("average_0"), expected)
    made.eval()
    torch.testing.assert_close(made(torch.eye(2)), expected.T)
    assert torch.equal(made.network.weight, seen[-1]), "training goes on from the last weights"


def test_before_training_it_is_the_network_itself() -> None:
    made = Averaged(nn.Linear(2, 2))
    nn.init.constant_(made.network.weight, 3.0)  # as an architecture does, after it was built
    rows = torch.randn(4, 2)
    assert torch.equal(made.eval()(rows), made.network(rows))


def test_no_decay_is_the_last_step_and_evaluation_changes_nothing() -> None:
    made = Averaged(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), decay=0.0)
    made.train()(torch.randn(5, 2))
    before = copy.deepcopy(made.state_dict())
    rows = torch.randn(4, 2)
    torch.testing.assert_close(made.eval()(rows), made.network.eval()(rows))
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_gradients_reach_the_network_alone() -> None:
    made = Averaged(nn.Linear(2, 1))
    made.train()(torch.ones(3, 2)).sum().backward()
    assert [name for name, _ in made.named_parameters()] == ["network.weight", "network.bias"]
    assert made.network.weight.grad is not None
    assert made.network.weight.grad.any()
