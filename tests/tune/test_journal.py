"""A study is cut short after any line of its journal, goes on, and ends as one that was left alone.

Ray's schedulers and searches, our journal, and a Tune that is played by hand: no process, no training.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.errors import StudyError
from dgm_ray.training import write_checkpoint
from dgm_ray.tune.journal import Decisions
from dgm_ray.tune.kept import Collector, trial_name
from dgm_ray.tune.outcomes import Outcome, number_of, outcome_of
from dgm_ray.tune.proposals import Proposals
from dgm_ray.tune.schedulers import ASHA, FIFO, HyperBand, MedianStopping, Scheduler
from dgm_ray.tune.search import param_space
from dgm_ray.tune.settings import OptunaSearch, RandomSearch, Search
from dgm_ray.tune.study import Study
from dgm_ray.tune.trial import CHECKPOINT, Trial

Write = Callable[[dict[str, Any]], Path]
EPOCHS, METRIC = 9, "val_imputation_rmse"
RUNNING, PAUSED, PENDING, TERMINATED = RayTrial.RUNNING, RayTrial.PAUSED, RayTrial.PENDING, RayTrial.TERMINATED


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps files in its session's folder, and there is no session."""
    monkeypatch.setattr(RayTrial, "init_local_path", lambda trial: None)
    monkeypatch.setattr(RayTrial, "error_file", None)


class Tune:
    """Plays Ray Tune: trials take turns, an epoch each, as many at a time as ``slots``.

    What a trial measures is a function of its values and its epoch. dies: the number of the trial whose process dies,
    and the epoch after which it does; it begins anew.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        scheduler: Scheduler,
        search: Search,
        *,
        samples: int = 9,
        slots: int = 1,
        dies: tuple[int, int] | None = None,
    ) -> None:
        self.scheduler, self.trials, self._slots, self._dies = scheduler.make(study.plan, EPOCHS), [], slots, dies
        self.decisions = Decisions(folder / "journal.jsonl")
        self.proposals = Proposals(
            search.make(METRIC, 3, study.first),
            self.scheduler,
            self.decisions,
            study.plan,
            Path,
            limit=None if scheduler.together else slots,
            changing=False,
        )
        space = param_space(study.plan)
        self.proposals.set_search_properties(None, None, space)
        named: dict[str, Any] = {"trial_name_creator": trial_name, "trial_dirname_creator": trial_name}
        experiment = Experiment(
            folder.name, Trial, config=space, num_samples=samples, storage_path=folder.parent, **named
        )
        self.epochs: dict[RayTrial, int] = {}
        self.trained: list[int] = []
        self.proposals.add_configurations([experiment])

    def run(self) -> dict[int, tuple[Any, ...]]:
        """Return the values, epochs, reason and score of each trial."""
        while True:
            while trial := self.proposals.next_trial():
                self.add(trial)
            running = [one for one in self.trials if one.status == RUNNING]
            while len(running) < self._slots and (chosen := self.scheduler.choose_trial_to_run(self)):
                chosen.set_status(RUNNING)
                running.append(chosen)
            if not running:
                break
            for trial in running:
                if trial.status == RUNNING:  # another may have stopped it
                    self.step(trial)
        assert self.proposals.is_finished()
        return {number_of(one): self.end_of(one) for one in self.trials}

    def end_of(self, trial: RayTrial) -> tuple[Any, ...]:
        assert trial.status in (TERMINATED, RayTrial.ERROR), (number_of(trial), trial.status)
        outcome = outcome_of(trial, METRIC, scheduler="it")
        return (outcome.values, outcome.epochs, outcome.reason, outcome.score, outcome.trial_id)

    def add(self, trial: RayTrial) -> None:
        if trial.placement_group_factory is None:
            trial.placement_group_factory = SimpleNamespace(bundles=[{"CPU": 1}])
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[RayTrial]:
        return self.trials

    def get_live_trials(self) -> list[RayTrial]:
        return [one for one in self.trials if not one.is_finished()]

    @property
    def search_alg(self) -> Proposals:
        return self.proposals

    def has_resources_for_trial(self, trial: RayTrial) -> bool:
        return True

    @property
    def trial_executor(self) -> "Tune":
        return self

    def step(self, trial: RayTrial) -> None:
        epoch = self.epochs[trial] = (self.epochs[trial] if trial in self.epochs else 0) + 1
        self.trained.append(number_of(trial))
        value = measured(trial.config, epoch)
        best = min(measured(trial.config, one) for one in range(1, epoch + 1))
        done = epoch == EPOCHS or (number_of(trial) % 4 == 3 and epoch == 5)  # some stop early
        result = {METRIC: value, f"best_{METRIC}": best, "epoch": epoch, "best_epoch": epoch, "seconds": epoch / 10}
        result |= {"schedule": [{"epoch": 1, "values": trial.config}], "reason": "epochs" if done else "", "done": done}
        result |= {"training_iteration": epoch}
        trial.run_metadata.last_result = result
        decision = "STOP" if done else self.scheduler.on_trial_result(self, trial, dict(result))
        if self._dies == (number_of(trial), epoch):
            self.kill(trial)
        elif decision == "STOP":
            result["done"] = True
            self.stop_trial(trial)
        elif decision == "PAUSE":
            trial.set_status(PAUSED)
        elif decision == "CONTINUE":
            self.proposals.on_trial_result(trial.trial_id, result)

    def kill(self, trial: RayTrial) -> None:
        self._dies, self.epochs[trial] = None, 0
        trial.run_metadata.num_failures += 1
        trial.set_status(RayTrial.ERROR)
        self.scheduler.on_trial_error(self, trial)
        trial.set_status(PENDING)
        self.scheduler.on_trial_add(self, trial)

    def stop_trial(self, trial: RayTrial) -> None:
        """As Ray's TuneController.stop_trial."""
        if trial.status in (PENDING, PAUSED):
            self.scheduler.on_trial_remove(self, trial)
            self.proposals.on_trial_complete(trial.trial_id)
            trial.last_result["done"] = True  # as Watch does
        else:
            self.scheduler.on_trial_complete(self, trial, dict(trial.last_result))
            self.proposals.on_trial_complete(trial.trial_id, result=dict(trial.last_result))
        trial.set_status(TERMINATED)


def measured(values: dict[str, Any], epoch: int) -> float:
    level = math.log10(values["lr"]) * 0.3 + values["code_size"] * 0.1 + values["batch_size"] / 100
    return level + math.cos(epoch * (1 + values["lr"] * 50)) / (3 + epoch)


def lines_of(folder: Path) -> list[str]:
    return (folder / "journal.jsonl").read_text().splitlines(keepends=True)


SEARCHES = [
    pytest.param(ASHA(1, 2), RandomSearch(), 1, id="ASHA, random"),
    pytest.param(ASHA(1, 2), OptunaSearch(startup_trials=3), 1, id="ASHA, Optuna"),
    pytest.param(MedianStopping(2, 2), RandomSearch(), 1, id="median, random"),
    pytest.param(MedianStopping(2, 2), OptunaSearch(startup_trials=3), 1, id="median, Optuna"),
    pytest.param(FIFO(), OptunaSearch(startup_trials=3), 1, id="FIFO, Optuna"),
    pytest.param(HyperBand(3), RandomSearch(), 2, id="HyperBand, random"),
]


@pytest.mark.parametrize(("scheduler", "search", "slots"), SEARCHES)
def test_a_study_that_is_cut_anywhere_ends_as_if_it_had_not_been(
    study: Study, tmp_path: Path, scheduler: Scheduler, search: Search, slots: int
) -> None:
    (tmp_path / "whole").mkdir()
    samples = 12 if scheduler.together else 9
    whole = Tune(study, tmp_path / "whole", scheduler, search, samples=samples, slots=slots).run()
    reasons = {end[2] for end in whole.values()}
    assert len(whole) == samples
    assert any("stopped" in reason for reason in reasons) or isinstance(scheduler, FIFO), "nothing was decided"
    written = lines_of(tmp_path / "whole")
    for cut in range(1, len(written), 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_text("".join(written[:cut]) + written[cut][: len(written[cut]) // 2])
        again = Tune(study, folder, scheduler, search, samples=samples, slots=slots)
        assert again.run() == whole, cut
        ended = {json.loads(line)["trial"] for line in written[:cut] if '"end"' in line}
        assert not ended & set(again.trained), "what had ended was trained again"


def test_what_is_trained_again_is_written_once(study: Study, tmp_path: Path) -> None:
    whole = Tune(study, tmp_path, ASHA(1, 2), RandomSearch()).run()
    written = lines_of(tmp_path)
    cut = next(index for index, line in enumerate(written) if '"trial": 2, "epoch": 4' in line)
    (tmp_path / "journal.jsonl").write_text("".join(written[: cut + 1]))
    again = Tune(study, tmp_path, ASHA(1, 2), RandomSearch())
    assert again.run() == whole
    assert lines_of(tmp_path) == written
    assert again.trained[:9] == [2] * 9, "from its beginning, because there is no checkpoint"


@pytest.mark.parametrize("scheduler", [ASHA(1, 2), MedianStopping(2, 2)])
def test_a_trial_whose_process_died_is_decided_as_if_it_had_not(
    study: Study, tmp_path: Path, scheduler: Scheduler
) -> None:
    folders = [tmp_path / name for name in ("whole", "died", "cut")]
    for folder in folders:
        folder.mkdir()
    whole = Tune(study, folders[0], scheduler, RandomSearch()).run()
    died = Tune(study, folders[1], scheduler, RandomSearch(), dies=(1, 4))
    assert died.run() == whole
    assert died.trained.count(1) > whole[1][1], "it was trained again"
    written = lines_of(folders[1])
    cut = next(index for index, line in enumerate(written) if '"again"' in line)
    (folders[2] / "journal.jsonl").write_text("".join(written[: cut + 1]))
    cut_short = Tune(study, folders[2], scheduler, RandomSearch())
    assert cut_short.run() == whole
    assert cut_short.trials[1].num_failures == 1


def test_hyperband_ends_whatever_dies(study: Study, tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert len(Tune(study, folder, HyperBand(3), RandomSearch(), samples=12, slots=2, dies=(number, 1)).run()) == 12
        written = lines_of(folder)
        for cut in range(5, len(written), 5):
            (folder / "journal.jsonl").write_text("".join(written[:cut]))
            assert len(Tune(study, folder, HyperBand(3), RandomSearch(), samples=12, slots=2).run()) == 12


@pytest.mark.parametrize("search", [RandomSearch(), OptunaSearch(startup_trials=3)])
def test_a_study_that_is_extended_is_the_longer_study(
    small: dict[str, Any], write: Write, tmp_path: Path, search: Search
) -> None:
    if isinstance(search, RandomSearch):
        small["trial"]["arguments"]["seed"] = {"grid_search": [0, 1]}
    study = Study.read(write(small))
    folders = [tmp_path / name for name in ("long", "short")]
    for folder in folders:
        folder.mkdir()
    long = Tune(study, folders[0], ASHA(1, 2), search, samples=8).run()
    short = Tune(study, folders[1], ASHA(1, 2), search, samples=3).run()
    assert len(short) < len(long) == (16 if isinstance(search, RandomSearch) else 8)
    assert short.items() <= long.items()
    longer = Tune(study, folders[1], ASHA(1, 2), search, samples=8)
    assert longer.run() == long
    assert not set(short) & set(longer.trained)


def test_a_journal_of_other_draws_is_refused(study: Study, tmp_path: Path) -> None:
    Tune(study, tmp_path, FIFO(), RandomSearch(), samples=2).run()
    path = tmp_path / "journal.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"code_size": ', '"code_size": 1'))
    with pytest.raises(StudyError, match="trial_0000 would be drawn otherwise by the versions of Ray and Optuna"):
        Tune(study, tmp_path, FIFO(), RandomSearch(), samples=2)
    path.write_text("".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(StudyError, match=r"journal\.jsonl: is damaged: something is missing before the line"):
        Tune(study, tmp_path, FIFO(), RandomSearch(), samples=2)


def save(folder: Path, number: int, index: int, values: dict[str, Any], epoch: int) -> Path:
    """Write a checkpoint of a trial."""
    path = folder / f"trial_{number:04d}" / f"checkpoint_{index:06d}" / CHECKPOINT
    state: dict[str, Any] = {"architecture": {}, "epoch": epoch, "reason": "", "seconds": 1.5}
    state |= {"best_measures": {METRIC: 0.25}, "best_epoch": epoch, "best_metric": 0.25}
    write_checkpoint(path, state | {"schedule": [{"epoch": 1, "values": values}]})
    return path


def cut_at(study: Study, folder: Path, words: str) -> tuple[dict[int, tuple[Any, ...]], int]:
    """Leave the journal of a study as it was when it had just written a line; return its end, and the line's trial."""
    whole = Tune(study, folder, ASHA(1, 2), RandomSearch()).run()
    written = lines_of(folder)
    found = next(index for index, line in enumerate(written) if words in line)
    (folder / "journal.jsonl").write_text("".join(written[: found + 1]))
    return whole, json.loads(written[found])["trial"]


def test_a_trial_goes_on_from_its_last_checkpoint_that_is_whole(study: Study, tmp_path: Path) -> None:
    whole, _ = cut_at(study, tmp_path, '"trial": 1, "epoch": 1')
    save(tmp_path, 1, 0, whole[1][0], 1)
    second = save(tmp_path, 1, 1, whole[1][0], 2)
    torn = save(tmp_path, 1, 2, whole[1][0], 3)
    torn.write_bytes(torn.read_bytes()[:100])
    resumed = Tune(study, tmp_path, ASHA(1, 2), RandomSearch())
    trials = [resumed.proposals.next_trial() for _ in range(2)]
    assert [one.status for one in trials] == [TERMINATED, PENDING]
    assert trials[1].checkpoint.path == str(second.parent)
    assert trials[1].storage.current_checkpoint_index == 2, "the next one is the fourth"
    outcome = outcome_of(trials[1], METRIC, scheduler="ASHA")
    assert (outcome.status, outcome.epochs, outcome.score) == ("interrupted", 2, 0.25)


def test_a_checkpoint_of_other_values_is_not_the_trials(study: Study, tmp_path: Path) -> None:
    whole, _ = cut_at(study, tmp_path, '"trial": 1, "epoch": 1')
    save(tmp_path, 1, 0, whole[1][0] | {"lr": 0.5}, 7)
    resumed = Tune(study, tmp_path, ASHA(1, 2), RandomSearch())
    trials = [resumed.proposals.next_trial() for _ in range(2)]
    assert trials[1].checkpoint is None
    assert trials[1].storage.current_checkpoint_index == 0, "what is there is not written over"


def test_a_trial_that_was_to_be_stopped_and_was_saved_has_ended(study: Study, tmp_path: Path) -> None:
    whole, number = cut_at(study, tmp_path, '"STOP"')
    save(tmp_path, number, 0, whole[number][0], whole[number][1])
    resumed = Tune(study, tmp_path, ASHA(1, 2), RandomSearch())
    assert resumed.run() == whole
    assert number not in resumed.trained
    shutil.rmtree(tmp_path / f"trial_{number:04d}")  # as of one that is not among the best
    again = Tune(study, tmp_path, ASHA(1, 2), RandomSearch())
    assert again.run() == whole
    assert not again.trained


def made(number: int, score: float, folder: Path, *, finished: bool = True, checkpoint: Path | None = None) -> Any:
    """Return what a Collector sees of a trial with two checkpoints on disk."""
    for index in range(2):
        (folder / f"trial_{number:04d}" / f"checkpoint_{index:06d}").mkdir(parents=True)
    path = checkpoint or folder / f"trial_{number:04d}" / "checkpoint_000001"
    return SimpleNamespace(
        experiment_tag=f"{number}_x",
        score=score,
        is_finished=lambda: finished,
        checkpoint=SimpleNamespace(path=str(path)),
        storage=SimpleNamespace(storage_filesystem=LocalFileSystem(), experiment_fs_path=str(folder)),
    )


class Hashed(SimpleNamespace):
    __hash__ = object.__hash__


def test_the_best_keep_their_checkpoints_and_those_that_another_needs(tmp_path: Path) -> None:
    def outcome(trial: Any) -> Outcome:
        return Outcome("", number_of(trial), {}, "failed" if math.isnan(trial.score) else "stopped", "", trial.score)

    def left() -> list[str]:
        return sorted({path.parent.name[-1] for path in tmp_path.glob("trial_*/checkpoint_*")})

    ended = [Hashed(**vars(made(n, score, tmp_path))) for n, score in enumerate((3.0, 2.0, math.nan, 1.0, 1.5))]
    copy = Hashed(
        **vars(made(5, 9.0, tmp_path, finished=False, checkpoint=tmp_path / "trial_0000" / "checkpoint_000001"))
    )
    collector = Collector(2, outcome)
    collector.on_step_begin(0, [*ended, copy])
    assert left() == ["0", "3", "4", "5"], "two of the best, what runs, and what it was given"
    assert [path.name for path in (tmp_path / "trial_0000").iterdir()] == ["checkpoint_000001"]
    copy.checkpoint = None
    collector.collect()
    assert left() == ["3", "4", "5"]
    assert [path.name for path in (tmp_path / "trial_0003").iterdir()] == ["checkpoint_000001"], "the last"
    assert len(list((tmp_path / "trial_0005").iterdir())) == 2, "of one that runs both"
