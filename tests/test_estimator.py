"""``dgm_ray.Imputer`` keeps scikit-learn's promises, and those of its own."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import dgm_ray
from dgm_ray.errors import DGMError
from dgm_ray.estimator import Imputer, ImputerError
from dgm_ray.space import corners, draws_of, fill, read_draws, read_file
from dgm_ray.tasks.imputers import imputer_configuration

ROOT = Path(__file__).parents[1]


def forest(**arguments: Any) -> dict[str, Any]:
    given = {"n_estimators": 4, "max_depth": 4} | arguments
    return {
        "task": "TrainImputer",
        "arguments": {"imputer": {"factory": "MissForest", "arguments": given}, "epochs": 2},
    }


def space(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a configuration of a search space that comes with the project, as a study's best.json has it."""
    trial = read_draws(read_file(ROOT / "search_spaces" / f"{name}.yaml")["trial"])
    made = fill(trial, next(iter(corners(trial))))
    assert not list(draws_of(made))
    made["arguments"] |= {"epochs": 3, "patience": None, **arguments}
    return {**made, "expected": {"val_imputation_rmse": 0.1}}


def mixed(rows: int = 80, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "income": random.normal(3e4, 1e4, rows),
            "city": random.choice(["Rome", "Oslo", "Bonn"], rows),
            "smoker": random.random(rows) < 0.5,
            "since": pd.Timestamp("2001-01-01") + pd.to_timedelta(random.integers(0, 5000, rows), unit="D"),
        },
        index=pd.RangeIndex(100, 100 + rows),
    )
    for name in frame:
        frame[name] = frame[name].mask(random.random(rows) < 0.2)
    return frame


def assert_completed(frame: pd.DataFrame, done: pd.DataFrame) -> None:
    assert not done.isna().any().any()
    assert done.index.equals(frame.index)
    assert list(done) == list(frame)
    for name in frame:
        observed = frame[name].notna()
        assert (done.loc[observed, name] == frame.loc[observed, name]).all(), name


@parametrize_with_checks([Imputer(forest())])  # none is expected to fail
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_bundled_table() -> None:
    truth = load_wine().data
    gaps = np.random.default_rng(0).random(truth.shape) < 0.2
    given = np.where(gaps, np.nan, truth)
    done = Imputer(forest(n_estimators=20)).fit_transform(given)
    assert isinstance(done, np.ndarray)
    assert done.dtype == np.float64
    assert np.array_equal(done[~gaps], truth[~gaps])
    means = np.broadcast_to(np.nanmean(given, axis=0), truth.shape)
    spread = truth.std(axis=0)
    errors = [np.sqrt(np.mean((((one - truth) / spread)[gaps]) ** 2)) for one in (done, means)]
    assert errors[0] < 0.8 * errors[1]


def test_a_mixed_table_and_unseen_rows() -> None:
    frame, unseen = mixed(), mixed(30, seed=1)
    imputer = Imputer(forest()).fit(frame)
    assert [column.kind for column in imputer.encoder_.columns] == [
        "numerical",
        "numerical",
        "categorical",
        "binary",
        "numerical",
    ]
    random_state = torch.get_rng_state()
    done = imputer.transform(unseen)
    assert_completed(unseen, done)
    assert_completed(frame, imputer.transform(frame))
    assert done["age"].dtype == np.int64
    assert done["since"].dtype == frame["since"].dtype
    assert set(done["city"]) <= {"Rome", "Oslo", "Bonn"}
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", ["gain", "mida", "vae", "gan", "autoencoder"])
def test_a_studys_winner_trains_on_a_users_table(name: str) -> None:
    frame = mixed(200)
    imputer = Imputer(space(name, batch_size=16)).fit(frame)
    assert imputer.n_iter_ == 3
    assert imputer.validation_scores_["val_imputation_rmse"] > 0
    done = imputer.transform(frame)
    assert_completed(frame, done)


def test_a_vae_draws_what_is_likely() -> None:
    frame = mixed(40)
    imputer = Imputer("vae", epochs=1).fit(frame)
    first, second = imputer.draws(frame, 2)
    assert not first.equals(second)
    assert_completed(frame, first)


def test_it_is_lazy() -> None:
    code = "import sys, dgm_ray; a = {'torch', 'sklearn', 'pandas'} & set(sys.modules); dgm_ray.Imputer; print(a)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
    assert dgm_ray.Imputer is Imputer
    with pytest.raises(AttributeError, match="no attribute 'Impute'"):
        _ = dgm_ray.Impute


def test_parameters_clones_and_pipelines() -> None:
    imputer = Imputer(forest(), kinds={"age": "categorical"}, epochs=1, seed=3)
    again = clone(imputer)
    assert again.get_params() == imputer.get_params()
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)  # noqa: N806
    X = X.iloc[:200, :6].mask(np.random.default_rng(0).random((200, 6)) < 0.1)  # noqa: N806
    pipeline = make_pipeline(Imputer(forest()), LogisticRegression(max_iter=5000)).fit(X, y[:200])
    assert pipeline.score(X, y[:200]) > 0.8
    assert list(pipeline[:-1].get_feature_names_out()) == list(X)


def test_another_seed_another_result() -> None:
    frame, node = mixed(), space("gain", batch_size=16)
    first, other = (Imputer(node, seed=seed).fit(frame).transform(frame) for seed in (0, 1))
    assert not first.equals(other)


def test_draws() -> None:
    frame = mixed()
    imputer = Imputer(space("gain", batch_size=16)).fit(frame)
    draws = imputer.draws(frame, 3)
    assert len(draws) == 3
    for done in draws:
        assert_completed(frame, done)
    assert not draws[0].equals(draws[1])
    for done in Imputer(forest()).fit(frame).draws(frame, 2):
        assert_completed(frame, done)
    with pytest.raises(ValueError, match="n: must be 1 or above, not 0"):
        imputer.draws(frame, 0)


@pytest.mark.parametrize("node", [forest(), space("gain", batch_size=16)], ids=["MissForest", "GAIN"])
def test_saved_and_loaded(node: dict[str, Any], tmp_path: Path) -> None:
    frame, unseen = mixed(), mixed(20, seed=1)
    imputer = Imputer(node, kinds={"age": "numerical"}, seed=5).fit(frame)
    done = imputer.transform(unseen)
    imputer.save(tmp_path / "model.pt")
    loaded = Imputer.load(tmp_path / "model.pt", device="cpu")
    for other in (loaded, pickle.loads(pickle.dumps(imputer)), copy.deepcopy(imputer)):
        pd.testing.assert_frame_equal(other.transform(unseen), done)
        assert other.n_features_in_ == 5
        assert list(other.get_feature_names_out()) == list(frame)
        assert other.validation_scores_ == imputer.validation_scores_
    loaded.save(tmp_path / "again.pt")
    pd.testing.assert_frame_equal(Imputer.load(tmp_path / "again.pt").transform(unseen), done)
    assert clone(loaded).fit(frame).transform(unseen).equals(done), "its parameters say how it was trained"


def test_a_model_of_an_array_is_loaded_without_names(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[::5, 1] = np.nan
    imputer = Imputer(forest()).fit(rows)
    imputer.save(tmp_path / "model.pt")
    loaded = Imputer.load(tmp_path / "model.pt")
    assert not hasattr(loaded, "feature_names_in_")
    assert np.array_equal(loaded.transform(rows), imputer.transform(rows))


def test_from_config_and_a_short_training(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(json.dumps(space("gain", batch_size=16)))
    frame, seen = mixed(), list[int]()
    imputer = Imputer.from_config(tmp_path / "best.json", epochs=2)
    imputer.fit(frame, report=lambda epoch, figures: seen.append(epoch))
    assert seen == [1, 2]
    assert imputer.configuration_["arguments"]["epochs"] == 2
    assert "data" not in imputer.configuration_["arguments"]


def test_nothing_hidden_for_validation() -> None:
    frame = mixed()
    imputer = Imputer(forest(), validation_probability=0.0).fit(frame)
    assert imputer.validation_scores_ == {}
    assert_completed(frame, imputer.transform(frame))


def test_all_of_a_column_hidden_for_validation() -> None:
    frame = mixed()
    frame["rare"] = [1.0, 2.0] + [np.nan] * (len(frame) - 2)
    with pytest.raises(ImputerError, match=r"rare.*a lower validation_probability hides fewer"):
        Imputer(forest(), validation_probability=0.95).fit(frame)


def test_rows_without_gaps_and_no_rows_at_all() -> None:
    frame = mixed()
    imputer = Imputer(forest()).fit(frame)
    full = imputer.transform(frame)
    pd.testing.assert_frame_equal(imputer.transform(full), full)
    assert len(imputer.transform(full.iloc[:0])) == 0


def test_an_array_for_a_table_with_names_warns() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["a", "b", "c"])
    imputer = Imputer(forest()).fit(frame)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert np.array_equal(imputer.transform(frame.to_numpy()), frame.to_numpy())


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"task": "TrainGAIM", "arguments": {}}, "configuration: task: no task .* did you mean 'TrainGAIN'?"),
        ({"task": "SampleWithGAN", "arguments": {}}, "configuration: task: "),
        ({"task": "TrainImputer"}, "configuration: a configuration needs 'arguments'"),
        ({"tune": {}, "trial": {}}, "is a search space: search it, and use the best.json"),
        ({"task": "TrainImputer", "arguments": {"epochs": {"choice": [1, 2]}}}, "has no draws"),
        ({"task": "TrainImputer", "arguments": {"imputr": {}}}, "has no argument 'imputr'; did you mean 'imputer'?"),
        (
            space("conditional_gan"),
            "conditional: an imputer's table has no labels, so it cannot be conditional",
        ),
        (
            space("gain", batch_size=128),
            "arguments.batch_size: should be at most the 80 training rows, not 128",
        ),
        ("none.json", "none.json: "),
        ("miss_forst", "no imputer is called 'miss_forst'; did you mean 'miss_forest'?"),
    ],
)
def test_configurations_that_do_not_fit(configuration: Any, message: str) -> None:
    with pytest.raises(ImputerError, match=message) as caught:
        Imputer(configuration).fit(mixed())
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DGMError)


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    frame = mixed()
    with pytest.raises(ImputerError, match="table: must have more than 1 column"):
        Imputer(forest()).fit(frame[["age"]])
    with pytest.raises(ImputerError, match="table: column 'age': all its cells are the same"):
        Imputer(forest()).fit(frame.assign(age=3))
    imputer = Imputer(forest()).fit(frame)
    with pytest.raises(ImputerError, match=r"rows: column 'city': has the category 'Roma', which .* mean 'Rome'?"):
        imputer.transform(frame.assign(city="Roma"))
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(frame.rename(columns={"age": "Age"}))
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(ImputerError, match="is not a checkpoint that can be read safely"):
        Imputer.load(tmp_path / "model.pt")


def test_a_studys_winner_knows_the_kinds_of_its_table(tmp_path: Path) -> None:
    source = {"factory": "Csv", "arguments": {"path": "t.csv", "kinds": {"zip": "categorical"}}}
    node = imputer_configuration("k_nearest")
    node["arguments"]["data"] = {"factory": "CellHoldout", "arguments": {"source": source}}
    path = tmp_path / "best.json"
    path.write_text(json.dumps(node))
    df = pd.DataFrame({"zip": [1, 2, 3] * 20, "a": [1.0, 2.0, np.nan] * 20, "b": np.arange(60.0)})
    fitted = Imputer.from_config(path).fit(df)
    assert {one.name: one.kind for one in fitted.encoder_.metadata.variables}["zip"] == "categorical"
    fitted = Imputer.from_config(path, kinds={"zip": "numerical"}).fit(df)
    assert {one.name: one.kind for one in fitted.encoder_.metadata.variables}["zip"] == "numerical"
