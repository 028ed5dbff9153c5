import pytest
import torch
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.activations import (
    CategoricalSampling,
    GumbelSoftmaxSampling,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SoftmaxSampling,
    Tanh,
    expectations,
)
from dgm_ray.registry import build

LOGITS = torch.tensor([[1.0, 2, 3]])
PROBABILITIES = torch.tensor([[0.0900306, 0.2447285, 0.6652410]])
SAMPLERS = [lambda: GumbelSoftmaxSampling(0.5), SoftmaxSampling]


def near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("own", "reference"),
    [(ReLU, nn.ReLU), (Sigmoid, nn.Sigmoid), (Tanh, nn.Tanh), (LeakyReLU, nn.LeakyReLU)],
)
def test_plain_activations_are_torchs(own: type[nn.Module], reference: type[nn.Module]) -> None:
    features = torch.linspace(-3, 3, 21).reshape(7, 3)
    near(own()(features), reference()(features))


def test_leaky_relu_has_its_slope() -> None:
    layer = build({"factory": "LeakyReLU", "arguments": {"negative_slope": 0.2}})
    near(layer(torch.tensor([-1.0, 0, 2])), torch.tensor([-0.2, 0, 2]))


def test_softmax_in_training() -> None:
    near(SoftmaxSampling()(LOGITS), PROBABILITIES)


def test_gumbel_softmax_in_training_is_the_originals() -> None:
    torch.manual_seed(0)
    near(GumbelSoftmaxSampling(0.5)(LOGITS), torch.tensor([[0.0005442, 0.0326935, 0.9667623]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, "warm", None])
def test_temperature_is_positive(temperature: object) -> None:
    node = {"factory": "GumbelSoftmaxSampling", "arguments": {"temperature": temperature}}
    with pytest.raises(ConfigurationError, match="temperature"):
        build(node)


@pytest.mark.parametrize("make", SAMPLERS)
def test_evaluation_draws_one_hots_from_the_probabilities(make: type[CategoricalSampling]) -> None:
    torch.manual_seed(0)
    draws = make().eval()(LOGITS.expand(40000, 3))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(draws.sum(dim=1), torch.ones(40000))
    torch.testing.assert_close(draws.mean(dim=0), PROBABILITIES[0], rtol=0, atol=0.01)  # over 4 standard errors


def test_evaluation_draws_carry_the_softmaxs_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    (SoftmaxSampling().eval()(logits) * torch.tensor([1.0, 5, 2])).sum().backward()
    reference = LOGITS.clone().requires_grad_()
    (reference.softmax(dim=1) * torch.tensor([1.0, 5, 2])).sum().backward()
    assert logits.grad is not None
    assert reference.grad is not None
    near(logits.grad, reference.grad)


def test_gumbel_draws_in_evaluation_carry_the_soft_draws_gradient() -> None:
    gradients = []
    for training in (True, False):
        logits = LOGITS.clone().requires_grad_()
        torch.manual_seed(7)
        (GumbelSoftmaxSampling(0.8).train(training)(logits) * torch.tensor([1.0, 5, 2])).sum().backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    near(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", SAMPLERS)
def test_expectations_are_probabilities_and_end(make: type[CategoricalSampling], training: bool) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(make())).train(training)
    sampler = model[1][0]
    state = torch.get_rng_state()
    with expectations(model):
        near(model(LOGITS), PROBABILITIES)
        with expectations(model):
            pass
        assert sampler.expected, "the inner end must not end the outer"
    assert torch.equal(state, torch.get_rng_state())
    assert not sampler.expected


def test_expectations_end_with_an_error() -> None:
    sampler = SoftmaxSampling()
    with pytest.raises(ZeroDivisionError), expectations(sampler):
        raise ZeroDivisionError
    assert not sampler.expected


def test_expectations_are_differentiable() -> None:
    logits = LOGITS.clone().requires_grad_()
    sampler = GumbelSoftmaxSampling(0.1).eval()
    with expectations(sampler):
        sampler(logits)[0, 0].backward()
    p = PROBABILITIES[0]
    assert logits.grad is not None
    near(logits.grad[0], p[0] * (torch.tensor([1.0, 0, 0]) - p))
