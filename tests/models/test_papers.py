"""What each paper's model alone claims: VAE, denoising, MIDA, ARAE, GAIN, and conditional ones."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm_ray.data import Metadata
from dgm_ray.errors import ConfigurationError
from dgm_ray.models import ARAE, GAIN, GAN, MODELS, VAE, Architecture, AutoEncoder, Batch, build_architecture
from dgm_ray.models import gan as gan_module
from dgm_ray.registry import Scope, build
from dgm_ray.training import Loop, TensorRows

Make = Callable[..., Architecture]
NodeOf = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
HEAD = {"output_layer": {"activation": {"factory": "SoftmaxSampling"}}}


def component(metadata: Metadata, factory: str, code_size: int = 4, **arguments: Any) -> Any:
    scope = Scope({"metadata": metadata, "code_size": code_size, "noise_size": 5})
    return build({"factory": factory, "arguments": arguments}, scope=scope)


def phase(made: Architecture, name: str) -> Any:
    return next(one for one in made.phases if one.name == name)


# VAE


def test_a_code_is_drawn_in_training_and_the_mean_in_evaluation(make: Make, rows7: Any) -> None:
    autoencoder, rows = make(VAE).components["autoencoder"], torch.from_numpy(rows7[:7])
    outputs = autoencoder(rows)
    noise = (outputs.code - outputs.mu) / torch.exp(outputs.log_var / 2)
    assert noise.std().item() == pytest.approx(1, abs=0.5)
    assert not torch.equal(autoencoder(rows).code, outputs.code)
    autoencoder.eval()
    assert torch.equal(autoencoder(rows).code, outputs.mu)
    assert torch.equal(autoencoder.encode(rows), outputs.mu), "defect 17: the same every time"


def test_a_vae_samples_by_decoding_noise(make: Make) -> None:
    made = make(VAE)
    made.model.eval()
    sampled = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        sampled.append(made.model.sample(5, CPU))
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])


def test_passes_put_imputed_cells_in_again(make: Make, rows7: Any) -> None:
    model, rows = make(VAE, imputation_passes=3).model.eval(), torch.from_numpy(rows7[:7])
    mask = torch.zeros_like(rows)
    mask[::2, 0] = 1
    by_hand = rows
    for _ in range(3):
        made = model.reconstruct(by_hand, mask)
        by_hand = torch.where(mask != 0, made, by_hand)
    assert torch.equal(model.impute(rows, mask), by_hand)
    assert not torch.equal(make(VAE).model.eval().impute(rows, mask), by_hand)


def test_draws_of_a_vae_differ_and_keep_what_is_observed(make: Make, rows7: Any) -> None:
    model, rows = make(VAE).model.eval(), torch.from_numpy(rows7[:7])
    mask = torch.zeros_like(rows)
    mask[:, 0] = 1
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model.draw(rows, mask))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][:, 0], drawn[2][:, 0])
    assert torch.equal(drawn[0][:, 1:], rows[:, 1:])


# Denoising, MIDA


@pytest.mark.parametrize("kind", ["DeNoisingAutoencoder", "MIDA"])
def test_noise_is_for_training(md7: Metadata, rows7: Any, kind: str) -> None:
    noise = {"factory": "AdditiveNormalNoise", "arguments": {"noise_std": 0.5}}
    made = component(md7, f"MultiVariable{kind}", encoder={"input_layer": {}}, decoder=HEAD, noise_layer=noise)
    rows = torch.from_numpy(rows7[:9])
    assert not torch.equal(made.encode(rows), made.encode(rows))
    made.eval()
    assert torch.equal(made.encode(rows), made.autoencoder.encode(rows))
    assert torch.equal(made(rows).code, made.encode(rows))


def test_defect_26_a_noise_layer_is_not_needed(md7: Metadata, rows7: Any) -> None:
    made = component(md7, "SingleVariableDeNoisingAutoencoder", encoder={}, decoder={})
    rows = torch.from_numpy(rows7[:9])
    assert torch.equal(made.encode(rows), made.encode(rows))
    mida = component(md7, "SingleVariableMIDA", encoder={}, decoder={})
    torch.testing.assert_close(mida.noise_layer.p, torch.tensor(0.5))


@pytest.mark.parametrize("theta", [1, 7])
def test_the_layers_of_mida_grow_by_theta(md7: Metadata, theta: int) -> None:
    made = component(md7, "SingleVariableMIDA", theta=theta)
    linears = [one for one in made.modules() if isinstance(one, nn.Linear)]
    sizes = [13 + step * theta for step in (0, 1, 2, 3, 2, 1, 0)]
    assert [(one.in_features, one.out_features) for one in linears] == list(pairwise(sizes))
    assert made(torch.rand(3, 13)).reconstructed.shape == (3, 13)


def test_mida_by_theta_or_by_layers(md7: Metadata) -> None:
    with pytest.raises(ConfigurationError, match=r"theta: takes the place of encoder and decoder.*3"):
        component(md7, "SingleVariableMIDA", theta=3, encoder={}, decoder={})
    with pytest.raises(ConfigurationError, match="theta: is needed where there is no encoder"):
        component(md7, "SingleVariableMIDA")


# ARAE


def test_the_critic_of_arae_sees_codes(make: Make, rows7: Any) -> None:
    made, seen = make(ARAE), []
    made.components["discriminator"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    rows = torch.from_numpy(rows7)
    phase(made, "discriminator").loss(Batch(rows))
    torch.testing.assert_close(seen[0], made.components["autoencoder"].encode(rows))
    assert seen[1].shape == (120, 4)


def test_rows_of_arae_are_decoded_codes(make: Make) -> None:
    made = make(ARAE)
    torch.manual_seed(5)
    sampled = made.model.sample(6, CPU)
    torch.manual_seed(5)
    codes = made.components["generator"](torch.randn(6, 5))
    torch.testing.assert_close(sampled, made.components["autoencoder"].decode(codes))


# GAIN


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("unrevealed", [0.0, 0.5])
def test_the_hint(make: Make, probability: float, unrevealed: float) -> None:
    model = make(GAIN, hint_probability=probability, hint_unrevealed=unrevealed).model
    mask = torch.ones(2000, 13)
    hint = model.hint(mask)  # type: ignore[operator]
    assert set(hint.unique().tolist()) <= {unrevealed, 1.0}
    assert (hint == mask).float().mean().item() == pytest.approx(probability, abs=0.03)
    assert torch.equal(hint[:, 3], hint[:, 5]), "a variable is shown whole"


def test_defect_16_gain_never_looks_under_the_mask(make: Make, rows7: Any) -> None:
    node = {"factory": "ZeroImputation"}
    fill, losses = build(node), []
    mask = (torch.rand(120, 13, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    for value in (0.3, 1e9, torch.nan):
        made = make(GAIN)
        rows = torch.where(mask != 0, value, torch.from_numpy(rows7))
        torch.manual_seed(3)
        losses.append([one.loss(Batch(fill(rows, mask), mask)).item() for one in made.phases])
    assert losses[0] == losses[1] == losses[2]


def test_gain_without_a_mask_is_one_line(make: Make, rows7: Any) -> None:
    for one in make(GAIN).phases:
        with pytest.raises(ConfigurationError, match=r"data: GAIN learns from missing cells.*imputation"):
            one.loss(Batch(torch.from_numpy(rows7)))


# Conditional architectures


def conditional(metadata: Metadata, classes: int, model: Any, node_of: NodeOf) -> Architecture:
    node = node_of(model)
    node["arguments"]["conditional"] = {}
    torch.manual_seed(0)
    return build_architecture(model, node, {"metadata": replace(metadata, num_classes=classes)}, {})


TAKE_LABELS = [model for model in MODELS if model.__name__ not in ("GAIN", "MaskedAutoEncoder")]


@pytest.mark.parametrize("model", TAKE_LABELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_defect_04_conditional_models_train_and_heed_the_label(
    model: Any, classes: int, md7: Metadata, node_of: NodeOf, rows7: Any
) -> None:
    made = conditional(md7, classes, model, node_of)
    assert made.conditional
    assert not made.unused
    rows = torch.from_numpy(rows7)
    labels = torch.arange(120).remainder(classes).float()
    losses = Loop(made.model, made.phases, TensorRows(rows, labels), 32, seed=0)(1)
    assert all(torch.tensor(loss).isfinite() for loss in losses.values())
    made.model.eval()
    both = []
    for label in (0.0, 1.0):
        torch.manual_seed(1)
        condition = torch.full((120,), label)
        part = (
            made.model.sample(120, CPU, condition) if model is not AutoEncoder else made.model.encode(rows, condition)
        )  # type: ignore[operator]
        both.append(part)
        assert made.model.impute(rows, torch.zeros_like(rows), condition).shape == rows.shape  # type: ignore[operator]
    assert not torch.equal(*both)


def test_gain_takes_no_labels(md7: Metadata, node_of: NodeOf) -> None:
    made = conditional(md7, 2, GAIN, node_of)
    assert not made.conditional
    assert made.unused == ["architecture.arguments.conditional"]


def test_defect_04_the_generators_labels_are_classes(
    md7: Metadata, node_of: NodeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, drawn = conditional(md7, 3, GAN, node_of), []

    def noted(*given: Any) -> Tensor:
        drawn.append(draw(*given))
        return drawn[-1]

    draw = gan_module.draw_labels
    monkeypatch.setattr(gan_module, "draw_labels", noted)
    phase(made, "generator").loss(Batch(torch.empty(900, 0)))
    assert drawn[0].unique().tolist() == [0, 1, 2]
    assert all(250 < count < 350 for count in drawn[0].unique(return_counts=True)[1].tolist())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_embeding_size": 3}, r"conditional\.min_embeding_size: .*did you mean 'min_embedding_size'"),
        ({"max_embedding_size": 0}, r"conditional\.max_embedding_size: .*greater than or equal to 1, not 0"),
        (False, r"conditional: should be a Conditional.*False"),
    ],
)
def test_mistakes_of_a_condition(given: Any, message: str, md7: Metadata, node_of: NodeOf) -> None:
    node = node_of(GAN)
    node["arguments"]["conditional"] = given
    with pytest.raises(ConfigurationError, match=message):
        build_architecture(GAN, node, {"metadata": replace(md7, num_classes=2)}, {})


# State-dict keys, contract 8

ENCODER = {"encoder": {"input_layer": {}, "hidden_layers": {"sizes": [50]}}}
DECODER = {"decoder": {**HEAD, "hidden_layers": {"sizes": [50]}}}
KEYS = {
    "encoder.input_layer.embeddings.0": (3, 2),
    "encoder.input_layer.embeddings.1": (5, 2),
    "encoder.hidden_layers.layers.0.0.weight": (50, 9),
    "encoder.output_layer.model.weight": (4, 50),
    "decoder.hidden_layers.layers.0.0.weight": (50, 4),
    "decoder.output_layer.layers.2.0.weight": (3, 50),
}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("factory", ["VAE", "DeNoisingAutoencoder", "MIDA"])
def test_keys_of_wrapped_autoencoders(factory: str, md7: Metadata) -> None:
    found = shapes(component(md7, f"MultiVariable{factory}", **ENCODER, **DECODER))
    assert {f"autoencoder.{key}": shape for key, shape in KEYS.items()}.items() <= found.items()
    own = {key: shape for key, shape in found.items() if not key.startswith("autoencoder.")}
    layers = {"mu_layer": 4, "log_var_layer": 4} if factory == "VAE" else {}
    assert own == {f"{name}.{part}": (4, 4)[: 2 - (part == "bias")] for name in layers for part in ("weight", "bias")}


def test_the_order_of_a_vaes_parameters(md7: Metadata) -> None:
    names = [name for name, _ in component(md7, "MultiVariableVAE", **ENCODER, **DECODER).named_parameters()]
    parts = [name.split(".")[1] if name.startswith("autoencoder") else name.split(".")[0] for name in names]
    assert list(dict.fromkeys(parts)) == ["encoder", "decoder", "mu_layer", "log_var_layer"]


def test_keys_of_gain(md7: Metadata) -> None:
    inputs = {"input_layer": {}, "hidden_layers": {"sizes": [50]}}
    embeddings = {f"input_layer.input_layer.embeddings.{j}": size for j, size in enumerate([(3, 2), (5, 2)])}
    first = {"hidden_layers.layers.0.0.weight": (50, 22)}
    generator = shapes(component(md7, "MultiVariableGAINGenerator", **inputs, **HEAD))
    assert (embeddings | first).items() <= generator.items()
    judge = shapes(component(md7, "MultiInputGAINDiscriminator", **inputs))
    assert (embeddings | first | {"output_layer.model.0.weight": (13, 50)}).items() <= judge.items()
    single = {"hidden_layers": {"sizes": [50]}}
    sigmoid = {"output_layer": {"activation": {"factory": "Sigmoid"}}}
    for found in (
        shapes(component(md7, "SingleVariableGAINGenerator", **single, **sigmoid)),
        shapes(component(md7, "SingleInputGAINDiscriminator", **single)),
    ):
        assert found["hidden_layers.layers.0.0.weight"] == (50, 26)
        assert found["output_layer.model.0.weight"] == (13, 50)


def test_keys_of_conditional_networks(md7: Metadata) -> None:
    def keys(classes: int, factory: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
        scope = {"metadata": replace(md7, num_classes=classes), "noise_size": 5, "code_size": 4, "conditional": {}}
        return shapes(build({"factory": factory, "arguments": arguments}, scope=Scope(scope)))

    hidden = {"hidden_layers": {"sizes": [50]}}
    assert keys(2, "SingleOutputGenerator", **hidden)["hidden_layers.layers.0.0.weight"] == (50, 6)
    judge = keys(2, "Discriminator", mini_batch_averaging=True, **hidden)
    assert judge["hidden_layers.layers.0.0.weight"] == (50, 28)
    assert keys(9, "SingleOutputGenerator", **hidden)["input_layer.layer.weight"] == (9, 4)
    judge = keys(9, "CodeCritic", mini_batch_averaging=True, **hidden)
    assert judge["input_layer.input_layer.layer.weight"] == (9, 4)
    both = keys(9, "MultiVariableAutoEncoder", **ENCODER, **DECODER)
    assert both["encoder.input_layer.layer.weight"] == both["decoder.input_layer.layer.weight"] == (9, 4)
    assert both["encoder.input_layer.input_layer.embeddings.1"] == (5, 2)


def test_gain_is_told_what_it_hides(make: Make, rows7: Any, md7: Metadata) -> None:
    rows = torch.from_numpy(rows7[:40])
    mask = torch.zeros_like(rows)
    mask[::2, 0] = 1
    model = make(GAIN, hide_probability=0.4).model
    features, hidden = model._hidden(rows, mask)
    assert torch.equal(hidden[mask != 0], torch.ones(20)), "what is missing stays missing"
    assert torch.equal(features[hidden == 0], rows[hidden == 0])
    also = (hidden != 0) & (mask == 0)
    assert not features[also].any()
    assert also.float().mean().item() == pytest.approx(0.4, abs=0.1)
    for columns in md7.slices:
        assert (also[:, columns] == also[:, columns][:, :1]).all(), "whole variables"
    seen: list[Tensor] = []
    model.generator_loss.register_forward_pre_hook(lambda _, given: seen.extend(given))
    model.loss_of_generator(Batch(rows, mask))
    assert torch.equal(seen[2], rows)
    assert torch.equal(seen[3], mask), "hidden cells count as observed ones"
    assert make(GAIN).model._hidden(rows, mask)[0] is rows
