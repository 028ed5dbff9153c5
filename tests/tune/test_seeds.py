"""``tune.seeds``: a trial trains its configuration with several seeds, and is what they are in the mean."""

import json
import re
import signal
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console

from dgm_ray.data import Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation.final_report import FinalReport
from dgm_ray.tasks.configuration import read_task
from dgm_ray.tune.comparison import Comparison
from dgm_ray.tune.console import print_report, print_summary
from dgm_ray.tune.forecast import Forecast, Room, comparison_line, comparison_lines, forecast, lines
from dgm_ray.tune.outcomes import COMPLETED, Outcome
from dgm_ray.tune.place import Place
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.results import write_best
from dgm_ray.tune.study import Study, task_of
from dgm_ray.tune.trial import CHECKPOINT

from .conftest import Command, stopped
from .test_command import runs_of
from .test_forecast import cost
from .test_trial import VALUES, again, breaking, run, trial

Write = Callable[[dict[str, Any]], Path]
METRIC = "val_imputation_rmse"


@pytest.fixture
def study(small: dict[str, Any], write: Write) -> Study:
    """Of three seeds, the first of which is 5."""
    small["tune"]["seeds"] = 3
    small["trial"]["arguments"]["seed"] = 5
    return Study.read(write(small))


def single(study: Study, seed: int, **more: Any) -> Study:
    """The same study of one seed."""
    template = study.plan.template
    plan = Plan({**template, "arguments": template["arguments"] | {"seed": seed} | more}, study.plan.metric)
    return replace(study, plan=plan)


def alone(study: Study, data: Prepared, **values: Any) -> list[list[dict[str, Any]]]:
    return [run(trial(single(study, seed), data, **values)) for seed in (5, 6, 7)]


def as_lanes(study: Study, data: Prepared, **values: Any) -> list[list[dict[str, Any]]]:
    """Each seed alone, with the arithmetic of a pack of three."""
    each = [single(study, 5 + row, lanes=[[1, 3, row]]) for row in range(3)]
    return [run(trial(one, data, **values)) for one in each]


def test_a_trial_is_the_mean_of_trials_of_one_seed(study: Study, data: Prepared) -> None:
    results, others = run(trial(study, data)), alone(study, data)
    assert [result["epoch"] for result in results] == [1, 2, 3, 4]
    for epoch, result in enumerate(results):
        for name in (METRIC, f"best_{METRIC}", "best_val_imputation_mae"):
            values = [other[epoch][name] for other in others]
            assert result[name] == pytest.approx(statistics.fmean(values), rel=1e-12)
            assert result[f"{name}_std"] == pytest.approx(statistics.stdev(values), rel=1e-9)
        (row,) = result["history"]
        losses = [other[epoch]["history"][0]["autoencoder_loss"] for other in others]
        assert row["autoencoder_loss"] == pytest.approx(statistics.fmean(losses), rel=1e-12)
    last = results[-1]
    assert [one["score"] for one in last["by_seed"]] == [other[-1][f"best_{METRIC}"] for other in others], "to the bit"
    assert [one["seed"] for one in last["by_seed"]] == [5, 6, 7]
    assert last["reason"] == "epochs"


def test_a_trial_of_one_seed_says_nothing_of_seeds(study: Study, data: Prepared) -> None:
    result = trial(single(study, 0), data).step()
    assert not [name for name in result if name.endswith("_std") or name == "by_seed"]


def test_a_saved_trial_goes_on_where_it_was(study: Study, data: Prepared, tmp_path: Path) -> None:
    whole, first, second = run(trial(study, data)), trial(study, data), trial(study, data)
    first.step()
    first.step()
    first.save_checkpoint(str(tmp_path))
    torch.manual_seed(1)
    second.load_checkpoint(str(tmp_path))
    names = (METRIC, f"{METRIC}_std", f"best_{METRIC}", f"best_{METRIC}_std", "by_seed")
    assert [[one[name] for name in names] for one in run(second)] == [
        [one[name] for name in names] for one in whole[2:]
    ]
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    best = json.loads(state["configuration"])
    seeds = [json.loads(one["configuration"])["arguments"]["seed"] for one in state["seeds"]]
    assert seeds == [5, 6, 7]
    assert best["arguments"]["seed"] == min(whole[1]["by_seed"], key=lambda one: float(one["score"]))["seed"]


def test_a_trial_goes_on_from_anothers_seeds_with_its_own_values(study: Study, data: Prepared, tmp_path: Path) -> None:
    """What a population does."""
    good, bad = trial(study, data, lr=0.05), trial(study, data, lr=0.001)
    good.step()
    good.save_checkpoint(str(tmp_path))
    bad.step()
    again(bad, lr=0.02)
    bad.load_checkpoint(str(tmp_path))
    result = bad.step()
    assert [(entry["epoch"], entry["values"]["lr"]) for entry in result["schedule"]] == [(1, 0.05), (2, 0.02)]
    others = []
    for index, seed in enumerate((5, 6, 7)):
        training = task_of(single(study, seed).plan.configuration(VALUES | {"lr": 0.02})).start(data)
        training.load(torch.load(tmp_path / CHECKPOINT, weights_only=True)["seeds"][index], "it")
        others.append(training.advance()[METRIC])
    assert result[METRIC] == pytest.approx(statistics.fmean(others), rel=1e-12)


def test_a_seed_that_diverges_is_named(study: Study, data: Prepared) -> None:
    study.plan.template["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]["decoder"] = {}
    result = run(trial(study, data, lr=1e30))[-1]
    assert re.match(r"diverged: seed [567]: autoencoder_loss is (nan|inf) in epoch \d", result["reason"])


def test_a_trial_that_fails_ends_with_its_reason(study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.training.Training.advance", breaking(MemoryError("2 TiB")))
    (result,) = run(trial(study, data))
    assert result["reason"] == "oom: MemoryError: 2 TiB"


def test_seeds_that_converge_at_different_epochs(small: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """A forest ends when its imputations no longer come closer to each other; the best seed repeats alone."""
    imputer = {"factory": "MissForest", "arguments": {"n_estimators": 5, "max_iterations": 20}}
    arguments = {"data": {"source": {"factory": "Wine"}, "train_missing_probability": 0.3}, "imputer": imputer}
    small["trial"] = {"task": "TrainImputer", "arguments": arguments | {"epochs": 20, "evaluate_every": 5, "seed": 5}}
    small["tune"] = {"seeds": 3, "samples": 1}
    study = Study.read(write(small))
    data = study.prepare()
    others, results = alone(study, data), run(trial(study, data))
    assert [one["epochs"] for one in results[-1]["by_seed"]] == [other[-1]["epoch"] for other in others]
    assert len({other[-1]["epoch"] for other in others}) > 1
    assert results[-1]["reason"] == "converged"
    assert [one["score"] for one in results[-1]["by_seed"]] == [other[-1][f"best_{METRIC}"] for other in others]
    last = [other[-1][METRIC] for other in others]
    assert results[-1][METRIC] == pytest.approx(statistics.fmean(last), rel=1e-12)
    assert [result["epoch"] for result in results[:-1]] == [*range(5, results[-1]["epoch"], 5)]

    place = Place(tmp_path / "study", "sqlite://")
    write_best(study, data, place, [outcome(study, data, tmp_path)])
    assert read_task(place.best).run(Console(quiet=True))


def outcome(study: Study, data: Prepared, folder: Path) -> Outcome:
    """What a study would know of a trial that trained all its epochs."""
    made = trial(study, data)
    last = run(made)[-1]
    made.save_checkpoint(str(folder))
    best = {name.removeprefix("best_"): value for name, value in last.items() if name.startswith("best_val_")}
    found = {"best_epoch": last["best_epoch"], "epochs": last["epoch"], "seeds": last["by_seed"]}
    score = best[METRIC]
    return Outcome("t", 0, VALUES, COMPLETED, "all epochs done", score, best, checkpoint=str(folder), **found)


def test_best_json_is_the_best_seed_and_the_test_is_of_all(study: Study, data: Prepared, tmp_path: Path) -> None:
    winner, place = outcome(study, data, tmp_path), Place(tmp_path / "study", "sqlite://")
    best = winner.best_seed
    assert best["score"] == min(one["score"] for one in winner.seeds) < winner.score
    report = write_best(study, data, place, [winner])
    written = json.loads(place.best.read_text())
    assert (written["arguments"]["seed"], written["arguments"]["epochs"]) == (best["seed"], 4)
    assert written["expected"] == {"best_epoch": best["best_epoch"], **best["measures"]}
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["seeds"]
    reports = []
    for index, seed in enumerate((5, 6, 7)):
        reports.append(task_of(single(study, seed).plan.configuration(VALUES)).score_test(data, state[index]))
    assert report.seeds == [one.test for one in reports]
    assert replace(report, seeds=[]) == reports[best["seed"] - 5]
    assert report.validation["rmse"] == pytest.approx(best["score"])
    values, figures = [one.test["rmse"] for one in reports], report.metrics()
    assert figures["test_imputation_rmse"] == reports[best["seed"] - 5].test["rmse"]
    assert figures["test_imputation_rmse_mean"] == pytest.approx(statistics.fmean(values))
    assert figures["test_imputation_rmse_std"] == pytest.approx(statistics.stdev(values))


def test_a_report_of_one_seed_has_no_deviation() -> None:
    assert not [name for name in FinalReport(test={"rmse": 0.5}).metrics() if name.endswith(("_std", "_mean"))]


def test_means_and_deviations_are_printed() -> None:
    measures = {METRIC: 0.25, f"{METRIC}_std": 0.0123, "val_marginal_distance": 0.125, "val_marginal_distance_std": 0.5}
    console = Console(record=True, width=120)
    print_summary(
        console, Plan({}, METRIC, seeds=3), [Outcome("a", 0, {}, COMPLETED, "done", 0.25, measures)], {METRIC: 0.3}
    )
    print_report(console, FinalReport(test={"rmse": 0.1}, seeds=[{"rmse": 0.1}, {"rmse": 0.2}]), 7, "imputation.csv")
    text = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert f"best of 1 trials by {METRIC}, smaller is better; mean ± std over 3 seeds" in text
    assert "val imputation RMSE 0.25 ± 0.012 0.3" in text
    assert "fidelity 0.875 ± 0.5" in text
    assert "trial 007, its best seed, on the test cells, scored once" in text
    assert "test cells, mean ± std over 2 seeds: RMSE of hidden cells 0.15 ± 0.071" in text


@pytest.mark.parametrize("seed", [{"randint": [0, 9]}, {"choice": [1, 2]}, {"grid_search": [0, 1]}])
def test_the_seed_is_not_drawn_as_well(small: dict[str, Any], write: Write, seed: Any) -> None:
    small["trial"]["arguments"]["seed"] = seed
    assert Study.read(write(small)).plan.seeds == 1
    small["tune"]["seeds"] = 3
    with pytest.raises(ConfigurationError) as caught:
        Study.read(write(small))
    said = "trial.arguments.seed: should be one number, the first of the 3 of tune.seeds, not "
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("seeds", ["0", "x", "1.5", "null"])
def test_a_number_of_seeds_is_one_at_least(small: dict[str, Any], write: Write, seeds: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^tune\.seeds: Input should be"):
        Study.read(write(small), [f"tune.seeds={seeds}"])


@pytest.mark.parametrize(
    ("imputer", "seeded"),
    [
        ("MeanAndModesImputation", False),
        ("ZeroImputation", False),
        ("KNearest", False),
        ("GaussianEM", False),
        ("IterativeRidge", False),
        ("MissForest", True),
        ("NormalNoiseImputation", True),
        ("UniformNoiseImputation", True),
    ],
)
def test_seeds_that_do_nothing_are_named(small: dict[str, Any], write: Write, imputer: str, seeded: bool) -> None:
    """What is said to draw gives other figures with another seed, and nothing else does."""
    arguments = {"data": {"source": {"factory": "Wine"}}, "imputer": {"factory": imputer}, "epochs": 1}
    small["trial"] = {"task": "TrainImputer", "arguments": arguments}
    small["tune"] = {"seeds": 2, "samples": 1}
    study = Study.read(write(small))
    data = study.prepare()
    said = "tune.seeds (nothing is drawn by seed, so each gives the same)"
    assert (said in study.rehearse(data).dead) != seeded
    assert not replace(study, settings=replace(study.settings, seeds=1)).rehearse(data).dead
    first, second = (task_of(single(study, seed).plan.configuration({})).start(data).advance() for seed in (0, 1))
    assert (first[METRIC] != second[METRIC]) == seeded


def test_a_model_draws_by_seed(study: Study, data: Prepared) -> None:
    assert study.rehearse(data).dead == []


def test_the_time_is_that_of_all_seeds(study: Study, data: Prepared) -> None:
    """Four trials of 40 s a seed in the mean; a comparison trains each best again with one seed at a time."""
    made = Forecast(study, [cost(10, 2, study), cost(30, 2, study)], 2)
    assert [made.seconds(count) for count in (1, 2)] == [3 * 160, 3 * 80]
    room = Room(1, {"CPUs": 1}, None)
    assert lines(made, room)[0].startswith("plan: 4 trials of at most 4 epochs of each of 3 seeds; ")
    assert ", 10 s to 30 s an epoch of each of 3 seeds; 8 min (" in comparison_line("x", made, room)
    assert ": 10 min, 2 min of it to train each best again" in comparison_lines({"x": made}, 3, room)[-1]
    assert forecast(study, data, most=2).study is study


def test_a_comparison_trains_those_that_draw_with_several_seeds(tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    node = {"tune": {"seeds": 3}, "data": {"source": {"factory": "Wine"}}}
    path.write_text(yaml.safe_dump(node | {"imputers": {"k_nearest": {}, "dae": {}, "miss_forest": {}}}))
    comparison = Comparison.read(path)
    studies = comparison.studies(comparison.prepare())
    assert {name: (study.settings.seeds, study.plan.seeds) for name, study in studies.items()} == {
        "means_and_modes": (1, 1),
        "k_nearest": (1, 1),
        "dae": (3, 3),
        "miss_forest": (3, 3),
    }


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_and_its_winner_is_repeated(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str
) -> None:
    small["tune"] = {"samples": 3, "seeds": 3}
    small["trial"]["arguments"] |= {"epochs": 120, "evaluate_every": 20, "patience": 60, "seed": 5}
    path, options = write(small), ["--address", cluster]
    code, said = stopped(tmp_path, path, *options)
    assert code == 128 + signal.SIGINT, said
    resumed = inside("dgm_ray.tune", path, "--resume", *options)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr

    folder = tmp_path / "results" / "small"
    table = pd.read_parquet(folder / "results.parquet")
    assert set(table["status"]) <= {"completed", "early stop"}
    assert table[METRIC].is_monotonic_increasing
    study = Study.read(path)
    data = study.prepare()
    for row in table.to_dict("records"):
        values = {name: row[f"draw:{name}"] for name in study.plan.draws}
        best = [one[-1][f"best_{METRIC}"] for one in as_lanes(study, data, **values)]
        assert [one["score"] for one in json.loads(row["seeds"])] == best, "as if never stopped, to the bit"
        assert row[METRIC] == pytest.approx(statistics.fmean(best), rel=1e-12)
        assert row[f"{METRIC}_std"] == pytest.approx(statistics.stdev(best), rel=1e-9)

    parent, trials, client = runs_of(tmp_path)
    assert parent.data.metrics[f"best_{METRIC}_std"] == table[f"{METRIC}_std"].iloc[0]
    assert 0 < parent.data.metrics["test_imputation_rmse_std"] < parent.data.metrics["test_imputation_rmse_mean"]
    assert "test cells, mean ± std over 3 seeds: RMSE of hidden cells " in resumed.stdout
    for one in trials:
        epochs = [
            {metric.step for metric in client.get_metric_history(one.info.run_id, name)}
            for name in (METRIC, f"{METRIC}_std")
        ]
        assert epochs[0] == epochs[1] <= {20, 40, 60, 80, 100, 120}

    written = json.loads((folder / "best.json").read_text())
    best = min(json.loads(table["seeds"].iloc[0]), key=lambda one: float(one["score"]))
    assert written["arguments"]["seed"] == best["seed"]
    repeated = inside("dgm_ray.tasks.runner", folder / "best.json")
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert repeated.stdout.count("reproduced: ") == len(written["expected"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PBT", "PB2"])
def test_a_population_has_several_seeds(
    small: dict[str, Any], write: Write, inside: Command, tmp_path: Path, cluster: str, name: str
) -> None:
    arguments = {"mutations": ["lr"], "perturbation_interval": 2}
    small["tune"] = {"samples": 4, "seeds": 2, "scheduler": {"factory": name, "arguments": arguments}}
    small["trial"]["arguments"] |= {"epochs": 8}
    done = inside("dgm_ray.tune", write(small), "--address", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_parquet(tmp_path / "results" / "small" / "results.parquet")
    assert list(table["reason"]) == ["all epochs done"] * 4
    assert any(json.loads(schedule) for schedule in table["schedule"]), "no trial was ever changed"
    for row in table.itertuples():
        values = [one["score"] for one in json.loads(row.seeds)]
        assert row.val_imputation_rmse == pytest.approx(statistics.fmean(values))
