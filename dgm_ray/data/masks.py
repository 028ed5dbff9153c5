"""Randomness without state: each number is a function of (row id, variable, seed, purpose) alone.

So it depends neither on the order of rows nor on shards, workers or a resume. The mixing function is SplitMix64's
(Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
"""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.metadata import Metadata
from dgm_ray.errors import DataError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(row_ids: NDArray[Any], variable: int, seed: int, purpose: str) -> NDArray[np.float64]:
    """Return one number in [0, 1) per row id, (rows,). ``row_ids`` are integers, ``purpose`` names the draw."""
    digest = blake2b(f"{seed}/{variable}/{purpose}".encode(), digest_size=16).digest()
    keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    # A second key between two rounds: with one, two variables would walk the same sequence from different starts.
    mixed = _mix(_mix(row_ids.astype(np.uint64) * _GOLDEN + keys[0]) ^ keys[1])
    return (mixed >> np.uint64(11)) * np.float64(2.0**-53)  # 53 bits: all that a float64 in [0, 1) holds


def mcar_mask(
    metadata: Metadata, row_ids: NDArray[Any], probability: float, seed: int, purpose: str = "mcar"
) -> NDArray[np.bool_]:
    """Return cells missing completely at random, True where missing, (rows, num_features).

    One draw per row and variable, the same for all the columns of the variable; probability in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise DataError("missing probability", "must be within 0 and 1", probability)
    mask = np.empty((len(row_ids), metadata.num_features), dtype=np.bool_)
    for variable, columns in enumerate(metadata.slices):
        mask[:, columns] = (uniforms(row_ids, variable, seed, purpose) < probability)[:, np.newaxis]
    return mask


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
