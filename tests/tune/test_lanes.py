"""Lanes outside of Ray: who is trained with whom, when a decision is waited for, and what a worker reports."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.training import Training, read_checkpoint
from dgm_ray.training.lanes import Pack
from dgm_ray.tune.lanes.packing import Waiting, largest, resized, size_of
from dgm_ray.tune.lanes.worker import Begin, Report, Trained, Worker
from dgm_ray.tune.ray_schedulers import Halving
from dgm_ray.tune.schedulers import ASHA, FIFO, MedianStopping, Scheduler
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import CHECKPOINT, Trial

LR = [0.003, 0.01, 0.03, 0.1]


def test_what_waits_is_taken_in_its_order_by_shape() -> None:
    waiting: Waiting[int] = Waiting()
    for number in range(6):
        waiting.add("odd" if number % 2 else "even", number)
    assert waiting.counts == {"even": 3, "odd": 3}
    assert waiting.take("even", 2) == [0, 2]
    waiting.add_first("even", [0, 2])
    assert list(waiting) == [1, 3, 5, 0, 2, 4]
    assert waiting.take("even", 9) == [0, 2, 4]
    assert waiting.take("even", 9) == waiting.take("odd", 0) == []
    assert len(waiting) == 3


@pytest.mark.parametrize(
    ("counts", "workers", "most", "shape", "size"),
    [
        ({"a": 24}, 2, 16, "a", 12),  # not 16 and 8
        ({"a": 40}, 2, 16, "a", 16),
        ({"a": 1}, 2, 16, "a", 1),
        ({"a": 12, "b": 12}, 2, 16, "a", 12),  # a shape a worker
        ({"a": 4, "b": 5, "c": 4}, 2, 16, "b", 5),
        ({"a": 1, "b": 20}, 2, 16, "b", 10),
        ({"a": 24}, 1, 16, "a", 16),
        ({"a": 7}, 3, 2, "a", 2),
    ],
)
def test_a_new_pack_has_its_share_of_the_shape_that_most_wait_of(
    counts: dict[str, int], workers: int, most: int, shape: str, size: int
) -> None:
    assert largest(counts) == shape
    assert size_of(shape, counts, workers, most) == size


@pytest.mark.parametrize(
    ("size", "live", "waiting", "becomes"),
    [
        (16, 16, 0, 16),
        (16, 9, 0, 16),
        (16, 8, 0, 8),
        (16, 3, 0, 4),  # halved as often as it may be
        (12, 1, 0, 1),
        (5, 2, 0, 3),
        (8, 2, 3, 8),  # others come in
        (4, 4, 3, 4),
        (4, 4, 4, 8),  # so many wait that tracing anew pays
        (12, 12, 99, 16),
        (1, 1, 0, 1),
    ],
)
def test_a_pack_seldom_changes_its_size(size: int, live: int, waiting: int, becomes: int) -> None:
    assert resized(size, live, waiting, 16) == becomes


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize(("grace", "factor"), [(1, 3), (2, 2), (1, 1.3), (4, 2.5)])
def test_asha_decides_when_it_would_without_lanes(every: int, grace: int, factor: float, study: Study) -> None:
    """A report counts where it stands on a rung that the trial had not reached; Ray's own table is looked at."""
    asha = ASHA(grace, factor)
    table: Any = asha.make(study.plan, 40)
    assert isinstance(table, Halving)
    trial: Any = SimpleNamespace(trial_id="0")
    (bracket,) = table._brackets
    decided = 0
    for epoch in range(every, 41, every):
        before = sum(len(recorded) for _, recorded in bracket._rungs)
        bracket.on_result(trial, epoch, -1.0)
        after = sum(len(recorded) for _, recorded in bracket._rungs)
        last = max(rung for rung, _ in bracket._rungs)
        if epoch < last:
            assert asha.decides(epoch, decided) == (after > before)
        decided += asha.decides(epoch, decided)


def test_median_stopping_decides_at_every_measure_and_fifo_never() -> None:
    assert [MedianStopping(grace_period=3).decides(epoch, 0) for epoch in range(1, 5)] == [False, False, True, True]
    assert not FIFO().decides(5, 0)


class Storage:
    """Where a trial's checkpoints go: Ray's needs Ray."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder, -1

    def _update_checkpoint_index(self, metrics: dict[str, Any]) -> None:
        self.index += 1

    def persist_current_checkpoint(self, checkpoint: Any) -> Any:
        target = self.folder / f"checkpoint_{self.index:06d}"
        target.mkdir(parents=True)
        (target / CHECKPOINT).write_bytes((Path(checkpoint.path) / CHECKPOINT).read_bytes())
        return type(checkpoint).from_directory(str(target))


@pytest.fixture(autouse=True)
def _in_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.REPORT_SECONDS", math.inf)


def values(index: int, **more: Any) -> dict[str, Any]:
    return {"batch_size": 16, "code_size": 2, "sizes": "[]", "lr": LR[index]} | more


def begin(folder: Path, *indices: int, checkpoint: Any = None, **more: Any) -> list[Begin]:
    return [Begin(str(one), values(one, **more), Storage(folder / str(one)), checkpoint) for one in indices]


def made(study: Study, data: Prepared, scheduler: Scheduler | None = None) -> Worker:
    return Worker(study.plan, scheduler or FIFO(), lambda: data)


def to_the_end(worker: Worker, first: Trained, places: int) -> dict[str, list[Report]]:
    """Return the reports of each trial."""
    found: dict[str, list[Report]] = {}
    trained = first
    while True:
        assert not trained.broken, trained.broken
        for report in trained.reports:
            found.setdefault(report.trial_id, []).append(report)
        if all(reports[-1].done for reports in found.values()):
            return found
        trained = worker.train([], places)


def scores(reports: list[Report]) -> list[float]:
    return [result["val_imputation_rmse"] for report in reports for result in report.results]


def alone(study: Study, data: Prepared, index: int) -> list[dict[str, Any]]:
    """Return what a trial reports that has a process to itself."""
    trial = Trial.__new__(Trial)
    trial.config = values(index)
    trial.setup(trial.config, study.plan, lambda: data)
    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())
    return results


def test_a_lane_reports_what_a_trial_alone_does(study: Study, data: Prepared, tmp_path: Path) -> None:
    worker = made(study, data)
    reports = to_the_end(worker, worker.train(begin(tmp_path, 0, 1, 2), 3), 3)
    for index in range(3):
        (report,) = reports[str(index)]
        own = alone(study, data, index)
        assert [result["epoch"] for result in report.results] == [result["epoch"] for result in own]
        assert set(report.results[-1]) == {*own[-1], "lanes"}
        assert scores([report]) == pytest.approx([result["val_imputation_rmse"] for result in own], rel=1e-4)
        assert report.results[-1]["lanes"] == [[1, 3, index]]
        assert [len(result["history"]) for result in report.results] == [1, 1, 1, 1]


def test_a_lane_is_saved_at_its_end_as_a_trial_alone_is(study: Study, data: Prepared, tmp_path: Path) -> None:
    worker = made(study, data)
    (report,) = to_the_end(worker, worker.train(begin(tmp_path, 0, 1), 2), 2)["1"]
    assert report.checkpoint is not None
    state = read_checkpoint(Path(report.checkpoint.path) / CHECKPOINT)
    assert state["epoch"] == 4
    assert state["schedule"] == [{"epoch": 1, "values": values(1)}]
    trial = Trial.__new__(Trial)
    trial.config = values(1)
    trial.setup(trial.config, study.plan, lambda: data)
    trial.load_checkpoint(report.checkpoint.path)
    again = trial.step()
    assert again["done"]
    assert again["best_val_imputation_rmse"] == report.results[-1]["best_val_imputation_rmse"]
    assert again["lanes"] == [[1, 2, 1]]


def test_a_worker_waits_for_decisions_and_a_stopped_lane_makes_room(
    study: Study, data: Prepared, tmp_path: Path
) -> None:
    worker = made(study, data, ASHA(grace_period=2, reduction_factor=2))
    first = worker.train(begin(tmp_path, 0, 1), 2)
    assert [(report.waits, report.results[-1]["epoch"]) for report in first.reports] == [(True, 2), (True, 2)]
    saved = worker.stop(["0"])["0"]
    assert saved is not None
    assert read_checkpoint(Path(saved.path) / CHECKPOINT)["epoch"] == 2
    second = worker.train(begin(tmp_path, 2), 2)
    assert {report.trial_id: report.results[-1]["epoch"] for report in second.reports} == {"1": 4, "2": 2}
    third = worker.train([], 2)
    assert third.reports[0].results[-1]["lanes"] == [[1, 2, 0]]
    (own,) = [report for report in second.reports if report.trial_id == "1"]
    assert own.results[-1]["lanes"] == [[1, 2, 1]], "its row is its own all along"
    expected = [result["val_imputation_rmse"] for result in alone(study, data, 2)]
    assert scores([second.reports[-1], *third.reports]) == pytest.approx(expected, rel=1e-4)


def test_a_pack_that_shrinks_goes_on(study: Study, data: Prepared, tmp_path: Path) -> None:
    worker = made(study, data, ASHA(grace_period=2, reduction_factor=2))
    worker.train(begin(tmp_path, 0, 1, 2, 3), 4)
    worker.stop(["0", "1", "2"])
    (report,) = worker.train([], 1).reports
    assert report.done
    assert report.results[-1]["lanes"] == [[1, 4, 3], [3, 1, 0]]


def test_a_configuration_that_cannot_start_does_not_disturb_the_others(
    study: Study, data: Prepared, tmp_path: Path
) -> None:
    worker = made(study, data)
    orders = [*begin(tmp_path, 0), *begin(tmp_path, 1, code_size="x"), *begin(tmp_path, 2)]
    reports = to_the_end(worker, worker.train(orders, 3), 3)
    assert reports["1"][-1].results[-1]["reason"].startswith("failed: ConfigurationError: ")
    assert reports["1"][-1].checkpoint is None
    assert [reports[one][-1].results[-1]["reason"] for one in "02"] == ["epochs", "epochs"]


@pytest.mark.parametrize(
    ("error", "oom"), [(MemoryError("2 TiB"), True), (torch.OutOfMemoryError("GPU"), True), (ValueError("no"), False)]
)
def test_a_pack_that_fails_is_forgotten_and_a_single_trial_ends(
    study: Study, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, oom: bool
) -> None:
    def advance(self: Any) -> list[dict[str, float]]:
        raise error

    worker = made(study, data)
    with monkeypatch.context() as broken:
        broken.setattr(Pack, "advance", advance)
        trained = worker.train(begin(tmp_path, 0, 1), 2)
        assert (trained.reports, trained.oom) == ([], oom)
        assert str(error) in trained.broken
        (report,) = worker.train(begin(tmp_path, 0), 1).reports
    assert report.results[-1]["reason"].startswith("oom: " if oom else "failed: ")
    reports = to_the_end(worker, worker.train(begin(tmp_path, 3), 1), 1)
    assert reports["3"][-1].results[-1]["reason"] == "epochs"


def test_seeds_are_lanes_of_their_trial(study: Study, data: Prepared, tmp_path: Path, small: Any, write: Any) -> None:
    small["tune"] = {"seeds": 2}
    several = Study.read(write(small))
    worker = made(several, data)
    reports = to_the_end(worker, worker.train(begin(tmp_path, 0, 1), 2), 2)
    own = alone(several, data, 1)
    result = reports["1"][-1].results[-1]
    for name in ("val_imputation_rmse", "val_imputation_rmse_std", "best_val_imputation_rmse"):
        assert result[name] == pytest.approx(own[-1][name], rel=1e-3)
    assert [one["lanes"] for one in result["by_seed"]] == [[[1, 4, 2]], [[1, 4, 3]]]
    assert "lanes" not in result


def test_what_cannot_be_a_lane_is_trained_by_itself(
    study: Study, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, calls = made(study, data), []
    advance = Training.advance
    monkeypatch.setattr(Training, "advance", lambda self: calls.append(self) or advance(self))
    worker.train(begin(tmp_path, 0), 1, alone=True)
    assert calls


def test_a_worker_tries_out_how_many_lanes_pay(study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 1.0, 2: 2.0, 4: 1.5, 8: 1.6, 16: 3.1, 32: 6.3, 64: 1.0}  # of an epoch of all
    monkeypatch.setattr(Pack, "probe", lambda self, cycles: seconds[self.rows])
    assert made(study, data).probe(values(0), 0.8) == 8
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.available_memory", lambda: 1000.0)
    held = iter([0.0, 100.0, 200.0, 450.0, 900.0])
    with monkeypatch.context() as small:
        small.setattr("dgm_ray.tune.lanes.worker._memory_held", lambda gpu: next(held))
        assert made(study, data).probe(values(0), 0.8) == 4, "8 would take 900 of 800"
    assert made(study, data).probe(values(0, code_size="x"), 0.8) == 1


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"lanes": 0}, "tune.lanes: Input should be greater than or equal to 1"),
        ({"lanes": "many"}, "tune.lanes: "),
        ({"lanes": 2, "scheduler": {"factory": "HyperBand"}}, "tune.lanes: does not go with HyperBand"),
        ({"lanes": 2, "resources": {"workers": 2}}, "tune.lanes: does not go with tune.resources.workers"),
    ],
)
def test_what_does_not_go_with_lanes_is_said(small: Any, write: Any, tune: dict[str, Any], said: str) -> None:
    small["tune"] = tune
    with pytest.raises(ConfigurationError, match=said):
        Study.read(write(small))


def test_draws_that_change_shapes_alone_give_packs_of_one_lane(small: Any, write: Any, data: Prepared) -> None:
    small["tune"] = {"lanes": 4}
    optimizer = small["trial"]["arguments"]["architecture"]["components"]["autoencoder_optimizer"]
    (line,) = Study.read(write(small)).rehearse(data).lanes
    assert line == ("lanes: at least 8 shapes (by batch_size, code_size, sizes); up to 4 trials of one train together")
    optimizer["arguments"]["lr"] = 0.01
    with pytest.raises(ConfigurationError, match=r"tune.lanes: every draw changes shapes, so each pack would have one"):
        Study.read(write(small)).rehearse(data)
    small["tune"]["seeds"] = 3
    assert Study.read(write(small)).rehearse(data).lanes


def test_more_lanes_than_fit_into_the_memory_are_refused(
    small: Any, write: Any, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.check.available_memory", lambda: 1_000_000)
    small["tune"] = {"lanes": 1000}
    with pytest.raises(ConfigurationError, match=r"tune.lanes: should be at most the \d+ that fit into the memory"):
        Study.read(write(small)).rehearse(data)
