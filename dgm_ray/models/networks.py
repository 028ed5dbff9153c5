"""Generators, discriminators, encoders and decoders: input layer, hidden layers, output layer.

Where an architecture is ``conditional``, each takes the labels (rows,) after its first input; GAIN's take a mask.
The names are the original library's, so its architecture files build unchanged; so are the state-dict keys.
"""

from typing import Any

from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.nn import (
    Conditional,
    FeedForward,
    HiddenLayers,
    LeakyReLU,
    MaskedInputLayer,
    MiniBatchAveraging,
    MultiInputLayer,
    MultiOutputLayer,
    SingleInputLayer,
    SingleOutputLayer,
    conditioned,
)
from dgm_ray.registry import Lazy, PositiveInt, Shared, register

_Hidden = Lazy[HiddenLayers]
_Single = Lazy[SingleOutputLayer]
_Multi = Lazy[MultiOutputLayer]
_Conditional = Shared[Conditional] | None


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
    conditional: _Conditional = None,
) -> FeedForward:
    """A generator that ignores the variables' types: one linear output layer over all features."""
    inputs = _rows(noise_size, metadata, conditional)
    return _feed_forward(inputs, hidden_layers, nn.ReLU, lambda size: output_layer(size, metadata.num_features))


@register
def MultiOutputGenerator(
    metadata: Shared[Metadata],
    noise_size: Shared[PositiveInt],
    output_layer: _Multi,
    hidden_layers: _Hidden = HiddenLayers,
    conditional: _Conditional = None,
) -> FeedForward:
    """A generator with a head per block of variables: sigmoid for binaries, ``activation`` for each categorical.

    Source: Camino et al. 2018, arXiv 1807.01202.
    """
    inputs = _rows(noise_size, metadata, conditional)
    return _feed_forward(inputs, hidden_layers, nn.ReLU, output_layer)


@register
def CodeGenerator(
    metadata: Shared[Metadata],
    noise_size: Shared[PositiveInt],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
    conditional: _Conditional = None,
) -> FeedForward:
    """A generator of codes, for models whose decoder makes the features of them."""
    inputs = _rows(noise_size, metadata, conditional)
    return _feed_forward(inputs, hidden_layers, nn.ReLU, lambda size: output_layer(size, code_size))


# Discriminators and critics: features (rows, num_features) or codes (rows, code_size) -> scores (rows,)


@register
def Discriminator(
    metadata: Shared[Metadata],
    hidden_layers: _Hidden = HiddenLayers,
    mini_batch_averaging: bool = False,
    conditional: _Conditional = None,
) -> FeedForward:
    """Return the probability that rows are real. ``mini_batch_averaging``: as in MedGAN (arXiv 1703.06490)."""
    inputs = _rows(metadata.num_features, metadata, conditional)
    return _judge(inputs, hidden_layers, mini_batch_averaging, nn.Sigmoid())


@register
def Critic(
    metadata: Shared[Metadata],
    hidden_layers: _Hidden = HiddenLayers,
    mini_batch_averaging: bool = False,
    conditional: _Conditional = None,
) -> FeedForward:
    """Return a score without bounds, for Wasserstein losses."""
    return _judge(_rows(metadata.num_features, metadata, conditional), hidden_layers, mini_batch_averaging)


@register
def CodeDiscriminator(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    mini_batch_averaging: bool = False,
    conditional: _Conditional = None,
) -> FeedForward:
    """Return the probability that codes come from real rows."""
    return _judge(_rows(code_size, metadata, conditional), hidden_layers, mini_batch_averaging, nn.Sigmoid())


@register
def CodeCritic(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    mini_batch_averaging: bool = False,
    conditional: _Conditional = None,
) -> FeedForward:
    """Return a score of codes without bounds."""
    return _judge(_rows(code_size, metadata, conditional), hidden_layers, mini_batch_averaging)


def _rows(size: int, metadata: Metadata, conditional: Conditional | None) -> nn.Module:
    return conditioned(SingleInputLayer(size), metadata, conditional)


def _judge(inputs: nn.Module, hidden_layers: Any, averaging: bool, *activation: nn.Module) -> FeedForward:
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
    conditional: _Conditional = None,
) -> FeedForward:
    """An encoder that ignores the variables' types."""
    return _encoder(_rows(metadata.num_features, metadata, conditional), code_size, hidden_layers, output_activation)


@register
def MultiInputEncoder(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    input_layer: Lazy[MultiInputLayer],
    hidden_layers: _Hidden = HiddenLayers,
    output_activation: nn.Module | None = None,
    conditional: _Conditional = None,
) -> FeedForward:
    """An encoder with an embedding per categorical variable."""
    return _encoder(conditioned(input_layer(), metadata, conditional), code_size, hidden_layers, output_activation)


def _encoder(inputs: nn.Module, code_size: int, hidden_layers: Any, activation: nn.Module | None) -> FeedForward:
    return _feed_forward(inputs, hidden_layers, nn.Tanh, lambda size: SingleOutputLayer(size, code_size, activation))


@register
def SingleOutputDecoder(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
    conditional: _Conditional = None,
) -> FeedForward:
    """A decoder that ignores the variables' types."""
    inputs = _rows(code_size, metadata, conditional)
    return _feed_forward(inputs, hidden_layers, nn.Tanh, lambda size: output_layer(size, metadata.num_features))


@register
def MultiOutputDecoder(
    metadata: Shared[Metadata],
    code_size: Shared[PositiveInt],
    output_layer: _Multi,
    hidden_layers: _Hidden = HiddenLayers,
    conditional: _Conditional = None,
) -> FeedForward:
    """A decoder with a head per block of variables."""
    return _feed_forward(_rows(code_size, metadata, conditional), hidden_layers, nn.Tanh, output_layer)


# GAIN's: rows and a mask (or a hint), both (rows, num_features) -> (rows, num_features)
#
# observed_mask: the networks read 1 where a cell is observed, as in the paper and its authors' code; by default 1 where
# it is missing, as in the original library. Trained weights are of one kind or the other.


@register
def SingleVariableGAINGenerator(
    metadata: Shared[Metadata],
    hidden_layers: _Hidden = HiddenLayers,
    output_layer: _Single = SingleOutputLayer,
    observed_mask: Shared[bool] = False,
) -> FeedForward:
    """GAIN's generator, ignoring the variables' types."""
    inputs = _masked(SingleInputLayer(metadata.num_features), metadata, observed_mask)
    return _feed_forward(inputs, hidden_layers, nn.Tanh, lambda size: output_layer(size, metadata.num_features))


@register
def MultiVariableGAINGenerator(
    metadata: Shared[Metadata],
    input_layer: Lazy[MultiInputLayer],
    output_layer: _Multi,
    hidden_layers: _Hidden = HiddenLayers,
    observed_mask: Shared[bool] = False,
) -> FeedForward:
    """GAIN's generator with an embedding per categorical variable and a head per block of variables."""
    return _feed_forward(_masked(input_layer(), metadata, observed_mask), hidden_layers, nn.Tanh, output_layer)


@register
def SingleInputGAINDiscriminator(
    metadata: Shared[Metadata], hidden_layers: _Hidden = HiddenLayers, observed_mask: Shared[bool] = False
) -> FeedForward:
    """Return the probability that each cell is missing, ignoring the variables' types."""
    return _cell_judge(SingleInputLayer(metadata.num_features), metadata, hidden_layers, observed_mask)


@register
def MultiInputGAINDiscriminator(
    metadata: Shared[Metadata],
    input_layer: Lazy[MultiInputLayer],
    hidden_layers: _Hidden = HiddenLayers,
    observed_mask: Shared[bool] = False,
) -> FeedForward:
    """Return the probability that each cell is missing, with an embedding per categorical variable."""
    return _cell_judge(input_layer(), metadata, hidden_layers, observed_mask)


def _masked(inputs: nn.Module, metadata: Metadata, observed: bool) -> nn.Module:
    return MaskedInputLayer(inputs, metadata.num_features, observed=observed)


def _cell_judge(inputs: nn.Module, metadata: Metadata, hidden_layers: Any, observed: bool) -> FeedForward:
    def output_layer(size: int) -> nn.Module:
        return SingleOutputLayer(size, metadata.num_features, nn.Sigmoid())

    return _feed_forward(_masked(inputs, metadata, observed), hidden_layers, nn.Tanh, output_layer)
