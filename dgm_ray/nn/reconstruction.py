"""Reconstruction losses: how far predictions are from their targets.

Each is called as ``loss(prediction, target, keep_mask=None)`` with tensors (rows, columns). With a keep_mask (1 where a
cell counts) the result is the sum of the kept cells' losses over the number of kept cells, at least 1, whatever the
``reduction``; a NaN under keep 0 is harmless.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm_ray.data.metadata import Metadata
from dgm_ray.nn.entropies import binary_cross_entropies, cross_entropies
from dgm_ray.registry import Shared, register

Reduction = Literal["none", "mean", "sum"]


class _CellLoss(nn.Module):
    """What BCE and CrossEntropy hold: a reduction and a weight for each class or column."""

    weight: Tensor | None

    def __init__(self, weight: list[float] | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction
        self.register_buffer("weight", None if weight is None else torch.tensor(weight).float(), persistent=False)


@register
class BCE(_CellLoss):
    """Binary cross-entropy of probabilities in [0, 1]. weight: a factor for each column."""

    def forward(self, prediction: Tensor, target: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        if keep_mask is not None:
            prediction, target = _kept(prediction, keep_mask, 0.5), _kept(target, keep_mask, 0.5)
        cells = binary_cross_entropies(prediction, target)  # (rows, columns)
        cells = cells if self.weight is None else cells * self.weight
        if keep_mask is not None:
            return _mean_of_kept(cells * (keep_mask != 0), keep_mask)
        return cells if self.reduction == "none" else cells.mean() if self.reduction == "mean" else cells.sum()


@register
class CrossEntropy(_CellLoss):
    """Cross-entropy of logits (rows, classes). weight: a factor for each class.

    target: class numbers (rows,), or probabilities (rows, classes). keep_mask has the target's shape; a row of
    probabilities is kept if all its cells are.
    """

    def forward(self, prediction: Tensor, target: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        if keep_mask is None:
            return F.cross_entropy(prediction, target, self.weight, reduction=self.reduction)
        keep = (keep_mask != 0) if target.ndim == 1 else (keep_mask != 0).all(dim=1)  # (rows,)
        prediction = _kept(prediction, keep[:, None], 0.0)
        target = _kept(target, keep if target.ndim == 1 else keep[:, None], 0)
        losses = F.cross_entropy(prediction, target, self.weight, reduction="none")  # (rows,)
        return _mean_of_kept(losses * keep, keep_mask)


@register
class MSE(nn.Module):
    """Squared error."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        return _squared_error(prediction, target, self.reduction, keep_mask)


@register
class RMSE(nn.Module):
    """The square root of the reduced squared error; with "none", the absolute error. Its gradient at 0 is 0.

    # Differs from the original: masked, it is sqrt(sum / count), not sqrt(sum) / count (defect 14).
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        squared = _squared_error(prediction, target, self.reduction, keep_mask)
        zero = squared == 0  # the root's slope there is infinite
        return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


@register
class MultiReconstructionLoss(nn.Module):
    """The sum of one loss for each block of ``MultiOutputLayer``, of shape ().

    A run of numericals has the squared error, a run of binaries the binary cross-entropy of probabilities, a
    categorical the cross-entropy of probabilities. reduction "mean": a run's loss is the mean over its cells, a
    categorical's the mean over its rows; "sum": all are sums. A keep_mask is the same for all columns of a categorical.

    # Differs from the original: predictions of a categorical are probabilities (no second softmax, defect 10), its
    # targets may be soft, and a missing categorical adds nothing (defect 11).
    """

    def __init__(self, metadata: Shared[Metadata], reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.reduction: Literal["mean", "sum"] = reduction
        for kind in _COSTS:
            blocks = [block for block in metadata.blocks if block.kind == kind]
            columns = [column for block in blocks for column in range(block.start, block.stop)]
            widths = [block.stop - block.start for block in blocks for _ in range(block.start, block.stop)]
            shares = [1.0 / width if reduction == "mean" and kind != "categorical" else 1.0 for width in widths]
            self.register_buffer(f"{kind}_columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
            self.register_buffer(f"{kind}_shares", torch.tensor(shares, dtype=torch.float32), persistent=False)

    def forward(self, prediction: Tensor, target: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        if keep_mask is not None:
            prediction, target = _kept(prediction, keep_mask, 0.5), _kept(target, keep_mask, 0.5)
        sums = []
        for kind, cost in _COSTS.items():
            columns: Tensor = self.get_buffer(f"{kind}_columns")  # (columns of the kind,)
            if columns.numel():
                cells = cost(prediction.index_select(1, columns), target.index_select(1, columns))
                keep = None if keep_mask is None else keep_mask.index_select(1, columns) != 0
                sums.append((cells * (self.get_buffer(f"{kind}_shares") if keep is None else keep)).sum())
        total = torch.stack(sums).sum()
        if keep_mask is not None:
            return _mean_of_kept(total, keep_mask)
        return total / prediction.shape[0] if self.reduction == "mean" else total


def _squared_error(prediction: Tensor, target: Tensor, reduction: Reduction, keep_mask: Tensor | None) -> Tensor:
    if keep_mask is None:
        return F.mse_loss(prediction, target, reduction=reduction)
    error = _kept(prediction, keep_mask, 0.0) - _kept(target, keep_mask, 0.0)  # (rows, columns)
    return _mean_of_kept(error.square(), keep_mask)


def _squares(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square()


_COSTS = {"numerical": _squares, "binary": binary_cross_entropies, "categorical": cross_entropies}


def _kept(values: Tensor, keep_mask: Tensor, otherwise: float) -> Tensor:
    return torch.where(keep_mask != 0, values, otherwise)


def _mean_of_kept(cells: Tensor, keep_mask: Tensor) -> Tensor:
    return cells.sum() / (keep_mask != 0).sum().clamp_min(1)
