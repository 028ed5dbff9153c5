"""A trained model is a folder: it completes and draws a user's rows as the trial did, without Ray or MLflow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import dgm_ray
from dgm_ray.data import Csv, Holdout, Origin, Prepared, Scored, Wine
from dgm_ray.errors import ConfigurationError, DataError, DGMError, ImputerError, TrainingError
from dgm_ray.estimator import Imputer
from dgm_ray.evaluation import Seen, imputed
from dgm_ray.impute_files import impute
from dgm_ray.models import GAN, MODELS, Imputes, Samples
from dgm_ray.registry import parameters
from dgm_ray.tasks.exported import Model, export, task_of
from dgm_ray.tasks.imputers import fitting, imputer_configuration, imputer_names
from dgm_ray.tasks.trained import device_of

MEANS = {"factory": "MeanAndModesImputation"}
CITIES, CLASSES = ["Bonn", "Oslo", "Rome"], ["bad", "good"]
ALL = [*imputer_names(), *(model.__name__ for model in MODELS), "conditional"]
Node = dict[str, Any]


def people(rows: int, seed: int) -> pd.DataFrame:
    """Return a table of every kind of column, with gaps, a label and an id."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"p{seed}-{row}" for row in range(rows)],
            "age": random.integers(18, 90, rows),
            "income": random.normal(3e4, 1e4, rows).round(2),
            "city": random.choice(CITIES, rows),
            "member": random.random(rows) < 0.5,
            "zip": random.choice(["02", "1a", "1b"], rows),
            "since": pd.Timestamp("2001-01-01") + pd.to_timedelta(random.integers(0, 5000, rows), unit="D"),
            "grade": random.choice(CLASSES, rows),
        }
    )
    for name in ("age", "income", "city", "member", "zip", "since"):
        frame[name] = frame[name].mask(random.random(rows) < 0.2)
    return frame


LEARNED = ["age", "income", "city", "member", "zip", "since"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "people.csv"
    people(150, 0).astype({"age": "Int64"}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def data(table: Path) -> Prepared:
    source = Csv(table, label="grade", drop=["id"])
    return Holdout(source, missing_probability=0.4, train_missing_probability=0.1).prepare()


def configuration_of(name: str, rows: int, node_of: Callable[..., Node]) -> Node:
    """Return what trains an imputer by its name, a model by that of its class, or a conditional GAN."""
    if name in imputer_names():
        node = imputer_configuration(name)
        own = {"epochs": 2, "patience": None} if "patience" in node["arguments"] else {"epochs": 2}
        return {"task": node["task"], "arguments": fitting(node["arguments"], rows) | own}
    model = GAN if name == "conditional" else next(one for one in MODELS if one.__name__ == name)
    architecture = node_of(model)
    if name == "conditional":
        architecture["arguments"]["conditional"] = {"max_embedding_size": 2}
    metric = "val_imputation_rmse" if issubclass(model, Imputes) else None
    given = {"architecture": architecture, "batch_size": 16, "epochs": 2, "imputation": MEANS}
    steps = {key: 1 for key in parameters(model) if key.endswith("_steps")}
    return {"task": f"Train{model.__name__}", "arguments": given | steps | {"keep_checkpoint_by_metric": metric}}


class Exported:
    """A model that was trained as a trial trains it, and its folder."""

    def __init__(self, name: str, folder: Path, data: Prepared, node_of: Callable[..., Node]) -> None:
        self.folder, node = folder, configuration_of(name, data.train.rows, node_of)
        node["arguments"]["seed"] = 3
        task = task_of(node, Holdout(Wine()))  # type: ignore[arg-type]
        self.training = task.start(data, node)
        while not self.training.done:
            self.training.advance()
        self.origin = Origin.of(data, "grade", ("id",))
        export(folder, node, self.origin, self.training.state())
        self.training.use_best()
        self.model = self.training.architecture.model
        keep = np.isnan(data.validation.features).any(axis=1)
        part = data.validation
        self.rows = Scored(
            part.row_ids[keep], part.features[keep], part.labels[keep], part.hidden_mask[keep], part.truth[keep]
        )

    def frame(self) -> pd.DataFrame:
        """The validation rows as the user has them, with the class."""
        made = self.origin.encoder.decode(self.origin.units(self.rows.features))
        return made.assign(grade=np.array(CLASSES)[np.asarray(self.rows.labels, dtype=int)])

    def scored(self) -> pd.DataFrame:
        """What the trial's scoring makes of them."""
        architecture = self.training.architecture
        seen = Seen(self.origin.metadata, self.rows, architecture.fill, device_of("cpu"), architecture.conditional)  # type: ignore[arg-type]
        with self.training.aside():
            return self.origin.encoder.decode(self.origin.units(imputed(self.model, seen)))  # type: ignore[arg-type]


USE = """
import sys
from pathlib import Path
import pandas as pd
import dgm_ray
for folder in map(Path, sys.argv[1:]):
    model = dgm_ray.load(folder)
    labels = "good" if model.conditional else None
    if model.can_impute:
        model.impute(pd.read_pickle(folder.with_suffix(".frame"))).to_pickle(folder.with_suffix(".done"))
    if model.can_sample:
        drawn = [model.sample(40, seed, labels) for seed in (1, 1, 2)]
        pd.to_pickle(drawn, folder.with_suffix(".drawn"))
assert not {"ray", "mlflow"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory, data: Prepared, node_of: Any) -> dict[str, Exported]:
    """Every model and imputer, used by one fresh process."""
    folder = tmp_path_factory.mktemp("models")
    made = {name: Exported(name, folder / name, data, node_of) for name in ALL}
    for one in made.values():
        one.frame().to_pickle(one.folder.with_suffix(".frame"))
    line = [sys.executable, "-c", USE, *(str(one.folder) for one in made.values())]
    finished = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return made


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory, data: Prepared, node_of: Any) -> Exported:
    return Exported("means_and_modes", tmp_path_factory.mktemp("forest") / "model", data, node_of)


@pytest.fixture
def copy(forest: Exported, tmp_path: Path) -> Path:
    """A folder of a model that a test may damage."""
    return Path(shutil.copytree(forest.folder, tmp_path / "model"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_another_process_completes_rows_as_the_trial_did(every: dict[str, Exported], name: str) -> None:
    one = every[name]
    if not isinstance(one.model, Imputes):
        assert not dgm_ray.load(one.folder).can_impute
        return
    done, frame, wanted = pd.read_pickle(one.folder.with_suffix(".done")), one.frame(), one.scored()
    assert list(done) == [*LEARNED, "grade"]
    assert not done.isna().any(axis=None)
    for column in LEARNED:
        seen = frame[column].notna()
        assert (done.loc[seen, column] == frame.loc[seen, column]).all(), column
    pd.testing.assert_frame_equal(done[LEARNED], wanted[LEARNED], check_dtype=False, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_another_process_draws_valid_rows(every: dict[str, Exported], name: str) -> None:
    one = every[name]
    if not isinstance(one.model, Samples):
        assert not dgm_ray.load(one.folder).can_sample
        return
    first, same, other = pd.read_pickle(one.folder.with_suffix(".drawn"))
    pd.testing.assert_frame_equal(first, same)
    assert not first.equals(other)
    assert list(first) == LEARNED + (["grade"] if name == "conditional" else [])
    assert len(first) == 40
    assert not first.isna().any(axis=None)
    assert set(first["city"]) <= set(CITIES)
    assert set(first["member"]) <= {True, False}
    assert first["age"].dtype.kind == "i"
    assert (first["since"].dt.normalize() == first["since"]).all()


@pytest.mark.slow
def test_all_models_are_here(every: dict[str, Exported]) -> None:
    able = {name for name, one in every.items() if isinstance(one.model, Samples)}
    assert {"GAN", "MedGAN", "ARAE", "VAE", "conditional"} <= able
    assert len(every) >= 20


def test_it_is_the_best_epoch(forest: Exported) -> None:
    best = forest.training.best
    assert best is not None
    model = dgm_ray.load(forest.folder)
    assert (model.epoch, model.scores) == (best.epoch, best.measures)
    about = json.loads((forest.folder / "model.json").read_text())
    assert {"dgm_ray", "torch", "python", "numpy"} <= about["versions"].keys()
    assert not list(forest.folder.glob("*.pkl"))


def test_of_several_seeds_it_is_the_best(tmp_path: Path, data: Prepared) -> None:
    node = imputer_configuration("autoencoder")
    own = {"epochs": 2, "patience": None, "seed": 5, "keep_checkpoint_by_metric": "val_imputation_rmse"}
    node["arguments"] = fitting(node["arguments"], data.train.rows) | own
    trainings = task_of(node, Holdout(Wine())).repeats(3, data, node, together=False)  # type: ignore[arg-type]
    while not trainings.done:
        trainings.advance()
    best = min(trainings.by_seed, key=lambda one: one["score"])
    node["arguments"]["seed"] = best["seed"]
    made = export(tmp_path / "model", node, Origin.of(data, "grade", ("id",)), trainings.state())
    assert (made.epoch, made.scores) == (best["best_epoch"], best["measures"])
    assert dgm_ray.load(tmp_path / "model").seed == best["seed"]


def test_columns_that_were_left_out_stay(forest: Exported) -> None:
    frame = people(20, 5)[["since", "id", "city", "zip", "age", "income", "member"]].set_index(pd.RangeIndex(7, 27))
    done = dgm_ray.load(forest.folder).impute(frame)
    assert list(done) == list(frame)
    assert done.index.equals(frame.index)
    assert (done["id"] == frame["id"]).all()
    assert not done.isna().any(axis=None)
    assert frame.isna().any(axis=None), "what was given is not changed"


def test_the_script_and_the_command_complete_a_file(forest: Exported, tmp_path: Path) -> None:
    rows, done, same = tmp_path / "rows.csv", tmp_path / "done.csv", tmp_path / "same.csv"
    given = people(30, 9).astype({"age": "Int64"})
    given["zip"] = "02"  # looks like a number
    given.to_csv(rows, index=False)
    line = [sys.executable, str(forest.folder / "script.py"), str(rows), str(done)]
    assert subprocess.run(line, check=True, capture_output=True, text=True, timeout=120).stderr == ""
    impute(forest.folder, rows, same, Console(quiet=True))
    made, again = (pd.read_csv(path, dtype=str, na_filter=False) for path in (done, same))
    before = pd.read_csv(rows, dtype=str, na_filter=False)
    for name in before:
        observed = before[name] != ""
        assert (again.loc[observed, name] == before.loc[observed, name]).all(), name
        assert (made[name] != "").all(), name
    assert (made["zip"] == "02").all()
    assert made["since"].str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    assert made["age"].str.fullmatch(r"\d\d").all()
    pd.testing.assert_frame_equal(made.drop(columns="income"), again.drop(columns="income"))
    assert np.allclose(made["income"].astype(float), again["income"].astype(float))


def test_an_imputer_is_loaded_from_the_folder(forest: Exported) -> None:
    frame = people(20, 5)[LEARNED]
    imputer = Imputer.load(forest.folder)
    pd.testing.assert_frame_equal(imputer.transform(frame), dgm_ray.load(forest.folder).impute(frame))
    assert imputer.n_iter_ == forest.training.best.epoch  # type: ignore[union-attr]


def test_a_bundled_table_has_its_own_columns(tmp_path: Path) -> None:
    data = Holdout(Wine()).prepare()
    node = imputer_configuration("means_and_modes")
    training = task_of(node, Holdout(Wine())).start(data, node)  # type: ignore[arg-type]
    training.advance()
    export(tmp_path / "wine", node, Origin.of(data), training.state())
    model = dgm_ray.load(tmp_path / "wine")
    frame = pd.DataFrame({one.name: [None, 1.0] for one in data.metadata.variables[:-1]}).astype(float)
    done = model.impute(frame.assign(**{"class": ["class_1", None]}))
    alcohol = Wine().read().features[data.train.row_ids, 0]
    assert done["alcohol"].tolist() == pytest.approx([np.nanmean(alcohol, dtype=np.float64), 1.0])
    assert done["class"].tolist() == ["class_1", "class_1"]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda frame: frame.drop(columns="city"), DataError, "lacks the column 'city'"),
        (lambda frame: frame.rename(columns={"city": "citty"}), DataError, "did you mean 'citty'?"),
        (lambda frame: frame.assign(citie=1), DataError, "'citie'.*did you mean 'city'?"),
        (lambda frame: frame.assign(city="Olso"), DataError, "column 'city'.*'Olso'.*did you mean 'Oslo'?"),
        (lambda frame: frame.assign(age="old"), DataError, "column 'age': must hold numbers"),
    ],
)
def test_rows_that_do_not_fit(forest: Exported, change: Any, error: type[DGMError], said: str) -> None:
    with pytest.raises(error, match=said):
        dgm_ray.load(forest.folder).impute(change(people(5, 5)[LEARNED]))


def damage(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])


def edit(folder: Path) -> None:
    path = folder / "configuration.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "model.json").unlink(), "is no folder of a model"),
        (lambda folder: (folder / "table.json").unlink(), "has no table.json: export the model again"),
        (lambda folder: damage(folder, "weights.pt"), "weights.pt: was changed after it was exported"),
        (lambda folder: damage(folder, "table.json"), "table.json: was changed after it was exported"),
        (lambda folder: damage(folder, "model.json"), "model.json: is not JSON"),
        (edit, "configuration.json: was changed after it was exported"),
        (shutil.rmtree, "is no folder of a model"),
    ],
)
def test_a_folder_that_is_damaged(copy: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(copy)
    with pytest.raises((TrainingError, DataError), match=said) as caught:
        dgm_ray.load(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_taken(forest: Exported, copy: Path) -> None:
    with pytest.raises(ConfigurationError, match="DIR: is there already"):
        Model.load(forest.folder).save(copy)


def test_what_a_model_cannot_do(forest: Exported) -> None:
    model = dgm_ray.load(forest.folder)
    with pytest.raises(ConfigurationError, match="cannot draw new ones: use impute"):
        model.sample(3)


def test_a_conditional_model_takes_classes(tmp_path: Path, data: Prepared, node_of: Any) -> None:
    model = Exported("conditional", tmp_path / "model", data, node_of).folder
    loaded = dgm_ray.load(model)
    before = torch.get_rng_state()
    assert not loaded.sample(9, labels="bad").equals(loaded.sample(9, labels="bad"))
    assert torch.equal(torch.get_rng_state(), before), "the caller's random stream"
    made = loaded.sample(4, 0, ["good", "bad", "good", "good"])
    assert made["grade"].tolist() == ["good", "bad", "good", "good"]
    rows = people(6, 1)
    pd.testing.assert_frame_equal(loaded.impute(rows), loaded.impute(rows, rows["grade"]))
    line = [sys.executable, str(model / "script.py"), "5", str(tmp_path / "drawn.csv")]
    subprocess.run([*line, "good"], check=True, timeout=120)
    assert pd.read_csv(tmp_path / "drawn.csv")["grade"].tolist() == ["good"] * 5
    wrong = subprocess.run([*line, "goood"], check=False, timeout=120, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: labels: there is no class 'goood'; did you mean 'good'?\n",
    )
    for labels, said in ((None, "give the class of each row"), ("goood", "did you mean 'good'"), (["bad"], "each of")):
        with pytest.raises(DataError, match=said):
            loaded.sample(3, 0, labels)
    with pytest.raises(DataError, match="give the class of each row, in the column 'grade'"):
        loaded.impute(rows[LEARNED])
    with pytest.raises(ImputerError, match="is conditional, and an imputer's table has no labels"):
        Imputer.load(model)
