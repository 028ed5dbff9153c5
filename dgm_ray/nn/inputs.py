"""Input layers: the first part of a feed-forward network. Each says its ``output_size``."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import PositiveInt, Shared, register


@register
class SingleInputLayer(nn.Module):
    """The identity: (rows, input_size) -> (rows, input_size)."""

    def __init__(self, input_size: PositiveInt) -> None:
        super().__init__()
        self.output_size: int = input_size

    def forward(self, features: Tensor) -> Tensor:
        return features


@register
class MultiInputLayer(nn.Module):
    """Embeds each categorical variable and passes the others on: (rows, num_features) -> (rows, output_size).

    A categorical block (rows, size) is multiplied by a trainable matrix (size, width), so soft one-hots do as well;
    width is half of size, rounded down, brought into [min_embedding_size, max_embedding_size] (the lower end wins).
    """

    def __init__(
        self,
        metadata: Shared[Metadata],
        min_embedding_size: PositiveInt = 2,
        max_embedding_size: PositiveInt = 50,
    ) -> None:
        super().__init__()
        self.embeddings = nn.ParameterList()
        self.output_size: int = 0
        self._sizes = [block.stop - block.start for block in metadata.blocks]
        self._embedded = [block.kind == "categorical" for block in metadata.blocks]
        for size, embedded in zip(self._sizes, self._embedded, strict=True):
            width = embedding_size(size, min_embedding_size, max_embedding_size) if embedded else size
            self.output_size += width
            if embedded:
                self.embeddings.append(nn.Parameter(torch.randn(size, width)))

    def forward(self, features: Tensor) -> Tensor:
        embeddings = iter(self.embeddings)
        blocks = zip(torch.split(features, self._sizes, dim=1), self._embedded, strict=True)
        outputs = [block @ next(embeddings) if embedded else block for block, embedded in blocks]
        return torch.cat(outputs, dim=1)  # (rows, output_size)


class MiniBatchAveraging(nn.Module):
    """Appends the means over the batch to each row: (rows, n) -> (rows, 2 n), in training and evaluation alike.

    Source: MedGAN (Choi et al. 2017, arXiv:1703.06490, section 3.3).
    """

    def __init__(self, input_layer: nn.Module, /) -> None:
        super().__init__()
        self.input_layer = input_layer
        size = input_layer.output_size
        assert isinstance(size, int)
        self.output_size: int = 2 * size

    def forward(self, *inputs: Tensor) -> Tensor:
        hidden = self.input_layer(*inputs)  # (rows, n)
        means = hidden.mean(dim=0, keepdim=True).expand_as(hidden)  # (rows, n)
        return torch.cat([hidden, means], dim=1)  # (rows, 2 n)


@register
@dataclass(frozen=True)
class Conditional:
    """Makes a model conditional on the labels: an architecture's argument, ``{"conditional": {}}``.

    min_embedding_size, max_embedding_size: the ends of the width of the labels' embedding, where there are more than
    two classes; two classes are one column, 0 or 1.
    """

    min_embedding_size: PositiveInt = 2
    max_embedding_size: PositiveInt = 50


class ConditionalLayer(nn.Module):
    """Appends the labels to each row: (rows, n), (rows,) labels -> (rows, n + width of a label).

    Two classes: the label itself. More: a trained embedding (defect 4: the original's could not run).
    Raises ConfigurationError if the table has no classes.
    """

    def __init__(self, input_layer: nn.Module, num_classes: int, conditional: Conditional, /) -> None:
        super().__init__()
        if num_classes < 2:
            rule = f"labels with two classes or more are needed, the table has {num_classes}"
            raise ConfigurationError("conditional", rule)
        self.input_layer = input_layer
        size = input_layer.output_size
        assert isinstance(size, int)
        self.layer: nn.Embedding | None = None
        width = 1
        if num_classes > 2:
            width = embedding_size(num_classes, conditional.min_embedding_size, conditional.max_embedding_size)
            self.layer = nn.Embedding(num_classes, width)
        self.output_size: int = size + width

    def forward(self, *inputs: Tensor) -> Tensor:
        """Take the inputs of the layer inside, then the labels (rows,)."""
        *inner, condition = inputs
        if not inner:
            raise ConfigurationError("conditional", "a conditional model needs a condition (labels)")
        hidden = self.input_layer(*inner)  # (rows, n)
        label = condition.unsqueeze(1).to(hidden.dtype) if self.layer is None else self.layer(condition.long())
        return torch.cat([hidden, label], dim=1)


def conditioned(input_layer: nn.Module, metadata: Metadata, conditional: Conditional | None) -> nn.Module:
    """Return an input layer that takes labels as well, if the architecture is conditional."""
    return input_layer if conditional is None else ConditionalLayer(input_layer, metadata.num_classes, conditional)


class MaskedInputLayer(nn.Module):
    """Appends a mask to each row: (rows, n), (rows, num_features) mask -> (rows, n + num_features). GAIN's input.

    observed: what is appended is 1 where the mask is 0.
    """

    def __init__(self, input_layer: nn.Module, num_features: int, /, *, observed: bool = False) -> None:
        super().__init__()
        self.input_layer, self.observed = input_layer, observed
        size = input_layer.output_size
        assert isinstance(size, int)
        self.output_size: int = size + num_features

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([self.input_layer(features), 1 - mask if self.observed else mask], dim=1)


def embedding_size(size: int, minimum: int = 2, maximum: int = 50) -> int:
    """Return the width of the embedding of ``size`` categories: max(minimum, min(maximum, size // 2))."""
    return max(minimum, min(maximum, size // 2))
