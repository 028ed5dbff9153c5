"""The original library's own form of the Train tasks: arrays, val_loss, its names in the log, its checkpoints."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dgm_ray.data import Metadata
from dgm_ray.errors import DGMError, TrainingError
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.train import TrainTask
from dgm_ray.training import Training, read_checkpoint

Original = Callable[..., dict[str, Any]]
ADVERSARIES = ["discriminator_train_mean_loss", "generator_train_mean_loss"]
RECONSTRUCTION = ["train_reconstruction_mean_loss", "val_reconstruction_mean_loss"]
BOTH = ["autoencoder_train_mean_loss", *ADVERSARIES, "autoencoder_val_mean_loss"]
LOGGED = {  # contract 2.3, in the order of the log
    "TrainAutoEncoder": RECONSTRUCTION,
    "TrainDeNoisingAutoEncoder": RECONSTRUCTION,
    "TrainMIDA": RECONSTRUCTION,
    "TrainVAE": RECONSTRUCTION,
    "TrainGAN": ADVERSARIES,
    "TrainARAE": BOTH,
    "TrainMedGAN": BOTH,
    "TrainGAIN": [*ADVERSARIES, "val_mean_loss"],
}
all_tasks = pytest.mark.parametrize("name", LOGGED)


def task(name: str, arguments: dict[str, Any]) -> TrainTask:
    made: TrainTask = call(TASKS.get(name, ""), json.loads(json.dumps(arguments)), path="arguments")
    return made


def run(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return task(name, arguments).run(Console(quiet=True))


def logged(arguments: dict[str, Any]) -> list[list[str]]:
    with Path(arguments["logs"]).open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "metric_name", "metric_value", "time"]
    return rows


def saved(arguments: dict[str, Any]) -> dict[str, Any]:
    return read_checkpoint(Path(arguments["checkpoints"]["output"]))


def test_all_eight_are_here() -> None:
    others = {"TrainMissForest", "TrainImputer", "TrainMaskedAutoEncoder"}  # no architecture, or no original
    assert set(LOGGED) == {name for name in TASKS if name.startswith("Train")} - others


@all_tasks
def test_the_log_and_the_checkpoint_are_the_originals(name: str, original: Original) -> None:
    arguments = original(name)
    run(name, arguments)
    assert [(row[0], row[1]) for row in logged(arguments)] == [
        (epoch, metric) for epoch in ("1", "2") for metric in LOGGED[name]
    ]
    state = saved(arguments)
    node = json.loads(Path(arguments["architecture"]).read_text())
    assert set(state["architecture"]) == set(node["components"])
    assert state["epoch"] == 2
    assert "best_architecture" not in state, "nothing was asked to be kept"


@all_tasks
def test_every_logged_metric_can_keep_the_best(name: str, original: Original) -> None:
    for metric in LOGGED[name]:
        arguments = original(name, epochs=4, keep_checkpoint_by_metric=metric)
        run(name, arguments)
        values = [float(row[2]) for row in logged(arguments) if row[1] == metric]
        state = saved(arguments)
        assert state["best_metric"] == min(values)
        assert values[state["best_epoch"] - 1] == min(values)


def test_our_own_measures_can_keep_the_best_too(original: Original) -> None:
    arguments = original("TrainVAE", masked=True, keep_checkpoint_by_metric="val_imputation_rmse")
    run("TrainVAE", arguments)
    names = [row[1] for row in logged(arguments) if row[0] == "1"]
    assert names[:2] == RECONSTRUCTION
    assert "val_imputation_rmse" in names


def test_labels_make_a_conditional_training(original: Original, tmp_path: Path) -> None:
    arguments = original("TrainMedGAN")
    node = json.loads(Path(arguments["architecture"]).read_text())
    node["arguments"]["conditional"] = {}
    Path(arguments["architecture"]).write_text(json.dumps(node))
    with pytest.raises(DGMError, match="a conditional architecture needs labels"):
        run("TrainMedGAN", arguments)
    arguments["data"] |= {f"{part}_labels": str(tmp_path / f"{part}_labels.npy") for part in ("train", "val")}
    run("TrainMedGAN", arguments)
    np.save(tmp_path / "train_labels.npy", np.full(100, 2.0))
    with pytest.raises(DGMError, match=r"labels: row 0: must be a class, 0 to 1, not 2\.0"):
        run("TrainMedGAN", arguments)
    np.save(tmp_path / "train_labels.npy", np.zeros(7))
    with pytest.raises(DGMError, match=r"must have one item per row \(100\)"):
        run("TrainMedGAN", arguments)


# Resuming, contract 2.2


def weights(state: dict[str, Any], component: str = "autoencoder") -> torch.Tensor:
    return torch.cat([value.flatten() for value in state[component].values()])


def test_resuming_appends_to_the_log_and_drops_what_was_lost(original: Original) -> None:
    arguments = original("TrainAutoEncoder", epochs=2)
    run("TrainAutoEncoder", arguments)
    before = logged(arguments)
    with Path(arguments["logs"]).open("a", newline="") as file:
        file.write("3,train_reconstruction_mean_loss,1,1\r\n")  # an epoch whose weights were never saved
    arguments["checkpoints"]["continue_from_output"] = True
    run("TrainAutoEncoder", arguments | {"epochs": 4})
    after = logged(arguments)
    assert after[:4] == before
    assert [row[0] for row in after] == [*"11223344"]
    run("TrainAutoEncoder", arguments | {"epochs": 3})
    assert logged(arguments)[:4] == before, "epochs is the last epoch's number, so there is nothing to do"
    assert saved(arguments)["epoch"] == 4


def test_no_epochs_write_an_untrained_checkpoint(original: Original) -> None:
    arguments = original("TrainGAN", epochs=0)
    run("TrainGAN", arguments)
    assert logged(arguments) == []
    assert saved(arguments)["epoch"] == 0


def test_input_is_where_a_training_starts(original: Original, tmp_path: Path) -> None:
    first = original("TrainAutoEncoder", epochs=3, keep_checkpoint_by_metric=RECONSTRUCTION[1])
    run("TrainAutoEncoder", first)
    there = tmp_path / "first.pickle"
    Path(first["checkpoints"]["output"]).rename(there)
    state = read_checkpoint(there)
    state["best_architecture"] = {
        name: {key: value * 0 + 0.25 if torch.is_tensor(value) and value.is_floating_point() else value
               for key, value in part.items()}
        if name == "autoencoder" else part
        for name, part in state["architecture"].items()
    }  # fmt: skip
    torch.save(state, there)

    def begun(**options: Any) -> dict[str, Any]:
        arguments = first | {"epochs": 0, "checkpoints": {**first["checkpoints"], "input": str(there), **options}}
        run("TrainAutoEncoder", arguments)
        return saved(arguments)

    plain = begun()
    assert plain["epoch"] == 3
    assert torch.equal(weights(plain["architecture"]), weights(state["architecture"]))
    assert plain["best_metric"] == state["best_metric"]
    Path(first["checkpoints"]["output"]).unlink()
    anew = begun(ignore_input_epochs=True)
    assert anew["epoch"] == 0
    assert "best_metric" not in anew, "defect 38: the old best would stay the bar"
    best = begun(use_best_input=True)
    assert best["epoch"] == 3
    assert set(weights(best["architecture"]).tolist()) == {0.25}
    assert "best_metric" not in best


def test_without_a_best_there_is_none_to_use(original: Original, tmp_path: Path) -> None:
    arguments = original("TrainAutoEncoder", epochs=1)
    run("TrainAutoEncoder", arguments)
    there = tmp_path / "first.pickle"
    Path(arguments["checkpoints"]["output"]).rename(there)
    arguments["checkpoints"] |= {"input": str(there), "use_best_input": True}
    with pytest.raises(TrainingError, match=r"first\.pickle: has no best weights"):
        run("TrainAutoEncoder", arguments)


def test_defect_38_the_files_hyper_parameters_count(original: Original) -> None:
    arguments = original("TrainAutoEncoder", epochs=1)
    run("TrainAutoEncoder", arguments)
    node = json.loads(Path(arguments["architecture"]).read_text())
    node["components"]["autoencoder_optimizer"]["arguments"]["lr"] = 0.125
    Path(arguments["architecture"]).write_text(json.dumps(node))
    arguments["checkpoints"]["continue_from_output"] = True
    training = task("TrainAutoEncoder", arguments).start()
    training.load(saved(arguments), "it")
    optimizer = training.architecture.components["autoencoder_optimizer"]
    assert [group["lr"] for group in optimizer.param_groups] == [0.125]
    assert optimizer.state_dict()["state"][0]["step"] > 0, "what it has gathered is kept"


def test_a_checkpoint_of_another_architecture_says_what_does_not_fit(original: Original) -> None:
    arguments = original("TrainGAN", epochs=1)
    run("TrainGAN", arguments)
    node = json.loads(Path(arguments["architecture"]).read_text())
    node["components"]["generator"]["arguments"]["hidden_layers"]["sizes"] = [9]
    Path(arguments["architecture"]).write_text(json.dumps(node))
    arguments["checkpoints"]["continue_from_output"] = True
    with pytest.raises(TrainingError, match=r"it\.pickle: generator: the checkpoint does not fit.*\[8, 5\].*\[9, 5\]"):
        run("TrainGAN", arguments)


# Defects


def test_defect_03_the_best_weights_are_a_copy(original: Original) -> None:
    arguments = original("TrainAutoEncoder", epochs=1)
    training = task(
        "TrainAutoEncoder", arguments | {"epochs": 5, "keep_checkpoint_by_metric": RECONSTRUCTION[1]}
    ).start()
    training.advance()
    assert training.best is not None
    before = weights(training.best.states).clone()
    training.advance()
    assert not torch.equal(weights(training.state()["architecture"]), before)
    assert training.best.epoch != 1 or torch.equal(weights(training.best.states), before)


def test_defect_07_steps_of_nothing_end(original: Original) -> None:
    none = {"autoencoder_steps": 0, "discriminator_steps": 0}
    run("TrainARAE", original("TrainARAE", **none, generator_steps=1))
    run("TrainGAN", original("TrainGAN", discriminator_steps=0, generator_steps=0))
    run("TrainGAIN", original("TrainGAIN", discriminator_steps=0, generator_steps=0))


def test_defect_07_losses_of_a_step_group_cut_short_count(original: Original) -> None:
    arguments = original("TrainGAN", discriminator_steps=5, generator_steps=1, keep_checkpoint_by_metric=ADVERSARIES[0])
    run("TrainGAN", arguments)
    assert {row[1] for row in logged(arguments)} == {ADVERSARIES[0]}
    assert all(np.isfinite(float(row[2])) for row in logged(arguments))


def test_defect_09_the_validation_loss_is_over_all_rows_at_once(original: Original, rows7: Any, md7: Metadata) -> None:
    from dgm_ray.data import discretize

    arguments = original("TrainAutoEncoder", epochs=1, batch_size=7)
    found = run("TrainAutoEncoder", arguments)
    training = task("TrainAutoEncoder", arguments).start()
    training.load(saved(arguments), "it")
    model = training.architecture.model.eval()
    rows = torch.from_numpy(rows7[100:])
    with torch.no_grad():
        made = model.reconstruct(rows, torch.zeros_like(rows)).numpy()  # type: ignore[operator]
    expected = np.sqrt(np.mean((discretize(md7, made) - rows7[100:]) ** 2))
    assert found["val_reconstruction_mean_loss"] == pytest.approx(expected, rel=1e-5)


def test_defect_16_what_stands_under_the_mask_has_no_influence(original: Original, tmp_path: Path, rows7: Any) -> None:
    for name in ("TrainGAIN", "TrainVAE"):
        losses = []
        for value in (0.5, np.nan):
            arguments = original(name, masked=True)
            mask = np.load(tmp_path / "train_mask.npy") == 1
            np.save(tmp_path / "train.npy", np.where(mask, np.float32(value), rows7[:100]))
            spared = {"train_features": arguments["data"]["train_features"]}
            spared["train_missing_mask"] = arguments["data"]["train_missing_mask"]
            losses.append(run_log(name, arguments | {"data": spared}))
            np.save(tmp_path / "train.npy", rows7[:100])
        assert losses[0] == losses[1]


def run_log(name: str, arguments: dict[str, Any]) -> list[list[str]]:
    run(name, arguments)
    return [row[:3] for row in logged(arguments)]


def test_defect_22_validation_builds_no_graph(original: Original, monkeypatch: pytest.MonkeyPatch) -> None:
    training = task("TrainAutoEncoder", original("TrainAutoEncoder")).start()
    seen = []
    model = training.architecture.model
    reconstruct = model.reconstruct
    monkeypatch.setattr(model, "reconstruct", lambda *given: seen.append(reconstruct(*given)) or seen[-1])  # type: ignore[func-returns-value,operator]
    training.evaluate()
    assert seen
    assert not seen[0].requires_grad


def test_defect_44_a_last_batch_of_one_row(original: Original) -> None:
    arguments = original("TrainGAN", batch_size=33)  # 100 rows: 33, 33, 33, 1
    node = json.loads(Path(arguments["architecture"]).read_text())
    node["components"]["discriminator"]["arguments"]["hidden_layers"] = {"sizes": [8, 8], "bn_decay": 0.9}
    Path(arguments["architecture"]).write_text(json.dumps(node))
    run("TrainGAN", arguments)


def test_defect_27_a_decoder_says_what_it_needs(original: Original) -> None:
    arguments = original("TrainAutoEncoder")
    node = json.loads(Path(arguments["architecture"]).read_text())
    del node["arguments"]["code_size"]
    Path(arguments["architecture"]).write_text(json.dumps(node))
    with pytest.raises(DGMError, match=r"components\.autoencoder\.arguments\.encoder.*'code_size' is needed"):
        run("TrainAutoEncoder", arguments)


def test_defect_30_an_optimizer_without_parameters_is_one_line(original: Original) -> None:
    arguments = original("TrainGAN")
    node = json.loads(Path(arguments["architecture"]).read_text())
    del node["components"]["generator_optimizer"]["arguments"]["parameters"]
    Path(arguments["architecture"]).write_text(json.dumps(node))
    with pytest.raises(DGMError, match=r"components\.generator_optimizer\.arguments.*'parameters' is needed"):
        run("TrainGAN", arguments)


def test_defect_36_the_log_is_on_disk_after_every_epoch(original: Original, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, seen = original("TrainGAN", epochs=3), []
    advance = Training.advance

    def noted(training: Training) -> dict[str, float]:
        seen.append(len(logged(arguments)))
        return advance(training)

    monkeypatch.setattr(Training, "advance", noted)
    run("TrainGAN", arguments)
    assert seen == [0, 2, 4]


# Bad input


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("TrainVAE", {"data": {"train_featurs": "x.npy"}}, r"data\.train_featurs: .*did you mean 'train_features'"),
        ("TrainVAE", {"data": {"val_features": "x.npy"}}, r"data: Files needs the argument 'train_features'"),
        ("TrainVAE", {"metadata": None}, "metadata: is needed with files of features"),
        ("TrainVAE", {"metadata": "nowhere.json"}, "nowhere.json: cannot be read"),
        ("TrainVAE", {"imputation": None, "masked": True}, "missing cells .*give an `imputation` layer"),
        ("TrainVAE", {"keep_checkpoint_by_metric": "val_loss"}, "reports train_reconstruction_mean_loss"),
        ("TrainGAN", {"keep_checkpoint_by_metric": "val_mean_loss"}, "GAN reports discriminator_train_mean_loss"),
        ("TrainVAE", {"scale_transform": "nowhere.json"}, "nowhere.json: cannot be read"),
        ("TrainVAE", {"checkpoints": {"outputs": "x"}}, r"checkpoints\.outputs: .*did you mean 'output'"),
        ("TrainVAE", {"checkpoints": {"output": "x", "input": "nowhere"}}, "nowhere: there is no such checkpoint"),
        ("TrainVAE", {"data": {"source": {"factory": "Wine"}}}, "metadata: belongs to files of features"),
    ],
)  # fmt: skip
def test_mistakes(name: str, change: dict[str, Any], message: str, original: Original) -> None:
    arguments = original(name, masked=change.pop("masked", False)) | change
    with pytest.raises(DGMError, match=message):
        run(name, arguments)
    assert not Path(arguments["logs"]).exists(), "nothing half-written"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((100, 13), 2.0), r"train_mask\.npy: row 0, column 0: must be 0 or 1, not 2\.0"),
        (np.zeros((100, 12)), r"train_mask\.npy: must have the shape of the features \(100, 13\)"),
    ],
)
def test_masks_that_do_not_fit(mask: Any, message: str, original: Original, tmp_path: Path) -> None:
    arguments = original("TrainGAIN")
    np.save(tmp_path / "train_mask.npy", mask)
    with pytest.raises(DGMError, match=message):
        run("TrainGAIN", arguments)


def test_masks_of_any_kind(original: Original, tmp_path: Path) -> None:
    losses = []
    for kind in (np.float32, np.bool_, np.int64):
        arguments = original("TrainGAIN")
        np.save(tmp_path / "train_mask.npy", np.load(tmp_path / "train_mask.npy").astype(kind))
        losses.append(run_log("TrainGAIN", arguments))
    assert losses[0] == losses[1] == losses[2]
