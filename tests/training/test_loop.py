import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dgm_ray.models import Batch, Phase
from dgm_ray.training import Loop, TensorRows, batches

GAN, MEDGAN, GAIN, AE = "D G-", "A D G-", "D G", "A"  # a minus: takes no data


class Recorder:
    """Phases that write down each step and train nothing. names: of the phases; ``-`` marks those without data."""

    def __init__(self, names: str, steps: list[int]) -> None:
        self.model = nn.Linear(1, 1)
        self.steps: list[tuple[str, Batch, float]] = []
        self.phases = [
            self._phase(name.rstrip("-"), count, not name.endswith("-"))
            for name, count in zip(names.split(), steps, strict=True)
        ]

    def _phase(self, name: str, steps: int, takes_data: bool) -> Phase:
        def loss(batch: Batch) -> Tensor:
            value = (len(self.steps) * 37 % 11) / 7
            self.steps.append((name, batch, value))
            return value + 0 * self.model.weight.sum()

        return Phase(name, torch.optim.SGD(self.model.parameters(), lr=0.1), loss, steps, takes_data)

    def run(self, rows: int, batch_size: int, *, seed: int = 0, epoch: int = 1) -> dict[str, float]:
        self.steps.clear()
        features = torch.arange(rows, dtype=torch.float32)[:, None]
        return Loop(self.model, self.phases, TensorRows(features), batch_size, seed=seed)(epoch)

    def trace(self, batch_size: int) -> str:
        """Return such as "D6 G D2": rows of a batch, if there are any."""
        taking = {phase.name for phase in self.phases if phase.takes_data}
        assert all(batch.rows == batch_size for name, batch, _ in self.steps if name not in taking)
        return " ".join(name + (str(batch.rows) if name in taking else "") for name, batch, _ in self.steps)


# Contract 9.4: 20 rows in batches of 6. The last six are what the original did not do.
SCHEDULES = [
    (GAN, [1, 1], "D6 G D6 G D6 G D2 G"),
    (GAN, [2, 1], "D6 D6 G D6 D2 G"),
    (GAN, [3, 2], "D6 D6 D6 G G D2"),
    (GAN, [5, 1], "D6 D6 D6 D2"),
    (GAN, [1, 0], "D6 D6 D6 D2"),
    (MEDGAN, [1, 1, 1], "A6 D6 G A6 D2 G"),
    (MEDGAN, [2, 1, 1], "A6 A6 D6 G A2"),
    (MEDGAN, [1, 2, 2], "A6 D6 D6 G G A2"),
    (MEDGAN, [0, 1, 1], "D6 G D6 G D6 G D2 G"),
    (MEDGAN, [1, 0, 1], "A6 G A6 G A6 G A2 G"),
    (GAIN, [1, 1], "D6 G6 D6 G2"),
    (GAIN, [2, 1], "D6 D6 G6 D2"),
    (GAIN, [1, 2], "D6 G6 G6 D2"),
    (GAIN, [3, 3], "D6 D6 D6 G2"),
    (AE, [1], "A6 A6 A6 A2"),
    (GAN, [0, 1], "G G G G"),
    (GAN, [0, 2], "G G G G G G G G"),
    (GAN, [0, 0], ""),
    (GAIN, [0, 0], ""),
    (MEDGAN, [0, 0, 1], "G G G G"),
    (MEDGAN, [1, 1, 0], "A6 D6 A6 D2"),
]


@pytest.mark.parametrize(("names", "steps", "trace"), SCHEDULES)
def test_schedules_and_no_loss_is_lost(names: str, steps: list[int], trace: str) -> None:
    recorder = Recorder(names, steps)
    losses = recorder.run(20, 6)
    assert recorder.trace(6) == trace
    expected = {}
    for phase in recorder.phases:
        own = [(value, batch.rows) for name, batch, value in recorder.steps if name == phase.name]
        if own:  # weighted by rows: as if the epoch were one batch
            expected[f"{phase.name}_loss"] = sum(value * rows for value, rows in own) / sum(rows for _, rows in own)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert list(losses) == list(expected), "in the order of the phases"


@pytest.mark.parametrize(("names", "steps", "trace"), SCHEDULES)
def test_a_probe_knows_the_steps_of_an_epoch(names: str, steps: list[int], trace: str) -> None:
    recorder = Recorder(names, steps)
    probed = Loop(recorder.model, recorder.phases, TensorRows(torch.zeros(20, 1)), 6, seed=0).probe(3)
    assert probed.steps == len(trace.split())
    assert len(recorder.steps) == (3 + 1) * sum(steps), "so many cycles, and one that warms up"
    assert (probed.seconds > 0) == bool(trace)


def test_a_probe_sees_that_a_row_left_over_joins_a_batch_and_what_the_optimizer_holds() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    phase = Phase("a", optimizer, lambda batch: model(batch.features).sum())
    loop = Loop(model, [phase], TensorRows(torch.rand(9, 3)), 4, seed=0)
    probed = loop.probe(5)
    assert probed.steps == 2, "of 4 and 5 rows"
    assert probed.optimizer == 4 * (2 * (3 * 2 + 2 + 2 + 2) + 4), (
        "two moments of each parameter, a count of each tensor"
    )


def test_the_trace_of_full_batches_only() -> None:
    recorder = Recorder(GAN, [2, 1])
    recorder.run(12, 3)
    assert recorder.trace(3) == "D3 D3 G D3 D3 G"


def order(rows: int, batch_size: int, *, seed: int, epoch: int) -> list[float]:
    features = torch.arange(rows, dtype=torch.float32)[:, None]
    parts = batches(TensorRows(features), batch_size, seed=seed, epoch=epoch)
    return [row for part in parts for row in part.features[:, 0].tolist()]


def test_the_order_of_rows_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    first = order(50, 7, seed=3, epoch=2)
    torch.manual_seed(1)
    assert order(50, 9, seed=3, epoch=2) == first
    others = [order(50, 7, seed=seed, epoch=epoch) for seed, epoch in [(3, 1), (3, 3), (2, 2), (4, 2), (2, 3)]]
    assert len({tuple(one) for one in [first, *others, sorted(first)]}) == 7


@pytest.mark.parametrize("names", [AE, GAN, MEDGAN, GAIN])
@given(data=st.data())
def test_each_row_is_seen_once_an_epoch(names: str, data: st.DataObject) -> None:
    steps = [data.draw(st.integers(0, 4)) for _ in names.split()]
    steps[0] = max(steps[0], 1)
    rows, batch_size = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    recorder = Recorder(names, steps)
    recorder.run(rows, batch_size, seed=data.draw(st.integers(0, 2**31)), epoch=data.draw(st.integers(1, 1000)))
    seen = [row for _, batch, _ in recorder.steps if batch.features.numel() for row in batch.features[:, 0].tolist()]
    assert sorted(seen) == list(range(rows))
    sizes = [batch.rows for _, batch, _ in recorder.steps if batch.features.numel()]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)


@pytest.mark.parametrize(
    ("rows", "normalised", "sizes"),
    [(7, False, [3, 3, 1]), (7, True, [3, 4]), (8, True, [3, 3, 2]), (4, True, [4]), (3, True, [3])],
)
def test_a_single_last_row_is_joined_for_batch_normalisation_alone(
    rows: int, normalised: bool, sizes: list[int]
) -> None:
    recorder = Recorder(AE, [1])
    if normalised:
        recorder.model.add_module("deep", nn.Sequential(nn.BatchNorm1d(1)))
    recorder.run(rows, 3)
    assert [batch.rows for _, batch, _ in recorder.steps] == sizes


def test_missing_cells_are_filled_batch_by_batch() -> None:
    features = torch.arange(24, dtype=torch.float32).reshape(8, 3)
    features[::2, 1] = float("nan")
    calls = []

    def imputation(batch: Tensor, mask: Tensor) -> Tensor:
        calls.append((batch.clone(), mask.clone()))
        return torch.where(mask != 0, -1.0, batch)

    parts = list(batches(TensorRows(features), 3, seed=0, epoch=1, imputation=imputation))
    assert [part.rows for part in parts] == [3, 3, 2]
    assert sum(int(mask.sum()) for _, mask in calls) == 4
    for (given_features, given_mask), part in zip(calls, parts, strict=True):
        assert torch.equal(given_mask, given_features.isnan().float())
        assert part.missing_mask is not None
        assert torch.equal(part.missing_mask, given_mask)
        assert torch.equal(part.features == -1, given_mask == 1)
        assert torch.equal(part.features[given_mask == 0], given_features[given_mask == 0])
    assert features.isnan().sum() == 4, "the table itself stays as it is"
    assert all(part.missing_mask is None for part in batches(TensorRows(features.nan_to_num()), 3, seed=0, epoch=1))


def test_a_noisy_imputation_is_drawn_anew() -> None:
    features = torch.full((4, 1), float("nan"))
    seen = []
    recorder = Recorder(AE, [1])
    loop = Loop(
        recorder.model,
        recorder.phases,
        TensorRows(features),
        4,
        seed=0,
        imputation=lambda batch, mask: torch.rand_like(batch),
    )
    for epoch in (1, 2):
        loop(epoch)
        seen.append(recorder.steps[-1][1].features)
    assert not torch.equal(seen[0], seen[1])


def test_a_step_is_a_gradient_step_of_its_phase_in_training_mode() -> None:
    """Against SGD by hand on mean((w x - 1)^2), one batch of all rows."""
    model = nn.Linear(1, 1, bias=False).eval()
    nn.init.constant_(model.weight, 0.5)
    features = torch.tensor([[1.0], [2.0], [3.0]])

    def loss(batch: Batch) -> Tensor:
        assert model.training
        return (model(batch.features) - 1).square().mean()

    phase = Phase("it", torch.optim.SGD(model.parameters(), lr=0.1), loss)
    found = Loop(model, [phase], TensorRows(features), 3, seed=0)(1)
    assert found["it_loss"] == pytest.approx((0.25 + 0 + 0.25) / 3)
    gradient = 2 * (-0.5 * 1 + 0 * 2 + 0.5 * 3) / 3
    assert model.weight.item() == pytest.approx(0.5 - 0.1 * gradient)
