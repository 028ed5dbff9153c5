"""The driver of lanes with workers that are played in this process: real trainings, no Ray that is started."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError
from ray.tune import CheckpointConfig
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.data import Prepared
from dgm_ray.training import read_checkpoint
from dgm_ray.training.lanes import Pack
from dgm_ray.tune.journal import Decisions
from dgm_ray.tune.kept import trial_name
from dgm_ray.tune.lanes.runner import Runner
from dgm_ray.tune.lanes.start import limits_of, shape_of
from dgm_ray.tune.lanes.worker import Worker
from dgm_ray.tune.observer import Observer
from dgm_ray.tune.outcomes import Outcome, number_of, outcome_of
from dgm_ray.tune.proposals import Proposals
from dgm_ray.tune.search import param_space
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import CHECKPOINT, Trial

METRIC = "val_imputation_rmse"
LR = [0.001, 0.003, 0.01, 0.03, 0.1]
ASHA = {"factory": "ASHA", "arguments": {"grace_period": 2, "reduction_factor": 2}}
Write = Callable[[dict[str, Any]], Path]


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps files in its session's folder, and there is no session."""

    def named(trial: RayTrial) -> None:
        trial.storage.trial_dir_name = trial_name(trial)

    monkeypatch.setattr(RayTrial, "init_local_path", named)
    monkeypatch.setattr(RayTrial, "local_path", None)
    monkeypatch.setattr(RayTrial, "error_file", None)
    monkeypatch.setattr(
        RayTrial,
        "create_placement_group_factory",
        lambda trial: setattr(trial, "placement_group_factory", SimpleNamespace(bundles=[{"CPU": 1}])),
    )


class Office:
    """Plays Ray: a worker works when its answer is waited for; who was asked first answers first.

    dies: tells of a call, by its method and its number, whether the process dies of it. asked: what was.
    """

    def __init__(self, make: Callable[[], Worker], dies: Callable[[str, int], bool]) -> None:
        self._make, self._dies, self._number = make, dies, count(1)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def start(self) -> Any:
        worker = self._make()
        names = ("ready", "train", "stop", "probe")
        return SimpleNamespace(**{name: SimpleNamespace(remote=partial(self._ask, worker, name)) for name in names})

    def wait(self, asked: list[Any], timeout: float, num_returns: int) -> tuple[list[Any], list[Any]]:
        return [min(asked, key=lambda one: one.args[0])], []

    def get(self, answer: Callable[[], Any]) -> Any:
        return answer()

    def kill(self, worker: Any) -> None:
        pass

    def _ask(self, worker: Worker, name: str, *given: Any, **more: Any) -> Any:
        self.asked.append((name, given))
        return partial(self._answer, next(self._number), worker, name, cloudpickle.dumps((given, more)))

    def _answer(self, number: int, worker: Worker, name: str, content: bytes) -> Any:
        if self._dies(name, number):
            raise ActorDiedError
        given, more = cloudpickle.loads(content)
        return cloudpickle.loads(cloudpickle.dumps(getattr(worker, name)(*given, **more)))


class Told(Observer):
    """What callbacks are told, by trial; sends itself SIGUSR1 at a step."""

    def __init__(self, stop: int = 0) -> None:
        super().__init__()
        self.by_trial: dict[int, list[str]] = {}
        self.trials: list[RayTrial] = []
        self.running = self.most = 0
        self._stop = stop

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self.trials = trials
        if self._stop and iteration == self._stop:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self._say(trial, "start")
        self.running += 1
        self.most = max(self.most, self.running)

    def on_trial_result(self, trial: RayTrial, result: dict[str, Any], **info: Any) -> None:
        self._say(trial, "result")

    def on_trial_end(self, trial: RayTrial) -> None:
        self._say(trial, "end")
        self.running -= 1

    def on_trial_recover(self, trial: RayTrial, **info: Any) -> None:
        self._say(trial, "again")
        self.running -= 1

    def _say(self, trial: RayTrial, what: str) -> None:
        self.by_trial.setdefault(number_of(trial), []).append(what)


class Found:
    """A study that was run. said: its lines."""

    def __init__(self, study: Study, data: Prepared, folder: Path, *, workers: int, dies: Any, stop: int) -> None:
        settings = study.settings
        self.told, self.said, self.decisions = Told(stop), list[str](), Decisions(folder / "journal.jsonl")
        self.decisions.begin()
        self.office = Office(lambda: Worker(study.plan, settings.scheduler, lambda: data), dies)
        made = settings.scheduler.make(study.plan, study.epochs)
        search = settings.search.make(METRIC, settings.seed, study.first)
        proposals = Proposals(search, made, self.decisions, study.plan, Path, limit=None, changing=False)
        named: dict[str, Any] = {"trial_name_creator": trial_name, "trial_dirname_creator": trial_name}
        experiment = Experiment(
            folder.name,
            Trial,
            config=param_space(study.plan),
            num_samples=settings.samples,
            storage_path=folder.parent,
            checkpoint_config=CheckpointConfig(num_to_keep=2, checkpoint_at_end=True),
            max_failures=settings.max_failures,
            **named,
        )
        with pytest.MonkeyPatch.context() as played:
            for name in ("wait", "get", "kill"):
                played.setattr(f"dgm_ray.tune.lanes.runner.ray.{name}", getattr(self.office, name))
            Runner(
                experiment,
                proposals,
                made,
                [self.told],
                limits_of(settings, workers),
                shape=partial(shape_of, study, data),
                start=self.office.start,
                tried=folder / "lanes.json",
                say=self.said.append,
            ).run()
        proposals.settle()

    @property
    def outcomes(self) -> dict[int, Outcome]:
        return {number_of(one): outcome_of(one, METRIC, scheduler="it") for one in self.told.trials}

    @property
    def reasons(self) -> set[str]:
        return {one.reason for one in self.outcomes.values()}

    @property
    def sizes(self) -> list[int]:
        """For how many trials a pack had room, whenever it began or changed."""
        return [given[1] for name, given in self.office.asked if name == "train" and given[0]]


@pytest.fixture
def grid(small: dict[str, Any]) -> dict[str, Any]:
    """Five learning rates and two sizes: ten trials of two shapes."""
    small["tune"] = {"samples": 1, "lanes": 4}
    arguments = small["trial"]["arguments"]
    arguments |= {"batch_size": 32, "epochs": 5}
    arguments["architecture"]["arguments"]["code_size"] = {"grid_search": [2, 4]}
    components = arguments["architecture"]["components"]
    components["autoencoder"]["arguments"]["encoder"] = {}
    components["autoencoder_optimizer"]["arguments"]["lr"] = {"grid_search": LR}
    return small


@pytest.fixture
def run(write: Write, data: Prepared, tmp_path: Path) -> Iterator[Callable[..., Found]]:
    def run(
        node: dict[str, Any],
        *,
        workers: int = 2,
        dies: Callable[[str, int], bool] = lambda name, number: False,
        stop: int = 0,
    ) -> Found:
        folder = tmp_path / "study"
        folder.mkdir(exist_ok=True)
        return Found(Study.read(write(node)), data, folder, workers=workers, dies=dies, stop=stop)

    return run


def test_all_trials_are_trained_and_callbacks_are_told_as_by_tune(grid: dict[str, Any], run: Any) -> None:
    found = run(grid)
    assert found.reasons == {"all epochs done"}
    assert set(found.outcomes) == set(range(10))
    for told in found.told.by_trial.values():
        assert (told[0], told[-1]) == ("start", "end")
        assert set(told[1:-1]) == {"result"}
    assert found.told.most <= 8
    for one in found.outcomes.values():
        assert one.checkpoint is not None
        assert read_checkpoint(Path(one.checkpoint) / CHECKPOINT)["epoch"] == 5
    assert any(one.lanes for one in found.outcomes.values())
    ends = [one["trial"] for one in found.decisions if "end" in one]
    assert sorted(ends) == list(range(10))


def test_trials_of_one_shape_are_spread_over_the_processes(grid: dict[str, Any], run: Any) -> None:
    grid["tune"] |= {"samples": 2, "lanes": 16}
    grid["trial"]["arguments"]["architecture"]["arguments"]["code_size"] = 2
    assert run(grid).sizes == [5, 5]


def test_no_more_run_than_tune_concurrent(grid: dict[str, Any], run: Any) -> None:
    grid["tune"]["concurrent"] = 1
    found = run(grid)
    assert found.told.most == 1
    assert len(found.outcomes) == 10
    assert sum(name == "ready" for name, _ in found.office.asked) == 1


def test_asha_stops_lanes_whose_places_others_take(grid: dict[str, Any], run: Any) -> None:
    grid["tune"]["scheduler"] = ASHA
    optimizer = grid["trial"]["arguments"]["architecture"]["components"]["autoencoder_optimizer"]
    optimizer["arguments"]["lr"] = {"grid_search": LR[::-1]}
    found = run(grid, workers=1)
    assert found.reasons > {"all epochs done"}
    for one in found.outcomes.values():
        assert read_checkpoint(Path(one.checkpoint) / CHECKPOINT)["epoch"] == one.epochs
        assert one.epochs in (2, 4, 5)
    assert any(one.lanes[0] == [1, 4, 0] for one in found.outcomes.values())
    decided = [(one["trial"], one["epoch"]) for one in found.decisions if "decision" in one]
    assert len(decided) == len(set(decided))
    assert sorted({epoch for _, epoch in decided}) == [1, 2, 3, 4]


def test_lanes_of_a_process_that_dies_go_on_with_another(grid: dict[str, Any], run: Any) -> None:
    deaths = iter([True])
    found = run(grid, workers=1, dies=lambda name, number: name == "train" and next(deaths, False))
    assert found.reasons == {"all epochs done"}
    again = [one["trial"] for one in found.decisions if "again" in one]
    assert len(again) == 4
    assert all(found.told.by_trial[number][:3] == ["start", "again", "start"] for number in again)


def test_lanes_of_a_process_that_dies_end_when_they_may_not_fail(grid: dict[str, Any], run: Any) -> None:
    grid["tune"]["max_failures"] = 0
    deaths = iter([True])
    found = run(grid, workers=1, dies=lambda name, number: name == "train" and next(deaths, False))
    reasons = [one.reason for one in found.outcomes.values()]
    assert reasons.count("failed: its process died") == 4
    assert reasons.count("all epochs done") == 6


def test_processes_that_do_not_come_up_do_not_hold_a_study_for_ever(grid: dict[str, Any], run: Any) -> None:
    found = run(grid, dies=lambda name, number: name == "ready")
    assert found.reasons == {"failed: its process died"}
    assert len(found.outcomes) == 10


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, rows: int) -> None:
    """Let packs of more rows fail after two epochs."""
    advance = Pack.advance

    def failing(pack: Pack) -> list[dict[str, float]]:
        if pack.rows > rows and pack.lanes[0].training.epoch == 2:
            raise error
        return advance(pack)

    monkeypatch.setattr(Pack, "advance", failing)


HALVED = "lanes: memory ran out, so trials of this shape are"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("2 TiB"), [f"{HALVED} {size} at a time now" for size in (1, 1, 2, 2)]),
        (ValueError("no"), ["lanes: trained one by one, because together they failed (ValueError: no)"]),
    ],
)
def test_a_pack_that_memory_is_too_small_for_is_halved_and_another_failure_parts_it(
    grid: dict[str, Any], run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: list[str]
) -> None:
    failing(monkeypatch, error, rows=1)
    found = run(grid, workers=1)
    assert found.reasons == {"all epochs done"}
    assert sorted(found.said) == said
    assert not any("again" in told for told in found.told.by_trial.values()), "it is no failure of a trial"


def test_a_single_trial_that_memory_is_too_small_for_ends(
    grid: dict[str, Any], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, MemoryError("2 TiB"), rows=0)
    assert run(grid, workers=1).reasons == {"oom: MemoryError: 2 TiB"}


def test_a_study_that_is_stopped_goes_on(
    grid: dict[str, Any], run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.REPORT_SECONDS", 0.0)  # an epoch a step
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.CHECKPOINT_SECONDS", 0.0)
    grid["tune"]["scheduler"] = ASHA
    whole = run(grid, workers=1).outcomes
    for cut in (4, 9):
        shutil.rmtree(tmp_path / "study")
        first = run(grid, workers=1, stop=cut)
        assert "the study was stopped first" in first.reasons
        second = run(grid, workers=1)
        assert {number: one.epochs for number, one in second.outcomes.items()} == {
            number: one.epochs for number, one in whole.items()
        }
        for number, one in second.outcomes.items():
            assert one.score == pytest.approx(whole[number].score, rel=1e-3)


def test_optuna_is_asked_for_places_that_are_free(grid: dict[str, Any], run: Any) -> None:
    components = grid["trial"]["arguments"]["architecture"]["components"]
    components["autoencoder_optimizer"]["arguments"]["lr"] = {"loguniform": [1e-3, 1e-1]}
    grid["trial"]["arguments"]["architecture"]["arguments"]["code_size"] = {"choice": [2, 4]}
    search = {"factory": "OptunaSearch", "arguments": {"startup_trials": 4}}
    grid["tune"] |= {"samples": 10, "lanes": 3, "search": search}
    found = run(grid, workers=1)
    assert len(found.outcomes) == 10
    there = most = 0
    for one in found.decisions:
        there += ("values" in one) - ("end" in one)
        most = max(most, there)
    assert most <= 6, "three that run, and three that wait for a pack of their shape"


def test_auto_tries_each_shape_out_once(grid: dict[str, Any], run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grid["tune"]["lanes"] = "auto"
    monkeypatch.setattr(Worker, "probe", lambda worker, *given: 3)
    found = run(grid)
    assert found.reasons == {"all epochs done"}
    assert sum(name == "probe" for name, _ in found.office.asked) == 2
    assert max(found.sizes) == 3
