"""Several seeds of one configuration: each as if it trained alone, and what is reported of all."""

import copy
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm_ray.errors import TrainingError
from dgm_ray.training import Repeats, mean_and_std, read_checkpoint, write_checkpoint

from .conftest import Start
from .test_training import all_models, equal, run, states

NAN = math.nan


def repeats(start: Start, *models: Any, seeds: Sequence[int] = (3, 4, 5), **options: Any) -> Repeats:
    return Repeats(partial(start, *models, seed=seed, **options) for seed in seeds)


def scored(start: Start, *scores: Sequence[float], **options: Any) -> Repeats:
    """One seed for each list of what it is said to measure."""
    epochs = {"epochs": max(map(len, scores))} | options
    return Repeats(partial(start, scores=one, seed=seed, **epochs) for seed, one in enumerate(scores))


def whole(repeats: Repeats) -> list[dict[str, float]]:
    found = []
    while not repeats.done:
        found.append(repeats.advance())
        assert found[-1].pop("seconds") >= 0
    return found


def spoil(repeats: Repeats, index: int) -> None:
    with torch.no_grad():
        next(repeats._trainings[index].architecture.model.parameters()).fill_(NAN)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.1, 0.1], [1e-9, -3.0, 1e9, 7.0]])
def test_mean_and_sample_deviation(values: list[float]) -> None:
    found = mean_and_std([{"x": value, f"own_{index}": 1.0} for index, value in enumerate(values)])
    assert found.keys() == {"x", "x_std"}, "what not all have has no mean"
    assert found["x"] == pytest.approx(statistics.fmean(values))
    assert found["x_std"] == pytest.approx(statistics.stdev(values))


@pytest.mark.parametrize("odd", [math.inf, NAN])
def test_what_is_not_finite_has_no_deviation(odd: float) -> None:
    found = mean_and_std([{"x": 1.0}, {"x": odd}])
    assert not math.isfinite(found["x"])
    assert math.isnan(found["x_std"])


@all_models
def test_each_seed_is_as_if_it_trained_alone(start: Start, model: Any) -> None:
    options: dict[str, Any] = {"epochs": 4, "evaluate_every": 2}
    together = repeats(start, model, **options)
    found = whole(together)
    histories = []
    for seed, own in zip((3, 4, 5), together.state()["seeds"], strict=True):
        torch.manual_seed(99)
        alone = start(model, seed=seed, **options)
        histories.append(run(alone))
        assert equal(own, alone.state()), "weights, optimizers, best weights, random states"
    assert not equal(histories[0], histories[1])
    for epoch, metrics in enumerate(found):
        rows = [history[epoch] for history in histories]
        assert metrics.keys() == rows[0].keys() | {f"{name}_std" for name in rows[0]}
        for name in rows[0]:
            values = [row[name] for row in rows]
            assert metrics[name] == pytest.approx(statistics.fmean(values), rel=1e-12)
            assert metrics[f"{name}_std"] == pytest.approx(statistics.stdev(values), rel=1e-9)


@all_models
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_is_as_if_uninterrupted(start: Start, model: Any, stop: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "evaluate_every": 2}
    uninterrupted = repeats(start, model, **options)
    expected = whole(uninterrupted)
    first = repeats(start, model, **options)
    for _ in range(stop):
        first.advance()
    write_checkpoint(tmp_path / "it.pt", first.state())
    second = repeats(start, model, **options)
    torch.manual_seed(999)
    second.load(read_checkpoint(tmp_path / "it.pt"), "it.pt")
    assert second.epoch == stop
    assert whole(second) == expected[stop:]
    assert equal(second.state(), uninterrupted.state())
    assert second.by_seed == uninterrupted.by_seed


def test_a_state_is_not_changed_by_what_follows(start: Start) -> None:
    training = repeats(start, epochs=4)
    training.advance()
    state = training.state()
    then = copy.deepcopy(state)
    whole(training)
    assert equal(state, then)


def test_the_best_is_the_mean_of_each_seeds_best(start: Start) -> None:
    training = scored(start, [5, 1, 3], [4, 4, 2], [6, 9, 9])
    found = whole(training)
    assert [metrics["val_imputation_rmse"] for metrics in found] == pytest.approx([5, 14 / 3, 14 / 3])
    assert training.best is not None
    assert training.best.metric == pytest.approx(3)
    assert training.best.measures == pytest.approx(
        {"val_imputation_rmse": 3, "val_imputation_rmse_std": math.sqrt(7), "val_other": 1, "val_other_std": 0}
    )
    assert training.best.epoch == 2, "of the first seed, which is best"
    assert [(one["seed"], one["best_epoch"], one["epochs"], one["score"]) for one in training.by_seed] == [
        (0, 2, 3, 1),
        (1, 3, 3, 2),
        (2, 1, 3, 6),
    ]
    assert [one["measures"]["val_imputation_rmse"] for one in training.by_seed] == [1, 2, 6]
    assert training.reason == "epochs"


def test_a_state_has_the_weights_of_the_best_seed_and_the_figures_of_all(start: Start) -> None:
    training = scored(start, [5, 4], [3, 2], [6, 9])
    whole(training)
    state = training.state()
    assert (state["epoch"], state["best_epoch"], state["best_metric"]) == (2, 2, 4)
    assert state["best_measures"]["val_imputation_rmse_std"] == 2
    assert [one["best_metric"] for one in state["seeds"]] == [4, 2, 6]
    assert state["by_seed"] == training.by_seed
    alone = start(seed=1)
    alone.load(state, "it")
    alone.use_best()
    for seed, own in enumerate(state["seeds"]):
        assert equal(states(alone), own["best_architecture"]) == (seed == 1)


def test_without_a_best_of_each_seed_there_is_none(start: Start) -> None:
    training = scored(start, [NAN, 1.0], [2.0, 2.0])
    assert math.isnan(training.advance()["val_imputation_rmse"])
    assert training.best is None
    assert "best_metric" not in training.state()
    training.advance()
    assert training.best is not None
    assert training.best.metric == 1.5


def test_a_seed_that_has_ended_stands_with_its_last_figures(start: Start) -> None:
    """The first stops in epoch 4; the second goes on to 8, and is measured in every second."""
    training = scored(start, [1, 2], [8, 6, 4, 3], epochs=8, evaluate_every=2, patience=2)
    found = whole(training)
    measured = {epoch: one["val_imputation_rmse"] for epoch, one in enumerate(found, 1) if "val_other" in one}
    assert measured == {2: 4.5, 4: 4, 6: 3, 8: 2.5}
    assert all("autoencoder_loss" in metrics for metrics in found)
    assert [one["epochs"] for one in training.by_seed] == [4, 8]
    assert (training.epoch, training.reason) == (8, "epochs"), "of the seed that trained longest"


def test_all_that_stop_early_say_so(start: Start) -> None:
    training = scored(start, [1, 2, 3, 4], [3, 2, 2, 2], epochs=9, patience=1)
    whole(training)
    assert (training.epoch, training.reason) == (3, "early stop: no better val_imputation_rmse for 1 epochs")


def test_a_seed_that_diverges_ends_all(start: Start) -> None:
    training = scored(start, [2.0, 1.0, 1.0], [3.0, 3.0, 3.0], [1.0, 1.0, 1.0])
    training.advance()
    spoil(training, 1)
    metrics = training.advance()
    assert training.done
    assert training.reason == "diverged: seed 1: autoencoder_loss is nan in epoch 2"
    assert math.isnan(metrics["autoencoder_loss"])
    assert "val_other" not in metrics
    again = scored(start, [], [], [], epochs=3)
    again.load(training.state(), "it")
    assert again.reason == training.reason


def test_a_state_of_other_seeds_is_one_line(start: Start) -> None:
    three = repeats(start, epochs=2)
    for other in (repeats(start, seeds=(3, 4), epochs=2), start(seed=3, epochs=2)):
        count = len(other._trainings) if isinstance(other, Repeats) else 1
        with pytest.raises(TrainingError, match=rf"^it: should be of 3 seeds, not of {count}$"):
            three.load(other.state(), "it")
