import pytest
import torch
from torch import nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn import Conditional, ConditionalLayer, MaskedInputLayer, MiniBatchAveraging, SingleInputLayer


def test_two_classes_are_a_column() -> None:
    layer = ConditionalLayer(SingleInputLayer(3), 2, Conditional())
    assert layer.output_size == 4
    assert not layer.state_dict()
    labels = torch.tensor([0, 1, 1.7])
    assert torch.equal(layer(torch.zeros(3, 3), labels), torch.cat([torch.zeros(3, 3), labels[:, None]], 1))


@pytest.mark.parametrize(("classes", "given", "width"), [(3, {}, 2), (9, {}, 4), (9, {"max_embedding_size": 3}, 3)])
def test_defect_04_more_classes_are_embedded(classes: int, given: dict[str, int], width: int) -> None:
    layer = ConditionalLayer(SingleInputLayer(2), classes, Conditional(**given))
    assert layer.output_size == 2 + width
    assert {key: tuple(one.shape) for key, one in layer.state_dict().items()} == {"layer.weight": (classes, width)}
    labels = torch.tensor([0.0, classes - 1])  # float32, as a batch has them
    assert isinstance(layer.layer, nn.Embedding)
    expected = torch.cat([torch.ones(2, 2), layer.layer.weight[[0, classes - 1]]], 1)
    assert torch.equal(layer(torch.ones(2, 2), labels), expected)
    layer(torch.ones(2, 2), labels).sum().backward()
    assert layer.layer.weight.grad is not None


def test_averaging_is_outside() -> None:
    layer = MiniBatchAveraging(ConditionalLayer(SingleInputLayer(1), 2, Conditional()))
    assert layer(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])).tolist() == [[1, 0, 2, 0.5], [3, 1, 2, 0.5]]


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_there_is_nothing_to_go_by(classes: int) -> None:
    with pytest.raises(ConfigurationError, match=f"conditional: labels with two classes.*has {classes}"):
        ConditionalLayer(SingleInputLayer(2), classes, Conditional())


def test_a_condition_that_is_not_given() -> None:
    with pytest.raises(ConfigurationError, match="needs a condition"):
        ConditionalLayer(SingleInputLayer(2), 2, Conditional())(torch.zeros(1, 2))


def test_a_mask_is_appended() -> None:
    layer = MaskedInputLayer(SingleInputLayer(2), 2)
    assert layer.output_size == 4
    assert layer(torch.tensor([[5.0, 6]]), torch.tensor([[0.0, 1]])).tolist() == [[5, 6, 0, 1]]
