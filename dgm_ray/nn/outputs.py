"""Output layers: the last part of a feed-forward network. Their input size is the owner's to give."""

import torch
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.activations import Sigmoid
from dgm_ray.registry import Lazy, Shared, register


@register
class SingleOutputLayer(nn.Module):
    """A linear layer and an optional activation: (rows, input_size) -> (rows, output_size)."""

    def __init__(self, input_size: int, output_size: int, /, activation: nn.Module | None = None) -> None:
        super().__init__()
        linear = nn.Linear(input_size, output_size)
        self.model: nn.Module = linear if activation is None else nn.Sequential(linear, activation)

    def forward(self, hidden: Tensor) -> Tensor:
        outputs: Tensor = self.model(hidden)  # (rows, output_size)
        return outputs


@register
class MultiOutputLayer(nn.Module):
    """One linear layer for each block of variables: (rows, input_size) -> (rows, num_features).

    A block is a run of numerical variables (``numerical_activation``), a run of binary ones (sigmoid: probabilities),
    or one categorical variable (``activation``).

    numerical_activation: null leaves numbers without bounds, as the original does; Sigmoid keeps them where a table
    that is scaled to [0, 1] has them (defect 42).
    """

    def __init__(
        self,
        input_size: int,
        /,
        metadata: Shared[Metadata],
        activation: Lazy[nn.Module],
        numerical_activation: Lazy[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for block in metadata.blocks:
            linear = nn.Linear(input_size, block.stop - block.start)
            end = {"numerical": numerical_activation, "binary": Sigmoid, "categorical": activation}[block.kind]
            self.layers.append(nn.Sequential(linear, end()) if end else linear)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([layer(hidden) for layer in self.layers], dim=1)  # (rows, num_features)
