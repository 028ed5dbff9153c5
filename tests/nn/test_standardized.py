from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.nn import Standardized


class Spy(nn.Module):
    """Returns what it is given, and remembers it."""

    def forward(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        self.seen = features
        return features


def numerical(metadata: Metadata) -> Any:
    return np.concatenate([[one.kind == "numerical"] * one.size for one in metadata.variables])


def test_statistics_are_those_of_all_observed_cells(md7: Metadata, rows7: Any) -> None:
    mask = np.random.default_rng(0).random(rows7.shape) < 0.3
    made = Standardized(md7, Spy()).train()
    for part in np.array_split(np.arange(len(rows7)), 7):
        made(torch.from_numpy(rows7[part]), torch.from_numpy(mask[part]).float())
    known = np.where(mask, np.nan, rows7)
    np.testing.assert_allclose(made.mean, np.nanmean(known, axis=0), rtol=1e-5)
    np.testing.assert_allclose(made.squares / made.count, np.nanvar(known, axis=0), rtol=1e-5)

    numbers = numerical(md7)
    back = made.eval()(torch.from_numpy(rows7), torch.from_numpy(mask).float()).numpy()
    standard = made.network.seen.numpy()
    expected = (known - np.nanmean(known, axis=0)) / np.nanstd(known, axis=0)
    np.testing.assert_allclose(standard[:, numbers], np.nan_to_num(expected)[:, numbers], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(standard[:, ~numbers], np.nan_to_num(known)[:, ~numbers])
    np.testing.assert_allclose(back[~mask], rows7[~mask], rtol=1e-5, atol=1e-6)
    means = np.broadcast_to(np.nanmean(known, axis=0), known.shape)
    np.testing.assert_allclose(back[:, numbers][mask[:, numbers]], means[:, numbers][mask[:, numbers]], rtol=1e-5)


def test_in_evaluation_numbers_stay_between_those_that_were_observed(md7: Metadata, rows7: Any) -> None:
    made, mask = Standardized(md7, Spy()), torch.zeros(120, 13)
    rows = torch.from_numpy(rows7)
    assert torch.equal(made.eval()(rows * 9, mask), rows * 9), "nothing was observed yet"
    mask[:, 6] = 1
    made.train()(rows, mask)
    assert torch.equal(made(9 * rows, torch.zeros(120, 13))[:, 0] > 1, rows[:, 0] * 9 > 1), "training is free"
    made = Standardized(md7, Spy())
    made.train()(rows, mask)
    told = made.eval()(torch.cat([9 * rows, -9 * rows]), torch.zeros(240, 13)).numpy()
    assert told[:, 0].min() == rows7[:, 0].min()
    assert told[:, 0].max() == rows7[:, 0].max()
    assert told[:, 6].max() > 1, "never observed"
    assert told[:, 1].max() == 9, "not a number"


def test_what_stands_in_a_missing_cell_does_not_matter(md7: Metadata, rows7: Any) -> None:
    rows, mask = torch.from_numpy(rows7.copy()), torch.zeros(120, 13)
    mask[::2, 0] = 1
    outputs = []
    for value in (0.0, 7.0, torch.nan):
        made = Standardized(md7, Spy()).train()
        outputs.append(made(torch.where(mask != 0, value, rows), mask))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_constant_and_never_observed_columns_are_finite(md7: Metadata) -> None:
    made, mask = Standardized(md7, Spy()).train(), torch.zeros(4, 13)
    mask[:, 6] = 1
    assert made(torch.full((4, 13), 0.25), mask).isfinite().all()
    assert made.eval()(torch.full((2, 13), 0.5), mask[:2]).isfinite().all()
