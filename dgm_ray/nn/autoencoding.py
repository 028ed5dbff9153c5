"""Losses of autoencoders: how far what comes out is from what went in, and how the codes are distributed."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.nn.masks import inverse_mask
from dgm_ray.registry import Lazy, NonNegativeFloat, register


class Outputs(NamedTuple):
    """What an autoencoder makes of a batch."""

    code: Tensor  # (rows, code_size)
    reconstructed: Tensor  # (rows, num_features)
    mu: Tensor | None = None  # (rows, code_size), of a variational one
    log_var: Tensor | None = None  # (rows, code_size)


@register
class AutoEncoderLoss(nn.Module):
    """A reconstruction loss of an autoencoder's output against its features, both (rows, num_features).

    reconstruction_loss: what compares two tables, such as MultiReconstructionLoss.
    masked: leave missing cells out; without a missing mask nothing is missing, so every cell counts.
    """

    def __init__(self, reconstruction_loss: nn.Module, masked: bool = False) -> None:
        super().__init__()
        self.reconstruction_loss = reconstruction_loss
        self.masked = masked

    def forward(self, outputs: Outputs, features: Tensor, missing_mask: Tensor | None = None) -> Tensor:
        loss: Tensor
        if self.masked:
            loss = self.reconstruction_loss(outputs.reconstructed, features, observed(features, missing_mask))
        else:
            loss = self.reconstruction_loss(outputs.reconstructed, features)
        return loss


@register
class VAELoss(nn.Module):
    """The negative evidence lower bound of a variational autoencoder, a mean over the rows; of shape ().

    reconstruction_loss: what compares two tables; it is summed over cells, so its reduction is "sum".
    masked: leave missing cells out of the reconstruction.
    kl_weight: >= 0, of the divergence of the codes from N(0, 1); 1 is the paper's, beta-VAE's beta otherwise.

    Source: Kingma and Welling 2014, arXiv:1312.6114, equation 10; Higgins et al. 2017 (beta-VAE).
    # Differs from the original: a mean over rows, not a sum, so that the batch size does not scale it; masked, both
    # terms are sums over what belongs to a row (defect 15).
    """

    kl_weight: Tensor

    def __init__(
        self, reconstruction_loss: Lazy[nn.Module], masked: bool = False, kl_weight: NonNegativeFloat = 1.0
    ) -> None:
        super().__init__()
        given = getattr(reconstruction_loss, "keywords", {})
        if "reduction" in given and given["reduction"] != "sum":
            place = "reconstruction_loss.arguments.reduction"
            raise ConfigurationError(place, "should be 'sum' in a VAELoss", given["reduction"])
        self.reconstruction_loss = reconstruction_loss(reduction="sum")
        self.masked = masked
        self.register_buffer("kl_weight", torch.tensor(float(kl_weight)), persistent=False)

    def forward(self, outputs: Outputs, features: Tensor, missing_mask: Tensor | None = None) -> Tensor:
        if outputs.mu is None or outputs.log_var is None:
            raise ConfigurationError("reconstruction_loss", "VAELoss needs a variational autoencoder")
        divergence = -0.5 * (1 + outputs.log_var - outputs.mu.square() - outputs.log_var.exp()).sum()
        if self.masked:
            keep = observed(features, missing_mask)  # the loss of a kept cell, times how many there are
            loss = self.reconstruction_loss(outputs.reconstructed, features, keep) * keep.sum()
        else:
            loss = self.reconstruction_loss(outputs.reconstructed, features)
        total: Tensor = (loss + self.kl_weight * divergence) / features.shape[0]
        return total


def observed(features: Tensor, missing_mask: Tensor | None) -> Tensor:
    """Return 1 where a cell is observed, (rows, num_features); without a mask nothing is missing."""
    return torch.ones_like(features) if missing_mask is None else inverse_mask(missing_mask)
