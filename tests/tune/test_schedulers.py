"""Who stops or changes trials: what is refused, what Ray's parts do with our trials, and a study of each."""

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from ray.tune.schedulers import HyperBandScheduler as RayHyperBand

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.space import Draw
from dgm_ray.tune.console import said_schedule
from dgm_ray.tune.outcomes import changes
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.schedulers import PB2, PBT, HyperBand, _within
from dgm_ray.tune.study import Study

from .conftest import Command, stopped
from .test_command import runs_of
from .test_trial import again, run, trial

Write = Callable[[dict[str, Any]], Path]


def checked(path: Path, scheduler: str, *assignments: str, samples: int = 4) -> Study:
    study = Study.read(path, [f"tune.scheduler={scheduler}", *assignments], samples=samples)
    study.rehearse(study.prepare())
    return study


MUTATIONS = "tune.scheduler.arguments.mutations"
ONE_OPTIMIZER = "trial.arguments.architecture.components.autoencoder_optimizer"


@pytest.mark.parametrize(
    ("scheduler", "assignment", "said"),
    [
        ("{factory: HyperBand, arguments: {reduction_factor: 5}}", "", "should be at most the 4 epochs of a trial"),
        ("{factory: HyperBand, arguments: {reduction_factor: 1}}", "", "reduction_factor: should be above 1, not 1"),
        ("{factory: HyperBand}", "tune.concurrent=2", "tune.concurrent: HyperBand lets all its 4 trials take turns"),
        ("{factory: HyperBand}", "tune.search={factory: OptunaSearch}", "tune.search: HyperBand starts with all its"),
        ("{factory: MedianStopping, arguments: {grace_period: 4}}", "", "grace_period: should be below the 4 epochs"),
        ("{factory: MedianStopping, arguments: {min_samples: 4}}", "", "min_samples: should be below the number of"),
        ("{factory: PBT}", "", "tune.scheduler.arguments: PBT needs the argument 'mutations'"),
        (
            "{factory: PBT, arguments: {mutations: [], perturbation_interval: 1}}",
            "",
            f"{MUTATIONS}: should name a draw, not []",
        ),
        (
            "{factory: PBT, arguments: {mutations: [lrr], perturbation_interval: 1}}",
            "",
            f"{MUTATIONS}.0: there is no draw 'lrr'; did you mean 'lr'?",
        ),
        (
            "{factory: PBT, arguments: {mutations: [lr, code_size], perturbation_interval: 1}}",
            "",
            f"{MUTATIONS}.1: code_size cannot change while a trial runs",
        ),
        (
            "{factory: PBT, arguments: {mutations: [trial.arguments.batch_size, factory], perturbation_interval: 1}}",
            f"{ONE_OPTIMIZER}.factory={{choice: [Adam, SGD]}}",
            f"{MUTATIONS}.1: factory cannot change while a trial runs",
        ),
        (
            "{factory: PBT, arguments: {mutations: [seed], perturbation_interval: 1}}",
            "trial.arguments.seed={grid_search: [1, 2]}",
            f"{MUTATIONS}.0: seed is a grid",
        ),
        ("{factory: PBT, arguments: {mutations: [lr]}}", "", "perturbation_interval: should be below the 4 epochs"),
        ("{factory: PBT, arguments: {mutations: [lr], quantile_fraction: 0.6}}", "", "less than or equal to 0.5"),
        (
            "{factory: PB2, arguments: {mutations: [batch_size], perturbation_interval: 1}}",
            "",
            f"{MUTATIONS}.0: PB2 needs a range of numbers, which batch_size is not",
        ),
    ],
)
def test_a_mistake_is_one_line(small: dict[str, Any], write: Write, scheduler: str, assignment: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(write(small), scheduler, *filter(None, [assignment]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_population_has_two_trials_at_least(small: dict[str, Any], write: Write) -> None:
    with pytest.raises(ConfigurationError, match="trials that copy each other are at least 2, not 1"):
        checked(write(small), "{factory: PBT, arguments: {mutations: [lr], perturbation_interval: 1}}", samples=1)


def test_a_shape_that_another_draw_hides_is_found(small: dict[str, Any], write: Write) -> None:
    """Batch normalisation has weights only where there are hidden layers, which the first corner has none of."""
    hidden = small["trial"]["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]["encoder"]
    hidden["hidden_layers"]["sizes"] = {"choice": [[], [8, 8]]}
    hidden["hidden_layers"]["bn_decay"] = {"choice": [0.0, 0.5]}
    with pytest.raises(ConfigurationError, match="bn_decay cannot change while a trial runs"):
        checked(write(small), "{factory: PBT, arguments: {mutations: [bn_decay], perturbation_interval: 1}}")


@pytest.mark.parametrize(
    ("epochs", "factor", "wanted"), [(16, 2.0, 43), (27, 3.0, 49), (81, 3.0, 143), (100, 3.0, 143), (4, 2.0, 10)]
)
def test_the_trials_of_a_band_are_rays(epochs: int, factor: float, wanted: int) -> None:
    scheduler = HyperBand(reduction_factor=factor)
    theirs = RayHyperBand(metric="m", mode="min", max_t=epochs, reduction_factor=factor)
    filled = [theirs._get_n0(s) for s in range(theirs._s_max_1) if theirs._get_r0(s)]
    assert scheduler.brackets(epochs) == filled
    assert sum(filled) == wanted
    assert f"{wanted} fill its brackets" in scheduler.warning(epochs, wanted - 1)
    assert scheduler.warning(epochs, wanted) == ""


class Fake:
    """What HyperBand sees of a trial."""

    def __init__(self, status: str = "RUNNING") -> None:
        self.status, self.is_saving, self.trial_id, self.config = status, False, "", dict[str, Any]()

    def is_finished(self) -> bool:
        return self.status == "TERMINATED"


def test_a_trial_that_ends_early_keeps_no_bracket_waiting() -> None:
    """Two of four go on after epoch 1. One of them waits at epoch 2 for the other, which diverges."""
    scheduler, stopped = HyperBand(reduction_factor=2).make(Plan({}, "x"), epochs=4), []
    controller = SimpleNamespace(stop_trial=stopped.append)
    bracket = scheduler._state["bracket"] = scheduler._create_bracket(2)
    a, b, c, d = trials = [Fake() for _ in range(4)]
    for one in trials:
        scheduler.on_trial_add(controller, one)
    for one, score in ((c, math.nan), (a, 1.0), (b, 2.0)):
        assert scheduler.on_trial_result(controller, one, {"epoch": 1, "best_x": score}) == "PAUSE"
        one.status = "PAUSED"
    assert scheduler.on_trial_result(controller, d, {"epoch": 1, "best_x": 3.0}) == "STOP"
    assert bracket.trials_to_unpause == {a, b}
    assert stopped == [c], "NaN is the worst"
    scheduler.on_trial_remove(controller, c)
    a.status = b.status = "RUNNING"
    assert scheduler.on_trial_result(controller, a, {"epoch": 2, "best_x": 1.0}) == "PAUSE"
    a.status = "PAUSED"
    assert a not in bracket.trials_to_unpause
    scheduler.on_trial_complete(controller, b, {})
    assert a in bracket.trials_to_unpause


@pytest.mark.parametrize(
    ("draw", "value", "nearest"),
    [
        (Draw("uniform", (0.0, 0.9)), 1.08, 0.9),
        (Draw("loguniform", (1e-3, 1e-1)), 8e-4, 1e-3),
        (Draw("quniform", (0.0, 1.0, 0.25)), 0.4, 0.5),
        (Draw("randint", (2, 8)), 3.6, 4),
        (Draw("qrandint", (2, 8, 2)), 9.6, 8),
        (Draw("normal", (0.0, 1.0)), 9.0, 9.0),
        (Draw("choice", ("a", "b")), "b", "b"),
    ],
)
def test_a_changed_value_stays_in_its_range(draw: Draw, value: Any, nearest: Any) -> None:
    found = _within({"x": draw}, {"x": value, "y": 5})
    assert found == {"x": nearest, "y": 5}
    assert type(found["x"]) is type(nearest)
    assert draw.holds(found["x"])


def test_a_population_changes_what_is_named_and_copies_the_rest(small: dict[str, Any], write: Write) -> None:
    arguments = "{mutations: [lr, trial.arguments.batch_size], perturbation_interval: 1, resample_probability: 0}"
    study = checked(write(small), f"{{factory: PBT, arguments: {arguments}}}")
    made = study.settings.scheduler.make(study.plan, study.epochs)
    values = {"batch_size": 16, "code_size": 3, "sizes": "[8]", "lr": 0.09}
    for _ in range(20):
        changed, _ = made._get_new_config(None, SimpleNamespace(config=values))
        assert changed["lr"] in (pytest.approx(0.09 * 0.8), 0.1)
        assert changed["batch_size"] in (16, 32)
        assert {name: changed[name] for name in ("code_size", "sizes")} == {"code_size": 3, "sizes": "[8]"}


def test_a_trial_goes_on_from_anothers_weights_with_its_own_values(
    study: Study, data: Prepared, tmp_path: Path
) -> None:
    good, bad = trial(study, data, lr=0.05), trial(study, data, lr=0.001)
    good.step()
    good.step()
    good.save_checkpoint(str(tmp_path))
    bad.step()
    again(bad, lr=0.02)
    bad.load_checkpoint(str(tmp_path))
    training = bad._progress.training
    assert training is not None
    assert good._progress.training is not None
    weights = [
        module.state_dict() for module in (training.architecture.model, good._progress.training.architecture.model)
    ]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    (group,) = training.architecture.components["autoencoder_optimizer"].param_groups
    assert group["lr"] == 0.02
    result = bad.step()
    assert result["epoch"] == 3
    assert [(entry["epoch"], entry["values"]["lr"]) for entry in result["schedule"]] == [(1, 0.05), (3, 0.02)]
    assert result["best_val_imputation_rmse"] <= good._progress.training.best.metric  # type: ignore[union-attr]
    assert good.step()["val_imputation_rmse"] != result["val_imputation_rmse"]


def test_a_trial_that_goes_on_with_its_values_has_no_schedule(study: Study, data: Prepared, tmp_path: Path) -> None:
    made = trial(study, data)
    seconds = made.step()["seconds"]
    made.save_checkpoint(str(tmp_path))
    second = trial(study, data)
    second.load_checkpoint(str(tmp_path))
    result = run(second)[-1]
    assert len(result["schedule"]) == 1
    assert result["seconds"] > seconds, "of all its epochs"


def test_the_last_result_of_a_trial_that_diverged_has_the_metric(study: Study, data: Prepared) -> None:
    """Ray ends the whole study where a scheduler's metric is missing."""
    study.plan.template["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]["decoder"] = {}
    assert math.isnan(run(trial(study, data, lr=1e30))[-1]["val_imputation_rmse"])


def test_a_schedule_says_what_changed_and_when() -> None:
    schedule = [
        {"epoch": 1, "values": {"lr": 0.1, "k": 3, "a": "x"}},
        {"epoch": 4, "values": {"lr": 0.12, "k": 3, "a": "x"}},
        {"epoch": 6, "values": {"lr": 0.12, "k": 3, "a": "y"}},
    ]
    assert changes(schedule) == {"lr": {1: 0.1, 4: 0.12}, "a": {1: "x", 6: "y"}}
    assert said_schedule(schedule) == "lr 0.1, 0.12 from epoch 4; a x, y from epoch 6"


def searched(inside: Command, path: Path, cluster: str, folder: Path, scheduler: str, *more: object) -> pd.DataFrame:
    done = inside("dgm_ray.tune", path, "--address", cluster, "--set", f"tune.scheduler={scheduler}", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return pd.read_parquet(folder / "results" / "small" / "results.parquet")


@pytest.mark.slow
def test_hyperband_halves_and_goes_on(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    scheduler, epochs = "{factory: HyperBand, arguments: {reduction_factor: 2}}", "trial.arguments.epochs=5"
    table = searched(inside, write(small), cluster, tmp_path, scheduler, "--samples", 10, "--set", epochs)
    counts = table["status"].value_counts()
    assert counts["completed"] >= 3 + 1, "the first bracket of three, and the last of each other"
    assert counts["stopped"] >= 2
    assert counts.sum() == len(table) == 10, counts
    assert (table[table["status"] == "completed"]["epochs"] == 5).all()
    assert set(table[table["status"] == "stopped"]["reason"]) <= {
        f"stopped by HyperBand at epoch {e}" for e in range(5)
    }


@pytest.mark.slow
def test_the_median_stops(small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str) -> None:
    small["trial"]["arguments"]["architecture"]["components"]["autoencoder_optimizer"]["arguments"]["lr"] = {
        "grid_search": [0.05, 0.05, 0.05, 1e-6]  # the last is behind the median of the others from the beginning
    }
    small["trial"]["arguments"] |= {"epochs": 8, "batch_size": 16}
    scheduler = "{factory: MedianStopping, arguments: {grace_period: 2}}"
    table = searched(inside, write(small), cluster, tmp_path, scheduler, "--samples", 1, "--set", "tune.concurrent=1")
    assert list(table["reason"]) == ["all epochs done"] * 3 + ["stopped by MedianStopping at epoch 2"]
    assert table["draw:lr"].iloc[-1] == 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PBT", "PB2"])
def test_a_population_is_searched(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, database: str, name: str
) -> None:
    small["trial"]["arguments"] |= {"epochs": 12}
    mutations = "[lr, batch_size]" if name == "PBT" else "[lr]"
    scheduler = f"{{factory: {name}, arguments: {{mutations: {mutations}, perturbation_interval: 2}}}}"
    table = searched(inside, write(small), cluster, tmp_path, scheduler, "--samples", 6)
    assert list(table["reason"]) == ["all epochs done"] * 6
    assert list(table["epochs"]) == [12] * 6
    assert table["draw:lr"].between(1e-3, 1e-1).all()
    schedules = {row.trial_id: json.loads(row.schedule) for row in table.itertuples()}
    changed = {key: schedule for key, schedule in schedules.items() if schedule}
    assert changed, "no trial was ever changed"
    for schedule in changed.values():
        assert {(e["values"]["code_size"], e["values"]["sizes"]) for e in schedule} == {
            (schedule[0]["values"]["code_size"], schedule[0]["values"]["sizes"])
        }
        assert changes(schedule).keys() <= {"lr", "batch_size"}

    _, trials, client = runs_of(tmp_path, database)
    for one in trials:
        key = one.data.tags["trial_id"]
        logged = {m.step: m.value for m in client.get_metric_history(one.info.run_id, "value.lr")}
        last = schedules[key][-1] if schedules[key] else None
        assert {1, 2, 12} <= logged.keys() <= set(range(1, 13))
        if last:
            assert logged[12] == last["values"]["lr"]

    best = json.loads((tmp_path / "results" / "small" / "best.json").read_text())
    winner = schedules[table["trial_id"].iloc[0]]
    assert ("not_repeated" in best["expected"]) == bool(winner)
    assert best["arguments"]["epochs"] == 12
    repeated = inside("dgm_ray.tasks.runner", tmp_path / "results" / "small" / "best.json")
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert ("not_repeated: val_imputation_rmse " in repeated.stdout) == bool(winner)


def test_pb2_searches_within_the_range(small: dict[str, Any], write: Write) -> None:
    plan = Study.read(write(small)).plan
    assert PB2(["lr"]).make(plan, 9)._hyperparam_bounds == {"lr": [1e-3, 1e-1]}
    assert PBT(["batch_size"]).make(plan, 9)._hyperparam_mutations == {"batch_size": [16, 32]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "ends"),
    [
        ("{factory: HyperBand, arguments: {reduction_factor: 10}}", {"completed", "stopped"}),
        ("{factory: PBT, arguments: {mutations: [lr], perturbation_interval: 100}}", {"completed"}),
    ],
)
def test_trials_that_take_turns_go_on_when_a_study_is_resumed(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, scheduler: str, ends: set[str]
) -> None:
    small["tune"] = {"samples": 6, "max_failures": 0}
    small["trial"]["arguments"] |= {"epochs": 500, "evaluate_every": 20}
    path, chosen = write(small), ["--set", f"tune.scheduler={scheduler}", "--address", cluster]
    code, said = stopped(tmp_path, path, *chosen)
    assert code == 128 + signal.SIGINT, said
    before = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet").set_index("trial")
    assert "interrupted" in set(before["status"]), said

    resumed = inside("dgm_ray.tune", path, *chosen, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet").set_index("trial")
    assert len(after) == 6
    assert set(after["status"]) <= ends
    assert (after["epochs"] >= before["epochs"].reindex(after.index).fillna(0)).all()
    if "PBT" in scheduler:
        assert (after["epochs"] == 500).all()
