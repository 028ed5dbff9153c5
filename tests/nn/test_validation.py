from typing import Any

import numpy as np
import pytest
import torch

from dgm_ray.data import Metadata, MinMaxScaler
from dgm_ray.nn import MSE, RMSE, ValidationImputationLoss, ValidationReconstructionLoss


def test_defect_23_discretised_as_the_contract_or_not(md7: Metadata) -> None:
    """9.3: predictions of .6 against features of .4; binary 1 against 0, categories equal, numbers .2 apart."""
    made, features = torch.full((2, 13), 0.6), torch.full((2, 13), 0.4)
    loss = ValidationReconstructionLoss(md7, RMSE())(made, features, features, torch.zeros(2, 13))
    assert loss.item() == pytest.approx(0.4867474, rel=1e-6)
    soft = ValidationReconstructionLoss(md7, RMSE(), discretize=False)(made, features, features, torch.zeros(2, 13))
    assert soft.item() == pytest.approx(0.2, rel=1e-5)


def test_the_scaler_gives_the_users_units(md7: Metadata) -> None:
    minimum, maximum = np.zeros(13), np.ones(13)
    maximum[0] = 11.0
    scaler = MinMaxScaler(minimum, maximum)
    made, features = torch.zeros(2, 13), torch.zeros(2, 13)
    made[:, 0] = 0.5
    args = (made, features, features, torch.zeros(2, 13))
    scaled = ValidationReconstructionLoss(md7, MSE("sum"))(*args).item()
    original = ValidationReconstructionLoss(md7, MSE("sum"), scaler)(*args).item()
    assert (scaled, original) == (pytest.approx(2 * 0.25), pytest.approx(2 * 5.5**2))


@pytest.mark.parametrize(("all_cells", "cells"), [(False, 4), (True, 26)])
def test_defect_19_imputation_is_judged_by_missing_cells(md7: Metadata, all_cells: bool, cells: int) -> None:
    truth, made, mask = torch.zeros(2, 13), torch.full((2, 13), 0.3), torch.zeros(2, 13)
    truth[:, 3] = truth[:, 7] = 1
    mask[:, 0] = mask[:, 6] = 1  # the numericals
    loss = ValidationImputationLoss(md7, MSE(), all_cells=all_cells)
    assert loss(made, truth, truth, mask).item() == pytest.approx(4 * 0.09 / cells, rel=1e-5)


def test_cells_without_a_known_truth_do_not_count(md7: Metadata) -> None:
    truth, made, mask = torch.zeros(2, 13), torch.full((2, 13), 0.3), torch.zeros(2, 13)
    mask[:, 0] = 1
    truth[0, 0] = torch.nan
    assert ValidationImputationLoss(md7, MSE())(made, truth, truth, mask).item() == pytest.approx(0.09, rel=1e-5)


@pytest.mark.parametrize("loss", [ValidationReconstructionLoss, ValidationImputationLoss])
def test_defect_20_what_is_judged_is_not_changed(md7: Metadata, loss: Any) -> None:
    given = [torch.full((2, 13), value) for value in (0.6, 0.4, 0.4, 1.0)]
    before = [one.clone() for one in given]
    loss(md7, RMSE())(*given)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))
