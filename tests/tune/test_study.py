"""A search space is checked before anything starts: each mistake is one line with the place, the rule and the value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgm_ray.data import achieved
from dgm_ray.errors import ConfigurationError, DGMError
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.schedulers import ASHA
from dgm_ray.tune.settings import OptunaMultiObjective, OptunaSearch
from dgm_ray.tune.study import Study

Write = Callable[[dict[str, Any]], Path]
GAIN = Path(__file__).parents[2] / "search_spaces" / "gain.yaml"
COMPONENTS = "trial.arguments.architecture.components"


def read(path: Path, *assignments: str) -> Study:
    study = Study.read(path, assignments)
    study.rehearse(study.prepare())
    return study


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("tune.sample=3", "tune.sample: Settings has no argument 'sample'; did you mean 'samples'?"),
        ("trail.arguments.epochs=5", "trail: small.json has no argument 'trail'; did you mean 'trial'?"),
        ("trial.argumnts.epochs=5", "trial.argumnts: a trial has no argument 'argumnts'; did you mean 'arguments'?"),
        ("tune.samples=0", "tune.samples: Input should be greater than or equal to 1, not 0"),
        ("tune.search={factory: Random}", "tune.search.factory: no factory is called 'Random'"),
        (
            "tune.search={factory: MSE}",
            "tune.search: should be a RandomSearch or OptunaSearch or OptunaMulti",
        ),
        ("tune.scheduler.arguments.grace_period=4", "tune.scheduler.arguments.grace_period: should be below the 4"),
        ("tune.scheduler.arguments.reduction_factor=1.0", "tune.scheduler.arguments.reduction_factor: should be above"),
        ("tune.metric=val_los", "tune.metric: AutoEncoder reports val_imputation_rmse, val_imputation_mae, not"),
        (
            "tune.search={factory: OptunaMultiObjective, arguments: {other: val_los}}",
            "tune.search.arguments.other: AutoEncoder reports val_imputation_rmse, val_imputation_mae, not 'val_los'",
        ),
        (
            "tune.search={factory: OptunaMultiObjective, arguments: {other: val_imputation_rmse}}",
            "tune.search.arguments.other: should be another metric than tune.metric, not 'val_imputation_rmse'",
        ),
        ("tune.resources={cpu: 0}", "tune.resources.cpu: Input should be greater than 0, not 0"),
        ("trial.task=TrainAutoencoder", "trial.task: no task is called 'TrainAutoencoder'; did you mean"),
        ("trial.arguments.epoch=3", "trial.arguments.epoch: TrainAutoEncoder has no argument 'epoch'; did you mean"),
        ("trial.arguments.epochs=many", "trial.arguments.epochs: Input should be a valid integer, not 'many'"),
        ("trial.arguments.batch_size=500", "trial.arguments.batch_size: should be at most the"),
        ("trial.arguments.device=cpu", "trial.arguments.device: tune.resources decides this: leave it out, not 'cpu'"),
        ("trial.arguments.logs=x.csv", "trial.arguments.logs: the study decides this: leave it out"),
        ("trial.arguments.seed=null", "trial.arguments.seed: a trial that can be repeated has a seed, not None"),
        ("trial.arguments.data.seed={randint: [0, 9]}", "trial.arguments.data.seed: the data is prepared once"),
        ("trial.arguments.data.missing_probability=0", "data.missing_probability: must hide a cell of the validation"),
        ("trial.arguments.data.train_missing_probability=0.5", "data: alcohol, malic_acid"),
        (f"{COMPONENTS}.autoencoder=null", f"{COMPONENTS}.autoencoder: a component is a mapping with a factory"),
        (f"{COMPONENTS}.autoencodr.arguments.encoder={{}}", f"{COMPONENTS}.autoencodr: a component is a mapping with"),
        (f"{COMPONENTS}.autoencoder.factory=AutoEncoder", f"{COMPONENTS}.autoencoder.factory: no factory is called"),
        (f"{COMPONENTS}.autoencoder.factory=MSE", f"{COMPONENTS}.autoencoder.arguments.encoder: MSE has no argument"),
        (f"{COMPONENTS}.autoencoder_optimizer.arguments.lr=-1.0", "lr: Input should be greater than 0, not -1.0"),
        (f"{COMPONENTS}.autoencoder_optimizer.arguments.lr={{loguniform: [0, 1]}}", "the low end of a logarithmic"),
        (f"{COMPONENTS}.autoencoder_optimizer.arguments.parameters=[autoencode]", "did you mean 'autoencoder'?"),
        (f"{COMPONENTS}.autoencoder_optimizer.arguments.parameters=[autoencoder_optimizer]", "components need each"),
        ("trial.arguments.architecture.arguments.codesize=3", "no component takes it; did you mean 'code_size'?"),
        ("trial.arguments.architecture.components={}", "'autoencoder' is needed"),
    ],
)
def test_a_mistake_is_one_line(small: dict[str, Any], write: Write, assignment: str, said: str) -> None:
    with pytest.raises(DGMError) as caught:
        read(write(small), assignment)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_components_that_do_not_fit_each_other_are_found(small: dict[str, Any], write: Write) -> None:
    autoencoder = small["trial"]["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]
    autoencoder["encoder"]["hidden_layers"] = {"sizes": {"choice": [[8], [9]]}, "bn_decay": 0.5, "shortcut": True}
    with pytest.raises(ConfigurationError, match=r"with a shortcut every size must equal the input size 16, not \[8\]"):
        read(write(small))


def test_a_batch_that_normalisation_cannot_take_is_found(small: dict[str, Any], write: Write) -> None:
    autoencoder = small["trial"]["arguments"]["architecture"]["components"]["autoencoder"]["arguments"]
    autoencoder["encoder"]["hidden_layers"] = {"sizes": [8, 8], "bn_decay": 0.5}
    with pytest.raises(ConfigurationError, match="more than 1 value per channel"):
        read(write(small), "trial.arguments.batch_size=1")


def test_every_corner_is_tried(small: dict[str, Any], write: Write) -> None:
    """The mistake stands in one option of one draw alone."""
    with pytest.raises(ConfigurationError, match=r"sizes\.0: Input should be greater than or equal to 1, not 0"):
        read(
            write(small),
            f"{COMPONENTS}.autoencoder.arguments.encoder.hidden_layers.sizes={{choice: [[8], [0], [4]]}}",
        )


def test_what_has_no_effect_is_named(small: dict[str, Any], write: Write) -> None:
    architecture = small["trial"]["arguments"]["architecture"]
    architecture["arguments"]["noise_size"] = 5
    architecture["components"]["generator_loss"] = {"factory": "GANGeneratorLoss"}
    small["trial"]["arguments"]["batch_size"] = {"choice": [16]}
    study = Study.read(write(small))
    assert study.rehearse(study.prepare()).dead == [
        "trial.arguments.architecture.arguments.noise_size (no component uses it)",
        "trial.arguments.architecture.components.generator_loss (no component uses it)",
        "batch_size (it has one value)",
    ]


def test_what_some_corner_uses_has_an_effect(small: dict[str, Any], write: Write) -> None:
    """A component that the last option of a choice does without is used by the first."""
    components = small["trial"]["arguments"]["architecture"]["components"]
    components["wing"] = components["idle"] = components["autoencoder"]
    named = [{"parameters": ["autoencoder", "wing"]}, {"parameters": ["autoencoder"]}]
    components["autoencoder_optimizer"]["arguments"] = {"choice": named}
    study = Study.read(write(small))
    dead = study.rehearse(study.prepare()).dead
    assert dead == ["trial.arguments.architecture.components.idle (no component uses it)"]


def test_a_rehearsal_counts_parameters(study: Study) -> None:
    rehearsal = study.rehearse(study.prepare())
    smallest = (16 * 2 + 2) + (2 * 16 + 16)  # encoder and decoder without hidden layers, code of 2
    largest = (16 * 8 + 8) + (8 * 4 + 4) + (4 * 16 + 16)
    assert (rehearsal.fewest_parameters, rehearsal.most_parameters) == (smallest, largest)


def test_a_grid_multiplies_the_samples_and_needs_random_search(small: dict[str, Any], write: Write) -> None:
    path = write(small)
    grid = "trial.arguments.seed={grid_search: [0, 1, 2]}"
    assert Study.read(path, [grid]).trials == 12
    with pytest.raises(ConfigurationError, match="OptunaSearch takes no grid_search, which seed is"):
        Study.read(path, [grid, "tune.search={factory: OptunaSearch}"])


def test_without_draws_only_one_sample_makes_sense(small: dict[str, Any], write: Write) -> None:
    small["trial"]["arguments"] = Study.read(write(small)).plan.configuration(
        {"batch_size": 16, "code_size": 2, "sizes": "[]", "lr": 0.01}
    )["arguments"]
    for decided in ("keep_checkpoint_by_metric", "threads", "device"):
        del small["trial"]["arguments"][decided]
    path = write(small)
    with pytest.raises(ConfigurationError, match="nothing is drawn"):
        Study.read(path)
    assert Study.read(path, samples=1).trials == 1


def test_options_win_over_the_file(small: dict[str, Any], write: Write) -> None:
    settings = Study.read(write(small), samples=7, seed=3).settings
    assert (settings.samples, settings.seed) == (7, 3)


def test_resources_decide_threads_and_device(small: dict[str, Any], write: Write) -> None:
    path = write(small)
    two = Study.read(path, ["tune.resources={cpu: 2, gpu: 0.5}"]).plan.template["arguments"]
    part = Study.read(path, ["tune.resources={cpu: 0.5}"]).plan.template["arguments"]
    assert (two["threads"], two["device"]) == (2, "cuda")
    assert (part["threads"], part["device"]) == (1, "cpu")


def test_an_architecture_in_its_own_file_is_part_of_the_space(
    small: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    import json

    architecture = tmp_path / "architecture.json"
    architecture.write_text(json.dumps(small["trial"]["arguments"]["architecture"]))
    inline = Study.read(write(small)).plan
    small["trial"]["arguments"]["architecture"] = str(architecture)
    assert Study.read(write(small)).plan == inline


def test_relative_paths_are_made_absolute(
    small: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"features": "x.npy", "metadata": str(tmp_path / "m.json")}
    small["trial"]["arguments"]["data"]["source"] = {"factory": "Npy", "arguments": files}
    source = Study.read(write(small)).plan.template["arguments"]["data"]["source"]
    assert source["arguments"] == {"features": str(tmp_path / "x.npy"), "metadata": str(tmp_path / "m.json")}


def test_a_missing_searcher_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgm_ray.tune.settings.find_spec", lambda name: None)
    for search in (OptunaSearch(), OptunaMultiObjective("val_x")):
        with pytest.raises(ConfigurationError, match=r"pip install 'dgm-ray\[optuna\]'"):
            search.check()


def test_asha_ends_trials_by_itself_only_before_their_last_epoch() -> None:
    scheduler = ASHA(grace_period=2).make(Plan({}, "x"), epochs=8)
    assert scheduler._max_t > 8


CREDIT = Path(__file__).parents[3] / "shared" / "data" / "credit"


@pytest.mark.skipif(not CREDIT.exists(), reason="the credit table is not on this machine")
def test_a_real_table_of_mixed_types_fits_a_space() -> None:
    space = Path(__file__).parents[2] / "search_spaces" / "gan.yaml"
    files = f"{{features: {CREDIT / 'features.npy'}, metadata: {CREDIT / 'metadata.json'}}}"
    study = Study.read(space, [f"trial.arguments.data.source={{factory: Npy, arguments: {files}}}"])
    data = study.prepare()
    assert (data.metadata.num_variables, data.metadata.num_features) == (23, 89)
    assert abs(len(data.train.features) - 24_000) < 400
    assert study.rehearse(data).dead == []


def test_a_choice_may_be_of_factories(small: dict[str, Any], write: Write) -> None:
    options = "[{factory: ReLU}, {factory: LeakyReLU, arguments: {negative_slope: 0.1}}]"
    encoder = f"{COMPONENTS}.autoencoder.arguments.encoder.hidden_layers"
    study = read(write(small), f"{encoder}.sizes=[8]", f"{encoder}.activation={{choice: {options}}}")
    values = {"batch_size": 16, "code_size": 2, "lr": 0.1, "activation": '{"factory": "ReLU"}'}
    made = study.plan.configuration(values)["arguments"]["architecture"]["components"]["autoencoder"]
    assert made["arguments"]["encoder"]["hidden_layers"]["activation"] == {"factory": "ReLU"}


@pytest.mark.parametrize(
    "mechanism",
    [
        "{factory: MAR, arguments: {strength: 2}}",
        "{factory: MNARQuantile, arguments: {quantile: 0.6}}",
        "{factory: Patterns, arguments: {patterns: [[mean radius, mean texture], [worst area]]}}",
    ],
)
def test_a_space_says_why_cells_are_missing(mechanism: str) -> None:
    study = Study.read(GAIN, [f"trial.arguments.data.missing={mechanism}"])
    data = study.prepare()
    study.rehearse(data)
    assert study.mechanism in mechanism
    assert data.content_hash() != Study.read(GAIN).prepare().content_hash()
    never = [name for name, rate in achieved(data.metadata, data.validation).items() if not rate]
    assert len(never) == {"MAR": 9, "MNARQuantile": 0, "Patterns": 27}[study.mechanism]


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("missing={factory: MARR}", "trial.arguments.data.missing.factory: no factory is called 'MARR'; did you mean"),
        ("missing={factory: MAR, arguments: {strength: 0}}", "missing.arguments.strength: Input should be greater"),
        ("missing={factory: Learned}", "data.missing: Learned needs a variable that is missing in some rows"),
        ("missing={factory: MAR, arguments: {strength: {uniform: [1, 2]}}}", "the data is prepared once for all"),
        ("missing_probability=null", "data.missing: has no rate of its own"),
    ],
)
def test_a_mechanism_that_does_not_fit(assignment: str, said: str) -> None:
    with pytest.raises(DGMError) as caught:
        read(GAIN, f"trial.arguments.data.{assignment}")
    assert said in str(caught.value)
