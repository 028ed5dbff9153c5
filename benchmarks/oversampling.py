"""Is oversampling worth the effort? Classifiers of a rare class, their training rows balanced in eight ways, or not.

    python -m benchmarks.oversampling                        # about ten minutes
    python -m benchmarks.oversampling --quick                # a minute; its figures mean nothing
    python -m benchmarks.oversampling --data my_folder --data another

A folder holds features.npy, labels.npy and metadata.json, as ``dgm-ray data fetch`` makes it. Without --data: the
credit table (30,000 rows, 22% default, mixed variables) and the letters (20,000 rows, 16 numbers, the rarest letter
against all others: 3.7%), where they are beside this repository; else Breast Cancer Wisconsin from scikit-learn.

In each of the folds (stratified), a generator of each kind is trained on the rare rows of the training rows alone, for
the same number of batches, and sampled; then XGBoost is fitted on the training rows with no sampling, with random
copies, SMOTE, SMOTE-NC (on mixed tables), or the generator's rows, until both classes are equally many. Test rows are
never sampled. Nothing is tuned, generators or classifier. The figures are mean and standard deviation over folds.

The generators are trained and sampled by this library's own tasks, the comparison is its task Augmentation.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from sklearn.model_selection import StratifiedKFold

from benchmarks.epoch import CREDIT
from dgm_ray.data import BreastCancer, Metadata, MinMaxScaler
from dgm_ray.evaluation.augmentation import ImbalancedLearn
from dgm_ray.tune.augmentation import (
    Augmentation,
    Classifier,
    Comparison,
    FoldFiles,
    OverSampling,
    UnderSampling,
)
from dgm_ray.tune.parallel import MultiProcessTaskRunner

BATCH = 128
NOISE, CODE, HIDDEN = 32, 16, 128
SAMPLERS: dict[str, ImbalancedLearn] = {"random": "RandomOverSampler", "SMOTE": "SMOTE", "SMOTE-NC": "SMOTENC"}
Node = dict[str, Any]


def main(
    data: Annotated[list[Path] | None, typer.Option(help="A folder of a table; may be repeated.")] = None,
    folds: Annotated[int, typer.Option(min=2)] = 5,
    batches: Annotated[int, typer.Option(min=1, help="That each generator is trained on.")] = 5_000,
    workers: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    output: Annotated[Path | None, typer.Option(help="A folder to keep everything in.")] = None,
    quick: Annotated[bool, typer.Option(help="2 folds, 50 batches.")] = False,
) -> None:
    folds, batches = (2, 50) if quick else (folds, batches)
    console = Console()
    with TemporaryDirectory() as temporary:
        place = output or Path(temporary)
        inputs: list[Comparison] = []
        tasks: list[Path] = []
        for folder in data or beside() or [None]:
            table = Folds(folder, place, folds)
            tasks += [table.generation(name, fold, batches) for name in sorted(GENERATORS) for fold in range(folds)]
            inputs += table.comparisons()
        MultiProcessTaskRunner(workers, tasks, place / "generators.csv").run(console)
        Augmentation(inputs, place / "oversampling.csv", workers).run(console)


def beside() -> Sequence[Path | None]:
    """Return the folders of real tables that are beside this repository."""
    return [one for one in (CREDIT.parent, CREDIT.parents[1] / "letter") if one.is_dir()]


class Folds:
    """A table's files, of each fold and of its rare rows, in a folder."""

    def __init__(self, source: Path | None, place: Path, folds: int) -> None:
        self.name = source.name if source else "breast_cancer"
        self.place, self.count = place / self.name, folds
        self.place.mkdir(parents=True, exist_ok=True)
        features, labels, self.metadata = read(source)
        (self.place / "metadata.json").write_text(json.dumps(self.metadata.to_dict()))
        self.rare = 0
        parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels)
        for fold, (train, test) in enumerate(parts):
            for part, rows in (("train", train), ("test", test), ("rare", train[labels[train] == 1])):
                np.save(self.path(f"{part}-{fold}.npy"), features[rows])
                np.save(self.path(f"{part}-labels-{fold}.npy"), labels[rows])
            self.rare, self.needed = int(labels[train].sum()), int((labels[train] == 0).sum())

    def path(self, name: str) -> Path:
        return self.place / name

    def generation(self, name: str, fold: int, batches: int) -> Path:
        """Write a configuration that trains a generator and samples it."""
        model, architecture, extra = GENERATORS[name]()
        stem = f"{name}-{fold}"
        paths = {key: str(self.path(f"{stem}.{key}")) for key in ("json", "pickle", "csv", "npy", "run.json")}
        self.path(f"{stem}.json").write_text(json.dumps(architecture))
        common = {"metadata": str(self.path("metadata.json")), "architecture": paths["json"], "seed": fold}
        rare = str(self.path(f"rare-{fold}.npy"))
        train = {
            "data": {"train_features": rare} | ({} if model == "GAN" else {"val_features": rare}),
            "checkpoints": {"output": paths["pickle"], "max_delay": 3600},
            "logs": paths["csv"],
            "batch_size": BATCH,
            "epochs": max(1, round(batches / np.ceil(self.rare / BATCH))),
        }
        sample = {
            "checkpoint": paths["pickle"],
            "output": paths["npy"],
            "batch_size": 1000,
            "sample_size": self.needed,
        }
        steps = [
            {"task": f"Train{model}", "arguments": common | train | extra},
            {"task": f"Sample{model}", "arguments": common | sample},
        ]
        for step, task in zip(("train", "sample"), steps, strict=True):
            self.path(f"{stem}-{step}.json").write_text(json.dumps(task))
        both = [str(self.path(f"{stem}-{step}.json")) for step in ("train", "sample")]
        self.path(f"{stem}.run.json").write_text(json.dumps({"task": "SerialTaskRunner", "arguments": {"tasks": both}}))
        return self.path(f"{stem}.run.json")

    def comparisons(self) -> list[Comparison]:
        """Return one without sampling and one for each way of it."""
        files = FoldFiles(self.count, *(self.files(part) for part in ("train", "train-labels", "test", "test-labels")))
        over: dict[str, OverSampling] = {}
        mixed = {"numerical"} < {one.kind for one in self.metadata.variables}
        for name, sampler in SAMPLERS.items():
            if mixed or sampler != "SMOTENC":
                over[name] = OverSampling("imbalanced_learn", 1.0, sampler, self.path("metadata.json"))
        over |= {name: OverSampling("from_sample", 1.0, sample_path_by_fold=self.files(name)) for name in GENERATORS}
        models = {"none": Classifier(100, 6), "under": Classifier(100, 6, UnderSampling("random", 1.0))}
        models |= {name: Classifier(100, 6, over_sampling=way) for name, way in over.items()}
        return [Comparison(name, self.name, files, model) for name, model in models.items()]

    def files(self, part: str) -> list[Path]:
        return [self.path(f"{part}-{fold}.npy") for fold in range(self.count)]


def read(folder: Path | None) -> tuple[Any, Any, Metadata]:
    """Return features in [0, 1], labels (1 is the rarest class), and the metadata without its classes."""
    if folder is None:
        table = BreastCancer().read()
        features, labels, metadata = table.features, table.labels, table.metadata
    else:
        features, labels = (np.load(folder / f"{name}.npy") for name in ("features", "labels"))
        metadata = Metadata.read(folder / "metadata.json")
    assert labels is not None
    classes, counts = np.unique(labels, return_counts=True)
    scaled = MinMaxScaler.fit(metadata, features).transform(features)
    return (
        scaled.astype(np.float32),
        (labels == classes[counts.argmin()]).astype(np.int64),
        Metadata(metadata.variables),
    )


def adam(*names: str, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)) -> Node:
    return {"factory": "Adam", "arguments": {"parameters": list(names), "lr": lr, "betas": betas}}


def layers() -> Node:
    return {"hidden_layers": {"sizes": [HIDDEN]}}


def outputs() -> Node:
    activation = {"factory": "GumbelSoftmaxSampling", "arguments": {"temperature": 0.667}}
    return layers() | {"output_layer": {"activation": activation}}


def autoencoder(factory: str, loss: str) -> Node:
    arguments = {"encoder": {"input_layer": {}} | layers(), "decoder": outputs()}
    measured = {"reconstruction_loss": {"factory": "MultiReconstructionLoss"}}
    return {
        "autoencoder": {"factory": factory, "arguments": arguments},
        "reconstruction_loss": {"factory": loss, "arguments": measured},
        "autoencoder_optimizer": adam("autoencoder"),
        "val_loss": {
            "factory": "ValidationReconstructionLoss",
            "arguments": {"reconstruction_loss": {"factory": "RMSE"}},
        },
    }


def gan() -> tuple[str, Node, Node]:
    components = {
        "generator": {"factory": "MultiOutputGenerator", "arguments": outputs()},
        "discriminator": {"factory": "Discriminator", "arguments": layers()},
        "generator_loss": {"factory": "GANGeneratorLoss"},
        "discriminator_loss": {"factory": "GANDiscriminatorLoss"},
        "generator_optimizer": adam("generator"),
        "discriminator_optimizer": adam("discriminator"),
    }
    steps = {"discriminator_steps": 1, "generator_steps": 1}
    return "GAN", {"arguments": {"noise_size": NOISE}, "components": components}, steps


def wgan_gp() -> tuple[str, Node, Node]:
    """Gulrajani et al. 2017: weight 10, five steps of the critic, Adam with betas 0 and 0.9."""
    _, architecture, _ = gan()
    optimizers = {f"{name}_optimizer": adam(name, betas=(0.0, 0.9)) for name in ("generator", "discriminator")}
    components = optimizers | {
        "discriminator": {"factory": "Critic", "arguments": layers()},
        "generator_loss": {"factory": "WGANGeneratorLoss"},
        "discriminator_loss": {"factory": "WGANCriticLossWithGradientPenalty", "arguments": {"weight": 10.0}},
    }
    steps = {"discriminator_steps": 5, "generator_steps": 1}
    return "GAN", architecture | {"components": architecture["components"] | components}, steps


def vae() -> tuple[str, Node, Node]:
    return "VAE", {"arguments": {"code_size": CODE}, "components": autoencoder("MultiVariableVAE", "VAELoss")}, {}


def medgan() -> tuple[str, Node, Node]:
    """Choi et al. 2017: the generator's step moves the decoder too, and the discriminator sees batch means."""
    _, architecture, steps = gan()
    components = autoencoder("MultiVariableAutoEncoder", "AutoEncoderLoss") | {
        "generator": {"factory": "CodeGenerator", "arguments": layers()},
        "discriminator": {"factory": "Discriminator", "arguments": layers() | {"mini_batch_averaging": True}},
        "generator_optimizer": adam("generator", "autoencoder"),
    }
    arguments = architecture["arguments"] | {"code_size": CODE}
    whole = {"arguments": arguments, "components": architecture["components"] | components}
    return "MedGAN", whole, steps | {"autoencoder_steps": 1}


GENERATORS = {"GAN": gan, "WGAN-GP": wgan_gp, "VAE": vae, "MedGAN": medgan}


if __name__ == "__main__":
    typer.run(main)
