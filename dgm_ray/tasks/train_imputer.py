"""``TrainImputer``: an imputer that is no network, trained, measured and tuned as the models are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from dgm_ray.data import CellHoldout, Holdout, Metadata, MinMaxScaler, Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.evaluation import Evaluation, Seen
from dgm_ray.imputers import BaseImputer, ImputerModel, Iterations
from dgm_ray.models import Architecture
from dgm_ray.nn import ImputationLayer, ZeroImputation
from dgm_ray.registry import TASKS, Node, PositiveInt, Scope, build
from dgm_ray.tasks.trained import device_of
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.training import WORKERS, Part, Training


@dataclass(frozen=True, kw_only=True)
class TrainImputer(TrainingTask):
    """Fit an imputer on a table, an iteration an epoch, and measure it on validation rows.

    data: where the rows come from, how they are split and which cells are hidden.
    imputer: MissForest, KNearest, GaussianEM, IterativeRidge, MissingpyMissForest (needs the extra missingpy),
        NormalNoiseImputation, MeanAndModesImputation or ZeroImputation.
    epochs: iterations at most; it ends sooner when another would change nothing.
    seed: of the imputer; null draws one.
    keep_checkpoint_by_metric, patience, evaluate_every, checkpoints, logs: as in TrainAutoEncoder.
    device, threads: as in TrainAutoEncoder; MissForest grows its trees on the processor, with so many threads.
    """

    data: Holdout | CellHoldout
    imputer: Node
    epochs: PositiveInt = 10

    @property
    def label(self) -> str:
        return "an imputer"

    def prepare(self) -> Prepared:
        return self.data.prepare()

    def rehearse(self, metadata: Metadata) -> Architecture:
        return self._build(metadata, torch.empty(metadata.num_features), 0)

    def assemble(
        self, metadata: Metadata, means_and_modes: NDArray[Any], scaler: MinMaxScaler | None = None
    ) -> Architecture:
        architecture = self._build(metadata, torch.tensor(means_and_modes), self.seed or 0)
        architecture.model.to(device_of(self.device))
        return architecture

    def start(
        self,
        data: Prepared | None = None,
        configuration: Mapping[str, Any] | None = None,
        part: Part | None = None,
    ) -> Training:
        data = data or self.prepare()
        if part is not None:
            self.check_workers(data, part.workers)
        seed, device = self.settle(), device_of(self.device)
        self.check_data(data)
        architecture = self._build(data.metadata, torch.tensor(data.means_and_modes), seed)
        self.check_metric(architecture)
        model = architecture.model.to(device)
        assert isinstance(model, ImputerModel)
        seen = Seen(data.metadata, data.validation, ZeroImputation(), device)
        loop = Iterations(model, data.train.features)
        return self.training(architecture, loop, Evaluation(seen), seed, configuration)

    def check_workers(self, data: Prepared, workers: int) -> None:
        raise ConfigurationError(WORKERS, "an imputer that is no network is fitted by one process: use 1", workers)

    def seeded(self, metadata: Metadata) -> bool:
        model = self.rehearse(metadata).model
        assert isinstance(model, ImputerModel)
        return model.seeded

    def _build(self, metadata: Metadata, means_and_modes: torch.Tensor, seed: int) -> Architecture:
        shared = {"metadata": metadata, "means_and_modes": means_and_modes}
        own = {"seed": seed, "workers": self.threads}
        model = ImputerModel(build(self.imputer, BaseImputer | ImputationLayer, Scope(shared | own), "imputer"))
        return Architecture(model, [], {"imputer": model}, fill=ZeroImputation())


TASKS.register(TrainImputer)
