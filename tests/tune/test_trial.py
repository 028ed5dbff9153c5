"""A trial outside of Ray: what Tune calls, called by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.tune.shares import OutOfShareError, device_index, take_gpu
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import CHECKPOINT, Trial

VALUES = {"batch_size": 16, "code_size": 2, "sizes": "[]", "lr": 0.01}


def trial(study: Study, data: Prepared, **values: Any) -> Trial:
    made = Trial.__new__(Trial)
    made.config = VALUES | values
    made.setup(made.config, study.plan, lambda: data)
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


def breaking(error: Exception) -> Any:
    def advance(self: Any) -> dict[str, float]:
        raise error

    return advance


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to\nallocate 2 GiB"),
        MemoryError("Unable to allocate 2 TiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_trial_whose_memory_runs_out_ends_with_its_reason_and_the_process_goes_on(
    study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("dgm_ray.training.Training.advance", breaking(error))
        made = trial(study, data)
        (result,) = run(made)
    assert result["reason"] == f"oom: {type(error).__name__}: {' '.join(str(error).split())}"
    assert result["done"]
    assert run(again(made))[-1]["reason"] == "epochs"


@pytest.mark.parametrize(
    ("given", "has", "raises"),
    [(0.25, 0.25, True), (0.25, 0.5, False), (0.75, 0.75, True), (1.0, 1.0, False), (2.0, 2.0, False)],
)
def test_a_share_of_a_gpu_that_is_too_small_is_enlarged_once(
    study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch, given: float, has: float, raises: bool
) -> None:
    """given: to every trial. has: this one. A whole GPU cannot be enlarged."""
    monkeypatch.setattr("dgm_ray.training.Training.advance", breaking(torch.cuda.OutOfMemoryError("CUDA: 2 GiB")))
    taken: list[float] = []
    monkeypatch.setattr("dgm_ray.tune.trial.take_gpu", taken.append)
    made = trial(study, data)
    made._gpu = given
    made._trial_info = SimpleNamespace(trial_resources=SimpleNamespace(bundles=[{"CPU": 1, "GPU": has}]))
    if raises:
        with pytest.raises(OutOfShareError, match="CUDA: 2 GiB"):
            made.step()
    else:
        assert made.step()["reason"] == "oom: OutOfMemoryError: CUDA: 2 GiB"
    assert taken == [has]


def test_memory_of_the_node_is_not_enlarged_by_a_larger_share_of_a_gpu(
    study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgm_ray.training.Training.advance", breaking(MemoryError("2 TiB")))
    monkeypatch.setattr("dgm_ray.tune.trial.take_gpu", float)
    made = trial(study, data)
    made._gpu = 0.25
    made._trial_info = SimpleNamespace(trial_resources=SimpleNamespace(bundles=[{"GPU": 0.25}]))
    assert made.step()["reason"] == "oom: MemoryError: 2 TiB"


@pytest.mark.parametrize(
    ("assigned", "visible", "index"), [("3", None, 3), ("3", "3", 0), ("3", "1, 3", 1), ("GPU-b", "GPU-a,GPU-b", 1)]
)
def test_a_gpu_has_the_number_that_cuda_gives_it(assigned: str, visible: str | None, index: int) -> None:
    assert device_index(assigned, visible) == index


def test_a_trial_takes_the_gpu_that_ray_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr("ray.get_gpu_ids", lambda: ["7"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", lambda *given: calls.append(given))
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda *given: calls.append(given))
    take_gpu(0.25)
    assert calls == [(1,), (0.25, 1)]


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


def test_a_trial_that_had_ended_reports_its_end_and_trains_no_more(
    study: Study, data: Prepared, tmp_path: Path
) -> None:
    first = trial(study, data)
    whole = run(first)
    first.save_checkpoint(str(tmp_path))
    second = trial(study, data)
    second.load_checkpoint(str(tmp_path))
    (end,) = run(second)
    assert end == whole[-1] | {"history": []}


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
    assert made._progress.training is not None
    assert made._progress.training.loop.rows.features.data_ptr() == data.train.features.ctypes.data


@pytest.mark.parametrize("name", ["threads", "device"])
def test_a_configuration_says_on_what_it_ran(study: Study, name: str) -> None:
    assert name in study.plan.configuration(VALUES)["arguments"]
