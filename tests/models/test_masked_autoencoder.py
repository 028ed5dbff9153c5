from typing import Any

import numpy as np
import pytest
import torch

from dgm_ray.data import Metadata, Variable
from dgm_ray.models import Batch, MaskedAutoEncoder, build_architecture
from tests.conftest import components_of


def made(metadata: Metadata, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return build_architecture(MaskedAutoEncoder, components_of(MaskedAutoEncoder), {"metadata": metadata}, arguments)


def test_hidden_cells_are_not_seen_and_missing_cells_are_not_told(md7: Metadata, rows7: Any) -> None:
    rows, missing = torch.from_numpy(rows7), torch.zeros(120, 13)
    missing[::3, 0] = missing[::4, 3:6] = 1
    model = made(md7, hide_probability=0.5).model
    seen: list[Any] = []
    model.autoencoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))

    def loss(features: Any) -> Any:
        torch.manual_seed(1)
        return model.train().loss(Batch(features, missing))

    first = loss(rows)
    features, mask = seen[0]
    hidden = (mask != 0) & (missing == 0)
    assert 0.4 < hidden.float().mean() < 0.5, "half of the observed variables"
    assert (mask[missing != 0] == 1).all()
    assert not features[hidden].any()
    for variable in md7.slices:
        assert (mask[:, variable] == mask[:, variable.start : variable.start + 1]).all(), "whole variables"
    model = made(md7, hide_probability=0.5).model
    assert torch.equal(first, loss(torch.where(missing != 0, 9.0, rows))), "a missing cell's filling is no target"
    model = made(md7, hide_probability=0.5).model
    changed = torch.where(hidden, 1 - rows, rows)
    assert not torch.equal(first, loss(changed)), "a hidden cell is"


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_the_loss_is_that_of_hidden_cells_and_of_shown_ones(weight: float, rows7: Any) -> None:
    metadata = Metadata((Variable("a", "numerical", 1), Variable("b", "numerical", 1)))
    rows, missing = torch.from_numpy(rows7[:, [0, 6]].copy()), torch.zeros(120, 2)
    missing[::3, 0] = 1
    model = made(metadata, hide_probability=0.4, seen_weight=weight).model.train()
    calls: list[Any] = []
    model.autoencoder.register_forward_hook(lambda _, inputs, outputs: calls.append((inputs[1], outputs)))
    loss = model.loss(Batch(rows, missing))
    mask, told = (one.detach().numpy() for one in calls[0])
    errors, hidden = (told - rows.numpy()) ** 2, (mask != 0) & (missing.numpy() == 0)
    expected = errors[hidden].mean() + weight * errors[mask == 0].mean()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)


def test_it_learns_what_others_tell(md7: Metadata) -> None:
    """A number that is the square of another, and a category that is its third, are told by it."""
    random = np.random.default_rng(0)
    rows = np.zeros((400, 13), np.float32)
    rows[:, 0] = random.random(400)
    rows[:, 6] = rows[:, 0] ** 2
    rows[np.arange(400), 3 + (rows[:, 0] * 2.999).astype(int)] = 1
    rows[np.arange(400), 7] = 1
    architecture = made(md7, hide_probability=0.3)
    from dgm_ray.training import Loop, TensorRows

    loop = Loop(architecture.model, architecture.phases, TensorRows(torch.from_numpy(rows)), 50, seed=0)
    for epoch in range(1, 61):
        loop(epoch)
    mask = torch.zeros(400, 13)
    mask[:, 6] = mask[:, 3:6] = 1
    with torch.no_grad():
        told = architecture.model.eval().impute(torch.from_numpy(rows) * (1 - mask), mask).numpy()
    assert np.sqrt(np.mean((told[:, 6] - rows[:, 6]) ** 2)) < 0.3 * rows[:, 6].std()
    assert (told[:, 3:6].argmax(1) == rows[:, 3:6].argmax(1)).mean() > 0.9
