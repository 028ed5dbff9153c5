"""What tests of several floors need: the toy table of the contract, and an architecture for any model."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors gain nothing from more; of the processes of tests too

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from dgm_ray.data import Holdout, Metadata, Prepared, Table, Variable
from dgm_ray.models import Architecture, build_architecture
from dgm_ray.registry import parameters

Make = Callable[..., Architecture]

settings.register_profile("shared_machine", deadline=None)  # a busy processor is no failure
settings.load_profile("shared_machine")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and the order of sums stays the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def md7() -> Metadata:
    """The toy metadata of the contract, section 8: 13 columns."""
    kinds = [("n1", "numerical", 1), ("b1", "binary", 1), ("b2", "binary", 1), ("c1", "categorical", 3)]
    kinds += [("n2", "numerical", 1), ("c2", "categorical", 5), ("b3", "binary", 1)]
    return Metadata(tuple(Variable(name, kind, size) for name, kind, size in kinds))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def rows7(md7: Metadata) -> np.ndarray[Any, np.dtype[np.float32]]:
    """120 valid rows of md7: (120, 13)."""
    random = np.random.default_rng(7)
    rows = np.zeros((120, md7.num_features), dtype=np.float32)
    for variable, columns in zip(md7.variables, md7.slices, strict=True):
        if variable.kind == "categorical":
            rows[np.arange(120), columns.start + random.integers(variable.size, size=120)] = 1
        else:
            drawn = random.random(120)
            rows[:, columns.start] = drawn if variable.kind == "numerical" else drawn > 0.4
    return rows


class Given:
    """A source that holds its table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def read(self) -> Table:
        return self.table


@pytest.fixture(scope="session")
def prepared7(md7: Metadata, rows7: np.ndarray[Any, np.dtype[np.float32]]) -> Prepared:
    return Holdout(Given(Table(md7, rows7)), missing_probability=0.3).prepare()


def components_of(model: Callable[..., Any]) -> dict[str, Any]:
    """Return an architecture's node for any model: each component that its signature asks for, by name."""
    asked = [name for name, parameter in parameters(model).items() if parameter.shared]
    output = {"activation": {"factory": "SoftmaxSampling"}}
    hidden = {"hidden_layers": {"sizes": [8]}}
    head = {**hidden, "output_layer": output}
    has_decoder = "autoencoder" in asked and "generator" in asked
    gain, arae, vae, masked = (model.__name__ == name for name in ("GAIN", "ARAE", "VAE", "MaskedAutoEncoder"))
    embedded = {"input_layer": {}, **hidden}
    autoencoder = "MultiVariableVAE" if vae else "MultiVariableAutoEncoder"
    loss = {"reconstruction_loss": {"factory": "MultiReconstructionLoss"}}
    catalogue: dict[str, Any] = {
        "autoencoder": {
            "factory": autoencoder,
            "arguments": {"encoder": embedded, "decoder": head},
        },
        "generator": {
            "factory": "CodeGenerator" if has_decoder else "MultiOutputGenerator",
            "arguments": hidden if has_decoder else head,
        },
        "discriminator": {"factory": "CodeDiscriminator" if arae else "Discriminator", "arguments": hidden},
        "reconstruction_loss": {"factory": "VAELoss" if vae else "AutoEncoderLoss", "arguments": loss},
        "generator_loss": {"factory": "GANGeneratorLoss"},
        "discriminator_loss": {"factory": "GANDiscriminatorLoss"},
    }
    if gain:
        catalogue["generator"] = {"factory": "MultiVariableGAINGenerator", "arguments": {"input_layer": {}, **head}}
        catalogue["discriminator"] = {"factory": "MultiInputGAINDiscriminator", "arguments": embedded}
        catalogue["generator_loss"] = {"factory": "GAINGeneratorLoss", "arguments": loss}
        catalogue["discriminator_loss"] = {"factory": "GAINDiscriminatorLoss"}
    if masked:
        small = {"hidden_layers": {"width": 8, "dropout": 0.1}}
        catalogue["autoencoder"] = {"factory": "MultiVariableMaskedAutoEncoder", "arguments": small}
        catalogue["reconstruction_loss"] = {"factory": "MultiReconstructionLoss"}
    for name in asked:
        if name.endswith("_optimizer"):
            trained = name.removesuffix("_optimizer")
            catalogue[name] = {"factory": "Adam", "arguments": {"parameters": [trained], "lr": 0.01}}
    sizes = {"noise_size": 5, "code_size": 4}
    needed = {name for name in sizes if name in asked} | (
        {"code_size"} if "autoencoder" in asked and not masked else set()
    )
    return {
        "arguments": {name: size for name, size in sizes.items() if name in needed},
        "components": {name: catalogue[name] for name in asked if name in catalogue},
    }


@pytest.fixture(scope="session")
def node_of() -> Callable[..., dict[str, Any]]:
    return components_of


@pytest.fixture(scope="session")
def make(md7: Metadata) -> Make:
    """Build any model on md7: ``make(model, seed=0, node=None, **arguments)``."""

    def build(model: Callable[..., Any], seed: int = 0, node: Any = None, **arguments: Any) -> Architecture:
        torch.manual_seed(seed)
        return build_architecture(model, node or components_of(model), {"metadata": md7}, arguments)

    return build
