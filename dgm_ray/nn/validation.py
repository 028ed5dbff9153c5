"""The original library's ``val_loss``: a reconstruction loss of what a user would get, in the user's units.

discretize: turn binary and categorical predictions into valid values first. It is the default because the figures of
old logs were made so; without it the loss is that of probabilities, which moves more smoothly (contract, surprise 23).
A scaler (``scale_transform``) turns numerical cells back into the user's units before they are compared.
"""

import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata, MinMaxScaler, discretize
from dgm_ray.registry import Shared, register


@register
class ValidationReconstructionLoss(nn.Module):
    """The loss of a reconstruction against the rows that went in, over all cells.

    reconstruction_loss: what compares two tables, such as RMSE.
    discretize: compare valid values instead of probabilities.
    """

    def __init__(
        self,
        metadata: Shared[Metadata],
        reconstruction_loss: nn.Module,
        scaler: Shared[MinMaxScaler] | None = None,
        discretize: bool = True,
    ) -> None:
        super().__init__()
        self.reconstruction_loss = reconstruction_loss
        self._finish = _Finish(metadata, scaler, discretize)

    def forward(self, prediction: Tensor, features: Tensor, truth: Tensor, missing_mask: Tensor) -> Tensor:
        """All (rows, num_features): predictions, what the model saw, the rows (NaN unknown), 1 where hidden from it."""
        loss: Tensor = self.reconstruction_loss(self._finish(prediction), self._finish(features))
        return loss


@register
class ValidationImputationLoss(nn.Module):
    """The loss of imputed cells against the truth.

    reconstruction_loss: what compares two tables, such as RMSE.
    discretize: compare valid values instead of probabilities.
    all_cells: count observed cells (whose error is 0) as well, as the original does: its figure shrinks with the
        missing rate (defect 19).
    """

    def __init__(
        self,
        metadata: Shared[Metadata],
        reconstruction_loss: nn.Module,
        scaler: Shared[MinMaxScaler] | None = None,
        discretize: bool = True,
        all_cells: bool = False,
    ) -> None:
        super().__init__()
        self.reconstruction_loss = reconstruction_loss
        self.all_cells = all_cells
        self._finish = _Finish(metadata, scaler, discretize)

    def forward(self, prediction: Tensor, features: Tensor, truth: Tensor, missing_mask: Tensor) -> Tensor:
        """As ValidationReconstructionLoss; cells whose truth is unknown never count."""
        known = ~truth.isnan()
        keep = known if self.all_cells else known & (missing_mask != 0)
        proposed = torch.where(missing_mask != 0, prediction, truth)
        loss: Tensor = self.reconstruction_loss(self._finish(proposed), self._finish(truth), keep.to(prediction.dtype))
        return loss


class _Finish:
    """Valid values in the user's units. It works on a copy (defect 20)."""

    def __init__(self, metadata: Metadata, scaler: MinMaxScaler | None, discrete: bool) -> None:
        self._metadata, self._scaler, self._discrete = metadata, scaler, discrete

    def __call__(self, features: Tensor) -> Tensor:
        cells = features.detach().cpu().numpy()
        cells = discretize(self._metadata, cells) if self._discrete else cells
        cells = self._scaler.inverse_transform(cells) if self._scaler else cells
        return torch.as_tensor(cells).to(features.device)
