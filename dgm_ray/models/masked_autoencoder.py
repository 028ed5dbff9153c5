"""A masked autoencoder: hides observed cells of each row from itself, and learns to tell all that were observed.

Source: Du et al. 2023, "ReMasker: Imputing Tabular Data with Masked Autoencoding", arXiv:2309.13793.
Differs from the paper: a residual network (Gorishniy et al. 2021, arXiv:2106.11959) over the whole row and its mask,
for a transformer over cells, which takes a hundred times the time here; numbers are standardised, and the weights that
impute are a moving average.
"""

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.models.phase import Batch, Phase
from dgm_ray.nn import (
    Averaged,
    FeedForward,
    HiddenLayers,
    MaskedInputLayer,
    MultiInputLayer,
    MultiOutputLayer,
    Optimizer,
    ReLU,
    ResidualLayers,
    SoftmaxSampling,
    Standardized,
    expectations,
)
from dgm_ray.nn.masks import column_variables, hide, inverse_mask
from dgm_ray.registry import Fraction, Lazy, NonNegativeFloat, Probability, Shared, register


@register
def MultiVariableMaskedAutoEncoder(
    metadata: Shared[Metadata],
    hidden_layers: Lazy[HiddenLayers | ResidualLayers] = ResidualLayers,
    input_layer: Lazy[MultiInputLayer] = MultiInputLayer,
    decay: Fraction = 0.999,
) -> nn.Module:
    """A network that makes a row of a row and its mask; embeddings for categories, a softmax for each.

    decay: of the moving average of the weights, see Averaged; 0 takes the last ones.
    """
    inputs = MaskedInputLayer(input_layer(metadata), metadata.num_features, observed=True)
    hidden = hidden_layers(inputs.output_size, ReLU)
    outputs = MultiOutputLayer(hidden.output_size, metadata, SoftmaxSampling)
    return Averaged(Standardized(metadata, FeedForward(inputs, hidden, outputs)), decay)


class MaskedAutoEncoder(nn.Module):
    """Train a network to tell the observed cells of a row, also those that are hidden from it; impute by its word.

    hide_probability: how many of the observed variables of a row are hidden from the network in a step, in [0, 1]; the
    paper's 0.5 is much for tables of which much is missing already.
    seen_weight: of the loss of the cells that are shown, beside 1 for those that are hidden; the paper has both alike.
    """

    columns: Tensor
    hide_probability: Tensor
    seen_weight: Tensor

    def __init__(
        self,
        metadata: Shared[Metadata],
        autoencoder: Shared[nn.Module],
        autoencoder_optimizer: Shared[Optimizer],
        reconstruction_loss: Shared[nn.Module],
        *,
        hide_probability: Probability = 0.2,
        seen_weight: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.reconstruction_loss = reconstruction_loss
        self._optimizer = autoencoder_optimizer
        self._num_variables = len(metadata.variables)
        self.register_buffer("columns", column_variables(metadata), persistent=False)
        for name, value in {"hide_probability": hide_probability, "seen_weight": seen_weight}.items():
            self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def phases(self) -> list[Phase]:
        return [Phase("autoencoder", self._optimizer, self.loss)]

    def loss(self, batch: Batch) -> Tensor:
        """Return how far what is told is from the cells that were observed, a scalar."""
        missing = torch.zeros_like(batch.features) if batch.missing_mask is None else batch.missing_mask
        seen, mask = hide(self.columns, self._num_variables, batch.features, missing, self.hide_probability)
        told = self.autoencoder(seen, mask)
        hidden: Tensor = self.reconstruction_loss(told, batch.features, mask - missing)
        shown: Tensor = self.reconstruction_loss(told, batch.features, inverse_mask(mask))
        return hidden + self.seen_weight * shown

    def reconstruct(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        with expectations(self):
            told: Tensor = self.autoencoder(features, missing_mask)
        return told

    def impute(self, features: Tensor, missing_mask: Tensor, *condition: Tensor) -> Tensor:
        return self.reconstruct(features, missing_mask)
