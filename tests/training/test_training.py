import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm_ray.errors import TrainingError
from dgm_ray.models import GAN, MODELS, Architecture, AutoEncoder
from dgm_ray.training import Training, read_checkpoint, write_checkpoint

from .conftest import Start

Make = Callable[..., Architecture]

all_models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def states(training: Training) -> dict[str, Any]:
    return copy.deepcopy({name: one.state_dict() for name, one in training.architecture.components.items()})


def equal(one: Any, other: Any) -> bool:
    """Tell whether nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def run(training: Training) -> list[dict[str, float]]:
    found = []
    while not training.done:
        found.append(training.advance())
        assert found[-1].pop("seconds") >= 0
    return found


def test_the_best_weights_are_a_copy(start: Start) -> None:
    training = start(scores=[2.0, 1.0, 3.0, 4.0], epochs=4)
    training.advance()
    training.advance()
    then = states(training)
    run(training)
    assert training.best is not None
    assert (training.best.epoch, training.best.metric) == (2, 1.0)
    assert training.best.measures == {"val_imputation_rmse": 1.0, "val_other": 1.0}
    assert equal(training.best.states, then)
    assert not equal(states(training), then)
    training.use_best()
    assert equal(states(training), then)
    training.loop(9)
    assert equal(training.best.states, then), "training on from the best leaves the copy alone"


@pytest.mark.parametrize(
    ("scores", "patience", "best", "last"),
    [
        ([3, 2, 2, 2.5, 1], 2, 2, 4),  # an equal score is no better
        ([3, 2, 2.5, 1, 5, 5, 5], 2, 4, 6),
        ([5, 4, 3, 2, 1], 1, 5, 5),
        ([1, 2, 3], 1, 1, 2),
        ([math.nan, math.inf, 2, math.nan, math.nan], None, 3, 5),
        ([math.nan] * 5, 3, None, 3),
        ([2, 2, 2], None, 1, 3),
    ],
)
def test_best_and_patience(start: Start, scores: list[float], patience: int | None, best: int, last: int) -> None:
    training = start(scores=scores, patience=patience, epochs=len(scores))
    run(training)
    assert (training.best.epoch if training.best else None) == best
    assert training.epoch == last
    stopped = patience is not None and last - (best or 0) >= patience
    assert training.reason.startswith("early stop: no better val_imputation_rmse" if stopped else "epochs")


def test_patience_counts_epochs_not_measures(start: Start) -> None:
    training = start(scores=[1, 2, 3, 4], patience=4, evaluate_every=2, epochs=8)
    run(training)
    assert (training.best.epoch if training.best else 0, training.epoch) == (2, 6)


@pytest.mark.parametrize(("epochs", "every", "measured"), [(7, 3, [3, 6, 7]), (4, 2, [2, 4]), (2, 5, [2])])
def test_measured_every_so_many_epochs_and_after_the_last(
    start: Start, epochs: int, every: int, measured: list[int]
) -> None:
    found = run(start(scores=[1.0] * 9, epochs=epochs, evaluate_every=every))
    assert [epoch for epoch, metrics in enumerate(found, 1) if "val_other" in metrics] == measured
    assert all("autoencoder_loss" in metrics for metrics in found)


def test_a_loss_that_is_not_finite_stops_and_the_best_stays(start: Start) -> None:
    training = start(scores=[2.0, 1.0, 0.0])
    training.advance()
    training.advance()
    then = states(training)
    with torch.no_grad():
        next(training.architecture.model.parameters()).fill_(math.nan)
    metrics = training.advance()
    assert training.done
    assert training.reason == "diverged: autoencoder_loss is nan in epoch 3"
    assert "val_other" not in metrics
    assert training.best is not None
    assert training.best.epoch == 2
    training.use_best()
    assert equal(states(training), then)


def test_no_epochs(start: Start) -> None:
    training = start(epochs=0)
    before = states(training)
    assert training.done
    assert training.reason == "epochs"
    training.use_best()
    assert equal(states(training), before)
    assert training.state()["epoch"] == 0
    assert training.evaluate().keys() == {"val_imputation_rmse", "val_imputation_mae"}


@all_models
def test_measuring_leaves_training_alone(start: Start, model: Any) -> None:
    often, rarely = (start(model, epochs=3, evaluate_every=every) for every in (1, 3))
    for training in (often, rarely):
        torch.manual_seed(11)
        found = run(training)
        assert [len(metrics) for metrics in found][-1] > len(training.architecture.phases)
    assert equal(states(often), states(rarely))
    first, before = often.evaluate(), torch.get_rng_state()
    torch.manual_seed(12)
    assert often.evaluate() == first, "the same noise each time"
    torch.set_rng_state(before)
    often.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_on_the_processor_leaves_gpus_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> Any:
        raise AssertionError("a GPU is asked for its random state")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("get_rng_state", "get_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    training = start(GAN, epochs=1)
    assert run(training)[0]["val_imputation_rmse"] > 0
    assert training.state()["random_states"].keys() == {"cpu"}


@all_models
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_is_as_if_uninterrupted(start: Start, model: Any, stop: int, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = start(model, epochs=4, evaluate_every=2)
    expected = run(whole)
    torch.manual_seed(5)
    first = start(model, epochs=4, evaluate_every=2)
    metrics = [first.advance() for _ in range(stop)]
    write_checkpoint(tmp_path / "it.pt", first.state())
    torch.manual_seed(999)
    second = start(model, epochs=4, evaluate_every=2)
    second.architecture.model.apply(lambda module: [p.data.zero_() for p in module.parameters()])
    torch.randn(17)
    second.load(read_checkpoint(tmp_path / "it.pt"), "it.pt")
    assert second.epoch == stop
    metrics = [{key: value for key, value in one.items() if key != "seconds"} for one in metrics] + run(second)
    assert metrics == expected
    assert equal(second.state(), whole.state()), "weights, optimizers, best weights, random states"


def test_a_state_is_not_changed_by_what_follows(start: Start) -> None:
    training = start(epochs=4)
    training.advance()
    state = training.state()
    then = copy.deepcopy(state)
    run(training)
    assert equal(state, then)
    training.load(state, "it")
    run(training)
    assert equal(state, then), "nor by training on from it"


def test_what_was_done_stays_done(start: Start) -> None:
    finished = start(scores=[1.0, 2.0], epochs=2)
    run(finished)
    again = start(epochs=2)
    again.load(finished.state(), "it")
    assert again.reason == "epochs"
    longer = start(epochs=3)
    longer.load(finished.state(), "it")
    assert not longer.done


def test_what_stopped_early_stays_so_unless_it_may_wait_longer(start: Start) -> None:
    stopped = start(scores=[1.0, 2.0, 3.0], patience=2)
    run(stopped)
    for patience, done in ((2, True), (1, True), (5, False), (None, False)):
        again = start(patience=patience)
        again.load(stopped.state(), "it")
        assert again.done is done, patience
        assert again.reason == (stopped.reason if done else "")


def test_what_diverged_stays_so(start: Start) -> None:
    training = start(scores=[])
    with torch.no_grad():
        next(training.architecture.model.parameters()).fill_(math.nan)
    training.advance()
    again = start()
    again.load(training.state(), "it")
    assert again.reason == training.reason
    assert again.reason.startswith("diverged")


def test_without_a_metric_nothing_is_kept(start: Start) -> None:
    training = start(scores=[1.0, 2.0], metric=None, epochs=2)
    run(training)
    assert training.best is None
    assert "best_architecture" not in training.state()


def test_the_originals_checkpoint_is_read(start: Start) -> None:
    """It has no random states, no reason and no other measures."""
    training = start(scores=[2.0, 1.0, 3.0], epochs=3)
    run(training)
    old = {key: value for key, value in training.state().items() if not key.startswith(("random", "reason"))}
    del old["best_measures"]
    again = start(epochs=5)
    again.load(old, "it")
    assert (again.epoch, again.best.metric if again.best else None) == (3, 1.0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("epoch"),
        lambda state: state.update(epoch="3"),
        lambda state: state.update(architecture=3),
        lambda state: state["architecture"].update(autoencoder=3),
        lambda state: state["architecture"].pop("autoencoder"),
        lambda state: state["architecture"]["autoencoder"].popitem(),
        lambda state: state["architecture"].update(autoencoder_optimizer={"state": {}}),
        lambda state: state["architecture"]["autoencoder_optimizer"]["param_groups"].clear(),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(
    start: Start, spoil: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    state, path = start().state(), tmp_path / "it.pt"
    spoil(state)
    write_checkpoint(path, state)
    with pytest.raises(TrainingError, match=rf"^{path}: ") as caught:
        start().load(read_checkpoint(path), str(path))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_sizes_is_one_line(start: Start, make: Make, node_of: Callable[..., Any]) -> None:
    node = node_of(AutoEncoder)
    node["arguments"]["code_size"] = 7
    other = Training(make(AutoEncoder, node=node), start().loop, start().measure, epochs=1, seed=0)
    with pytest.raises(TrainingError, match=r"^it: autoencoder: the checkpoint does not fit.*size mismatch") as error:
        start().load(other.state(), "it")
    assert "\n" not in str(error.value)
