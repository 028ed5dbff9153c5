"""What a study's runner of lanes is made of."""

from collections.abc import Callable
from typing import Any

import ray
from ray.tune.experiment import Trial as RayTrial

from dgm_ray.data import Prepared
from dgm_ray.training.lanes import Shape
from dgm_ray.tune.cluster import bundles, options
from dgm_ray.tune.lanes.runner import Limits
from dgm_ray.tune.lanes.worker import Worker
from dgm_ray.tune.settings import RandomSearch, Resources, Settings
from dgm_ray.tune.study import Study, task_of


def limits_of(settings: Settings, workers: int) -> Limits:
    """Return how many trials are trained at a time. workers: there is room for."""
    lanes = None if settings.lanes == "auto" else settings.lanes
    return Limits(workers, lanes, settings.seeds, settings.concurrent, isinstance(settings.search, RandomSearch))


def shape_of(study: Study, data: Prepared, trial: RayTrial) -> Shape:
    """Return a trial's shape; of one that cannot be built, which its worker will say, none."""
    try:
        return task_of(study.plan.configuration(trial.config)).shape(data)
    except Exception:  # its end has the reason
        return Shape("")


def start_worker(study: Study, resources: Resources, table: Callable[[], Prepared]) -> Any:
    """Start a process with what a trial has for itself; it comes up by and by."""
    (held,) = bundles(resources)
    settings = study.settings
    worker = ray.remote(Worker).options(max_restarts=0, **options(held))
    return worker.remote(study.plan, settings.scheduler, table, resources.gpu, settings.compile)
