import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dgm_ray.nn.entropies import binary_cross_entropies, cross_entropies

UNIT = st.floats(0.001, 0.999)


@given(UNIT, st.floats(0, 1))
def test_binary_is_torchs_with_its_gradient(probability: float, target: float) -> None:
    results = []
    for own in (True, False):
        p, t = torch.tensor([probability], requires_grad=True), torch.tensor([target])
        loss = binary_cross_entropies(p, t) if own else F.binary_cross_entropy(p, t, reduction="none")
        loss.sum().backward()
        assert p.grad is not None
        results += [loss.detach(), p.grad]
    torch.testing.assert_close(results[:2], results[2:], rtol=1e-4, atol=1e-4)


@given(UNIT, st.floats(0, 1))
def test_cross_entropy_is_by_hand(probability: float, target: float) -> None:
    value = cross_entropies(torch.tensor(probability), torch.tensor(target)).item()
    assert value == pytest.approx(-target * np.log(probability), abs=1e-6)


@pytest.mark.parametrize(("logit", "target", "loss"), [(-200.0, 1.0, 41.4465), (200.0, 0.0, 41.4465), (200.0, 1.0, 0)])
def test_saturated_predictions_are_finite(logit: float, target: float, loss: float) -> None:
    logits = torch.tensor([logit], requires_grad=True)
    value = binary_cross_entropies(logits.sigmoid(), torch.tensor([target]))
    value.sum().backward()
    assert value.item() == pytest.approx(loss, abs=1e-3)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
