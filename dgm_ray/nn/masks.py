"""Missing masks: float32 tensors that hold 1 where a cell is missing and 0 where it is observed."""

import torch
from torch import Tensor

from dgm_ray.data.metadata import Metadata


def inverse_mask(mask: Tensor) -> Tensor:
    """Return 1 where ``mask`` is 0, and 0 where it is 1. Shape and dtype stay."""
    return ~mask if mask.dtype == torch.bool else 1 - mask


def compose(
    mask: Tensor, where_one: Tensor | None = None, where_zero: Tensor | None = None, differentiable: bool = False
) -> Tensor:
    """Take ``where_one`` where the mask is 1 and ``where_zero`` where it is 0.

    mask: (rows, columns), of any dtype. The two sources broadcast to it; one that is absent counts as zeros.
    differentiable: blend ``mask * where_one + (1 - mask) * where_zero``, so that gradients reach both sources and a
        soft mask; a NaN on the side that is not taken spreads, and both sources must be given (else ValueError).
        Otherwise pick: NaN on the side that is not taken is harmless, and no gradient flows.
    Returns (rows, columns).
    """
    if differentiable:
        if where_one is None or where_zero is None:
            raise ValueError("A differentiable composition needs both `where_one` and `where_zero`.")
        weight = mask.to(where_one.dtype) if mask.dtype == torch.bool else mask
        return weight * where_one + (1 - weight) * where_zero
    if where_one is None and where_zero is None:
        return torch.zeros_like(mask)
    # Differs from the original: the dtype is that of the sources, not of the mask, so bool and int masks do as well.
    one = 0.0 if where_one is None else where_one.detach()
    zero = 0.0 if where_zero is None else where_zero.detach()
    return torch.where(mask != 0, one, zero)


def column_variables(metadata: Metadata, device: torch.device | None = None) -> Tensor:
    """Return the index of the variable that each column belongs to: int64, (num_features,)."""
    indices = [index for index, variable in enumerate(metadata.variables) for _ in range(variable.size)]
    return torch.tensor(indices, dtype=torch.int64, device=device)


def draw_mask(
    columns: Tensor,
    num_variables: int,
    rows: int,
    probability: float | Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mark whole variables, each with ``probability``, independently in each row.

    columns: (num_features,), the variable that each column belongs to (``column_variables``).
    probability: in [0, 1]; a tensor broadcasts to (num_variables, rows).
    Returns float32 (rows, num_features) on the device of ``columns``. On a CPU the numbers drawn are those of one
    draw of ``rows`` uniforms per variable, in order.
    """
    uniforms = torch.rand(num_variables, rows, generator=generator, device=columns.device)  # (num_variables, rows)
    marked = (uniforms < probability).to(torch.float32)  # (num_variables, rows)
    return marked.T.index_select(1, columns)  # (rows, num_features)


def hide(
    columns: Tensor, num_variables: int, features: Tensor, missing_mask: Tensor, probability: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return features and missing mask with each observed variable, with ``probability``, missing as well, as zeros.

    features, missing_mask: (rows, num_features), as are the new ones. columns, num_variables: as ``draw_mask`` says.
    """
    hidden = draw_mask(columns, num_variables, missing_mask.shape[0], probability)
    also = (hidden != 0) & (missing_mask == 0)
    return torch.where(also, 0.0, features), torch.where(also, 1.0, missing_mask)


def generate_mask(
    metadata: Metadata,
    rows: int,
    probability: float | Tensor,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw a missing mask: each variable of each row is missing with ``probability``, completely at random.

    All columns of a categorical variable are missing together. Returns float32 (rows, num_features), 1 = missing.
    """
    if device is None and generator is not None:
        device = generator.device
    columns = column_variables(metadata, device)
    return draw_mask(columns, len(metadata.variables), rows, probability, generator)
