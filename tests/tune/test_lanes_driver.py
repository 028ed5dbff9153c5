"""Studies with lanes in this process: with Ray's searchers and schedulers, but without its processes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.data import Prepared
from dgm_ray.tune.journal import Decisions
from dgm_ray.tune.kept import trial_name
from dgm_ray.tune.lanes import runner as module
from dgm_ray.tune.lanes.runner import Runner
from dgm_ray.tune.lanes.start import limits_of, shape_of
from dgm_ray.tune.lanes.worker import Worker
from dgm_ray.tune.outcomes import Outcome, outcome_of
from dgm_ray.tune.proposals import Proposals
from dgm_ray.tune.search import param_space
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import Trial

OPTUNA = {"factory": "OptunaSearch", "arguments": {"startup_trials": 2}}
ASHA = {"factory": "ASHA", "arguments": {"grace_period": 2, "reduction_factor": 2}}


@dataclass
class Told(tune.Callback):  # type: ignore[misc]
    """Notes what callbacks are told, and stops at the end of the study's step ``last``."""

    last: int = 10_000
    events: list[tuple[str, int]] = field(default_factory=list)
    trials: list[RayTrial] = field(default_factory=list)

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        self.trials = trials

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        if iteration >= self.last:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self.events.append(("start", int(trial.trial_id)))

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        assert trial.status == RayTrial.RUNNING, "as Tune does"
        self.events.append(("complete", int(trial.trial_id)))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self.events.append(("error", int(trial.trial_id)))

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        self.events.append(("recover", int(trial.trial_id)))


class Local:
    """A process of Ray's that is none: what it is asked is done at once. dies: in so many answers from now."""

    def __init__(self, worker: Worker, dies: int, error: RayError) -> None:
        self._worker, self._dies, self._error = worker, dies, error

    def __getattr__(self, name: str) -> Any:
        return self if name == "self" else _Remote(self, name)


@dataclass(frozen=True)
class _Remote:
    local: Local
    name: str

    def remote(self, *arguments: Any, **more: Any) -> Any:
        self.local._dies -= 1
        if self.local._dies == 0:
            return _Answer(self.local._error)
        return _Answer(getattr(self.local._worker, self.name)(*arguments, **more))


@dataclass(frozen=True, eq=False)
class _Answer:
    value: Any


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def get(answer: _Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    monkeypatch.setattr(module.ray, "wait", lambda asked, timeout, num_returns: (asked[:1], asked[1:]))
    monkeypatch.setattr(module.ray, "get", get)
    monkeypatch.setattr(module.ray, "kill", lambda actor: None)
    monkeypatch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: str(tmp_path / "session"))


@dataclass
class Ran:
    """What became of a study."""

    outcomes: list[Outcome]
    told: Told
    said: list[str]
    journal: list[dict[str, Any]]
    tried: Path

    @property
    def scores(self) -> list[float]:
        return [one.score for one in sorted(self.outcomes, key=lambda one: one.number)]


Run = Callable[..., Ran]


@pytest.fixture
def run(small: dict[str, Any], write: Callable[[dict[str, Any]], Path], tmp_path: Path) -> Run:
    components = small["trial"]["arguments"]["architecture"]["components"]
    components["autoencoder"]["arguments"]["encoder"]["hidden_layers"]["sizes"] = [8]
    small["trial"]["arguments"] |= {"epochs": 6, "batch_size": 32}
    small["tune"] = {"samples": 6, "lanes": 4, "max_failures": 1}
    prepared: list[Prepared] = []

    def run(name: str, *, dies: int = 0, error: RayError | None = None, last: int = 10_000, **settings: Any) -> Ran:
        study = Study.read(write({**small, "tune": {**small["tune"], **settings}}))
        data = prepared[0] if prepared else study.prepare()
        prepared[:] = [data]
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.rmtree(tmp_path / "session", ignore_errors=True)  # as if another process went on
        plan, own = study.plan, study.settings
        decisions = Decisions(tmp_path / name / "journal.jsonl")
        scheduler = own.scheduler.make(plan, study.epochs)
        search = own.search.make(plan.metric, own.seed, {})
        proposals = Proposals(search, scheduler, decisions, plan, Path, limit=own.concurrent, changing=False)
        experiment = Experiment(
            name,
            Trial,
            time_budget_s=own.time_budget,
            config=param_space(plan),
            num_samples=own.samples,
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=True),
            max_failures=own.max_failures,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
        )
        deaths = [dies]

        def start() -> Local:
            worker = Worker(plan, own.scheduler, lambda: data)
            return Local(worker, deaths.pop() if deaths else 0, error or RayActorError())

        told, said, tried = Told(last), [], tmp_path / name / "lanes.json"
        Runner(
            experiment,
            proposals,
            scheduler,
            [told],
            limits_of(own, 2),
            shape=partial(shape_of, study, data),
            start=start,
            tried=tried,
            say=said.append,
        ).run()
        proposals.settle()
        outcomes = [outcome_of(one, plan.metric, scheduler=type(own.scheduler).__name__) for one in told.trials]
        return Ran(outcomes, told, said, list(decisions), tried)

    return run


def statuses(ran: Ran) -> set[str]:
    return {one.status for one in ran.outcomes}


def test_every_trial_starts_and_ends_once_and_is_kept(run: Run) -> None:
    ran = run("whole")
    assert statuses(ran) == {"completed"}
    for kind in ("start", "complete"):
        assert sorted(number for event, number in ran.told.events if event == kind) == list(range(6))
    assert all(one.checkpoint for one in ran.outcomes)
    assert any(one.lanes for one in ran.outcomes)


def test_one_lane_finds_what_several_find(run: Run) -> None:
    alone = run("alone", lanes=2, samples=6, concurrent=1)
    assert all(not one.lanes for one in alone.outcomes), "one at a time"
    assert run("packs").scores == pytest.approx(alone.scores, rel=1e-3)


def test_asha_stops_at_rungs_by_one_table(run: Run) -> None:
    ran = run("asha", samples=12, scheduler=ASHA)
    assert {one.epochs for one in ran.outcomes} <= {2, 4, 6}
    assert statuses(ran) == {"completed", "stopped"}
    seen: dict[int, list[float]] = {2: [], 4: []}
    for one in ran.journal:
        if "decision" in one and one["epoch"] in seen:
            before = sorted(seen[one["epoch"]])
            half = len(before) // 2
            if len(before) > 2 and one["value"] > before[-1]:
                assert one["decision"] == "STOP"
            if before and one["value"] < before[max(half - 1, 0)]:
                assert one["decision"] == "CONTINUE"
            seen[one["epoch"]].append(one["value"])
    assert len(seen[2]) == 12


@pytest.mark.parametrize("scheduler", [{"factory": "FIFO"}, ASHA, {"factory": "MedianStopping"}])
def test_trials_of_a_process_that_died_are_started_again(run: Run, scheduler: dict[str, Any]) -> None:
    ran = run("died", dies=3, scheduler=scheduler)
    recovered = [number for event, number in ran.told.events if event == "recover"]
    assert recovered
    assert [one["trial"] for one in ran.journal if "again" in one] == recovered
    assert statuses(ran) <= {"completed", "stopped"}


def test_trials_that_may_not_fail_end_with_an_error(run: Run) -> None:
    ran = run("died", dies=3, max_failures=0)
    failed = [number for event, number in ran.told.events if event == "error"]
    assert failed
    assert sum(one.status == "failed" for one in ran.outcomes) == len(failed)
    assert sum(one.status == "completed" for one in ran.outcomes) == 6 - len(failed)


@pytest.mark.parametrize(
    ("error", "most", "said"),
    [(MemoryError("2 TiB"), 2, "memory ran out"), (RuntimeError("odd"), 1, "trained one by one")],
)
def test_a_pack_in_trouble_is_taken_apart(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, most: int, said: str
) -> None:
    from dgm_ray.training.lanes import Pack

    advance = Pack.advance

    def breaks(pack: Pack) -> list[dict[str, float]]:
        if pack.rows > most:
            raise error
        return advance(pack)

    monkeypatch.setattr(Pack, "advance", breaks)
    ran = run("trouble")
    assert statuses(ran) == {"completed"}
    assert any(said in line for line in ran.said)
    assert not any("again" in one for one in ran.journal), "it is no failure of a trial"


@pytest.mark.parametrize("search", [{"factory": "RandomSearch"}, OPTUNA], ids=["random", "Optuna"])
@pytest.mark.parametrize("scheduler", [{"factory": "FIFO"}, ASHA], ids=["FIFO", "ASHA"])
def test_a_study_that_was_stopped_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any], scheduler: dict[str, Any]
) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.REPORT_SECONDS", 1e-3)
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.CHECKPOINT_SECONDS", 0.0)
    settings = {"search": search, "scheduler": scheduler}
    cut = run("cut", last=5, **settings)
    assert "interrupted" in statuses(cut)
    before = cut.journal
    ran = run("cut", **settings)
    assert ran.journal[: len(before)] == before
    assert statuses(ran) <= {"completed", "stopped"}
    assert len(ran.outcomes) == 6
    ended = {one["trial"] for one in before if "end" in one}
    assert not ended & {number for event, number in ran.told.events if event == "start"}


def test_a_search_that_learns_is_asked_for_no_more_than_can_start(run: Run) -> None:
    ran = run("optuna", search=OPTUNA, samples=10, lanes=2)
    assert statuses(ran) == {"completed"}
    proposed = [index for index, one in enumerate(ran.journal) if "values" in one]
    ended = [index for index, one in enumerate(ran.journal) if "end" in one]
    assert proposed[4] > ended[0], "two processes with two rows each"


def test_seeds_are_lanes(run: Run) -> None:
    ran = run("seeds", seeds=3, samples=3)
    assert statuses(ran) == {"completed"}
    assert all(len(one.seeds) == 3 and one.best_seed["lanes"] for one in ran.outcomes)


def test_auto_is_found_for_each_shape_and_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.LANES", (1, 2))
    ran = run("auto", lanes="auto")
    assert statuses(ran) == {"completed"}
    assert set(json.loads(ran.tried.read_text()).values()) <= {1, 2}


def test_a_time_budget_ends_a_study(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.tune.lanes.worker.REPORT_SECONDS", 1e-3)
    ran = run("budget", time_budget=0.001)
    assert "interrupted" in statuses(ran)


def test_a_pack_for_which_a_node_had_no_memory_is_halved(run: Run) -> None:
    """Ray ends the process then; on Linux that comes before any allocation fails."""
    ran = run("low", dies=3, error=OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."))
    assert statuses(ran) == {"completed"}
    assert any("memory ran out" in line for line in ran.said)
    assert not any("again" in one for one in ran.journal), "it is no failure of a trial"
