"""A trial outside of Ray: what Tune calls, called by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import CHECKPOINT, Trial

VALUES = {"batch_size": 16, "code_size": 2, "sizes": "[]", "lr": 0.01}


def trial(study: Study, data: Prepared, **values: Any) -> Trial:
    made = Trial.__new__(Trial)
    made.config = VALUES | values
    made.setup(made.config, study.plan, data)
    return made


def again(made: Trial, **values: Any) -> Trial:
    made.config = VALUES | values
    assert made.reset_config(made.config)
    return made


def run(made: Trial) -> list[dict[str, Any]]:
    results = [made.step()]
    while not results[-1]["done"]:
        results.append(made.step())
    return results


def scores(results: list[dict[str, Any]]) -> list[float]:
    return [result["best_val_imputation_rmse"] for result in results]


def test_a_trial_reports_every_epoch_and_ends(study: Study, data: Prepared) -> None:
    results = run(trial(study, data))
    assert [result["epoch"] for result in results] == [1, 2, 3, 4]
    assert [result["reason"] for result in results] == ["", "", "", "epochs"]
    assert [len(result["history"]) for result in results] == [1, 1, 1, 1]
    assert results[-1]["best_val_imputation_rmse"] == min(result["val_imputation_rmse"] for result in results)


def test_a_step_goes_to_the_next_measure(study: Study, data: Prepared) -> None:
    study.plan.template["arguments"]["evaluate_every"] = 3
    results = run(trial(study, data))
    assert [result["epoch"] for result in results] == [3, 4]
    assert [[epoch["epoch"] for epoch in result["history"]] for result in results] == [[1, 2, 3], [4]]
    assert all("autoencoder_loss" in epoch for result in results for epoch in result["history"])


def test_a_process_that_is_used_again_remembers_nothing(study: Study, data: Prepared) -> None:
    fresh = scores(run(trial(study, data, lr=0.05)))
    used = trial(study, data, code_size=4)
    run(used)
    assert scores(run(again(used, lr=0.05))) == fresh


def test_a_trial_that_fails_ends_with_its_reason_and_the_process_goes_on(study: Study, data: Prepared) -> None:
    study.plan.template["arguments"]["batch_size"] = 10_000
    broken = trial(study, data)
    (result,) = run(broken)
    assert result["reason"].startswith("failed: ConfigurationError: batch_size: should be at most the")
    assert "Traceback" in result["trace"]
    assert math.isnan(result["best_val_imputation_rmse"])
    study.plan.template["arguments"]["batch_size"] = 16
    assert run(again(broken))[-1]["reason"] == "epochs"


def test_a_trial_that_diverges_ends_with_its_reason(study: Study, data: Prepared) -> None:
    components = study.plan.template["arguments"]["architecture"]["components"]
    components["autoencoder"]["arguments"]["decoder"] = {}  # without bounds
    results = run(trial(study, data, lr=1e30))
    assert results[-1]["reason"].startswith("diverged: autoencoder_loss is ")


def test_a_saved_trial_goes_on_where_it_was(study: Study, data: Prepared, tmp_path: Path) -> None:
    whole = run(trial(study, data))
    first = trial(study, data)
    first.step()
    first.step()
    first.save_checkpoint(str(tmp_path))
    second = trial(study, data)
    second.load_checkpoint(str(tmp_path))
    assert scores(run(second)) == scores(whole)[2:]


def test_a_checkpoint_says_what_it_is(study: Study, data: Prepared, tmp_path: Path) -> None:
    made = trial(study, data)
    made.step()
    made.save_checkpoint(str(tmp_path))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert json.loads(state["configuration"]) == study.plan.configuration(VALUES)
    assert state["versions"]["torch"] == torch.__version__
    assert state["best_measures"]["val_imputation_rmse"] == state["best_metric"]


def test_the_table_is_not_copied(study: Study, data: Prepared) -> None:
    """Ray hands over arrays that cannot be written; the tensors of a trial stand on the same memory."""
    for array in (data.train.features, data.means_and_modes, data.validation.features, data.validation.truth):
        array.setflags(write=False)
    made = trial(study, data)
    made.step()
    assert made._training is not None
    assert made._training._loop._features.data_ptr() == data.train.features.ctypes.data


@pytest.mark.parametrize("name", ["threads", "device"])
def test_a_configuration_says_on_what_it_ran(study: Study, name: str) -> None:
    assert name in study.plan.configuration(VALUES)["arguments"]
