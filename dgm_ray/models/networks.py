"""Generators, discriminators, encoders and decoders: input layer, hidden layers, output layer.

The names are the original library's, so its architecture files build unchanged; so are the state-dict keys.
"""

from typing import Any

from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.nn import (
    FeedForward,
    HiddenLayers,
    LeakyReLU,
    MiniBatchAveraging,
    MultiInputLayer,
    MultiOutputLayer,
    SingleInputLayer,
    SingleOutputLayer,
)
from dgm_ray.registry import Lazy, PositiveInt, Shared, register

_Hidden = Lazy[HiddenLayers]
_Single = Lazy[SingleOutputLayer]
_Multi = Lazy[MultiOutputLayer]


def _feed_forward(input_layer: Any, hidden_layers: Any, activation: Any, output_layer: Any) -> FeedForward:
    hidden = hidden_layers(input_layer.output_size, activation)
    return FeedForward(input_layer, hidden, output_layer(hidden.output_size))


# Generators: noise (rows, noise_size) -> features or codes


@register
def SingleOutputGenerator(
    metadata: Shared[Metadata],
    noise_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
) -> FeedForward:
    """A generator that ignores the variables' types: one linear output layer over all features."""
    return _feed_forward(
        SingleInputLayer(noise_size), hidden_layers, nn.ReLU, lambda size: output_layer(size, metadata.num_features)
    )


@register
def MultiOutputGenerator(
    noise_size: Shared[PositiveInt], output_layer: _Multi, hidden_layers: _Hidden = HiddenLayers
) -> FeedForward:
    """A generator with a head per block of variables: sigmoid for binaries, ``activation`` for each categorical.

    Source: Camino et al. 2018, arXiv 1807.01202.
    """
    return _feed_forward(SingleInputLayer(noise_size), hidden_layers, nn.ReLU, output_layer)


@register
def CodeGenerator(
    noise_size: Shared[PositiveInt],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
) -> FeedForward:
    """A generator of codes, for models whose decoder makes the features of them."""
    return _feed_forward(
        SingleInputLayer(noise_size), hidden_layers, nn.ReLU, lambda size: output_layer(size, code_size)
    )


# Discriminators and critics: features (rows, num_features) or codes (rows, code_size) -> scores (rows,)


@register
def Discriminator(
    metadata: Shared[Metadata], hidden_layers: _Hidden = HiddenLayers, mini_batch_averaging: bool = False
) -> FeedForward:
    """Return the probability that rows are real. ``mini_batch_averaging``: as in MedGAN (arXiv 1703.06490)."""
    return _judge(metadata.num_features, hidden_layers, mini_batch_averaging, nn.Sigmoid())


@register
def Critic(
    metadata: Shared[Metadata], hidden_layers: _Hidden = HiddenLayers, mini_batch_averaging: bool = False
) -> FeedForward:
    """Return a score without bounds, for Wasserstein losses."""
    return _judge(metadata.num_features, hidden_layers, mini_batch_averaging)


@register
def CodeDiscriminator(
    code_size: Shared[PositiveInt], hidden_layers: _Hidden = HiddenLayers, mini_batch_averaging: bool = False
) -> FeedForward:
    """Return the probability that codes come from real rows."""
    return _judge(code_size, hidden_layers, mini_batch_averaging, nn.Sigmoid())


@register
def CodeCritic(
    code_size: Shared[PositiveInt], hidden_layers: _Hidden = HiddenLayers, mini_batch_averaging: bool = False
) -> FeedForward:
    """Return a score of codes without bounds."""
    return _judge(code_size, hidden_layers, mini_batch_averaging)


def _judge(input_size: int, hidden_layers: Any, averaging: bool, *activation: nn.Module) -> FeedForward:
    inputs: nn.Module = SingleInputLayer(input_size)
    if averaging:
        inputs = MiniBatchAveraging(inputs)
    end = nn.Sequential(*activation, nn.Flatten(0))
    return _feed_forward(inputs, hidden_layers, _leaky_relu, lambda size: _Scores(size, end))


class _Scores(nn.Module):
    """A linear layer to one number per row; the key of its weight is ``model.0.weight``."""

    def __init__(self, input_size: int, end: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(input_size, 1), *end)  # type: ignore[misc]

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.model(inputs)  # (rows,)
        return scores


def _leaky_relu() -> nn.Module:
    return LeakyReLU(0.2)


# Encoders: features (rows, num_features) -> codes (rows, code_size). Decoders: back.


@register
def SingleInputEncoder(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_activation: nn.Module | None = None,
) -> FeedForward:
    """An encoder that ignores the variables' types."""
    return _encoder(SingleInputLayer(metadata.num_features), code_size, hidden_layers, output_activation)


@register
def MultiInputEncoder(
    code_size: Shared[PositiveInt],
    input_layer: Lazy[MultiInputLayer],
    hidden_layers: _Hidden = HiddenLayers,
    output_activation: nn.Module | None = None,
) -> FeedForward:
    """An encoder with an embedding per categorical variable."""
    return _encoder(input_layer(), code_size, hidden_layers, output_activation)


def _encoder(inputs: nn.Module, code_size: int, hidden_layers: Any, activation: nn.Module | None) -> FeedForward:
    return _feed_forward(inputs, hidden_layers, nn.Tanh, lambda size: SingleOutputLayer(size, code_size, activation))


@register
def SingleOutputDecoder(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
) -> FeedForward:
    """A decoder that ignores the variables' types."""
    return _feed_forward(
        SingleInputLayer(code_size), hidden_layers, nn.Tanh, lambda size: output_layer(size, metadata.num_features)
    )


@register
def MultiOutputDecoder(
    code_size: Shared[PositiveInt], output_layer: _Multi, hidden_layers: _Hidden = HiddenLayers
) -> FeedForward:
    """A decoder with a head per block of variables."""
    return _feed_forward(SingleInputLayer(code_size), hidden_layers, nn.Tanh, output_layer)
