"""The losses of GAIN (Yoon et al. 2018, arXiv:1806.02920). Its discriminator says which cells were imputed.

A mask holds 1 where a cell is missing, as everywhere here (the paper: where it is observed), so the discriminator gives
P(missing).
"""

import torch
from torch import Tensor, nn

from dgm_ray.nn.entropies import binary_cross_entropies
from dgm_ray.nn.masks import inverse_mask
from dgm_ray.registry import NonNegativeFloat, register


@register
class GAINDiscriminatorLoss(nn.Module):
    """The mean over all cells of the binary cross-entropy of P(missing) against the missing mask; of shape ().

    Differs from the paper (equation 8): cells whose mask the hint shows count as well, as in the original library.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, missing: Tensor, missing_mask: Tensor) -> Tensor:
        """missing, missing_mask: (rows, num_features), what the discriminator says and what is."""
        return binary_cross_entropies(missing, missing_mask).mean()


@register
class GAINGeneratorLoss(nn.Module):
    """How well imputed cells pass for observed ones, and how far generated cells are from the observed; of shape ().

    reconstruction_loss: what compares two tables, over the observed cells.
    reconstruction_loss_weight: >= 0, the paper's alpha times observed / missing cells: both terms are means over their
        cells here, and sums in the paper.
    all_cells: let observed cells count in the first term as well, as the original library does (defect 21); the paper
        (equation 9) and the default count missing cells only.
    mean_of_all: divide the first term by the number of all cells, not of those that count, as the authors' code does
        (its alpha of 100 is this weight then).
    """

    reconstruction_loss_weight: Tensor

    def __init__(
        self,
        reconstruction_loss: nn.Module,
        reconstruction_loss_weight: NonNegativeFloat = 1.0,
        all_cells: bool = False,
        mean_of_all: bool = False,
    ) -> None:
        super().__init__()
        self.reconstruction_loss = reconstruction_loss
        self.all_cells, self.mean_of_all = all_cells, mean_of_all
        weight = torch.tensor(float(reconstruction_loss_weight))
        self.register_buffer("reconstruction_loss_weight", weight, persistent=False)

    def forward(self, missing: Tensor, generated: Tensor, features: Tensor, missing_mask: Tensor) -> Tensor:
        """All (rows, num_features): P(missing), the generator's cells, the rows with their observed cells, the mask."""
        observed = inverse_mask(missing_mask)
        costs = binary_cross_entropies(missing, observed)
        counted = torch.ones_like(missing_mask) if self.all_cells else missing_mask
        cells = counted.numel() if self.mean_of_all else counted.sum().clamp_min(1)
        passing = (costs * counted).sum() / cells
        loss: Tensor = passing + self.reconstruction_loss_weight * self.reconstruction_loss(
            generated, features, observed
        )
        return loss
