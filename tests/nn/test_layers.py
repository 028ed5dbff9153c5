from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata, Variable
from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.activations import LeakyReLU, Sigmoid, SoftmaxSampling, Tanh
from dgm_ray.nn.feed_forward import FeedForward
from dgm_ray.nn.hidden import HiddenLayers, ResidualLayers
from dgm_ray.nn.inputs import MiniBatchAveraging, MultiInputLayer, SingleInputLayer, embedding_size
from dgm_ray.nn.outputs import MultiOutputLayer, SingleOutputLayer
from dgm_ray.registry import Lazy, Scope, build


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def linear(key: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


def norm(key: str, size: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": (size,) for name in names} | {f"{key}.num_batches_tracked": ()}


def network(hidden: HiddenLayers, output: nn.Module, inputs: int) -> FeedForward:
    return FeedForward(SingleInputLayer(inputs), hidden, output)


MULTI_OUTPUT = (
    linear("output_layer.layers.0", 1, 50)
    | linear("output_layer.layers.1.0", 2, 50)
    | linear("output_layer.layers.2.0", 3, 50)
    | linear("output_layer.layers.3", 1, 50)
    | linear("output_layer.layers.4.0", 5, 50)
    | linear("output_layer.layers.5.0", 1, 50)
)


def test_keys_of_a_single_output_network() -> None:
    generator = network(HiddenLayers(50, sizes=(50,)), SingleOutputLayer(50, 13), 50)
    assert shapes(generator) == linear("hidden_layers.layers.0.0", 50, 50) | linear("output_layer.model", 13, 50)
    activated = network(HiddenLayers(50), SingleOutputLayer(50, 13, activation=Sigmoid()), 50)
    assert shapes(activated) == linear("output_layer.model.0", 13, 50)


def test_keys_with_batch_normalisation_and_shortcut() -> None:
    plain = HiddenLayers(50, sizes=(50, 40), bn_decay=0.9)
    assert shapes(plain) == linear("layers.0.0", 50, 50) | linear("layers.1.0", 40, 50) | norm("layers.1.1", 40)
    short = HiddenLayers(50, LeakyReLU, sizes=(50, 50), bn_decay=0.9, shortcut=True)
    assert shapes(short) == linear("layers.0.block.0", 50, 50) | linear("layers.1.block.0", 50, 50) | norm(
        "layers.1.block.1", 50
    )


def test_keys_of_multi_input_and_output(md7: Metadata) -> None:
    decoder = network(HiddenLayers(4, Tanh, sizes=(50,)), MultiOutputLayer(50, md7, SoftmaxSampling), 4)
    assert shapes(decoder) == linear("hidden_layers.layers.0.0", 50, 4) | MULTI_OUTPUT
    inputs = MultiInputLayer(md7)
    encoder = FeedForward(inputs, HiddenLayers(inputs.output_size, sizes=(50,)), SingleOutputLayer(50, 4))
    embeddings = {"input_layer.embeddings.0": (3, 2), "input_layer.embeddings.1": (5, 2)}
    hidden = linear("hidden_layers.layers.0.0", 50, 9)
    assert shapes(encoder) == embeddings | hidden | linear("output_layer.model", 4, 50)
    assert list(shapes(MiniBatchAveraging(inputs))) == ["input_layer.embeddings.0", "input_layer.embeddings.1"]


@pytest.mark.parametrize(
    ("size", "width"), [(2, 2), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (99, 49), (100, 50), (101, 50)]
)
def test_embedding_sizes(size: int, width: int) -> None:
    assert embedding_size(size) == width


def test_embedding_size_limits() -> None:
    assert embedding_size(10, 8, 50) == 8
    assert embedding_size(10, 8, 3) == 8


def test_multi_input_embeds_categoricals_in_place(md7: Metadata) -> None:
    layer = MultiInputLayer(md7)
    assert layer.output_size == 9
    features = torch.rand(6, 13)  # soft one-hots do as well
    first, second = layer.embeddings
    parts = [features[:, :3], features[:, 3:6] @ first, features[:, 6:7], features[:, 7:12] @ second, features[:, 12:]]
    torch.testing.assert_close(layer(features), torch.cat(parts, dim=1))


def test_defect_28_embedding_of_width_one_and_a_table_that_ends_in_a_categorical() -> None:
    metadata = Metadata((Variable("n", "numerical"), Variable("c", "categorical", 3)))
    layer = MultiInputLayer(metadata, min_embedding_size=1, max_embedding_size=1)
    embedding = layer.embeddings[0]
    assert layer.output_size == 2
    outputs = layer(torch.tensor([[7.0, 0, 1, 0]]))
    torch.testing.assert_close(outputs, torch.stack([torch.tensor([7.0]), embedding[1]], dim=1))


def test_embeddings_start_standard_normal() -> None:
    torch.manual_seed(0)
    layer = MultiInputLayer(Metadata((Variable("c", "categorical", 1000),)))
    assert abs(layer.embeddings[0].mean().item()) < 0.02
    assert abs(layer.embeddings[0].std().item() - 1) < 0.02


def test_single_input_is_the_identity_and_takes_nothing_else() -> None:
    layer = build({"factory": "SingleInputLayer", "arguments": {"input_size": 3}})
    features = torch.rand(2, 3)
    assert layer.output_size == 3
    assert torch.equal(layer(features), features)
    with pytest.raises(TypeError):
        layer(features, features)


def test_averaging() -> None:
    layer = MiniBatchAveraging(SingleInputLayer(2))
    assert layer.output_size == 4
    for training in (True, False):
        outputs = layer.train(training)(torch.tensor([[1.0, 2], [3, 6]]))
        assert outputs.tolist() == [[1, 2, 2, 4], [3, 6, 2, 4]]


def test_no_sizes_is_the_identity() -> None:
    layer = HiddenLayers(3)
    features = torch.rand(2, 3)
    assert torch.equal(layer(features), features)
    assert layer.output_size == 3


def test_batch_normalisation_decay_and_place() -> None:
    layer = HiddenLayers(3, sizes=(4, 5, 6), bn_decay=0.9)
    norms = [one for one in layer.modules() if isinstance(one, nn.BatchNorm1d)]
    assert [one.num_features for one in norms] == [5, 6]
    assert norms[0].momentum == pytest.approx(0.1)
    assert layer.output_size == 6
    assert not any(isinstance(one, nn.BatchNorm1d) for one in HiddenLayers(3, sizes=(4, 5)).modules())


def test_activations_of_hidden_layers() -> None:
    assert isinstance(HiddenLayers(3, Tanh, sizes=(4,)).layers[0][1], Tanh)
    assert isinstance(HiddenLayers(3, Tanh, sizes=(4,), activation=LeakyReLU).layers[0][1], LeakyReLU)


def test_hidden_layers_by_hand() -> None:
    layer = HiddenLayers(2, Tanh, sizes=(2, 2), shortcut=True)
    (first, _), (second, _) = layer.layers[0].block, layer.layers[1].block
    features = torch.rand(3, 2)
    middle = torch.tanh(first(features)) + features
    torch.testing.assert_close(layer(features), torch.tanh(second(middle)) + middle)


def test_residual_layers_by_hand() -> None:
    torch.manual_seed(0)
    made = ResidualLayers(3, width=4, blocks=1, expansion=2, dropout=0.5).eval()
    weights = {name: value.numpy() for name, value in made.state_dict().items()}
    rows = torch.randn(5, 3)

    def affine(key: str, values: Any) -> Any:
        return values @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    def normal(values: Any) -> Any:  # the layer norm's weights are 1 and 0
        return (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + 1e-5)

    first = affine("layers.0", rows.numpy())
    inner = np.maximum(affine("layers.1.block.1", normal(first)), 0)
    expected = np.maximum(normal(first + affine("layers.1.block.4", inner)), 0)
    np.testing.assert_allclose(made(rows).detach(), expected, rtol=1e-4, atol=1e-5)
    assert made.output_size == 4
    made.train()
    assert not torch.equal(made(rows), made(rows)), "dropout"


@pytest.mark.parametrize("sizes", [(4,), (3, 4), (1,)])
def test_shortcut_needs_equal_widths(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"hidden_layers\.sizes: .* input size 3, not \["):
        HiddenLayers(3, sizes=sizes, shortcut=True)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [({"sizes": [0]}, "sizes.0"), ({"sizes": 5}, "sizes"), ({"bn_decay": 1.0}, "bn_decay"), ({"shortcut": 1}, "short")],
)
def test_hidden_layer_arguments_are_checked(arguments: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigurationError, match=place):
        build(arguments, Lazy[HiddenLayers])


def test_layers_from_a_configuration(md7: Metadata) -> None:
    activation = {"factory": "LeakyReLU", "arguments": {"negative_slope": 0.2}}
    hidden = build({"sizes": [8, 6], "activation": activation}, Lazy[HiddenLayers])(4)
    output = build({"activation": {"factory": "SoftmaxSampling"}}, Lazy[MultiOutputLayer], Scope({"metadata": md7}))(
        hidden.output_size
    )
    outputs = network(hidden, output, 4)(torch.rand(5, 4))
    assert outputs.shape == (5, 13)
    assert hidden.layers[1][1].negative_slope == pytest.approx(0.2)


def test_multi_output_activates_each_block(md7: Metadata) -> None:
    layer = MultiOutputLayer(6, md7, SoftmaxSampling)
    hidden = 9 * torch.randn(200, 6)
    outputs: Tensor = layer(hidden)
    torch.testing.assert_close(outputs[:, :1], layer.layers[0](hidden))
    torch.testing.assert_close(outputs[:, 1:3], layer.layers[1][0](hidden).sigmoid())
    torch.testing.assert_close(outputs[:, 3:6], layer.layers[2][0](hidden).softmax(dim=1))
    torch.testing.assert_close(outputs[:, 6:7], layer.layers[3](hidden))
    torch.testing.assert_close(outputs[:, 7:12], layer.layers[4][0](hidden).softmax(dim=1))
    torch.testing.assert_close(outputs[:, 12:], layer.layers[5][0](hidden).sigmoid())


def test_a_network_is_its_three_parts() -> None:
    model = network(HiddenLayers(3, Tanh, sizes=(4,)), SingleOutputLayer(4, 2), 3)
    features = torch.rand(5, 3)
    expected = model.output_layer(model.hidden_layers(features))
    torch.testing.assert_close(model(features), expected)
    assert [name for name, _ in model.named_children()] == ["input_layer", "hidden_layers", "output_layer"]


def test_defect_42_numbers_can_be_bounded(md7: Metadata) -> None:
    """Without bounds by default, as the original's files expect."""
    node = {"activation": {"factory": "SoftmaxSampling"}, "numerical_activation": {"factory": "Sigmoid"}}
    free, bounded = (
        build(one, Lazy[MultiOutputLayer], Scope({"metadata": md7})) for one in (dict([*node.items()][:1]), node)
    )
    hidden = 100 * torch.randn(50, 6)
    numbers = [index for index, one in enumerate(md7.variables) if one.kind == "numerical"]
    columns = [md7.slices[index].start for index in numbers]
    torch.manual_seed(0)
    layer = free(6)
    torch.manual_seed(0)
    other = bounded(6)
    assert layer(hidden)[:, columns].abs().max() > 1
    torch.testing.assert_close(other(hidden)[:, columns], layer(hidden)[:, columns].sigmoid())
