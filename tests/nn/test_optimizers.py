from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.optimizers import SGD, Adam, Optimizer, WGANOptimizer, can_fuse, trained_parameters
from dgm_ray.registry import Scope, build

ADAM = [
    {"lr": 0.1},
    {"betas": [0.5, 0.9]},
    {"eps": 0.1},
    {"weight_decay": 0.5},
    {"betas": [0.9, 0.5], "amsgrad": True},
]
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
SGDS = [
    {"lr": 0.1},
    MOMENTUM,
    {**MOMENTUM, "dampening": 0.4},
    {"lr": 0.1, "weight_decay": 0.5},
    {**MOMENTUM, "nesterov": True},
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def made(name: str, arguments: dict[str, Any], model: nn.Module) -> Any:
    node = {"factory": name, "arguments": {"parameters": ["model"], **arguments}}
    return build(node, scope=Scope({"model": model}))


def trained(optimizer: Optimizer, model: nn.Module, steps: int = 12) -> Tensor:
    """All weights after steps on data whose gradients rise and fall."""
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        ((3 / (1 + step)) * model(torch.randn(8, 4)).square().mean()).backward()
        optimizer.step()
    return torch.cat([one.detach().flatten() for one in model.parameters()])


@pytest.mark.parametrize(
    ("name", "arguments", "without"),
    [(name, {}, {"lr": 0.1}) for name in ("Adam", "SGD")]
    + [(name, one, dict(list(one.items())[:-1])) for name, all_of in (("Adam", ADAM), ("SGD", SGDS)) for one in all_of],
)
def test_defect_01_every_argument_reaches_torch(name: str, arguments: dict[str, Any], without: dict[str, Any]) -> None:
    model, reference, other = network(), network(), network()
    own = trained(made(name, arguments, model), model)
    torch_class = getattr(torch.optim, name)
    expected = trained(torch_class(reference.parameters(), fused=False, foreach=False, **arguments), reference)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-6)
    assert (own - trained(made(name, without, other), other)).abs().max() > 1e-4, "the last argument does nothing"


@pytest.mark.parametrize(
    ("name", "arguments", "place"),
    [
        ("Adam", {"lr": 0.0}, "lr"),
        ("Adam", {"lr": -1.0}, "lr"),
        ("Adam", {"lr": "1e-3"}, "lr"),
        ("Adam", {"betas": [0.9, 1.0]}, "betas"),
        ("Adam", {"betas": [0.9]}, "betas"),
        ("Adam", {"eps": -1e-8}, "eps"),
        ("Adam", {"weight_decay": -0.1}, "weight_decay"),
        ("Adam", {"amsgrad": 1}, "amsgrad"),
        ("Adam", {"momentum": 0.9}, "momentum"),
        ("SGD", {"lr": 0}, "lr"),
        ("SGD", {"momentum": -0.1}, "momentum"),
        ("SGD", {"dampening": 1.5}, "dampening"),
        ("SGD", {"weight_decay": -1}, "weight_decay"),
        ("SGD", {"nesterov": True}, "nesterov"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
    ],
)
def test_ranges(name: str, arguments: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError, match=place):
        made(name, arguments, network())


@pytest.mark.parametrize("factory", [Adam, SGD])
def test_nothing_to_train(factory: Any) -> None:
    with pytest.raises(ConfigurationError, match="parameters"):
        factory([nn.Tanh()])
    with pytest.raises(ConfigurationError, match="parameters"):
        factory([])


def test_shared_parameters_are_trained_once_in_order() -> None:
    one, two = nn.Linear(2, 3), nn.Linear(3, 2)
    found = trained_parameters([two, nn.Sequential(one, two), one])
    assert [id(parameter) for parameter in found] == [id(p) for p in (two.weight, two.bias, one.weight, one.bias)]
    assert len(Adam([two, two]).param_groups[0]["params"]) == 2


def test_steps_are_fused_where_torch_can() -> None:
    assert Adam([network()]).param_groups[0]["fused"] is True
    assert SGD([network()]).param_groups[0]["fused"] is True
    with torch.device("meta"):
        assert not can_fuse(list(network().parameters()))
        assert Adam([network()]).param_groups[0]["fused"] is False


@pytest.mark.parametrize("clamp", [0.01, 0.2])
def test_wgan_optimizer_clamps_the_critic_alone(clamp: float) -> None:
    critic, generator, reference = network(), network(), network()
    inner = {"factory": "SGD", "arguments": {"parameters": ["discriminator", "generator"], "lr": 0.5}}
    node = {"factory": "WGANOptimizer", "arguments": {"optimizer": inner, "discriminator_clamp": clamp}}
    optimizer = build(node, scope=Scope({"discriminator": critic, "generator": generator}))
    sgd = torch.optim.SGD(reference.parameters(), lr=0.5)
    for model, stepped in ((critic, optimizer), (reference, sgd)):
        stepped.zero_grad()
        model(torch.ones(3, 4)).sum().backward()
        stepped.step()
    own = torch.cat([one.detach().flatten() for one in critic.parameters()])
    free = torch.cat([one.detach().flatten() for one in reference.parameters()])
    torch.testing.assert_close(own, free.clamp(-clamp, clamp))
    assert free.abs().max() > clamp
    assert max(one.abs().max().item() for one in generator.parameters()) > clamp


def test_defect_43_the_critic_may_have_another_name() -> None:
    critic = network()
    inner = {"factory": "SGD", "arguments": {"parameters": ["critic"], "lr": 0.5}}
    arguments = {"optimizer": inner, "discriminator": "critic", "discriminator_clamp": 0.01}
    optimizer = build({"factory": "WGANOptimizer", "arguments": arguments}, scope=Scope({"critic": critic}))
    critic(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert max(one.abs().max().item() for one in critic.parameters()) <= 0.01


def test_wgan_optimizer_is_an_optimizer_with_the_inner_state() -> None:
    critic = network()
    inner = Adam([critic])
    optimizer = WGANOptimizer(inner, critic, 0.1)
    assert isinstance(optimizer, Optimizer)
    assert isinstance(inner, Optimizer)
    trained(optimizer, critic, 3)
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.state_dict()["state"][0]["step"].item() == 3
    twin = network()
    other = WGANOptimizer(Adam([twin]), twin, 0.1)
    twin.load_state_dict(critic.state_dict())
    other.load_state_dict(deepcopy(optimizer.state_dict()))  # torch's own would share its tensors
    assert torch.equal(trained(other, twin, 2), trained(optimizer, critic, 2))
    optimizer.zero_grad()
    assert all(one.grad is None for one in critic.parameters())


def test_clamp_is_positive() -> None:
    inner = {"factory": "SGD", "arguments": {"parameters": ["discriminator"]}}
    node = {"factory": "WGANOptimizer", "arguments": {"optimizer": inner, "discriminator_clamp": 0}}
    with pytest.raises(ConfigurationError, match="discriminator_clamp"):
        build(node, scope=Scope({"discriminator": network()}))
