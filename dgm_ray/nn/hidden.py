"""The hidden layers of a feed-forward network: plain or residual."""

from collections.abc import Callable

from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.activations import ReLU
from dgm_ray.nn.noise import Dropout
from dgm_ray.registry import Fraction, Lazy, PositiveInt, register


@register
class HiddenLayers(nn.Module):
    """Linear, batch normalisation, activation, for each size: (rows, input_size) -> (rows, output_size).

    input_size, default_activation: the owner's to give.
    sizes: the width of each layer; without any, the identity.
    activation: of every layer; the owner's default where it is not given.
    bn_decay: in [0, 1); 0 is no batch normalisation, else the share of the running statistics that a step keeps.
        The first layer is never normalised.
    shortcut: add each layer's input to its output; every size must then equal input_size (ConfigurationError).
    """

    def __init__(
        self,
        input_size: int,
        default_activation: Callable[[], nn.Module] = ReLU,
        /,
        sizes: tuple[PositiveInt, ...] = (),
        activation: Lazy[nn.Module] | None = None,
        bn_decay: Fraction = 0.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        if shortcut and any(size != input_size for size in sizes):
            rule = f"with a shortcut every size must equal the input size {input_size}"
            raise ConfigurationError("hidden_layers.sizes", rule, list(sizes))
        make_activation = activation or default_activation
        layers: list[nn.Module] = []
        width = input_size
        for index, size in enumerate(sizes):
            norm = [nn.BatchNorm1d(size, momentum=1 - bn_decay)] if index > 0 and bn_decay > 0 else []
            block = nn.Sequential(nn.Linear(width, size), *norm, make_activation())
            layers.append(Shortcut(block) if shortcut else block)
            width = size
        self.layers = nn.Sequential(*layers)
        self.output_size: int = width

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.layers(features)  # (rows, output_size)
        return outputs


class Shortcut(nn.Module):
    """block(x) + x, for a block that keeps the width: (rows, n) -> (rows, n)."""

    def __init__(self, block: nn.Module, /) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.block(features) + features  # (rows, n)
        return outputs


@register
class ResidualLayers(nn.Module):
    """A linear layer, then blocks that each add to what they get: (rows, input_size) -> (rows, width).

    A block is layer normalisation, linear, activation, dropout, linear; at the end normalisation and activation.
    Source: the ResNet of Gorishniy et al. 2021, arXiv:2106.11959, section 3.2.
    Differs from the paper: layer normalisation for batch normalisation, so that a row does not depend on its batch;
    one dropout in a block, for two.

    input_size, default_activation: the owner's to give. width: of what the blocks add to. blocks: how many.
    expansion: the width inside a block, as a multiple. dropout: the share that is dropped inside a block, in [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        default_activation: Callable[[], nn.Module] = ReLU,
        /,
        width: PositiveInt = 128,
        blocks: PositiveInt = 2,
        expansion: PositiveInt = 2,
        activation: Lazy[nn.Module] | None = None,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        make_activation = activation or default_activation
        parts: list[nn.Module] = [nn.Linear(input_size, width)]
        for _ in range(blocks):
            inner = nn.Linear(width, expansion * width)
            dropped = [Dropout(dropout)] if dropout > 0 else []
            outer = nn.Linear(expansion * width, width)
            parts.append(Shortcut(nn.Sequential(nn.LayerNorm(width), inner, make_activation(), *dropped, outer)))
        self.layers = nn.Sequential(*parts, nn.LayerNorm(width), make_activation())
        self.output_size: int = width

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.layers(features)  # (rows, width)
        return outputs
