"""What tests of trainings need: one of any model, on the toy table."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from dgm_ray.data import Prepared
from dgm_ray.evaluation import Evaluation, Seen
from dgm_ray.models import Architecture, AutoEncoder
from dgm_ray.nn import ZeroImputation
from dgm_ray.training import Loop, TensorRows, Training

Make = Callable[..., Architecture]
Start = Callable[..., Training]


@pytest.fixture
def start(make: Make, prepared7: Prepared) -> Start:
    """Start a training of a model on md7; ``scores`` are what it is said to measure, one after the other."""

    def begin(model: Any = AutoEncoder, scores: Iterable[float] | None = None, **options: Any) -> Training:
        made = make(model, seed=options.setdefault("seed", 0))
        measure: Any = Evaluation(Seen(prepared7.metadata, prepared7.validation, ZeroImputation(), torch.device("cpu")))
        if scores is not None:
            upcoming = iter(scores)

            def measure(model: nn.Module) -> dict[str, float]:
                return {"val_imputation_rmse": next(upcoming), "val_other": 1.0}

        rows = torch.from_numpy(prepared7.train.features)
        loop = Loop(made.model, made.phases, TensorRows(rows), 16, seed=options["seed"], imputation=ZeroImputation())
        options = {"epochs": 10, "metric": "val_imputation_rmse"} | options
        return Training(made, loop, measure, **options)

    return begin
