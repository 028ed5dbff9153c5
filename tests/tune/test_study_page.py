"""``dgm-ray report``: the page of a study from its folder alone, and what its figures show."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.errors import StudyError
from dgm_ray.space import Draw
from dgm_ray.training import write_json
from dgm_ray.tune.place import Place
from dgm_ray.tune.report import study_figures
from dgm_ray.tune.report.importance import importance, position
from dgm_ray.tune.report.page import Links, Marked, Page, Table
from dgm_ray.tune.report.study_page import distance, write_report

RATE = Draw("loguniform", (1e-4, 1e-2))
SIZES = Draw("choice", ([], [64]))
DRAWS = {"lr": RATE, "sizes": SIZES}
VOID = {"meta", "path", "use", "image", "br"}


class Reader(HTMLParser):
    """Reads a page: its text, and what is open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [str(value) for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if "style" not in self.open:
            self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(folder: Path, trials: int = 12, *, seeds: int = 1, failed: bool = False, winner: bool = True) -> Path:
    """Write what a study of a MedGAN leaves; the smaller a learning rate, the better its score."""
    random = np.random.default_rng(0)
    node: dict[str, Any] = {
        "task": "TrainMedGAN",
        "arguments": {
            "data": {"source": {"factory": "Wine"}, "missing_probability": 0.3, "seed": 4},
            "epochs": 6,
            "lr": {"loguniform": [1e-4, 1e-2]},
            "sizes": {"choice": [[], [64]]},
        },
    }
    settings = {
        "metric": "val_imputation_rmse",
        "samples": trials,
        "seeds": seeds,
        "seed": 3,
        "search": {"factory": "RandomSearch", "arguments": {}},
        "scheduler": {"factory": "ASHA", "arguments": {"grace_period": 2}},
        "stop": None,
        "resources": {"cpu": 1.0, "gpu": 0.0},
    }
    write_json(folder / "study.json", {"space": {"trial": node}, "settings": settings, "data": "abc123"})
    rates = 10 ** random.uniform(-4, -2, trials)
    scores = np.full(trials, np.nan) if failed else 0.5 + np.log10(rates) / 10
    table = pd.DataFrame(
        {"trial": range(trials), "trial_id": list(map(str, range(trials))), "epochs": 6, "best_epoch": 4}
    )
    table["status"], table["reason"] = (
        ("diverged", "diverged: <loss> is nan") if failed else ("completed", "all epochs done")
    )
    table["seconds"], table["val_imputation_rmse"] = 2.0, scores
    if seeds > 1:
        table["val_imputation_rmse_std"] = 0.0125
    table["draw:lr"], table["draw:sizes"] = rates, np.where(np.arange(trials) % 2, "[64]", "[]")
    table.sort_values("val_imputation_rmse").to_parquet(folder / "results.parquet", index=False)
    if failed:
        return folder
    history = pd.DataFrame(
        [{"trial": t, "epoch": e, "generator_loss": 1.0 / e} for t in range(trials) for e in range(1, 7)]
    )
    history["val_imputation_rmse"] = np.where(history["epoch"] % 2, np.nan, 0.3)
    history["rows_per_second"] = 1234.0
    history.to_parquet(folder / "history.parquet", index=False)
    pd.DataFrame({"variable": ["a", "b"], "val_missing_rate": [0.2, 0.4]}).to_csv(folder / "missing.csv", index=False)
    own = {
        "test_imputation_rmse": 0.31,
        "test_baseline_imputation_rmse": 0.41,
        "best_val_imputation_rmse": 0.3,
        "test_crps": 0.07,
    }
    write_json(folder / "scores.json", {"means_and_modes": {"val_imputation_rmse": 0.45}, "winner": own})
    write_json(folder / "environment.json", {"version.torch": "2.9.9", "command": "[]"})
    if winner:
        _winner(folder, random)
    return folder


def _winner(folder: Path, random: np.random.Generator, rows: int = 40) -> None:
    age, city = random.normal(40, 9, rows), random.choice(["Oslo", "<Voss>"], rows)
    since = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D")
    columns: dict[str, Any] = {"row": range(100, 100 + rows)}
    for name, cells in {"age": age, "city": city, "since": since}.items():
        hidden = np.arange(rows) % 3 == len(columns) % 3
        columns |= {f"hidden:{name}": hidden, f"true:{name}": cells}
        columns |= {f"completed:{name}": np.where(hidden, cells[::-1], cells), f"generated:{name}": cells[::-1]}
    columns["true:city"] = pd.Series(columns["true:city"], dtype=object).mask(np.arange(rows) == 0)
    pd.DataFrame(columns).to_parquet(folder / "winner.parquet", index=False)
    errors = {
        "rmse": [0.3, 0.2],
        "means_and_modes_rmse": [0.4, 0.1],
        "nrmse": [1.0, np.nan],
        "user_rmse": [7.0, np.nan],
    }
    table = pd.DataFrame({"variable": ["age", "city"], "kind": ["numerical", "binary"], "cells": 13, **errors})
    table.assign(accuracy=[np.nan, 0.8]).to_csv(folder / "imputation.csv", index=False)


def read(folder: Path) -> tuple[Reader, str]:
    page = write_report(folder).read_text(encoding="utf-8")
    return Reader(page), page


def well_formed(reader: Reader, page: str) -> None:
    assert reader.open == []
    assert not {"script", "link", "iframe", "object"} & set(reader.names)
    assert all(link.startswith(("#", "data:image/png")) for link in reader.links), reader.links
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>', "", page, flags=re.DOTALL)
    assert "http" not in outside
    assert "@import" not in page


SECTIONS = ["What was searched", "Trials", "Knobs", "Learning curves", "The winner", "Errors by variable"]
SECTIONS += ["True against generated rows", "True against imputed cells", "Completed rows", "Resources", "Environment"]


def test_a_study_has_all_sections_and_loads_nothing(there: Path) -> None:
    reader, page = read(study(there / "medgan"))
    well_formed(reader, page)
    assert re.findall("<h2>(.*?)</h2>", page) == SECTIONS
    assert reader.names.count("figure") == 8
    for said in (
        "medgan: TrainMedGAN",
        "The best of 12 trials is 011: val_imputation_rmse 0.1005 in epoch 4",
        "means and modes have 0.45. Smaller is better.",
        "mcar 0.3 of unseen rows",
        "val 20.0% to 40.0%, mean 30.0%",
        "loguniform 0.0001, 0.01",
        "choice [], [64]",
        "ASHA(grace_period=2)",
        "search 3, trials 0",
        "all epochs done 12",
        "24.0 s of training and measuring",
        "1.23e+03 (median)",
        "had all their epochs 12 24.0 100%",
        "torch 2.9.9",
        "data hash abc123",
        "imputation_rmse 0.3 0.31 0.41",
        "test_crps 0.07",
        "age numerical 13 0.3 0.4 1 7",
    ):
        assert said in reader.text, said


def test_completed_rows_are_in_the_users_units_and_marked(there: Path) -> None:
    _, page = read(study(there / "medgan"))
    marked = [cell.replace("&lt;", "<").replace("&gt;", ">") for cell in re.findall("<mark>(.*?)</mark>", page)]
    assert len(marked) >= 8
    for form in (
        r"\d\d\.\d+ \(true \d\d\.\d+\)",
        r"(Oslo|<Voss>) \(true (Oslo|<Voss>)\)",
        r"20\d\d-\d\d-\d\d \(true 20.*\)",
    ):
        assert any(re.fullmatch(form, cell) for cell in marked), (form, marked)
    assert any(cell.endswith("(was missing)") for cell in marked)
    assert "<Voss>" not in page


def test_a_study_of_few_trials_says_that_it_is_too_few(there: Path) -> None:
    reader, page = read(study(there / "few", trials=9))
    assert "it takes 10 trials with a score, and there are 9." in reader.text
    assert "of what a forest loses" not in reader.text
    well_formed(reader, page)


def test_a_study_of_one_trial_has_no_history_of_trials(there: Path) -> None:
    reader, page = read(study(there / "one", trials=1))
    well_formed(reader, page)
    assert "The best of 1 trial is 000" in reader.text
    assert "Knobs" not in reader.text
    assert "best so far" not in page


def test_seeds_are_said(there: Path) -> None:
    reader, _ = read(study(there / "seeds", trials=3, seeds=3))
    assert "± 0.013 over 3 seeds in epoch 4" in reader.text
    assert "search 3, trials 0 to 2" in reader.text
    assert "Means over 3 seeds." in reader.text


def test_a_study_whose_trials_all_failed_says_why(there: Path) -> None:
    reader, page = read(study(there / "failed", failed=True))
    well_formed(reader, page)
    assert "No trial has a val_imputation_rmse, so none is the best." in reader.text
    assert "diverged: <loss> is nan 12" in reader.text
    assert "There is no history.parquet, so no curve can be drawn." in reader.text
    assert "The winner" not in reader.text
    assert reader.names.count("figure") == 0


def test_what_is_not_there_is_a_sentence(there: Path) -> None:
    folder = study(there / "old", winner=False)
    for name in ("history.parquet", "scores.json", "environment.json", "missing.csv"):
        (folder / name).unlink()
    reader, page = read(folder)
    well_formed(reader, page)
    for said in ("no history.parquet", "not scored on test cells", "no winner.parquet"):
        assert said in reader.text


def comparison(folder: Path) -> Path:
    study(folder / "medgan", trials=2)
    space = {"data": {"source": {"factory": "Wine"}}, "imputers": {"medgan": {}, "gain": {}}}
    write_json(folder / "study.json", {"space": space, "settings": {"metric": "val_imputation_rmse", "repeats": 5}})
    row = {"validation_mean": 0.2, "validation_interval": 0.01, "test_mean": 0.25, "test_interval": 0.01, "gap": 0.05}
    row |= {"better": 20.0, "seconds": 1.0, "trials": 2, "search_seconds": 4.0, "repeats": 5, "failed": 0, "reason": ""}
    pd.DataFrame([{"imputer": "medgan", **row}]).to_parquet(folder / "leaderboard.parquet")
    return folder


def test_a_comparison_is_its_leaderboard_and_its_studies(there: Path) -> None:
    folder = comparison(there / "results" / "all")
    page = write_report(folder).read_text()
    reader = Reader(page)
    assert reader.links == ["medgan/report.html"]
    assert (folder / "medgan" / "report.html").is_file()
    assert "0.2500 ± 0.0100" in reader.text
    assert "gain has no report" in reader.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["medgam"], "did you mean 'medgan'?"),
        (["benchmark"], "is a benchmark, which has no search to report: dgm-ray leaderboard results/benchmark"),
        (["other"], "was not written by a study"),
        (["running"], "has not ended: there is no results.parquet yet"),
        (["broken"], "scores.json: is no JSON"),
    ],
)
def test_bad_input_is_one_line(there: Path, given: list[str], said: str) -> None:
    results = there / "results"
    study(results / "medgan", trials=1)
    (results / "benchmark").mkdir()
    (results / "benchmark" / "runs.jsonl").write_text("")
    write_json(results / "other" / "study.json", {"rows": 4})
    (study(results / "running", trials=1) / "results.parquet").unlink()
    (study(results / "broken", trials=1) / "scores.json").write_text("{")
    done = CliRunner().invoke(app, ["report", *given])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_all_studies_are_reported_and_what_is_none_is_said(there: Path) -> None:
    study(there / "results" / "medgan", trials=1)
    (there / "results" / "benchmark").mkdir()
    (there / "results" / "benchmark" / "runs.jsonl").write_text("")
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1] == "results/medgan/report.html"
    assert done.stdout.startswith("left out: results/benchmark: is a benchmark")


def test_nothing_there_is_one_line() -> None:
    done = CliRunner().invoke(app, ["report"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_a_place_is_its_folder(there: Path) -> None:
    place = Place(study(there / "medgan", trials=1), "sqlite://")
    assert write_report(place) == place.report


def test_an_unknown_folder_is_no_study(there: Path) -> None:
    with pytest.raises(StudyError, match="was not written by a study"):
        write_report(there)


def test_positions_follow_the_draw() -> None:
    assert position(RATE, 1e-3) == pytest.approx(0.5)
    assert position(Draw("uniform", (2.0, 4.0)), 2.5) == pytest.approx(0.25)
    assert position(Draw("randint", (8, 24)), 24) == 1
    assert [position(SIZES, text) for text in ("[]", "[64]")] == [0, 1]
    assert np.isnan(position(SIZES, "[3]"))


def test_the_knob_that_decides_is_first_and_one_that_does_not_is_near_nothing() -> None:
    random = np.random.default_rng(0)
    draws = {"idle": Draw("uniform", (0.0, 1.0)), "lr": RATE}
    values = [{"idle": float(random.random()), "lr": float(10 ** random.uniform(-4, -2))} for _ in range(60)]
    scores = [float(abs(np.log10(one["lr"]) + 3)) for one in values]
    scores[0] = 1e9  # one that diverged does not outweigh the others
    found = importance(draws, values, scores)
    assert next(iter(found.values)) == "lr"
    assert found.values["lr"] > 0.85
    assert sum(found.values.values()) == pytest.approx(1)
    assert found.foretold > 0.5


def test_importance_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    draws = {name: Draw("uniform", (0.0, 1.0)) for name in "abc"}
    values = [{name: float(random.random()) for name in "abc"} for _ in range(80)]
    scores = [3 * one["a"] + one["b"] for one in values]
    found = importance(draws, values, scores).values
    ranks = np.argsort(np.argsort(scores)) / 79
    features = np.array([list(one.values()) for one in values])
    forest = RandomForestRegressor(100, oob_score=True, random_state=0, min_samples_leaf=2).fit(features, ranks)
    theirs = permutation_importance(forest, features, ranks, n_repeats=30, random_state=5).importances_mean
    assert [found[name] for name in "abc"] == pytest.approx(list(theirs / theirs.sum()), abs=0.05)


def test_the_history_shows_the_best_so_far_and_trials_without_a_score() -> None:
    drawn = study_figures.trials_in_order([0, 1, 2, 3, 4], [0.5, 0.6, 0.4, np.nan, 90.0], "rmse")
    (axes,) = drawn.axes
    (best,) = axes.lines
    assert best.get_ydata() == pytest.approx([0.5, 0.5, 0.4, 0.4, 0.4])
    trials = {one.get_label(): one.get_offsets() for one in axes.collections if isinstance(one, PathCollection)}
    assert trials["trial"][:, 0].tolist() == [0, 1, 2]
    assert trials["no score"][:, 0].tolist() == [3]
    assert trials["above"][:, 0].tolist() == [4]
    assert axes.get_ylim()[1] < 2, "one that diverged leaves room for the others"


def test_parallel_coordinates_go_through_what_was_drawn() -> None:
    values = [{"lr": 1e-4, "sizes": "[64]"}, {"lr": 1e-3, "sizes": "[]"}]
    (axes,) = study_figures.parallel_coordinates(DRAWS, values, [0.2, 0.3], "rmse").axes
    (lines,) = [one for one in axes.collections if isinstance(one, LineCollection)]
    worse, best = (segment[:, 0] for segment in lines.get_segments())
    assert best == pytest.approx([0, 1, 0])
    assert worse == pytest.approx([0.5, 0, 1])
    assert lines.get_colors()[1][3] == 1 > lines.get_colors()[0][3]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lr", "sizes", "rmse"]
    assert {"0.0001", "0.01", "[]", "[64]", "0.2", "0.3"} <= {text.get_text() for text in axes.texts}


def test_curves_of_the_best_stand_out_and_others_are_one_broken_line() -> None:
    rows = [{"trial": t, "epoch": e, "loss": 10.0 * t + e} for t in range(4) for e in (1, 2, 3)]
    drawn = study_figures.learning_curves(pd.DataFrame(rows), ["loss"], [2, 0])
    thin, *best = drawn.axes[0].lines
    assert [line.get_label() for line in best] == ["000", "002, best"]
    assert best[1].get_ydata().tolist() == [21, 22, 23]
    nan = np.nan
    np.testing.assert_array_equal(thin.get_ydata(), [nan, 11, 12, 13, nan, 31, 32, 33, nan])


def test_marginals_are_shares_of_the_cells() -> None:
    true, made = pd.Series([0.0, 0.0, 1.0, 1.0]), pd.Series([1.0, 1.0, 1.0, 5.0])
    names = (pd.Series(["a", "a", "b", None], dtype=object), pd.Series(["b", "c", "c", "c"], dtype=object))
    first, second, *empty = study_figures.marginals({"x": (true, made), "y": names}, "generated").axes
    assert [patch.get_data().values.sum() for patch in first.patches] == pytest.approx([1, 1])
    assert first.patches[1].get_data().values[-2:].sum() == pytest.approx(1), "what lies beyond stands at the end"
    assert [text.get_text() for text in first.get_xticklabels()] == ["0", "1"]
    heights = [patch.get_height() for patch in second.patches]
    assert heights == pytest.approx([2 / 3, 1 / 3, 0, 0, 1 / 4, 3 / 4])
    assert [text.get_text() for text in second.get_xticklabels()] == ["a", "b", "c"]
    assert not any(axes.axison for axes in empty)


def test_many_categories_have_a_bar_for_the_others() -> None:
    names = pd.Series([chr(97 + index) for index in range(20)], dtype=object)
    (axes, *_) = study_figures.marginals({"x": (names, names)}, "generated").axes
    assert axes.get_xticklabels()[-1].get_text().startswith("o")
    assert [patch.get_height() for patch in axes.patches][7] == pytest.approx(13 / 20)


def test_matrices_show_strength_and_sign() -> None:
    true = pd.DataFrame([[1.0, -0.5], [-0.5, 1.0]], index=["a", "b"], columns=["a", "b"])
    made = pd.DataFrame([[1.0, np.nan], [np.nan, 1.0]], index=["a", "b"], columns=["a", "b"])
    drawn = study_figures.matrices(true, made, "generated")
    pictures = [np.asarray(axes.images[0].get_array(), dtype=float) for axes in drawn.axes]
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["true", "generated", "difference"]
    assert pictures[0][0, 1, 3] == pytest.approx(0.5)
    assert pictures[0][0, 1, :3] == pytest.approx(study_figures.NEGATIVE)
    assert pictures[1][0, 1, 3] == 0, "where there is no value there is no colour"
    assert pictures[2][0, 0, 3] == 0


def test_errors_stand_beside_those_of_means_and_modes() -> None:
    (axes,) = study_figures.errors_by_variable(["a", "b"], [0.2, 0.1], [0.3, 0.4], "RMSE").axes
    dots = {
        one.get_label(): one.get_offsets()[:, 0].tolist() for one in axes.collections if isinstance(one, PathCollection)
    }
    assert dots["winner"] == pytest.approx([0.2, 0.1])
    assert dots["means and modes"] == pytest.approx([0.3, 0.4])


def test_distances_of_columns() -> None:
    assert distance(pd.Series([0.0, 2.0]), pd.Series([1.0, 3.0])) == pytest.approx(0.5)
    days = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-03"]))
    assert distance(days, days + pd.Timedelta(days=1)) == pytest.approx(0.5)
    assert distance(pd.Series(["a", "a"], dtype=object), pd.Series(["a", "b"], dtype=object)) == pytest.approx(0.5)
    assert np.isnan(distance(pd.Series([np.nan]), pd.Series([1.0])))


def test_links_and_marks_in_every_form() -> None:
    page = Page("t").add(Links({"a<b": "x y/report.html"}), Table(pd.DataFrame({"v": [Marked("<1>")]})))
    assert '<a href="x%20y/report.html">a&lt;b</a>' in page.html()
    assert "<mark>&lt;1&gt;</mark>" in page.html()
    assert "- [a&lt;b](<x y/report.html>)" in page.markdown()
    assert json.dumps(page.markdown()).count("mark") == 0
