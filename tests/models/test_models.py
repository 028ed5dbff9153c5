"""Tests over every model of ``MODELS``: a new one is tested as soon as it stands there."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.errors import ConfigurationError
from dgm_ray.models import (
    GAN,
    MODELS,
    Architecture,
    Batch,
    Encodes,
    Imputes,
    MedGAN,
    NoiseSearch,
    Phase,
    Samples,
    parameters_of,
)
from dgm_ray.nn import SoftmaxSampling, ZeroImputation
from dgm_ray.training import Loop, TensorRows, modules_of

Make = Callable[..., Architecture]
NodeOf = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")

all_models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def weights(made: Architecture) -> dict[str, dict[str, Tensor]]:
    return {name: copy.deepcopy(one.state_dict()) for name, one in modules_of(made.components).items()}


def moved(made: Architecture, before: dict[str, dict[str, Tensor]]) -> set[str]:
    """Return the components whose weights are not those of before."""
    after = weights(made)
    return {name for name in before for key in before[name] if not torch.equal(before[name][key], after[name][key])}


def step(made: Architecture, phase: Phase, rows: Tensor) -> None:
    """One step of one phase, on rows of which some cells are missing."""
    rows = rows.masked_fill(missing(rows) != 0, torch.nan)
    Loop(made.model, [phase._replace(steps=1)], TensorRows(rows), len(rows), seed=0, imputation=ZeroImputation())(1)


def missing(rows: Tensor) -> Tensor:
    """A missing mask of rows of md7."""
    mask = torch.zeros_like(rows)
    mask[::3, 0] = mask[1::3, 3:6] = mask[2::4, 12] = 1
    return mask


def test_there_are_models() -> None:
    assert len(MODELS) >= 3


@all_models
def test_each_phase_has_a_finite_loss_that_reaches_all_its_parameters(model: Any, make: Make, rows7: Any) -> None:
    made = make(model)
    names = [phase.name for phase in made.phases]
    assert names
    assert len(set(names)) == len(names)
    assert any(phase.takes_data for phase in made.phases)
    for phase in made.phases:
        rows = torch.from_numpy(rows7) if phase.takes_data else torch.empty(9, 0)
        loss = phase.loss(Batch(rows, missing(rows) if phase.takes_data else None))
        assert loss.shape == ()
        assert loss.isfinite()
        parameters = parameters_of(phase.optimizer)
        gradients = torch.autograd.grad(loss, parameters)
        assert all(one.isfinite().all() for one in gradients)
        assert all(one.any() for one in gradients), "a parameter that the loss does not see"


@all_models
def test_a_phase_moves_what_its_optimizer_names_and_nothing_else(model: Any, make: Make, rows7: Any) -> None:
    made = make(model)
    rows = torch.from_numpy(rows7)
    for phase in made.phases:
        before = weights(made)
        step(made, phase, rows)
        assert moved(made, before) == {phase.name}, phase.name


@all_models
def test_what_a_model_can_do_has_the_right_shape(model: Any, make: Make, rows7: Any) -> None:
    made = make(model).model
    rows, mask = torch.from_numpy(rows7[:11]), torch.zeros(11, 13)
    mask[::2, 3:7] = 1
    assert isinstance(made, Samples | Imputes)
    made.eval()
    if isinstance(made, Samples):
        sampled = made.sample(11, CPU)
        assert sampled.shape == (11, 13)
        assert sampled.isfinite().all()
        assert not torch.equal(sampled[0], sampled[1])
    if isinstance(made, Encodes):
        assert made.encode(rows).shape == (11, 4)
    if isinstance(made, Imputes):
        imputed = made.impute(rows, mask)
        assert imputed.shape == (11, 13)
        assert imputed.isfinite().all()


@all_models
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_imputing_is_repeated_by_its_seed_and_changes_nothing(model: Any, share: float, make: Make, rows7: Any) -> None:
    made = make(model)
    assert isinstance(made.model, Imputes), "a model that cannot impute: leave it out here"
    made.model.eval()
    features = torch.from_numpy(rows7[:20].copy())
    mask = (torch.rand(20, 13, generator=torch.Generator().manual_seed(1)) < share).float()
    before, given = weights(made), (features.clone(), mask.clone())
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        with torch.no_grad():
            outputs.append(made.model.impute(features, mask))
    assert torch.equal(*outputs)
    assert outputs[0].isfinite().all()
    assert not outputs[0].requires_grad
    assert not moved(made, before)
    assert torch.equal(features, given[0])
    assert torch.equal(mask, given[1])
    assert all(not one.expected for one in made.model.modules() if isinstance(one, SoftmaxSampling))
    assert all(parameter.grad is None for parameter in made.model.parameters())


@all_models
def test_a_missing_component_is_named(model: Any, make: Make, node_of: NodeOf) -> None:
    for name in node_of(model)["components"]:
        node = node_of(model)
        del node["components"][name]
        with pytest.raises(ConfigurationError, match=f"'{name}' is needed"):
            make(model, node=node)


@all_models
def test_mistakes_in_an_architecture(model: Any, make: Make, node_of: NodeOf) -> None:
    def build(**changes: Any) -> Architecture:
        node = node_of(model)
        for part, more in changes.items():
            node[part] = {**node[part], **more}
        return make(model, node=node)

    with pytest.raises(ConfigurationError, match=r"architecture\.arguments\.nois_size: .*did you mean 'noise_size'"):
        build(arguments={"nois_size": 3})
    with pytest.raises(ConfigurationError, match="has no argument 'component'; did you mean 'components'"):
        make(model, node={**node_of(model), "component": {}})
    with pytest.raises(ConfigurationError, match="needs 'arguments'"):
        make(model, node={"components": {}})
    first, *_ = [name for name in node_of(model)["components"] if name.endswith("_optimizer")]
    with pytest.raises(ConfigurationError, match=f"need each other: {first} -> {first}"):
        build(components={first: {"factory": "Adam", "arguments": {"parameters": [first]}}})
    with pytest.raises(ConfigurationError, match=r"components\.\w+: should be a"):
        build(components={first: {"factory": "Tanh"}})


def test_a_longer_cycle_is_shown_whole(make: Make, node_of: NodeOf) -> None:
    model = MedGAN
    node = node_of(model)
    pair = "generator_optimizer", "discriminator_optimizer"
    for name, other in (pair, pair[::-1]):
        node["components"][name]["arguments"]["parameters"] = [other]
    with pytest.raises(ConfigurationError, match=f"{pair[0]} -> {pair[1]} -> {pair[0]}"):
        make(model, node=node)


@all_models
def test_what_is_not_used_is_listed(model: Any, make: Make, node_of: NodeOf) -> None:
    node = node_of(model)
    node["components"]["spare"] = {"factory": "CodeCritic"}
    spare = {"noise_size", "code_size"} - set(node["arguments"])
    node["arguments"] |= dict.fromkeys(spare, 3)
    made = make(model, node=node)
    expected = [f"architecture.arguments.{name}" for name in sorted(spare)]
    assert sorted(made.unused) == [*expected, "architecture.components.spare"]
    assert "spare" not in made.components
    assert set(made.components) == set(node_of(model)["components"]), "all of them go into a checkpoint"


@all_models
def test_the_seed_decides_the_weights(model: Any, make: Make) -> None:
    made = make(model, seed=1)
    assert not moved(make(model, seed=1), weights(made))
    assert moved(make(model, seed=2), weights(made))


@all_models
def test_a_discriminators_loss_ends_at_the_fake_rows(model: Any, make: Make, rows7: Any) -> None:
    made = make(model)
    for phase in made.phases:
        if phase.name == "discriminator":
            others = [one for name, one in modules_of(made.components).items() if name != phase.name]
            parameters = [parameter for one in others for parameter in one.parameters()]
            rows = torch.from_numpy(rows7)
            loss = phase.loss(Batch(rows, missing(rows)))
            assert set(torch.autograd.grad(loss, parameters, allow_unused=True)) == {None}


def test_steps_are_the_models_arguments(make: Make) -> None:
    made = make(MedGAN, autoencoder_steps=0, discriminator_steps=3, generator_steps=2)
    assert [(phase.name, phase.steps, phase.takes_data) for phase in made.phases] == [
        ("autoencoder", 0, True),
        ("discriminator", 3, True),
        ("generator", 2, False),
    ]


# MedGAN


def test_fake_rows_of_medgan_are_decoded(make: Make) -> None:
    made = make(MedGAN)
    torch.manual_seed(5)
    sampled = made.model.sample(6, CPU)
    torch.manual_seed(5)
    codes = made.components["generator"](torch.randn(6, 5))
    assert codes.shape == (6, 4)
    torch.testing.assert_close(sampled, made.components["autoencoder"].decoder(codes))


@pytest.mark.parametrize("names", [["generator"], ["generator", "autoencoder"]])
def test_the_decoder_follows_the_generator_only_if_it_is_named(
    names: list[str], make: Make, node_of: NodeOf, rows7: Any
) -> None:
    node = node_of(MedGAN)
    node["components"]["generator_optimizer"]["arguments"]["parameters"] = names
    made = make(MedGAN, node=node)
    phases = {phase.name: phase for phase in made.phases}
    before = weights(made)
    step(made, phases["generator"], torch.from_numpy(rows7))
    assert moved(made, before) == set(names)
    after = weights(made)["autoencoder"]
    changed = {key.split(".")[0] for key in after if not torch.equal(before["autoencoder"][key], after[key])}
    assert changed == ({"decoder"} if "autoencoder" in names else set())
    before = weights(made)
    step(made, phases["discriminator"], torch.from_numpy(rows7))
    assert moved(made, before) == {"discriminator"}


# Masked generated rows


@pytest.mark.parametrize("model", [GAN, MedGAN])
def test_generated_rows_are_judged_by_observed_cells_alone(model: Any, make: Make, rows7: Any) -> None:
    made = make(model, mask_generated=True)
    seen: list[Tensor] = []
    made.components["discriminator"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rows = torch.from_numpy(rows7)
    mask = missing(rows)
    filled = torch.where(mask != 0, 0.25, rows)
    phases = {phase.name: phase for phase in made.phases}
    assert phases["generator"].takes_data
    for name in ("discriminator", "generator"):
        seen.clear()
        phases[name].loss(Batch(filled, mask))
        for judged in seen:
            assert (judged[mask != 0] == 0.25).all()
        assert any(not torch.equal(judged[mask == 0], filled[mask == 0]) for judged in seen)
    mask = torch.zeros_like(rows)
    mask[:, 0] = 1  # no row has it, so nothing is learnt of it
    adversaries = getattr(made.model, "adversaries", made.model)
    sampled, fakes = adversaries.sample, list[Tensor]()
    adversaries.sample = lambda *given: fakes.append(sampled(*given)) or fakes[-1]
    loss = phases["generator"].loss(Batch(filled, mask))
    (gradient,) = torch.autograd.grad(loss, fakes[0])
    assert (gradient[:, 0] == 0).all()
    assert (gradient[:, 1:] != 0).any()


def test_without_missing_cells_masking_changes_nothing(make: Make, rows7: Any) -> None:
    rows, losses = torch.from_numpy(rows7), []
    for masked, mask in ((True, None), (True, torch.zeros_like(rows)), (False, missing(rows))):
        for phase in make(GAN, mask_generated=masked).phases:
            torch.manual_seed(0)
            losses.append(phase.loss(Batch(rows, mask)))
    assert losses[:2] == losses[2:4] == losses[4:]


# Noise search


def search(generate: nn.Module, noise: Tensor, features: Tensor, mask: Tensor, **arguments: Any) -> Tensor:
    return NoiseSearch(**arguments)(generate, noise, features, mask)


@pytest.mark.parametrize("learning_rate", [0.1, 0.02])
def test_the_first_step_moves_the_noise_by_the_learning_rate(learning_rate: float) -> None:
    """Contract 9.6: with an identity generator z0 - lr * sign(z0 - x) on observed cells, z0 elsewhere."""
    torch.manual_seed(0)
    noise, features, mask = torch.randn(9, 6), torch.rand(9, 6), (torch.rand(9, 6) < 0.4).float()
    found = search(nn.Identity(), noise, features, mask, learning_rate=learning_rate, max_iterations=1)
    expected = noise - learning_rate * (1 - mask) * (noise - features).sign()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_first_step_through_a_linear_generator() -> None:
    torch.manual_seed(0)
    generator = nn.Linear(3, 6).double()
    noise, features = torch.randn(9, 3).double(), torch.rand(9, 6).double()
    mask = (torch.rand(9, 6) < 0.4).double()
    weight, bias = generator.weight.detach(), generator.bias.detach()
    gradient = ((1 - mask) * (noise @ weight.T + bias - features)) @ weight
    expected = (noise - 0.1 * gradient.sign()) @ weight.T + bias
    found = search(generator, noise, features, mask, max_iterations=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_observed_cells_drive_the_search() -> None:
    torch.manual_seed(0)
    noise, features, mask = torch.randn(9, 6), torch.rand(9, 6), (torch.rand(9, 6) < 0.4).float()
    far, near = (search(nn.Identity(), noise, features, mask, max_iterations=steps) for steps in (1, 200))
    errors = [((1 - mask) * (found - features)).abs().max() for found in (far, near)]
    assert errors[0] > 1
    assert errors[1] < 0.02
    for hidden in (7.0, float("nan")):  # what stands in a missing cell is not looked at
        other = torch.where(mask != 0, hidden, features)
        assert torch.equal(search(nn.Identity(), noise, other, mask, max_iterations=200), near)


def test_rows_do_not_disturb_each_other() -> None:
    """Without a tolerance, which is of all rows together."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    noise, features = torch.randn(9, 3).double(), torch.rand(9, 6).double()
    mask = (torch.rand(9, 6) < 0.4).double()
    together = search(generator, noise, features, mask, tolerance=0.0)
    alone = search(generator, noise[4:5], features[4:5], mask[4:5], tolerance=0.0)
    torch.testing.assert_close(together[4:5], alone)


@pytest.mark.parametrize(("tolerance", "calls"), [(1e9, 2), (0.0, 51)])
def test_the_search_stops_below_its_tolerance(tolerance: float, calls: int) -> None:
    seen: list[Tensor] = []

    class Noted(nn.Module):
        def forward(self, noise: Tensor) -> Tensor:
            seen.append(noise)
            return noise

    noise = torch.ones(2, 3)
    NoiseSearch(tolerance=tolerance)(Noted(), noise, torch.zeros(2, 3), torch.zeros(2, 3))
    assert len(seen) == calls
    assert torch.equal(noise, torch.ones(2, 3)), "the noise that came in is left alone"


def curved() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A generator with many rows that agree with the observed cells; noise, features, mask of nine rows."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 6)).double()
    mask = (torch.rand(9, 6) < 0.4).double()
    return generator, torch.randn(9, 8).double(), torch.rand(9, 6).double(), mask


def test_one_search_is_adam_alone() -> None:
    generator, noise, features, mask = curved()
    found = search(generator, noise, features, mask, learning_rate=0.125, max_iterations=7, tolerance=0.0)
    moved_noise = noise.clone().requires_grad_()
    adam = torch.optim.Adam([moved_noise], lr=0.125)  # which float32 has to the bit
    for _ in range(7):
        adam.zero_grad()
        ((generator(moved_noise) - features)[mask == 0] ** 2).sum().backward()
        adam.step()
    torch.testing.assert_close(found, generator(moved_noise).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("restarts", [2, 5])
def test_restarts_are_searches_of_their_own_and_their_mean_is_found(restarts: int) -> None:
    generator, noise, features, mask = curved()
    arguments = {"max_iterations": 30, "tolerance": 0.0}
    torch.manual_seed(4)
    found = search(generator, noise, features, mask, restarts=restarts, **arguments)
    torch.manual_seed(4)
    starts = [noise, *(torch.randn_like(noise) for _ in range(restarts - 1))]
    alone = torch.stack([search(generator, start, features, mask, **arguments) for start in starts])
    torch.testing.assert_close(found, alone.mean(0))
    errors = [((rows - features).square() * (1 - mask)).sum(-1) for rows in (found, alone)]  # (rows,), (restarts, rows)
    assert (errors[0] < errors[1].mean(0)).all(), "a mean is never worse than what it is the mean of, on average"


def test_each_restart_keeps_the_labels_of_its_row() -> None:
    class Labelled(nn.Module):
        def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
            return noise * 0 + labels[:, None]

    labels = torch.tensor([3.0, 1.0, 2.0])
    found = NoiseSearch(restarts=4)(Labelled(), torch.randn(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), labels)
    assert torch.equal(found, labels[:, None].expand(3, 2))


def test_categorical_cells_drive_the_search() -> None:
    """In evaluation a draw has a gradient, so a search for a category finds it."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 3), SoftmaxSampling()).eval()
    features = torch.eye(3)[[0, 1, 2, 2]]
    found = search(generator, torch.randn(4, 4), features, torch.zeros(4, 3), max_iterations=300)
    assert torch.equal(found.argmax(dim=1), features.argmax(dim=1))
    assert (found.max(dim=1).values > 0.9).all()
