import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dgm_ray.data import Metadata, mcar_mask
from dgm_ray.models import ALIASES, MODELS
from dgm_ray.registry import TASKS, call
from dgm_ray.tasks.train import TrainTask


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def arguments(node_of: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a small training's arguments: ``arguments("TrainGAN", epochs=3)``."""

    def make(task: str, **more: Any) -> dict[str, Any]:
        (model,) = [one for one in MODELS if f"Train{one.__name__}" == task]
        node: dict[str, Any] = {"source": {"factory": "BreastCancer"}, "train_missing_probability": 0.1}
        common = {
            "data": node,
            "imputation": {"factory": "MeanAndModesImputation"},
            "architecture": node_of(model),
            "batch_size": 64,
            "epochs": 2,
            "device": "cpu",
        }
        return copy.deepcopy(common | more)

    return make


@pytest.fixture
def task(arguments: Callable[..., dict[str, Any]]) -> Callable[..., TrainTask]:
    """Return the task as the runner makes it from a file: ``task("TrainGAN", epochs=3)``."""

    def make(name: str, **more: Any) -> TrainTask:
        made: TrainTask = call(TASKS.get(name, ""), json.loads(json.dumps(arguments(name, **more))), path="arguments")
        return made

    return make


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    """What makes a training write its files below tmp_path."""
    return {"checkpoints": {"output": str(tmp_path / "new" / "it.pt")}, "logs": str(tmp_path / "logs" / "it.csv")}


NodeOf = Callable[..., dict[str, Any]]
Original = Callable[..., dict[str, Any]]
NOISY = {"TrainDeNoisingAutoEncoder": "DeNoisingAutoencoder", "TrainMIDA": "MIDA"}


@pytest.fixture
def original(tmp_path: Path, md7: Metadata, rows7: Any, node_of: NodeOf) -> Original:
    """Write what a task needs to files and return its arguments: ``original("TrainGAN", epochs=3)``."""
    (tmp_path / "metadata.json").write_text(json.dumps({**md7.to_dict(), "num_classes": 2}))
    mask = mcar_mask(md7, np.arange(120), 0.3, 0).astype(np.float32)
    for part, rows in {"train": slice(0, 100), "val": slice(100, 120)}.items():
        np.save(tmp_path / f"{part}.npy", rows7[rows])
        np.save(tmp_path / f"{part}_mask.npy", mask[rows])
        np.save(tmp_path / f"{part}_labels.npy", (np.arange(120)[rows] % 2).astype(np.float32))

    def make(name: str, masked: bool = False, **more: Any) -> dict[str, Any]:
        by_name = {f"Train{model.__name__}": model for model in MODELS} | ALIASES
        node = node_of(by_name[name])
        if name in NOISY:
            autoencoder = node["components"]["autoencoder"]
            autoencoder["factory"] = f"MultiVariable{NOISY[name]}"
            autoencoder["arguments"]["noise_layer"] = {"factory": "Dropout"}
        data = {"train_features": str(tmp_path / "train.npy")}
        if name != "TrainGAN":
            kind = "Imputation" if name == "TrainGAIN" else "Reconstruction"
            loss = {"reconstruction_loss": {"factory": "RMSE"}}
            node["components"]["val_loss"] = {"factory": f"Validation{kind}Loss", "arguments": loss}
            data["val_features"] = str(tmp_path / "val.npy")
        (tmp_path / "architecture.json").write_text(json.dumps(node))
        if masked or name == "TrainGAIN":
            data |= {f"{part}_missing_mask": str(tmp_path / f"{part}_mask.npy") for part in ("train", "val")}
            more.setdefault("imputation", {"factory": "NormalNoiseImputation"})
        return {
            "data": data,
            "metadata": str(tmp_path / "metadata.json"),
            "architecture": str(tmp_path / "architecture.json"),
            "checkpoints": {"output": str(tmp_path / "new" / "it.pickle"), "max_delay": 60},
            "logs": str(tmp_path / "it.csv"),
            "batch_size": 32,
            "epochs": 2,
            "seed": 3,
            **more,
        }

    return make
