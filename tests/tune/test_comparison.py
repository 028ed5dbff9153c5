"""A comparison: every imputer with its own space on one table, repeated, and ranked."""

import json
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.data import CellHoldout
from dgm_ray.data.user_files import source_node
from dgm_ray.registry import TASKS, call
from dgm_ray.tune.comparison import Comparison, is_comparison
from dgm_ray.tune.report.leaderboard import leaderboard, page_of, readable, winner_of
from dgm_ray.tune.schedulers import ASHA, FIFO
from dgm_ray.tune.search import param_space
from dgm_ray.tune.settings import OptunaSearch, RandomSearch

from .conftest import Command, stopped

LR = "architecture.components.autoencoder_optimizer.arguments.lr"
Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Numbers that follow from each other, a category, a binary column, missing cells and labels."""
    random = np.random.default_rng(0)
    age = random.integers(18, 80, 90).astype(float)
    frame = pd.DataFrame({"age": age, "income": age * 900 + random.normal(0, 4000, 90)})
    frame["city"] = np.where(age > 50, "Rome", random.choice(["Oslo", "Bonn"], 90))
    frame["owner"] = np.where(age > 40, "yes", "no")
    for name in ("age", "city"):
        frame.loc[random.random(90) < 0.1, name] = np.nan
    frame["bought"] = np.where(age > 45, "y", "n")
    frame.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


@pytest.fixture
def compared(tmp_path: Path, table: Path) -> Write:
    """Write a small comparison; keywords stand in for its sections."""

    def write(**sections: Any) -> Path:
        node: dict[str, Any] = {
            "tune": {"samples": 2, "scheduler": {"factory": "ASHA", "arguments": {"grace_period": 2}}},
            "data": {"source": source_node(table, "bought")},
            "repeats": 2,
            "imputers": {
                "k_nearest": {"imputer.arguments.neighbours": {"randint": [2, 9]}},
                "dae": {"epochs": 4, "evaluate_every": 1, LR: {"loguniform": [1e-3, 1e-2]}},
            },
        }
        path = tmp_path / "few.yaml"
        path.write_text(yaml.safe_dump(node | sections, sort_keys=False))
        return path

    return write


def test_each_imputer_gets_a_study_that_suits_it(compared: Write) -> None:
    imputers = {
        "k_nearest": {},
        "dae": {"batch_size": {"choice": [16, 512]}},
        "vae": {"epochs": 2, LR: {"choice": [1]}},
    }
    comparison = Comparison.read(compared(imputers=imputers))
    studies = comparison.studies(comparison.prepare())
    assert list(studies) == ["means_and_modes", "k_nearest", "dae", "vae"], "what to beat is always there"
    assert {name: study.trials for name, study in studies.items()} == {
        "means_and_modes": 1,
        "k_nearest": 1,
        "dae": 2,
        "vae": 2,
    }
    (_, batch), *_ = studies["dae"].plan.draws.values()
    assert batch.arguments == (16, 90), "no more than the rows"
    assert studies["vae"].plan.template["arguments"]["batch_size"] == 64
    kinds = {name: type(study.settings.scheduler) for name, study in studies.items()}
    assert kinds == {"means_and_modes": FIFO, "k_nearest": FIFO, "dae": ASHA, "vae": FIFO}


def test_the_first_sample_is_the_configuration_as_it_is(compared: Write) -> None:
    sizes = "architecture.components.autoencoder.arguments.encoder.hidden_layers.sizes"
    draws = {LR: {"loguniform": [1e-4, 1e-2]}, sizes: {"choice": [[8], [128]]}, "batch_size": {"choice": [16, 512]}}
    comparison = Comparison.read(compared(imputers={"vae": draws}))
    study = comparison.studies(comparison.prepare())["vae"]
    assert study.first == {"lr": 1e-3, "sizes": "[128]"}, "64 is not among the batches"
    searcher = RandomSearch().make("m", 0, study.first)
    searcher.add_configurations({"e": {"run": print, "config": param_space(study.plan), "num_samples": 3}})
    configs = [searcher.next_trial().config for _ in range(3)]
    assert study.first.items() <= configs[0].items()
    assert len({one["lr"] for one in configs}) == 3
    assert searcher.next_trial() is None, "one of the samples, not one more"


def test_optuna_begins_with_a_whole_configuration(compared: Write) -> None:
    def first(*batches: int) -> dict[str, Any]:
        draws = {LR: {"loguniform": [1e-4, 1e-2]}, "batch_size": {"choice": list(batches)}}
        comparison = Comparison.read(compared(imputers={"vae": draws}, tune={"search": {"factory": "OptunaSearch"}}))
        study = comparison.studies(comparison.prepare())["vae"]
        searcher = OptunaSearch().make("m", 0, study.first)
        searcher.set_search_properties("m", "min", param_space(study.plan))
        return {**study.first} if study.first.items() <= searcher.suggest("a").items() else {}

    assert first(16, 64) == {"lr": 1e-3, "batch_size": 64}
    assert first(16, 32) == {}


def test_repeats_have_the_same_test_cells_and_the_file_is_read_once(compared: Write, table: Path) -> None:
    comparison = Comparison.read(compared(repeats=3, data={"source": source_node(table), "seed": 1}))
    assert comparison.seeds == [0, 2, 3], "none is the search's"
    searched = comparison.prepare()
    table.unlink()
    assert searched.test is not None
    for seed in comparison.seeds:
        data = comparison.prepare(seed)
        assert data.test is not None
        np.testing.assert_array_equal(data.test.hidden_mask, searched.test.hidden_mask)
        assert not (data.validation.hidden_mask & searched.test.hidden_mask).any()
        assert (data.validation.hidden_mask != searched.validation.hidden_mask).any()


def test_options_win_over_the_file(compared: Write) -> None:
    path = compared()
    given = ["imputers.dae.epochs=7", f"imputers.dae.{LR}=0.5", "imputers.zero={}", "data.test_probability=0.4"]
    comparison = Comparison.read(path, given, samples=5, seed=9)
    assert (comparison.settings.samples, comparison.settings.seed) == (5, 9)
    assert comparison.holdout.test_probability == 0.4
    studies = comparison.studies(comparison.prepare())
    dae = studies["dae"].plan.template["arguments"]
    assert (dae["epochs"], studies["dae"].plan.draws, studies["dae"].trials) == (7, {}, 1)
    assert dae["architecture"]["components"]["autoencoder_optimizer"]["arguments"]["lr"] == 0.5
    assert "zero" in studies


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("imputers={}", "imputers: should be a mapping of one imputer at least, not {}"),
        ("imputers.knearest={}", "imputers.knearest: no imputer is called 'knearest'; did you mean 'k_nearest'?"),
        ("imputers.dae=3", "imputers.dae: should be a mapping of arguments to values or draws, {} for none, not 3"),
        ("imputers.dae.epoch=3", "imputers.dae.epoch: TrainDeNoisingAutoEncoder has no argument 'epoch'"),
        (
            "imputers.k_nearest.imputer.arguments.k=3",
            "imputers.k_nearest.imputer.arguments.k: KNearest has no argument",
        ),
        ("imputers.dae.batch_size={choice: [x]}", "imputers.dae.batch_size: Input should be a valid integer, not 'x'"),
        ("imputers.dae.patience.x=3", "imputers.dae.patience.x: patience is not a mapping, not 50"),
        ("imputers.dae.data.seed=3", "imputers.dae.data.seed: all imputers have the same data: set it under 'data'"),
        ("imputers.dae.architecture={}", "imputers.dae.architecture: sets what 'architecture.components.autoenco"),
        ("imputers.dae.device=cpu", "imputers.dae.device: tune.resources decides this: leave it out, not 'cpu'"),
        (f"imputers.dae.{LR}=-1.0", "arguments.lr: Input should be greater than 0, not -1.0"),
        (f"imputers.dae.{LR}={{uniform: [1]}}", f"imputers.dae.{LR}.uniform: takes 2 numbers, not [1]"),
        ("tune.sample=3", "tune.sample: Settings has no argument 'sample'; did you mean 'samples'?"),
        ("tune.metric=val_loss", "tune.metric: an imputer reports val_imputation_rmse, val_imputation_mae, not"),
        ("repeats=0", "repeats: Input should be greater than or equal to 1, not 0"),
        ("repeat=2", "repeat: few.yaml has no argument 'repeat'; did you mean 'repeats'?"),
        ("data=3", "data: the arguments of CellHoldout are a mapping, not 3"),
        ("data.test_fraction=0.1", "data.test_fraction: CellHoldout has no argument 'test_fraction'"),
        ("data.test_probability=0", "data.test_probability: should be above 0, or nothing can be compared, not 0"),
        ("data.validation_probability=1e-9", "data.validation_probability: must hide a cell at least, or nothing"),
        ("data.seed={randint: [0, 9]}", "data.seed: "),
        ("trial.task=TrainGAN", "few.yaml: should be a search space, which has 'trial', or a comparison, which has"),
    ],
)
def test_a_mistake_is_one_line(compared: Write, tmp_path: Path, assignment: str, said: str) -> None:
    path = compared()
    if assignment.startswith("trial"):  # in the file: what it is, the keys of the file say
        path.write_text(path.read_text() + "trial: {}\n")
    options = ["--set", assignment, "--storage", str(tmp_path / "results")]
    done = CliRunner().invoke(app, ["tune", str(path), "--check", *options])
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_file_of_neither_kind(compared: Write, small: dict[str, Any], tmp_path: Path) -> None:
    assert is_comparison(compared())
    (tmp_path / "neither.json").write_text(json.dumps({"trail": small["trial"]}))
    done = CliRunner().invoke(app, ["tune", str(tmp_path / "neither.json"), "--check"])
    assert done.exit_code == 2
    assert "should be a search space, which has 'trial', or a comparison, which has 'imputers', not ['tr" in done.stderr


def test_a_check_shows_every_space_and_writes_nothing(compared: Write, tmp_path: Path, table: Path) -> None:
    path = compared(data={"source": {"factory": "Wine"}})
    options = ["--data", str(table), "--label", "bought", "--storage", str(tmp_path / "results")]
    done = CliRunner().invoke(app, ["tune", str(path), "--check", *options])
    assert done.exit_code == 0, done.output
    assert "few.yaml: 3 imputers, 5 trials, then each best 2 times again\n" in done.output
    assert "data: 4 variables, 6 features; 90 rows; " in done.output
    assert "  1 categorical: city (3 categories: Bonn, Oslo, Rome)\n" in done.output
    assert "k_nearest: TrainImputer, 1 draw, 2 trials of at most 1 epoch\n  neighbours: randint(2, 9)\n" in done.output
    assert "dae: TrainDeNoisingAutoEncoder, 1 draw, 2 trials of at most 4 epochs, " in done.output
    assert not (tmp_path / "results").exists()


def rows(*errors: tuple[float, float]) -> list[dict[str, float]]:
    return [{"validation": one, "test": other, "seconds": 2.0} for one, other in errors]


def test_the_leaderboard_is_right() -> None:
    searched: dict[str, dict[str, Any]] = {
        name: {"trials": 3, "seconds": 9.0} for name in ("means_and_modes", "a", "b", "c")
    }
    searched["d"] = {"trials": 1, "seconds": 1.0, "error": "diverged"}
    repeats: dict[str, list[dict[str, Any]]] = {
        "means_and_modes": rows((0.4, 0.5), (0.5, 0.5)),
        "a": rows((0.2, 0.3), (0.3, 0.35)),
        "b": rows((0.1, 0.4), (0.2, 0.4)),
        "c": [*rows((0.01, 0.01)), {"error": "the process died"}],
        "d": [],
    }
    table = leaderboard(searched, repeats)
    assert list(table["imputer"]) == ["b", "a", "means_and_modes", "c", "d"], "what failed once cannot win"
    assert winner_of(table) == "b"
    a = table.set_index("imputer").loc["a"]
    assert a["validation_mean"] == pytest.approx(statistics.mean([0.2, 0.3]))
    assert a["test_std"] == pytest.approx(statistics.stdev([0.3, 0.35]))
    assert a["gap"] == pytest.approx(0.325 - 0.25)
    assert a["better"] == pytest.approx(35.0)
    shown = readable(table, "RMSE").set_index("imputer")
    half = 12.706 * statistics.stdev([0.1, 0.2]) / math.sqrt(2)  # Student's t of one degree of freedom
    assert shown.loc["b", "validation RMSE"] == f"0.1500 ± {half:.4f}"
    assert shown.loc["b", "vs means"] == "+20.0 %"
    assert "failed: c: the process died" in page_of(table, "RMSE", 2).markdown()
    assert shown.loc["d", "test RMSE"] == "failed"
    nothing = leaderboard({"d": searched["d"]}, {"d": []})
    assert winner_of(nothing) is None


def scored_by_hand(best: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return the RMSE on validation and test cells of a best that is trained again, without what the library scores."""
    task = call(TASKS.get(best["task"], ""), best["arguments"] | {"seed": seed})
    assert isinstance(task.data, CellHoldout)
    data = replace(task.data, validation_seed=seed).prepare()
    training = task.start(replace(data, test=None))
    while not training.done:
        training.advance()
    training.use_best()
    imputer = training.architecture.components["imputer"].imputer
    completed = imputer.transform(data.train.features, np.isnan(data.train.features))
    assert data.test is not None
    parts = (data.validation, data.test)
    valued = [completed[part.hidden_mask].astype(float) - part.truth[part.hidden_mask] for part in parts]
    return tuple(float(np.sqrt(np.mean(one**2))) for one in valued)  # type: ignore[return-value]


@pytest.mark.slow
def test_a_comparison_from_a_table_to_its_winner(
    compared: Write, inside: Command, tmp_path: Path, table: Path, cluster: str, database: str
) -> None:
    imputers = {
        "k_nearest": {"imputer.arguments.neighbours": {"randint": [2, 9]}},
        "gaussian_em": {},
        "dae": {"epochs": 3, "evaluate_every": 1, LR: 1e30},
    }
    path = compared(imputers=imputers)
    given = ["dgm_ray.tune", path, "--address", cluster]
    done = inside(*given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = re.findall(r"^ +\d of 4  (\w+)  (\S+)", done.stdout, re.MULTILINE)
    assert [name for name, _ in lines] == ["means_and_modes", *imputers]
    assert "failed: dae: diverged: " in done.stdout
    folder = tmp_path / "results" / "few"
    board = pd.read_parquet(folder / "leaderboard.parquet").set_index("imputer")
    assert board.index[-1] == "dae"
    assert board["reason"]["dae"].startswith("diverged: ")
    for name in ("k_nearest", "gaussian_em"):
        best = json.loads((folder / name / "best.json").read_text())
        by_hand = [scored_by_hand(best, seed) for seed in (1, 2)]
        validation, test = zip(*by_hand, strict=True)
        # a category counts as the likeliest in the library's score: of these imputers it is one already
        assert board["validation_mean"][name] == pytest.approx(statistics.mean(validation), rel=1e-5)
        assert board["test_mean"][name] == pytest.approx(statistics.mean(test), rel=1e-5)
        assert board["test_std"][name] == pytest.approx(statistics.stdev(test), rel=1e-4, abs=1e-7)
    repeats = pd.read_parquet(folder / "repeats.parquet")
    assert repeats[repeats["imputer"] == "k_nearest"]["test"].mean() == pytest.approx(board["test_mean"]["k_nearest"])
    assert list(repeats[repeats["imputer"] == "dae"]["error"]) == [board["reason"]["dae"]]
    winner = board.index[0]
    assert (folder / "best.json").read_text() == (folder / winner / "best.json").read_text()
    for name in ("leaderboard.md", "leaderboard.html"):
        assert f"{board['test_mean'][winner]:.4f}" in (folder / name).read_text(encoding="utf-8")

    repeated = inside("dgm_ray.tasks.runner", folder / "best.json")
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert "reproduced: val_imputation_rmse" in repeated.stdout
    completing = re.search(r"^use it: .*dgm-ray (impute .*)$", done.stdout, re.MULTILINE)
    assert completing is not None
    assert completing[1].endswith("people.csv COMPLETED.csv")
    completed = CliRunner().invoke(app, completing[1].split())
    assert completed.exit_code == 0, completed.output
    assert not pd.read_csv(tmp_path / "COMPLETED.csv").isna().any().any()

    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("dgm_ray")
    runs = client.search_runs([experiment.experiment_id], "tags.comparison = 'few'")
    whole = {run.info.run_name: run for run in runs}
    assert set(whole) == {"means_and_modes", *imputers, "few"}
    assert whole["few"].data.metrics[f"{winner}_test_mean"] == pytest.approx(board["test_mean"][winner])
    files = {file.path for file in client.list_artifacts(whole["few"].info.run_id)}
    assert files >= {"leaderboard.md", "leaderboard.html", "leaderboard.parquet", "best.json", "few.yaml"}
    assert not any("test" in metric for name in imputers for metric in whole[name].data.metrics)

    # cut: a line of the journal half written, a repeat and a search lost
    journal = folder / "runs.jsonl"
    kept = [line for line in journal.read_text().splitlines() if '"search gaussian_em' not in line]
    journal.write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])
    before = (folder / "k_nearest" / "results.parquet").stat().st_mtime_ns
    resumed = inside(*given, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    again = [line for line in resumed.stdout.splitlines() if line.endswith("(done before)")]
    assert [line.split()[3] for line in again] == ["means_and_modes", "k_nearest"]
    assert (folder / "k_nearest" / "results.parquet").stat().st_mtime_ns == before
    same = pd.read_parquet(folder / "leaderboard.parquet").set_index("imputer")
    columns = ["validation_mean", "test_mean", "test_std", "repeats", "failed"]
    pd.testing.assert_frame_equal(same[columns], board[columns])

    refused = inside(*given)
    assert refused.returncode == 2
    assert "--resume it, --overwrite it, or give another --name" in refused.stderr


@pytest.mark.slow
def test_a_stopped_comparison_goes_on(compared: Write, inside: Command, tmp_path: Path, cluster: str) -> None:
    slow = {"epochs": 3000, "evaluate_every": 50, "patience": None, LR: {"loguniform": [1e-4, 1e-3]}}
    path = compared(imputers={"zero": {}, "dae": slow}, repeats=1, tune={"samples": 2})
    code, said = stopped(tmp_path, path, "--address", cluster, until="2 of 3  zero", wait=4)  # the third is searched
    assert code == 130, said
    assert "stopped: 2 of 3 imputers are searched; --resume goes on" in said
    short = ["--set", "imputers.dae.epochs=5"]
    resumed = inside("dgm_ray.tune", path, "--resume", "--address", cluster, *short)  # another space: searched anew
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("(done before)") == 2
    board = pd.read_parquet(tmp_path / "results" / "few" / "leaderboard.parquet")
    assert list(board["repeats"]) == [1, 1, 1]
    assert board["validation_std"].isna().all(), "one repeat has none"
