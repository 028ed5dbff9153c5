"""The shape that every network here has."""

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Input layer, hidden layers, output layer, in this order. The input layer says what the inputs are."""

    def __init__(self, input_layer: nn.Module, hidden_layers: nn.Module, output_layer: nn.Module) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.hidden_layers = hidden_layers
        self.output_layer = output_layer

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Tensor = self.output_layer(self.hidden_layers(self.input_layer(*inputs)))  # (rows, output size)
        return outputs
