"""``dgm-ray leaderboard``: folders of studies, comparisons and benchmarks, as one table, page and file."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from dgm_ray.cli import app
from dgm_ray.evaluation.ranking import holm
from dgm_ray.training import write_json
from dgm_ray.tune.report.figures import spread_out
from dgm_ray.tune.report.page import Heading, Page, Paragraph, Table
from dgm_ray.tune.report.scores import read_all
from dgm_ray.tune.report.standings import Standings, leaderboard

METHODS = {"gain": 0.1, "k_nearest": 0.15, "means_and_modes": 0.3}


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def benchmark(folder: Path, datasets: int, seeds: int = 3, **errors: str) -> pd.DataFrame:
    """Write what a benchmark leaves; a method of ``errors`` failed once, on the first data set."""
    random = np.random.default_rng(1)
    rows = []
    for number, seed, (name, error) in product(range(datasets), range(seeds), METHODS.items()):
        row = {"dataset": f"t{number}.csv", "mechanism": "mcar", "rate": 0.2, "seed": seed, "imputer": name}
        rmse = error * (1 + 0.02 * random.random())
        failed = errors[name] if name in errors and number == seed == 0 else None
        measured = {"rmse": math.nan if failed else rmse, "accuracy": 1 - rmse, "seconds": 1 / error}
        rows.append(row | measured | {"error": failed})
    table = pd.DataFrame(rows)
    folder.mkdir(parents=True)
    (folder / "runs.jsonl").write_text("")
    table.to_parquet(folder / "results.parquet")
    return table


def study(folder: Path, *scores: float, drawn: bool = True, **columns: Any) -> None:
    """Write what a study of MissForest on Wine leaves, its trials best first."""
    trees = {"choice": [10, 20]} if drawn else 10
    imputer = {"factory": "MissForest", "arguments": {"n_estimators": trees}}
    data = {"factory": "CellHoldout", "arguments": {"source": {"factory": "Wine"}, "seed": 4}}
    space = {"trial": {"task": "TrainImputer", "arguments": {"imputer": imputer, "data": data}}}
    write_json(folder / "study.json", {"space": space, "settings": {"metric": "val_imputation_rmse"}})
    rows = [{"trial": i, "status": "completed", "val_imputation_rmse": one} for i, one in enumerate(scores)]
    table = pd.DataFrame(rows).assign(reason="all epochs done", seconds=2.0, configuration="{}", **columns)
    table.to_parquet(folder / "results.parquet")


def comparison(folder: Path, repeats: dict[str, list[float]], source: str = "Wine", ended: bool = True) -> None:
    """Write what a comparison leaves: dae is searched, and its second trial is the default."""
    draws = {"batch_size": {"choice": [32, 64]}, "patience": 7}
    spaces = {name: draws if name == "dae" else {} for name in repeats}
    space = {"data": {"source": {"factory": source}, "test_probability": 0.3}, "imputers": spaces}
    write_json(folder / "study.json", {"space": space, "settings": {"metric": "val_imputation_rmse"}})
    for name in repeats:
        (folder / name).mkdir()
        rows = [
            {"trial": i, "status": status, "seconds": 1.5, "val_imputation_rmse": score}
            for i, (score, status) in enumerate([(0.2, "completed"), (0.25, "failed")])
        ]
        configurations = [json.dumps({"task": "T", "arguments": {"batch_size": size}}) for size in (32, 64)]
        pd.DataFrame(rows).assign(configuration=configurations).to_parquet(folder / name / "results.parquet")
    if ended:
        scored = [
            {"imputer": name, "seed": seed, "validation": one + 0.01, "test": one, "seconds": 3.0, "error": ""}
            for name, values in repeats.items()
            for seed, one in enumerate(values)
        ]
        pd.DataFrame(scored).to_parquet(folder / "repeats.parquet")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["leaderboard", *arguments])


def test_a_benchmark_by_hand(there: Path) -> None:
    table = benchmark(there / "results" / "grid", 6)
    done = call("--output", "out")
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(there / "out" / "leaderboard.parquet")
    own = table[(table["dataset"] == "t2.csv") & (table["imputer"] == "gain")]["rmse"]
    found = rows[(rows["dataset"] == "t2") & (rows["method"] == "gain")].iloc[0]
    low, high = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    assert (found["mean"], 2 * found["interval"]) == pytest.approx((own.mean(), high - low))
    assert (found["rank"], found["n"], found["of"], found["kind"]) == (1, 3, "mask", "default")
    baseline = table[(table["dataset"] == "t2.csv") & (table["imputer"] == "means_and_modes")]["rmse"].mean()
    assert found["better"] == pytest.approx(100 * (1 - own.mean() / baseline))

    means = table.groupby(["dataset", "imputer"])["rmse"].mean().unstack()
    pairs = [("gain", "k_nearest"), ("gain", "means_and_modes"), ("k_nearest", "means_and_modes")]
    p = holm([stats.wilcoxon(means[one], means[other]).pvalue for one, other in pairs])
    written = (there / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert (
        f"| gain | default | 1.00 | 6 |  | 10 | 0 of 18 |\n| k_nearest | default | 2.00 | 0 | {p[0]:.3g} |" in written
    )
    assert "with so many it needs 7 data sets to reach 5%, and there are 6" in written
    assert f"Nemenyi's critical difference of mean ranks at 5%: {2.343 * math.sqrt(3 * 4 / 36):.2f}" in written
    assert "2 more tables: in the files" in done.output
    assert "| method |  | test_imputation_rmse | rank |" in written


@pytest.mark.parametrize(
    ("datasets", "said", "unsaid"),
    [
        (
            2,
            ["needs 6 data sets to reach 5%, and there are 2", "no critical difference: it needs 3 data sets"],
            "Nemenyi",
        ),
        (3, ["needs 6 data sets to reach 5%, and there are 3", "Nemenyi"], "no critical"),
        (7, ["Holm's correction for 3 pairs", "p, to the first"], "it needs"),
    ],
)
def test_too_few_data_sets_are_said(there: Path, datasets: int, said: list[str], unsaid: str) -> None:
    benchmark(there / "results" / "grid", datasets, seeds=2)
    page = Standings(read_all([])).page().markdown()
    assert all(line in page for line in said)
    assert unsaid not in page


def test_a_method_that_failed_once_is_last_there(there: Path) -> None:
    benchmark(there / "results" / "grid", 2, gain="the process died")
    standings = Standings(read_all([]))
    first = standings.rows[standings.rows["dataset"] == "t0"].set_index("method")
    assert first["rank"].to_dict() == {"k_nearest": 1, "means_and_modes": 2, "gain": 3}
    assert (first["failed"]["gain"], first["runs"]["gain"], first["n"]["gain"]) == (1, 3, 2)
    page = standings.page().markdown()
    assert "failed: gain on t0, mcar 0.2: the process died" in page
    assert "| gain | default | 2.00 | 1 |" in page


def test_larger_is_better_of_an_accuracy(there: Path) -> None:
    benchmark(there / "results" / "grid", 2)
    standings = Standings(read_all(["grid"]), "test_imputation_accuracy")
    assert list(standings.rows["method"][:3]) == ["gain", "k_nearest", "means_and_modes"]
    assert "larger is better" in standings.page().title


def test_tuned_default_and_baseline(there: Path) -> None:
    comparison(there / "results" / "few", {"dae": [0.1, 0.12], "gain": [0.2, 0.2], "means_and_modes": [0.4, 0.4]})
    found = read_all(["few"])
    standings = Standings(found)
    rows = standings.rows.set_index("method")
    assert rows["kind"].to_dict() == {"dae": "tuned", "gain": "default", "means_and_modes": "baseline"}
    assert (rows["case"]["gain"], rows["of"]["gain"], rows["better"]["dae"]) == (
        "mcar 0.3",
        "seed",
        pytest.approx(72.5),
    )
    (search,) = [one for one in found.searches if one["method"] == "dae"]
    assert (search["default"], search["best"], search["baseline"], search["failed"]) == (0.25, 0.2, 0.2, 1)
    assert "| dae | wine, mcar 0.3 + 0.1 | 0.2000 | 0.2500 | 0.2000 | +20.0 % | 2, 1 failed | 3 |" in (
        standings.page().markdown()
    )
    validation = Standings(found, "val_imputation_rmse").rows.set_index("method")
    assert (validation["mean"]["dae"], validation["of"]["dae"]) == (pytest.approx(0.12), "mask")


def test_studies_and_their_seeds(there: Path) -> None:
    seeds = json.dumps([{"seed": s, "measures": {"val_imputation_rmse": 0.1 + s / 10}} for s in range(3)])
    study(there / "results" / "several", 0.2, 0.3, seeds=seeds)
    study(there / "results" / "fixed", 0.15, drawn=False)
    rows = Standings(read_all([])).rows.set_index("method")
    assert (rows["n"]["miss_forest (tuned)"], rows["runs"]["miss_forest (tuned)"]) == (3, 3)
    assert rows["mean"]["miss_forest (tuned)"] == pytest.approx(0.2)
    assert rows["mean"]["miss_forest (fixed)"] == 0.15
    study(there / "results" / "again", 0.11, drawn=False)
    names = set(Standings(read_all([])).rows["method"])
    assert {"miss_forest (fixed) (fixed)", "miss_forest (fixed) (again)"} <= names, "two studies of the same"


def test_what_is_left_out_is_said(there: Path) -> None:
    benchmark(there / "results" / "grid", 1)
    study(there / "results" / "forest", 0.2)
    comparison(there / "results" / "cut", {"gain": []}, ended=False)
    (there / "results" / "mlflow-artifacts").mkdir()
    page = " ".join(Standings(read_all([])).page().markdown().split())
    assert "left out: results/cut: has not ended: there is no repeats.parquet yet" in page
    assert "left out: results/forest: has no test_imputation_rmse" in page
    assert "mlflow" not in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["gird"],
            "STUDY: there is no such folder, nor is it in results; did you mean 'grid'?; there are ['broken', 'g",
        ),
        (["foreign"], "foreign: is no folder of a study, a comparison (they have a study.json) or a benchmark"),
        (["results/broken"], "results/broken/study.json: was not written by a study (KeyError: 'space')"),
        (
            ["results/older"],
            "results/older/results.parquet: was written by another program, or an older one: it has no",
        ),
        (["grid", "--metric", "test_imputation_rmes"], "--metric: should be of test_imputation_accuracy, test_imputa"),
        (["empty"], "empty: is no folder of a study"),
    ],
)
def test_bad_input_is_one_line(there: Path, given: list[str], said: str) -> None:
    benchmark(there / "results" / "grid", 1)
    benchmark(there / "results" / "older", 1).drop(columns="imputer").to_parquet(
        there / "results/older/results.parquet"
    )
    write_json(there / "results" / "broken" / "study.json", {"name": "another's"})
    write_json(there / "foreign" / "config.json", {})
    (there / "empty").mkdir()
    done = call(*given)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert not (there / "leaderboard").exists()


def test_nothing_there_is_one_line() -> None:
    done = call()
    assert done.exit_code == 2
    assert done.stderr == (
        "error: results: there is no study, comparison or benchmark here: name their folders, or run one first\n"
    )


class Reader(HTMLParser):
    """Checks that what is opened is closed, and keeps tags and what they refer to."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(there: Path) -> None:
    benchmark(there / "results" / "grid", 3)
    leaderboard(["grid"], None, there / "out", Console())
    html = (there / "out" / "leaderboard.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert reader.tags.count("svg") == 1 + 3, "the critical differences, and seconds of each table"
    assert reader.tags.count("table") == 1 + 3
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert all(one.startswith("#") for one in reader.references)
    assert all(one.startswith("#") for one in re.findall(r"url\((.*?)\)", html))
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html
    assert set(re.findall(r"#[0-9a-f]{6}", html[html.index("<body>") :])) == set(), "all colours are the page's"
    for name in METHODS:
        assert html.count(f">{name}</text>") == 3, "each point is named"


def test_text_is_escaped_everywhere() -> None:
    page = Page("a <b>").add(Heading("x & y"), Table(pd.DataFrame({"m|n": ["<script>", "a\nb"]})), Paragraph("1 < 2"))
    assert "<script>" not in page.html()
    assert "<h2>x &amp; y</h2>" in page.html()
    assert page.markdown() == "# a &lt;b>\n\n## x & y\n\n| m\\|n |\n| --- |\n| &lt;script> |\n| a b |\n\n1 &lt; 2\n"
    console = Console(width=60, record=True)
    page.print(console)
    assert "<script>" in console.export_text()


@pytest.mark.parametrize("wanted", [[0.0, 0.01, 0.02, 1.0], [0.9, 0.95, 0.99, 1.0], [0.5], [0.1] * 20])
def test_labels_do_not_overlap(wanted: list[float]) -> None:
    found = spread_out(wanted, 0.1)
    gap = min(0.1, 1 / max(len(wanted) - 1, 1))
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(found))
    assert -1e-9 <= min(found) <= max(found) <= 1
