import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models import GAN, build_architecture, count_parameters
from dgm_ray.registry import Scope, build

CREDIT = Path(__file__).parents[3] / "shared" / "data" / "credit" / "metadata.json"
EXAMPLE_1 = """{
  "arguments": {"noise_size": 50},
  "components": {
    "generator": {"factory": "SingleOutputGenerator", "arguments": {"hidden_layers": {"sizes": [50]}}},
    "discriminator": {"factory": "Discriminator", "arguments": {"hidden_layers": {"sizes": [50]}}},
    "generator_loss": {"factory": "GANGeneratorLoss"},
    "discriminator_loss": {"factory": "GANDiscriminatorLoss"},
    "generator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["generator"], "lr": 0.001}},
    "discriminator_optimizer": {"factory": "Adam", "arguments": {"parameters": ["discriminator"], "lr": 0.001}}
  }
}"""

Shapes = dict[str, tuple[int, ...]]


def shapes(component: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in component.state_dict().items()}


def linear(key: str, outputs: int, inputs: int) -> Shapes:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


def norm(key: str, size: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": (size,) for name in names} | {f"{key}.num_batches_tracked": ()}


def under(prefix: str, *parts: Shapes) -> Shapes:
    return {f"{prefix}{key}": shape for part in parts for key, shape in part.items()}


@pytest.fixture
def credit() -> Metadata:
    if not CREDIT.exists():
        pytest.skip(f"the credit table is not here: {CREDIT}")
    return Metadata.read(CREDIT)


@pytest.mark.parametrize(("table", "features"), [("credit", 89), ("md7", 13)])
def test_the_originals_first_example_builds(table: str, features: int, request: pytest.FixtureRequest) -> None:
    metadata = request.getfixturevalue(table)
    made = build_architecture(GAN, json.loads(EXAMPLE_1), {"metadata": metadata}, {})
    first = "hidden_layers.layers.0.0"
    generator, discriminator = made.components["generator"], made.components["discriminator"]
    assert shapes(generator) == linear(first, 50, 50) | linear("output_layer.model", features, 50)
    assert shapes(discriminator) == linear(first, 50, features) | linear("output_layer.model.0", 1, 50)
    assert [phase.optimizer.param_groups[0]["lr"] for phase in made.phases] == [0.001, 0.001]
    assert made.unused == []
    noise = torch.randn(3, 50)
    assert generator(noise).shape == (3, features)
    assert discriminator(generator(noise)).shape == (3,)


HIDDEN = {"hidden_layers": {"sizes": [50]}}
SOFTMAX = {"output_layer": {"activation": {"factory": "SoftmaxSampling"}}}
SIGMOID = {"output_layer": {"activation": {"factory": "Sigmoid"}}}
FIRST, OUT = "hidden_layers.layers.0.0", "output_layer.model"
SECOND = "hidden_layers.layers.1"
HEADS = [("0", 1), ("1.0", 2), ("2.0", 3), ("3", 1), ("4.0", 5), ("5.0", 1)]
MULTI = under("output_layer.layers.", *(linear(key, size, 50) for key, size in HEADS))
EMBEDDINGS = {"input_layer.embeddings.0": (3, 2), "input_layer.embeddings.1": (5, 2)}
MULTI_CODES = under("encoder.", EMBEDDINGS, linear(FIRST, 50, 9), linear(OUT, 4, 50))
AVERAGED = {**HIDDEN, "mini_batch_averaging": True}

# Contract, section 8. Noise 50, code 4, 13 features.
LAYOUTS: list[tuple[str, dict[str, Any], Shapes]] = [
    ("SingleOutputGenerator", HIDDEN, linear(FIRST, 50, 50) | linear(OUT, 13, 50)),
    ("SingleOutputGenerator", {**HIDDEN, **SIGMOID}, linear(FIRST, 50, 50) | linear(f"{OUT}.0", 13, 50)),
    (
        "SingleOutputGenerator",
        {"hidden_layers": {"sizes": [50, 40], "bn_decay": 0.9}},
        linear(FIRST, 50, 50) | linear(f"{SECOND}.0", 40, 50) | norm(f"{SECOND}.1", 40) | linear(OUT, 13, 40),
    ),
    (
        "SingleOutputGenerator",
        {"hidden_layers": {"sizes": [50, 50], "bn_decay": 0.9, "shortcut": True}},
        linear("hidden_layers.layers.0.block.0", 50, 50)
        | linear(f"{SECOND}.block.0", 50, 50)
        | norm(f"{SECOND}.block.1", 50)
        | linear(OUT, 13, 50),
    ),
    ("SingleOutputGenerator", {}, linear(OUT, 13, 50)),
    ("MultiOutputGenerator", {**HIDDEN, **SOFTMAX}, linear(FIRST, 50, 50) | MULTI),
    ("CodeGenerator", HIDDEN, linear(FIRST, 50, 50) | linear(OUT, 4, 50)),
    *[(name, HIDDEN, linear(FIRST, 50, 13) | linear(f"{OUT}.0", 1, 50)) for name in ("Discriminator", "Critic")],
    *[(name, AVERAGED, linear(FIRST, 50, 26) | linear(f"{OUT}.0", 1, 50)) for name in ("Discriminator", "Critic")],
    *[(name, HIDDEN, linear(FIRST, 50, 4) | linear(f"{OUT}.0", 1, 50)) for name in ("CodeDiscriminator", "CodeCritic")],
    ("CodeCritic", AVERAGED, linear(FIRST, 50, 8) | linear(f"{OUT}.0", 1, 50)),
    (
        "MultiVariableAutoEncoder",
        {"encoder": {"input_layer": {}, **HIDDEN}, "decoder": {**HIDDEN, **SOFTMAX}},
        MULTI_CODES | under("decoder.", linear(FIRST, 50, 4), MULTI),
    ),
    (
        "SingleVariableAutoEncoder",
        {"encoder": {**HIDDEN, "output_activation": {"factory": "Tanh"}}, "decoder": {**HIDDEN, **SIGMOID}},
        under("encoder.", linear(FIRST, 50, 13), linear(f"{OUT}.0", 4, 50))
        | under("decoder.", linear(FIRST, 50, 4), linear(f"{OUT}.0", 13, 50)),
    ),
]


def component(metadata: Metadata, factory: str, arguments: dict[str, Any]) -> Any:
    scope = Scope({"metadata": metadata, "noise_size": 50, "code_size": 4})
    return build({"factory": factory, "arguments": arguments}, nn.Module, scope, "components.it")


@pytest.mark.parametrize(("factory", "arguments", "expected"), LAYOUTS)
def test_state_keys_and_shapes_in_order(
    md7: Metadata, factory: str, arguments: dict[str, Any], expected: Shapes
) -> None:
    found = shapes(component(md7, factory, arguments))
    assert found == expected
    assert list(found) == list(expected), "an optimizer's state is stored in this order"


@pytest.mark.parametrize(("factory", "arguments", "_"), LAYOUTS)
def test_outputs_have_the_shape_that_is_promised(
    md7: Metadata, factory: str, arguments: dict[str, Any], _: Shapes
) -> None:
    network = component(md7, factory, arguments)
    if factory.endswith("Generator"):
        assert network(torch.randn(6, 50)).shape == (6, 4 if factory.startswith("Code") else 13)
    elif factory.endswith("AutoEncoder"):
        outputs = network(torch.rand(6, 13))
        assert outputs.code.shape == (6, 4)
        assert outputs.reconstructed.shape == (6, 13)
        torch.testing.assert_close(network.decode(outputs.code), outputs.reconstructed)
    else:
        scores = network(torch.randn(6, 4 if factory.startswith("Code") else 13))
        assert scores.shape == (6,)
        if factory.endswith("Discriminator"):
            assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize(
    ("factory", "activation"),
    [("SingleOutputGenerator", torch.relu), ("Critic", lambda x: torch.where(x > 0, x, 0.2 * x))],
)
def test_default_activations(md7: Metadata, factory: str, activation: Any) -> None:
    """ReLU in generators and LeakyReLU(0.2) in critics, computed with the weights alone."""
    network = component(md7, factory, HIDDEN)
    weights = list(network.state_dict().values())
    inputs = torch.randn(7, weights[0].shape[1])
    expected = activation(inputs @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    torch.testing.assert_close(network(inputs), expected.reshape(network(inputs).shape))


def test_autoencoders_have_tanh_by_default(md7: Metadata) -> None:
    network = component(md7, "SingleVariableAutoEncoder", {"encoder": HIDDEN, "decoder": HIDDEN})
    weights = list(network.state_dict().values())
    rows = torch.rand(7, 13)
    code = torch.tanh(rows @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    torch.testing.assert_close(network(rows).code, code)
    decoded = torch.tanh(code @ weights[4].T + weights[5]) @ weights[6].T + weights[7]
    torch.testing.assert_close(network(rows).reconstructed, decoded)


def test_averaging_makes_a_row_depend_on_its_batch(md7: Metadata) -> None:
    torch.manual_seed(0)
    rows, others = torch.rand(4, 13), torch.rand(4, 13)
    for arguments, same in ((HIDDEN, True), (AVERAGED, False)):
        critic = component(md7, "Critic", arguments)
        alone, together = critic(rows), critic(torch.cat([rows, others]))[:4]
        assert torch.allclose(alone, together, atol=1e-6) is same


def golden(metadata: Metadata) -> dict[str, Any]:
    node = json.loads(EXAMPLE_1)
    node["arguments"]["noise_size"] = 5
    small = {"hidden_layers": {"sizes": [8]}}
    node["components"]["generator"] = {"factory": "MultiOutputGenerator", "arguments": {**small, **SOFTMAX}}
    node["components"]["discriminator"]["arguments"] = small
    return dict(node)


def test_number_of_parameters_of_the_contract(md7: Metadata) -> None:
    made = build_architecture(GAN, golden(md7), {"metadata": md7}, {})
    assert count_parameters(made) == 286
    made.components["generator"].requires_grad_(False)
    assert count_parameters(made) == 13 * 8 + 8 + 8 + 1, "only what is learnt counts"


def test_defect_02_nested_layers_are_initialised(md7: Metadata) -> None:
    torch.manual_seed(0)
    node = json.loads(EXAMPLE_1)
    node["components"]["generator"]["arguments"] = {"hidden_layers": {"sizes": [300, 200], "bn_decay": 0.9}}
    made = build_architecture(GAN, node, {"metadata": md7}, {})
    linears = [one for one in made.model.modules() if isinstance(one, nn.Linear)]
    assert len(linears) == 5
    assert all(not one.bias.any() for one in linears)
    first = made.components["generator"].hidden_layers.layers[1][0].weight  # (200, 300)
    # Xavier normal: variance 2 / (fan in + fan out); 60000 draws have a standard error of 0.3 %
    assert abs(first.std().item() / (2 / 500) ** 0.5 - 1) < 0.015
    batch_norm = made.components["generator"].hidden_layers.layers[1][1]
    assert abs(batch_norm.weight.mean().item() - 1) < 0.01
    assert abs(batch_norm.weight.std().item() - 0.02) < 0.005


def test_an_architecture_says_how_weights_are_drawn(md7: Metadata) -> None:
    node = json.loads(EXAMPLE_1)
    node["arguments"]["initialization"] = "he"
    torch.manual_seed(0)
    he = build_architecture(GAN, node, {"metadata": md7}, {})
    torch.manual_seed(0)
    xavier = build_architecture(GAN, json.loads(EXAMPLE_1), {"metadata": md7}, {})
    for one, other in zip(he.model.modules(), xavier.model.modules(), strict=True):
        if isinstance(one, nn.Linear) and isinstance(other, nn.Linear):
            ratio = ((one.in_features + one.out_features) / one.in_features) ** 0.5
            torch.testing.assert_close(one.weight, other.weight * ratio)
    assert not he.unused
    node["arguments"]["initialization"] = "her"
    with pytest.raises(ConfigurationError, match=r"architecture.arguments.initialization: .*'xavier' or 'he'"):
        build_architecture(GAN, node, {"metadata": md7}, {})


def test_gains_networks_read_either_mask(md7: Metadata) -> None:
    made = [
        build({"factory": "SingleInputGAINDiscriminator", "arguments": {}}, nn.Module, Scope(shared), "judge")
        for shared in ({"metadata": md7}, {"metadata": md7, "observed_mask": True})
    ]
    made[1].load_state_dict(made[0].state_dict())
    features, mask = torch.rand(4, md7.num_features), (torch.rand(4, md7.num_features) < 0.5).float()
    torch.testing.assert_close(made[0](features, mask), made[1](features, 1 - mask))
