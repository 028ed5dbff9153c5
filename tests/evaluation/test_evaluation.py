from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dgm_ray.data import Prepared
from dgm_ray.evaluation import Evaluation, Seen, evaluation, measures_of
from dgm_ray.models import MODELS, Architecture, AutoEncoder
from dgm_ray.nn import ZeroImputation

Make = Callable[..., Architecture]
CPU = torch.device("cpu")
IMPUTATION = {"val_imputation_rmse", "val_imputation_mae"}
GENERATION = {"val_marginal_distance", "val_dimension_wise_rmse"}


def judge(prepared: Prepared, **options: Any) -> Evaluation:
    return Evaluation(Seen(prepared.metadata, prepared.validation, ZeroImputation(), CPU), **options)


class Imputer(nn.Module):
    """Proposes the same everywhere, and notes what it was given."""

    def __init__(self, proposal: float) -> None:
        super().__init__()
        self.proposal, self.seen = proposal, []

    def impute(self, features: Tensor, missing_mask: Tensor) -> Tensor:
        self.seen.append((features, missing_mask, torch.is_grad_enabled(), self.training))
        return torch.full_like(features, self.proposal)


class Sampler(nn.Module):
    """Repeats given rows."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows, self.asked = torch.from_numpy(rows), []

    def sample(self, rows: int, device: torch.device) -> Tensor:
        start = sum(self.asked)
        self.asked.append(rows)
        return self.rows[start : start + rows]


def test_an_imputer_sees_filled_rows_and_no_truth(prepared7: Prepared) -> None:
    model, scored = Imputer(1.0), prepared7.validation
    scores = judge(prepared7)(model)
    ((features, mask, gradients, training),) = model.seen
    assert not gradients
    assert not training
    assert np.array_equal(mask.numpy(), np.isnan(scored.features))
    assert np.array_equal(features.numpy(), np.nan_to_num(scored.features, nan=0.0)), "filled by the layer"
    assert scores.keys() == IMPUTATION
    # A proposal of 1 becomes 1 in binary cells and the first category in categorical ones.
    proposal = np.array([1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1])
    errors = (np.broadcast_to(proposal, scored.truth.shape) - scored.truth)[scored.hidden_mask]
    assert scores["val_imputation_rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert scores["val_imputation_mae"] == pytest.approx(np.abs(errors).mean())


def test_a_perfect_sampler_scores_zero(prepared7: Prepared) -> None:
    model = Sampler(prepared7.validation.truth)
    assert judge(prepared7, prefix="test")(model) == {"test_marginal_distance": 0, "test_dimension_wise_rmse": 0}
    assert model.asked == [len(prepared7.validation.truth)]


def test_a_model_that_can_do_neither_scores_nothing(prepared7: Prepared) -> None:
    assert judge(prepared7)(nn.Linear(1, 1)) == {}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_report_what_is_promised_and_stay_as_they_were(model: Any, make: Make, prepared7: Prepared) -> None:
    made = make(model).model
    before = {key: value.clone() for key, value in made.state_dict().items()}
    features = prepared7.validation.features.copy()
    made.train()
    scores = judge(prepared7)(made)
    assert list(scores) == measures_of(made)
    assert scores.keys() in (IMPUTATION, GENERATION, IMPUTATION | GENERATION)
    assert all(0 <= value < 10 for value in scores.values())
    assert not any(module.training for module in made.modules()), "whoever trains on says so"
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert np.array_equal(prepared7.validation.features, features, equal_nan=True)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_do_not_matter(chunk: int, make: Make, prepared7: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(AutoEncoder).model
    whole = judge(prepared7)(model)
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    assert judge(prepared7)(model) == pytest.approx(whole, rel=1e-6)
    assert judge(prepared7)(Sampler(prepared7.validation.truth)).keys() == GENERATION
    rows, sampler = len(prepared7.validation.truth), Sampler(prepared7.validation.truth)
    assert set(judge(prepared7)(sampler).values()) == {0}
    assert sum(sampler.asked) == rows
    assert max(sampler.asked) <= chunk
