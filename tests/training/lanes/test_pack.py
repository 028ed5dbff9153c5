"""Packs of every model: each lane is what it would be alone, whatever its neighbours do."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm_ray.models import ARAE, GAN, AutoEncoder, MedGAN, NoiseSearch
from dgm_ray.training import Training, read_checkpoint, write_checkpoint
from dgm_ray.training.lanes import AsLane, Lane, Pack, traced
from dgm_ray.training.lanes import stack as stacks

from ..conftest import Start
from ..test_training import all_models, equal, run

NAN = float("nan")
Figures = list[dict[str, float]]


def lanes(start: Start, model: Any, seeds: Sequence[int] = (3, 4, 5), **options: Any) -> list[Lane]:
    return [Lane(partial(start, model, seed=seed, **options)) for seed in seeds]


def advanced(pack: Pack, epochs: int = 1) -> list[Figures]:
    """Return the figures of each lane, by epochs, without its seconds."""
    found: list[Figures] = [[] for _ in pack.lanes]
    for _ in range(epochs):
        for own, figures in zip(found, pack.advance(), strict=True):
            if figures:
                assert figures["seconds"] >= 0
                own.append({name: value for name, value in figures.items() if name != "seconds"})
    return found


def weights(lane: Lane) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lane.training.architecture.model.state_dict().items()}


@all_models
def test_lanes_are_what_they_are_alone(start: Start, model: Any) -> None:
    pack = Pack(lanes(start, model, epochs=3))
    found = advanced(pack, 3)
    for seed, own, lane in zip((3, 4, 5), found, pack.lanes, strict=True):
        alone = start(model, seed=seed, epochs=3)
        expected = run(alone)
        assert [list(figures) for figures in own] == [list(figures) for figures in expected]
        for one, other in zip(own, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        assert lane.training.reason == alone.reason == "epochs"
        assert lane.training.best
        assert alone.best
        assert lane.training.best.epoch == alone.best.epoch
        assert torch.equal(lane.state()["random_states"]["cpu"], alone.state()["random_states"]["cpu"])
    assert found[0] != found[1]


@pytest.mark.parametrize("model", [GAN, MedGAN, ARAE])
def test_each_lane_searches_noise_at_its_own_rate(start: Start, model: Any) -> None:
    def made(rate: float) -> Training:
        training = start(model, seed=3, epochs=1)
        for module in training.architecture.model.modules():
            if isinstance(module, NoiseSearch):
                module.learning_rate.fill_(rate)
        return training

    rates = (0.01, 0.5)
    found = advanced(Pack([Lane(partial(made, rate)) for rate in rates]))
    for rate, own in zip(rates, found, strict=True):
        assert own == [pytest.approx(figures, rel=1e-4, abs=1e-5) for figures in run(made(rate))]
    assert found[0][0]["val_imputation_rmse"] != pytest.approx(found[1][0]["val_imputation_rmse"], rel=1e-3)


@all_models
def test_a_lane_is_repeated_to_the_bit_by_its_places(start: Start, model: Any) -> None:
    own = lanes(start, model, (3, 4, 5, 6), epochs=5)
    found: list[Figures] = [[] for _ in own]
    for chosen, rows in (((0, 1, 2, 3), 6), ((1, 2, 3), 6), ((2, 1), 2), ((2,), 1), ((0, 2), 2)):
        for lane, figures in zip(chosen, advanced(Pack([own[one] for one in chosen], rows)), strict=True):
            found[lane] += figures
    assert own[2].places == [[1, 6, 2], [2, 6, 1], [3, 2, 0], [4, 1, 0], [5, 2, 1]]
    for lane in (0, 1, 2):
        alone = AsLane.of(start(model, seed=3 + lane, epochs=len(found[lane])), own[lane].places)
        assert run(alone) == found[lane]
        assert equal(alone.architecture.model.state_dict(), weights(own[lane]))
        assert equal(alone.state()["random_states"], own[lane].state()["random_states"])


@all_models
def test_a_lane_of_nan_does_not_touch_its_neighbours(start: Start, model: Any) -> None:
    found = []
    for poisoned in (False, True):
        pack = Pack(lanes(start, model, epochs=3))
        if poisoned:
            with torch.no_grad():
                for parameter in pack.lanes[1].training.architecture.model.parameters():
                    parameter.fill_(NAN)
        figures = advanced(pack, 3)
        found.append((figures[0], figures[2], weights(pack.lanes[0]), weights(pack.lanes[2])))
        if poisoned:
            assert pack.lanes[1].training.reason.startswith("diverged: ")
            assert len(figures[1]) == 1, "it is frozen after the epoch in which that was seen"
    assert equal(*found)


@all_models
def test_a_step_that_was_noted_gives_the_same_bits(start: Start, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for pays in (10**9, 1):
        monkeypatch.setattr(traced, "PAYS", pays)
        monkeypatch.setattr(stacks, "_KNOWN", {})
        pack = Pack(lanes(start, model, (3, 4), epochs=2))
        found.append((advanced(pack, 2), [weights(lane) for lane in pack.lanes]))
    assert equal(*found)


@all_models
def test_a_pack_goes_on_from_checkpoints_as_if_nothing_had_happened(start: Start, model: Any, tmp_path: Path) -> None:
    pack = Pack(lanes(start, model, epochs=4))
    advanced(pack, 2)
    for number, lane in enumerate(pack.lanes):
        write_checkpoint(tmp_path / f"{number}.pt", lane.state())
    expected = advanced(pack, 2)
    others = lanes(start, model, epochs=4)
    for number, lane in enumerate(others):
        lane.load(read_checkpoint(tmp_path / f"{number}.pt"), "there")
    again = Pack(others)
    assert advanced(again, 2) == expected
    assert [lane.places for lane in again.lanes] == [lane.places for lane in pack.lanes]
    assert all(equal(weights(one), weights(other)) for one, other in zip(pack.lanes, others, strict=True))


@all_models
def test_a_lane_goes_on_alone(start: Start, model: Any) -> None:
    pack = Pack(lanes(start, model, epochs=4))
    advanced(pack, 2)
    state = copy.deepcopy(pack.lanes[1].state())
    alone = start(model, seed=4, epochs=4)
    alone.load(state, "there")
    run(alone)
    left = start(model, seed=4, epochs=4)
    run(left)
    for one, other in zip(alone.architecture.model.parameters(), left.architecture.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_lanes_end_when_they_would_end_alone(start: Start) -> None:
    pack = Pack(
        [
            Lane(partial(start, AutoEncoder, epochs=2)),
            Lane(partial(start, AutoEncoder, scores=[1.0, 2.0, 3.0, 4.0], epochs=9, patience=2)),
            Lane(partial(start, AutoEncoder, epochs=4, evaluate_every=3)),
        ]
    )
    found = advanced(pack, 6)
    assert [len(own) for own in found] == [2, 3, 4]
    assert [lane.training.reason.split(":")[0] for lane in pack.lanes] == ["epochs", "early stop", "epochs"]
    assert ["val_imputation_rmse" in own for own in found[2]] == [False, False, True, True]
    assert pack.advance() == [{}, {}, {}]


def test_the_best_weights_are_a_copy(start: Start) -> None:
    """They are no views of the matrix that goes on changing."""
    pack = Pack([Lane(partial(start, GAN, scores=[1.0, 2.0, 2.0], epochs=3, seed=seed)) for seed in (0, 1)])
    advanced(pack)
    then = [weights(lane) for lane in pack.lanes]
    advanced(pack, 2)
    for lane, before in zip(pack.lanes, then, strict=True):
        assert not equal(weights(lane), before)
        lane.training.use_best()
        assert equal(weights(lane), before)


def test_one_row_is_trained_by_its_own_loop(start: Start) -> None:
    pack = Pack(lanes(start, GAN, (3,), epochs=3))
    assert advanced(pack, 3) == [run(start(GAN, seed=3, epochs=3))]
    assert pack.lanes[0].places == []


def test_the_time_of_an_epoch_is_shared(start: Start) -> None:
    pack = Pack(lanes(start, GAN, epochs=2))
    figures = pack.advance()
    assert len({own["seconds"] for own in figures}) == 1
    assert all(0 < lane.training.train_seconds <= figures[0]["seconds"] for lane in pack.lanes)


def test_a_probe_tells_the_time_of_an_epoch(start: Start) -> None:
    assert 0 < Pack(lanes(start, GAN)).probe(2) < 60
    assert 0 < Pack(lanes(start, GAN, (1,))).probe(2) < 60


@pytest.mark.parametrize("rows", [1, 3])
def test_a_pack_leaves_torchs_random_state_alone(start: Start, rows: int) -> None:
    pack = Pack(lanes(start, GAN, range(rows)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    pack.advance()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_of_another_kind_of_loop_is_alone(start: Start) -> None:
    training = start(AutoEncoder, epochs=1)
    alone = AsLane.of(training, [])
    assert isinstance(alone, Training)
    run(alone)
    assert alone.done
