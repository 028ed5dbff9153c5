"""What a study leaves of its winner for people: rows in the user's units, and figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dgm_ray.data import CellHoldout, Csv, Prepared
from dgm_ray.evaluation import complete
from dgm_ray.evaluation.final_report import FinalReport, ShownRows
from dgm_ray.evaluation.imputation_report import VariableErrors
from dgm_ray.tune import results
from dgm_ray.tune.place import Place
from dgm_ray.tune.results import in_user_units, write_scores, write_winner

ROWS = 60


def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    since = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, ROWS), unit="D")
    cells: dict[str, Any] = {
        "age": random.integers(18, 90, ROWS),
        "city": random.choice(["Oslo", "Voss", "Moss"], ROWS),
    }
    cells |= {"smoker": random.choice(["yes", "no"], ROWS), "since": since.strftime("%Y-%m-%d")}
    return pd.DataFrame(cells | {"grade": random.choice([1, 2, 3], ROWS), "flag": random.choice([0, 1], ROWS)})


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    frame().to_csv(tmp_path / "own.csv", index=False)
    return CellHoldout(Csv(tmp_path / "own.csv", kinds={"grade": "categorical"})).prepare()


def report_of(data: Prepared, *, completed: bool = True, generated: bool = True) -> FinalReport:
    test = data.test
    assert test is not None
    means = complete(data.metadata, np.broadcast_to(data.means_and_modes, test.features.shape), test.features)
    hidden = np.isnan(test.features)
    rows = ShownRows(test.row_ids, test.truth, hidden, means if completed else None, means[::-1] if generated else None)
    return FinalReport(test={"rmse": 0.25, "nrmse": np.nan}, rows=rows)


def test_rows_are_in_the_users_units_and_categories(data: Prepared, tmp_path: Path) -> None:
    place = Place(tmp_path / "study", "sqlite://")
    write_winner(place, data, report_of(data))
    table = pd.read_parquet(place.winner)
    own = frame().loc[table["row"]].reset_index(drop=True)
    for name in ("age", "city", "smoker"):
        assert table[f"true:{name}"].tolist() == own[name].tolist()
    assert table["true:since"].dt.strftime("%Y-%m-%d").tolist() == own["since"].tolist()
    assert table["true:grade"].tolist() == own["grade"].astype(str).tolist(), "categories are text"
    assert table["true:flag"].tolist() == own["flag"].astype(str).tolist()
    for name in own:
        hidden = table[f"hidden:{name}"]
        assert 0 < hidden.sum() < ROWS / 2
        assert (table[f"completed:{name}"] == table[f"true:{name}"])[~hidden].all()
        assert table[f"completed:{name}"][hidden].nunique() == 1, "means and modes"
        assert table[f"generated:{name}"].tolist() == table[f"completed:{name}"].tolist()[::-1]


def test_a_table_without_a_file_of_the_users_is_named_by_its_metadata(data: Prepared) -> None:
    assert data.test is not None
    plain = in_user_units(replace(data, encoder=None), data.test.truth)
    own = in_user_units(data, data.test.truth)
    assert list(plain) == list(own)
    assert plain["city"].tolist() == own["city"].tolist()
    assert plain["grade"].tolist() == own["grade"].tolist()
    assert plain["age"].tolist() == pytest.approx(own["age"].tolist(), rel=1e-5)
    assert plain["smoker"].map({"0": "no", "1": "yes"}).tolist() == own["smoker"].tolist()


@pytest.mark.parametrize("scaled", [True, False])
def test_a_missing_cell_stays_missing(data: Prepared, scaled: bool) -> None:
    assert data.test is not None
    features = np.full_like(data.test.truth, np.nan)
    assert in_user_units(data if scaled else replace(data, encoder=None), features).isna().all(axis=None)


def test_a_wide_table_keeps_the_worst_variables(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "WIDEST", 2)
    errors = [VariableErrors(name, "numerical", 9, rmse, 0.1) for name, rmse in (("since", 0.9), ("city", 0.5))]
    place = Place(tmp_path / "study", "sqlite://")
    write_winner(place, data, replace(report_of(data, generated=False), variables=errors))
    assert list(pd.read_parquet(place.winner)) == [
        *("row", "hidden:city", "true:city", "completed:city"),
        *("hidden:since", "true:since", "completed:since"),
    ]


def test_another_winners_rows_are_not_left(data: Prepared, tmp_path: Path) -> None:
    place = Place(tmp_path / "study", "sqlite://")
    write_winner(place, data, report_of(data))
    write_winner(place, data, report_of(data, completed=False, generated=False))
    assert not place.winner.exists()


def test_scores_are_plain_numbers(tmp_path: Path) -> None:
    place = Place(tmp_path / "study", "sqlite://")
    write_scores(place, {"val_imputation_rmse": 0.5}, FinalReport(test={"rmse": 0.25, "nrmse": np.nan}))
    written = pd.read_json(place.scores, typ="series")
    assert written["means_and_modes"] == {"val_imputation_rmse": 0.5}
    assert written["winner"] == {"test_imputation_rmse": 0.25}
