"""Features as one number per variable: what methods take that know categories, or trees, which need no one-hot."""

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata

Floats = NDArray[np.float32]


def to_codes(metadata: Metadata, features: Floats) -> Floats:
    """Return one column per variable, (rows, variables): a categorical one is the number of its category."""
    columns = [
        features[:, where].argmax(axis=1) if one.kind == "categorical" else features[:, where.start]
        for one, where in zip(metadata.variables, metadata.slices, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def from_codes(metadata: Metadata, codes: Floats) -> Floats:
    """Return what ``to_codes`` was given: (rows, num_features), categorical variables one-hot (defect 12)."""
    blocks = [
        np.eye(one.size)[codes[:, index].astype(np.int64)] if one.kind == "categorical" else codes[:, [index]]
        for index, one in enumerate(metadata.variables)
    ]
    return np.hstack(blocks).astype(np.float32)
