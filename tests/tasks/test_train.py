import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dgm_ray.data import BreastCancer
from dgm_ray.errors import ConfigurationError, DataError, TrainingError
from dgm_ray.models import MODELS
from dgm_ray.registry import TASKS
from dgm_ray.tasks import train, training_task
from dgm_ray.tasks.train import TrainTask
from dgm_ray.training import read_checkpoint

Task = Callable[..., TrainTask]
Arguments = Callable[..., dict[str, Any]]
NAMES = [f"Train{model.__name__}" for model in MODELS]
PHASES = {
    "TrainARAE": ["autoencoder", "discriminator", "generator"],
    "TrainAutoEncoder": ["autoencoder"],
    "TrainGAIN": ["discriminator", "generator"],
    "TrainVAE": ["autoencoder"],
    "TrainGAN": ["discriminator", "generator"],
    "TrainMaskedAutoEncoder": ["autoencoder"],
    "TrainMedGAN": ["autoencoder", "discriminator", "generator"],
}

all_tasks = pytest.mark.parametrize("name", NAMES)


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of all tensors of a checkpoint's modules."""
    found = sha256()
    for component in sorted(state):
        for key, value in state[component].items():
            if isinstance(value, torch.Tensor):
                found.update(f"{component}.{key}".encode() + value.numpy().tobytes())
    return found.hexdigest()


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_model_has_a_task() -> None:
    assert set(NAMES) <= set(TASKS)
    assert set(PHASES) == set(NAMES)


@all_tasks
def test_a_run_writes_what_the_contract_says(name: str, task: Task, console: Console, written: dict[str, Any]) -> None:
    found = task(name, epochs=3, evaluate_every=2, **written).run(console, {"task": name})
    header, *rows = rows_of(Path(written["logs"]))
    assert header == ["epoch", "metric_name", "metric_value", "time"]
    assert b"\r\n" in Path(written["logs"]).read_bytes()
    measures = [key for key in found if key.startswith("val_")]
    losses = [f"{phase}_loss" for phase in PHASES[name]]
    assert [(row[0], row[1]) for row in rows] == [
        (str(epoch), metric) for epoch in (1, 2, 3) for metric in losses + measures * (epoch > 1)
    ]
    values = {(int(row[0]), row[1]): float(row[2]) for row in rows}
    assert all(np.isfinite(value) for value in values.values())
    assert all(float(row[3]) >= 0 for row in rows)
    state = read_checkpoint(Path(written["checkpoints"]["output"]))
    assert state["epoch"] == 3
    assert json.loads(state["configuration"]) == {"task": name}
    assert state["versions"]["torch"] == torch.__version__
    best = min((2, 3), key=lambda epoch: values[epoch, "val_imputation_rmse"])
    assert state["best_epoch"] == found["best_epoch"] == best
    assert state["best_metric"] == values[best, "val_imputation_rmse"]
    for measure in measures:  # measured again with the best weights
        assert found[measure] == pytest.approx(values[best, measure], rel=1e-6)
    assert set(state["architecture"]) == set(state["best_architecture"]) >= {f"{p}_optimizer" for p in PHASES[name]}


@all_tasks
def test_same_seed_same_weights(name: str, task: Task) -> None:
    digests = []
    for seed in (4, 4, 5):
        training = task(name, seed=seed, epochs=1).start()
        training.advance()
        digests.append(digest(training.state()["architecture"]))
    assert digests[0] == digests[1] != digests[2]


@all_tasks
def test_continued_is_as_if_uninterrupted(
    name: str, task: Task, console: Console, written: dict[str, Any], tmp_path: Path
) -> None:
    whole = {"checkpoints": {"output": str(tmp_path / "whole.pt")}, "logs": str(tmp_path / "whole.csv")}
    expected = task(name, epochs=4, **whole).run(console)
    task(name, epochs=2, **written).run(console)
    written["checkpoints"]["continue_from_output"] = True
    again = task(name, epochs=4, **written)
    assert again.run(console) == expected
    states = [read_checkpoint(Path(one["checkpoints"]["output"])) for one in (whole, written)]
    assert digest(states[0]["architecture"]) == digest(states[1]["architecture"])
    rows = [rows_of(Path(one["logs"])) for one in (whole, written)]
    assert [row[:3] for row in rows[0]] == [row[:3] for row in rows[1]]
    assert again.run(console) == expected, "nothing is left to do, and nothing is done"
    assert rows_of(Path(written["logs"])) == rows[1]


def test_the_figures_that_are_returned_are_of_the_best_weights(
    task: Task, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged by the distance from the first epoch's weights, the first epoch is the best."""
    first: list[torch.Tensor] = []

    def distance(model: torch.nn.Module) -> dict[str, float]:
        weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        first.append(weights)
        return {"val_imputation_rmse": (weights - first[0]).norm().item()}

    monkeypatch.setattr(train, "Evaluation", lambda *_: distance)
    assert task("TrainGAN", epochs=3).run(console) == {"best_epoch": 1, "val_imputation_rmse": 0}
    assert len(first) == 4
    assert not torch.equal(first[0], first[2])


def test_without_continuing_a_run_starts_anew(task: Task, console: Console, written: dict[str, Any]) -> None:
    for _ in range(2):
        task("TrainAutoEncoder", epochs=1, **written).run(console)
        assert len(rows_of(Path(written["logs"]))) == 4
    written["checkpoints"]["continue_from_output"] = True
    Path(written["checkpoints"]["output"]).unlink()
    task("TrainAutoEncoder", epochs=1, **written).run(console)
    assert len(rows_of(Path(written["logs"]))) == 4, "nothing to continue from"


def test_saves_are_spaced(
    task: Task, console: Console, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 2.2: a save more than max_delay seconds after the one before, and one at the end."""
    saves: list[int] = []
    clock = {"now": 100.0}
    monkeypatch.setattr(training_task, "write_checkpoint", lambda path, state: saves.append(state["epoch"]))
    monkeypatch.setattr(training_task.time, "monotonic", lambda: clock["now"])

    class Log:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> "Log":
            return self

        def __exit__(self, *_: Any) -> None: ...
        def epoch(self, epoch: int, *_: Any) -> None:
            clock["now"] = [104, 105, 106, 110, 111, 112][epoch - 1]

    monkeypatch.setattr(training_task, "CSVLog", Log)
    written["checkpoints"]["max_delay"] = 5
    task("TrainAutoEncoder", epochs=6, **written).run(console)
    assert saves == [3, 6, 6]


def test_no_epochs_writes_an_untrained_checkpoint(task: Task, console: Console, written: dict[str, Any]) -> None:
    found = task("TrainGAN", epochs=0, **written).run(console)
    assert found["best_epoch"] == 0
    assert rows_of(Path(written["logs"])) == [["epoch", "metric_name", "metric_value", "time"]]
    assert read_checkpoint(Path(written["checkpoints"]["output"]))["epoch"] == 0


def test_divergence_is_one_line_and_keeps_the_best(
    task: Task, console: Console, written: dict[str, Any], arguments: Arguments
) -> None:
    architecture = arguments("TrainAutoEncoder")["architecture"]
    architecture["components"]["autoencoder_optimizer"] = {
        "factory": "SGD",
        "arguments": {"parameters": ["autoencoder"], "lr": 1e30},
    }
    with pytest.raises(TrainingError, match=r"training: diverged: autoencoder_loss is (nan|inf) in epoch"):
        task("TrainAutoEncoder", architecture=architecture, epochs=5, **written).run(console)
    assert read_checkpoint(Path(written["checkpoints"]["output"]))["reason"].startswith("diverged")


def missing_column(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Make cells of two of BreastCancer's variables missing; return their names."""
    table = BreastCancer().read()
    table.features[::3, 2] = table.features[1::3, 7] = np.nan
    monkeypatch.setattr(BreastCancer, "read", lambda self: table)
    return table.metadata.variables[2].name, table.metadata.variables[7].name


@all_tasks
def test_missing_cells_need_an_imputation_layer(
    name: str, task: Task, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = missing_column(monkeypatch)
    whole = {"source": {"factory": "BreastCancer"}}
    with pytest.raises((DataError, ConfigurationError), match=f"({', '.join(names)}: .*)?give .*`imputation` layer"):
        task(name, data=whole, imputation=None).run(console)
    for layer in ("ZeroImputation", "MeanAndModesImputation", "NormalNoiseImputation"):
        found = task(name, imputation={"factory": layer}, epochs=1).run(console)
        assert all(np.isfinite(value) for value in found.values())


def test_hidden_training_cells_need_one_as_well(task: Task) -> None:
    data = {"source": {"factory": "BreastCancer"}, "train_missing_probability": 0.2}
    with pytest.raises(DataError, match="mean radius, mean texture"):
        task("TrainAutoEncoder", data=data, imputation=None).start()
    training = task("TrainAutoEncoder", data=data, imputation={"factory": "ZeroImputation"}).start()
    assert np.isfinite(training.advance()["autoencoder_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5000}, r"batch_size: should be at most the \d+ training rows, not 5000"),
        ({"keep_checkpoint_by_metric": "val_rmse"}, "keep_checkpoint_by_metric: .*val_imputation_rmse.*'val_rmse'"),
        ({"keep_checkpoint_by_metric": "val_marginal_distance"}, "AutoEncoder reports val_imputation_rmse"),
        ({"device": "cuda"}, "device: there is no GPU on this machine"),
        ({"imputation": {"factory": "Tanhh"}}, "imputation.factory: no factory is called 'Tanhh'; did you mean 'Tanh'"),
        ({"imputation": {"factory": "NoiseSearch"}}, "imputation: should be an ImputationLayer"),
        ({"epoch": 3}, "has no argument 'epoch'; did you mean 'epochs'"),
        ({"discriminator_steps": 1}, "TrainAutoEncoder has no argument 'discriminator_steps'"),
        ({"epochs": -1}, r"arguments\.epochs: .*greater than or equal to 0, not -1"),
        ({"epochs": 2.5}, r"arguments\.epochs: .*integer"),
        ({"architecture": "nowhere.json"}, "nowhere.json: there is no such file"),
        ({"data": {}}, r"arguments\.data: Holdout needs the argument 'source'"),
        ({"patience": 3, "keep_checkpoint_by_metric": None}, "patience: needs keep_checkpoint_by_metric"),
        ({"checkpoints": {}}, r"arguments\.checkpoints: Checkpoints needs the argument 'output'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str, task: Task) -> None:
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("there is a GPU on this machine")
    with pytest.raises((ConfigurationError, DataError), match=message) as caught:
        task("TrainAutoEncoder", **changes).start()
    assert "\n" not in str(caught.value)


def test_an_architecture_may_be_a_file(task: Task, arguments: Arguments, tmp_path: Path) -> None:
    node, path = arguments("TrainGAN")["architecture"], tmp_path / "architecture.json"
    path.write_text(json.dumps(node))
    digests = [digest(task("TrainGAN", architecture=one).start().state()["architecture"]) for one in (node, str(path))]
    assert digests[0] == digests[1]
    del node["components"]["generator"]
    path.write_text(json.dumps(node))
    with pytest.raises(ConfigurationError, match=f"^{path}.*'generator' is needed"):
        task("TrainGAN", architecture=str(path)).start()


def test_a_models_own_arguments_reach_it(task: Task) -> None:
    search = {"learning_rate": 0.5, "max_iterations": 3}
    training = task("TrainMedGAN", autoencoder_steps=2, generator_steps=0, noise_search=search).start()
    assert [phase.steps for phase in training.architecture.phases] == [2, 1, 0]
    assert training.architecture.model.adversaries._noise_search.learning_rate == 0.5
    assert "generator_loss" not in training.advance()


def test_components_that_do_not_fit_are_found_without_computing(task: Task, arguments: Arguments) -> None:
    architecture = arguments("TrainGAN")["architecture"]
    metadata = BreastCancer().read().metadata
    assert next(task("TrainGAN").rehearse(metadata).model.parameters()).is_meta
    architecture["arguments"]["code_size"] = 3
    architecture["components"]["discriminator"]["factory"] = "CodeDiscriminator"
    with pytest.raises(ConfigurationError, match="architecture: discriminator: components do not fit each other"):
        task("TrainGAN", architecture=architecture).rehearse(metadata)


def test_test_rows_are_scored_with_the_best_weights(task: Task, console: Console, written: dict[str, Any]) -> None:
    made = task("TrainGAN", epochs=3, **written)
    made.run(console)
    state = read_checkpoint(Path(written["checkpoints"]["output"]))
    data = made.data.prepare()
    scores = made.score_test(data, state).metrics()
    assert {"test_imputation_rmse", "test_marginal_distance"} <= scores.keys()
    spoilt = state | {"architecture": made.start(data).state()["architecture"]}
    assert made.score_test(data, spoilt).metrics() == scores, "the last weights do not matter"


@pytest.mark.parametrize("activation", ["SoftmaxSampling", "GumbelSoftmaxSampling"])
@all_tasks
def test_mixed_types_train(name: str, activation: str, task: Task, arguments: Arguments) -> None:
    """Wine has a categorical variable; reconstruction gets better."""
    factory: dict[str, Any] = {"factory": activation}
    if activation.startswith("Gumbel"):
        factory["arguments"] = {"temperature": 0.7}
    text = json.dumps(arguments(name)["architecture"]).replace('{"factory": "SoftmaxSampling"}', json.dumps(factory))
    assert name in ("TrainMedGAN", "TrainMaskedAutoEncoder") or activation in text
    options = {"architecture": json.loads(text), "data": {"source": {"factory": "Wine"}}, "batch_size": 16}
    training = task(name, epochs=12, **options).start()
    found = [training.advance() for _ in range(12)]
    assert all(np.isfinite(value) for metrics in found for value in metrics.values())
    if "autoencoder_loss" in found[0]:
        assert found[-1]["autoencoder_loss"] < 0.8 * found[0]["autoencoder_loss"]
        assert found[-1]["val_imputation_rmse"] < found[0]["val_imputation_rmse"]


HASHED = """
import json, sys
from hashlib import sha256
import torch
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks import train
torch.set_num_threads(1)
training = call(TASKS.get("TrainMedGAN", ""), json.loads(sys.argv[1])).start()
training.advance()
found = sha256()
for name, component in training.architecture.components.items():
    for key, value in component.state_dict().items():
        found.update(f"{name}.{key}".encode())
        found.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
print(found.hexdigest())
"""


@pytest.mark.slow
def test_defect_06_pythons_hash_seed_changes_nothing(arguments: Arguments) -> None:
    digests = []
    for seed in ("1", "2"):
        finished = subprocess.run(
            [sys.executable, "-c", HASHED, json.dumps(arguments("TrainMedGAN"))],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        digests.append(finished.stdout.split()[-1])
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]
