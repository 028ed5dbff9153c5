"""A study: a search space that has been read and checked, and where its results go."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from dgm_ray.data import CellHoldout, Files, Metadata, Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.models import Architecture, count_parameters
from dgm_ray.registry import TASKS, absolute_paths, call, check_keys, parameters, paths_in
from dgm_ray.space import Draw, Place, assign, corners, draws_of, fill, read_draws, read_file
from dgm_ray.tasks import train, train_imputer  # noqa: F401 (registers what a trial can be)
from dgm_ray.tasks.training_task import TrainingTask
from dgm_ray.tune.data import Route, route, streamed
from dgm_ray.tune.lanes.check import check_settings, lanes_lines
from dgm_ray.tune.plan import Plan
from dgm_ray.tune.settings import RandomSearch, Settings

ARGUMENTS = "trial.arguments"
_DECIDED = {
    "keep_checkpoint_by_metric": "tune.metric",
    "threads": "tune.resources",
    "device": "tune.resources",
    "checkpoints": "the study",
    "logs": "the study",
    "lanes": "tune.lanes",
}


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal saw: parameters of the smallest and the largest corner, what has no effect, and what is
    said of lanes."""

    fewest_parameters: int
    most_parameters: int
    dead: list[str]
    lanes: list[str]


@dataclass(frozen=True)
class Study:
    """A checked space.

    path: the file that it was read from. node: what the file says, with ``--set`` carried out. settings: the ``tune``
    section. plan: the ``trial`` section, with draws. place: where the trial's arguments stand in the file. first: what
    the first trial has, by the labels of draws.
    """

    path: Path
    node: dict[str, Any]
    settings: Settings
    plan: Plan
    place: str = ARGUMENTS
    first: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        path: Path,
        assignments: Sequence[str] = (),
        *,
        source: Mapping[str, Any] | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> "Study":
        """Read a search space. assignments: ``a.b.c=value``, as the option ``--set`` gives them.

        source: stands in for the table's, as the option ``--data`` gives it.

        Raises ConfigurationError for whatever does not fit the grammar or the settings; the trial is checked by
        ``rehearse``.
        """
        node = read_file(path)
        if source is not None:
            _replace_source(node, source)
        for assignment in assignments:  # first: what it sets is checked like what the file says
            assign(node, assignment)
        check_keys(node, ("tune", "trial"), "", path.name)
        if "trial" not in node:
            raise ConfigurationError(str(path), "a search space needs 'trial', a task with draws in it")
        return cls.of(path, node, settings_of(node, samples, seed))

    @classmethod
    def of(cls, path: Path, node: dict[str, Any], settings: Settings, place: str = ARGUMENTS) -> "Study":
        """Return the study of what a file says, or a part of it: ``node["trial"]`` is searched. Raises as ``read``."""
        plan = Plan(_template(node["trial"], settings, place), settings.metric, settings.search.others, settings.seeds)
        study = cls(path, node, settings, plan, place)
        study._check_search()
        return study

    @property
    def epochs(self) -> int:
        """The most epochs that a trial can have."""
        return max(task.epochs for task in self.corners)

    @property
    def trials(self) -> int:
        """How many trials the search starts: samples times the size of the grid."""
        count = self.settings.samples
        for _, draw in draws_of(self.plan.template):
            if draw.distribution == "grid_search":
                count *= len(draw.arguments)
        return count

    @property
    def mechanism(self) -> str:
        """The name of what hides cells, "" for files that were masked beforehand."""
        data = self.corners[0].data
        return "" if isinstance(data, Files) else type(data.missing).__name__

    @property
    def tags(self) -> dict[str, str]:
        """What tells the runs of a study from those of others: model, data, why cells are missing and how many."""
        data, given = self.corners[0].data, self.plan.template["arguments"]
        name = given["imputer"]["factory"] if "imputer" in given else self.plan.template["task"].removeprefix("Train")
        tags = {"model": str(name), "mechanism": self.mechanism, "metric": self.settings.metric}
        if isinstance(data, Files):
            return tags | {"data": "files"}
        path = getattr(data.source, "path", None)
        rate = data.validation_probability if isinstance(data, CellHoldout) else data.missing_probability
        return tags | {"data": Path(path).name if path else type(data.source).__name__, "missing_rate": str(rate)}

    @property
    def files(self) -> list[str]:
        """The files that a trial reads on its node, absolute: the table too if it is streamed, else Ray sends it."""
        task, given = TASKS.get(self.plan.template["task"], "trial.task"), self.node["trial"]["arguments"]
        own = {name: value for name, value in given.items() if name != "data" or self.route.streams}
        return sorted(set(paths_in(absolute_paths(own, task), task)))

    @cached_property
    def route(self) -> Route:
        """How the table is read. Raises ConfigurationError if it is to be streamed and cannot be."""
        return route(self.corners[0], self.settings.data)

    def prepare(self, data: Prepared | None = None) -> Prepared:
        """Read the table once, split it and hide its cells, and check that every corner of the space fits it.

        data: what others have prepared already.
        """
        streams = data is None and self.route.streams
        for task in self.corners:
            with _placed(self.place):
                data = data or (streamed(task, self.settings.data) if streams else task.prepare())
                task.check_data(data)
        assert data is not None
        if data.test is None:
            raise ConfigurationError(
                f"{self.place}.data", "a study splits its table itself: give a source, such as Npy"
            )
        return data

    def rehearse(self, data: Prepared) -> "Rehearsal":
        """Build the corners of the space on torch's meta device; nothing is computed and nothing is started.

        Raises ConfigurationError, with the place in the file, for a corner that cannot be built.
        """
        counts: list[int] = []
        unused: list[list[str]] = []
        for task in self.corners:
            with _placed(self.place):
                architecture = task.rehearse(data.metadata)
            if self.settings.resources.workers > 1:
                task.check_workers(data, self.settings.resources.workers)
            task.check_metric(architecture, "tune.metric")
            for name in self.plan.others:
                replace(task, keep_checkpoint_by_metric=name).check_metric(architecture, "tune.search.arguments.other")
            counts.append(count_parameters(architecture))
            unused.append(architecture.unused)
        still = [label for label, (_, draw) in self.plan.draws.items() if len(draw.tried) == 1]
        never = [place for place in unused[0] if all(place in others for others in unused)]
        self._check_mutations(data)
        dead = [f"{self.place}.{place} (no component uses it)" for place in never]
        dead += [f"{label} (it has one value)" for label in still]
        if self.settings.seeds > 1 and not self.seeded(data.metadata):
            dead.append("tune.seeds (nothing is drawn by seed, so each gives the same)")
        return Rehearsal(min(counts), max(counts), dead, lanes_lines(self, data))

    def together(self, data: Prepared) -> bool:
        """Tell whether the seeds of a trial are trained as lanes of one pack: if there are several, and all can be."""
        return self.settings.seeds > 1 and not any(task.shape(data).reason for task in self.corners)

    def seeded(self, metadata: Metadata) -> bool:
        """Tell whether a trial of the study gives another result with another seed. Raises as ``rehearse``."""
        with _placed(self.place):
            return any(task.seeded(metadata) for task in self.corners)

    def resolved(self) -> dict[str, Any]:
        """Return the settings as plain data, with every default in it."""
        search, scheduler = (type(part).__name__ for part in (self.settings.search, self.settings.scheduler))
        stop = self.settings.stop
        return asdict(self.settings) | {
            "search": {"factory": search, "arguments": asdict(self.settings.search)},
            "scheduler": {"factory": scheduler, "arguments": asdict(self.settings.scheduler)},
            "stop": stop and {"factory": type(stop).__name__, "arguments": asdict(stop)},
        }

    @cached_property
    def corners(self) -> list[TrainingTask]:
        """The tasks at the corners of the space. Raises ConfigurationError for arguments that do not fit their task."""
        return [self.task(values) for values in corners(self.plan.template)]

    def task(self, values: Mapping[Place, Any]) -> TrainingTask:
        """Return the task of a trial. values: of all draws. Raises ConfigurationError for what does not fit it."""
        return task_of(fill(self.plan.template, values), self.place)

    def _check_mutations(self, data: Prepared) -> None:
        """Raise ConfigurationError for a value that shapes depend on: weights are copied to trials with another one."""
        ends = list(corners(self.plan.template))
        for index, (label, draw) in enumerate(self.settings.scheduler.mutated(self.plan).items()):
            place, _ = self.plan.draws[label]
            for values in (ends[0], ends[-1]):
                tried = [fill(self.plan.template, {**values, place: value}) for value in draw.tried]
                shapes = [shapes_of(task_of(one, self.place).rehearse(data.metadata)) for one in tried]
                if any(other != shapes[0] for other in shapes):
                    rule = "cannot change while a trial runs, because weights depend on it in number or kind"
                    raise ConfigurationError(f"tune.scheduler.arguments.mutations.{index}", f"{label} {rule}")

    def _check_search(self) -> None:
        search, scheduler = self.settings.search, self.settings.scheduler
        search.check()
        scheduler.check(self.epochs, self.trials)
        scheduler.mutated(self.plan)
        check_settings(self.settings)
        if self.settings.seeds > 1 and self.settings.resources.workers > 1:
            rule = "does not go with tune.seeds: leave one of both out"
            raise ConfigurationError("tune.resources.workers", rule, self.settings.resources.workers)
        if self.settings.stop and scheduler.together:
            rule = f"{type(scheduler).__name__} ends its trials together, not one after the other: leave it out"
            raise ConfigurationError("tune.stop", rule, type(self.settings.stop).__name__)
        if self.plan.metric in self.plan.others:
            rule = "should be another metric than tune.metric"
            raise ConfigurationError("tune.search.arguments.other", rule, self.plan.metric)
        if scheduler.together and not isinstance(search, RandomSearch):
            rule = f"{type(scheduler).__name__} starts with all its trials, which RandomSearch alone proposes at once"
            raise ConfigurationError("tune.search", rule, type(search).__name__)
        if scheduler.together and self.settings.concurrent is not None and self.settings.concurrent < self.trials:
            rule = f"{type(scheduler).__name__} lets all its {self.trials} trials take turns: leave it out"
            raise ConfigurationError("tune.concurrent", rule, self.settings.concurrent)
        grids = [label for label, (_, draw) in self.plan.draws.items() if draw.distribution == "grid_search"]
        if grids and not isinstance(search, RandomSearch):
            raise ConfigurationError(
                "tune.search", f"{type(search).__name__} takes no grid_search, which {grids[0]} is"
            )
        if not self.plan.draws and self.settings.samples > 1:
            rule = "nothing is drawn, so every trial would be the same: use a draw, or samples: 1"
            raise ConfigurationError("trial", rule)


def shapes_of(architecture: Architecture) -> dict[str, Any]:
    """Return what of an architecture decides whether another's checkpoint fits: shapes, and kinds of optimizers."""
    return {
        name: {key: tuple(value.shape) for key, value in component.state_dict().items()}
        if isinstance(component, nn.Module)
        else type(component).__name__
        for name, component in architecture.components.items()
    }


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Put the place of a task's errors below the trial's arguments."""
    try:
        yield
    except ConfigurationError as error:
        raise error.under(place) from None


def task_of(configuration: dict[str, Any], place: str = ARGUMENTS) -> TrainingTask:
    """Return the task of a trial's configuration, one without draws."""
    task: TrainingTask = call(TASKS.get(configuration["task"], "trial.task"), configuration["arguments"], path=place)
    return task


def settings_of(node: Mapping[str, Any], samples: int | None, seed: int | None) -> Settings:
    """Return the ``tune`` section of what a file says. samples, seed: stand in for its own, unless None."""
    settings: Settings = call(Settings, {"tune": {}, **node}["tune"], path="tune")
    settings = settings if samples is None else replace(settings, samples=samples)
    return settings if seed is None else replace(settings, seed=seed)


def _replace_source(node: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Put another table in; how it is split and hidden stays. Raises ConfigurationError if there is no place for it."""
    place, below = "", node
    for step in ("trial", "arguments", "data", "arguments"):
        if step == "arguments" and place == f"{ARGUMENTS}.data" and "factory" not in below:
            break  # of Holdout, whose name need not be given
        place = f"{place}.{step}" if place else step
        inner = below[step] if step in below else {}
        if not isinstance(inner, Mapping):
            raise ConfigurationError(place, "should be a mapping", inner)
        below[step] = below = dict(inner)  # a copy: a YAML alias may hold the same mapping at another place
    if below and "source" not in below:
        rule = "has no source that --data could stand in for: files of features are split beforehand"
        raise ConfigurationError(place, rule)
    below["source"] = dict(source)


def _template(trial: Any, settings: Settings, place: str) -> dict[str, Any]:
    """Return the trial section with draws read, paths absolute, and what the settings decide filled in."""
    check_keys(trial, ("task", "arguments"), "trial", "a trial", needed=("task", "arguments"))
    task = TASKS.get(trial["task"], "trial.task")
    check_keys(trial["arguments"], parameters(task), place, trial["task"])
    arguments = read_draws(absolute_paths(trial["arguments"], task), place)
    # The draws of an architecture in a file of its own are part of the space, and trials need no file.
    if "architecture" in arguments and isinstance(arguments["architecture"], str):
        arguments["architecture"] = read_draws(read_file(arguments["architecture"]), f"{place}.architecture")
    for steps, draw in draws_of(arguments["data"] if "data" in arguments else None):
        rule = "the data is prepared once for all trials, so nothing in it can be drawn"
        raise ConfigurationError(".".join((place, "data", *steps)), rule, str(draw))
    for name, decider in _DECIDED.items():
        if name in arguments:
            raise ConfigurationError(f"{place}.{name}", f"{decider} decides this: leave it out", arguments[name])
    if "seed" in arguments and arguments["seed"] is None:
        raise ConfigurationError(f"{place}.seed", "a trial that can be repeated has a seed", None)
    if settings.seeds > 1 and "seed" in arguments and isinstance(arguments["seed"], Draw):
        rule = f"should be one number, the first of the {settings.seeds} of tune.seeds"
        raise ConfigurationError(f"{place}.seed", rule, str(arguments["seed"]))
    decided = {
        "keep_checkpoint_by_metric": settings.metric,
        "threads": settings.resources.threads,
        "device": "cuda" if settings.resources.on_gpu else "cpu",
    }
    return {"task": trial["task"], "arguments": arguments | decided}
