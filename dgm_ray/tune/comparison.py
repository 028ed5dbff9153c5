"""A comparison: every imputer with a search space of its own, on one table; read and checked before anything starts.

tune: {...}                    # as in a search space, for each imputer
data: {source: ..., ...}       # the arguments of CellHoldout
repeats: 5                     # of each imputer's best, with other validation cells and seeds
imputers:
  means_and_modes: {}          # a name of tasks/imputers.yaml, and what is changed of its task's arguments
  k_nearest: {imputer.arguments.neighbours: {randint: [2, 40]}}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

from dgm_ray.data import CellHoldout, InMemory, Prepared
from dgm_ray.errors import ConfigurationError
from dgm_ray.registry import PositiveInt, build, call, check_keys
from dgm_ray.space import LISTED, assignment_of, put, read_file
from dgm_ray.tasks.imputers import BASELINE, fitting, imputer_configuration, largest_batch
from dgm_ray.tune.schedulers import FIFO
from dgm_ray.tune.settings import RandomSearch, Settings
from dgm_ray.tune.study import Study, settings_of

KEYS = ("tune", "data", "repeats", "imputers")


@dataclass(frozen=True)
class Comparison:
    """A comparison that has been read.

    path: the file. node: what it says, with ``--set`` carried out, and means and modes among the imputers. settings:
    the ``tune`` section. holdout: which cells are hidden; test cells are the same all along. repeats: of each best.
    """

    path: Path
    node: dict[str, Any]
    settings: Settings
    holdout: CellHoldout
    repeats: int

    @classmethod
    def read(
        cls,
        path: Path,
        assignments: Sequence[str] = (),
        *,
        source: Mapping[str, Any] | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> "Comparison":
        """Read a comparison; the options are those of ``Study.read``.

        Raises ConfigurationError for what does not fit the grammar; the spaces are checked by ``studies``.
        """
        node = read_file(path)
        if source is not None:
            put(node, ["data", "source"], dict(source), "--data")
        for assignment in assignments:
            place, value = assignment_of(assignment)
            steps = place.split(".", 2) if place.startswith("imputers.") else place.split(".")
            put(node, steps, value, f"--set {place}")
        check_keys(node, KEYS, "", path.name, needed=("data", "imputers"))
        node["imputers"] = _imputers(node["imputers"])
        repeats: int = build({"repeats": 5, **node}["repeats"], PositiveInt, path="repeats")
        holdout: CellHoldout = call(CellHoldout, node["data"], path="data")
        for name in ("test_probability", "validation_probability"):
            if getattr(holdout, name) == 0:
                raise ConfigurationError(f"data.{name}", "should be above 0, or nothing can be compared", 0)
        settings = settings_of(node, samples, seed)
        if settings.data.mode == "stream":
            rule = "must be memory, because imputers are compared on cells of all rows at once"
            raise ConfigurationError("tune.data.mode", rule, settings.data.mode)
        return cls(path, node, settings, holdout, repeats)

    @property
    def seeds(self) -> list[int]:
        """Of the repeats' validation cells and models; the search's is none of them."""
        searched = self.holdout.seed if self.holdout.validation_seed is None else self.holdout.validation_seed
        return list(islice((seed for seed in count() if seed != searched), self.repeats))

    @property
    def mechanism(self) -> str:
        """The name of what hides cells."""
        return type(self.holdout.missing).__name__

    def prepare(self, seed: int | None = None) -> Prepared:
        """Return the table with hidden cells, as the search gets it, or a repeat; the file is read once.

        seed: of a repeat's validation cells. Raises ConfigurationError or DataError for what cannot be scored.
        """
        holdout = self._read if seed is None else replace(self._read, validation_seed=seed)
        data = holdout.prepare()
        if not data.validation.hidden_mask.any():
            rule = "must hide a cell at least, or nothing can be compared"
            raise ConfigurationError("data.validation_probability", rule, self.holdout.validation_probability)
        return data

    def studies(self, data: Prepared) -> dict[str, Study]:
        """Return the study of each imputer, its corners checked but not rehearsed.

        Raises ConfigurationError or DataError for a space that does not fit its task, or the table.
        """
        studies = {name: self._study(name, data) for name in self.node["imputers"]}
        for study in studies.values():
            study.prepare(data)
        return studies

    @cached_property
    def _read(self) -> CellHoldout:
        return replace(self.holdout, source=InMemory(self.holdout.source.read()))

    def _study(self, name: str, data: Prepared) -> Study:
        place, rows = f"imputers.{name}", len(data.train.features)
        configuration = imputer_configuration(name, place)
        arguments = configuration["arguments"]
        for steps, value in self.node["imputers"][name].items():
            put(arguments, steps.split("."), value, f"{place}.{steps}")
        if "batch_size" in arguments:
            arguments["batch_size"] = _at_most(arguments["batch_size"], largest_batch(arguments, rows))
        arguments["data"] = {"factory": "CellHoldout", "arguments": self.node["data"]}
        node = {"trial": configuration}
        study = Study.of(self.path, node, replace(self.settings, samples=1, scheduler=FIFO()), place)
        samples, scheduler = self.settings.samples if study.plan.draws else 1, self.settings.scheduler
        several = self.settings.seeds > 1 and study.seeded(data.metadata)
        settings = replace(self.settings, samples=samples, seeds=self.settings.seeds if several else 1)
        try:
            scheduler.check(study.epochs, samples)
        except ConfigurationError:  # nothing could be stopped
            scheduler = FIFO()
        study = Study.of(self.path, node, replace(settings, scheduler=scheduler), place)
        default = imputer_configuration(name)
        default["arguments"] = fitting(default["arguments"], rows)
        first = study.plan.drawn(default)  # a search that begins with it is never behind it
        if not isinstance(self.settings.search, RandomSearch) and len(first) < len(study.plan.draws):
            first = {}  # Ray's Optuna takes whole points only
        return replace(study, first=first)


def is_comparison(path: Path) -> bool:
    """Tell a comparison from a search space, by its keys. Raises ConfigurationError for a file that is neither."""
    node = read_file(path)
    if ("imputers" in node) == ("trial" in node):
        rule = "should be a search space, which has 'trial', or a comparison, which has 'imputers'"
        raise ConfigurationError(str(path), rule, list(node))
    return "imputers" in node


def _imputers(node: Any) -> dict[str, dict[str, Any]]:
    """Return what is changed of each imputer, checked as far as names can be, with means and modes."""
    if not isinstance(node, dict) or not node:
        raise ConfigurationError("imputers", "should be a mapping of one imputer at least", node)
    for name, changes in node.items():
        place = f"imputers.{name}"
        imputer_configuration(name, place)
        if not isinstance(changes, dict):
            raise ConfigurationError(place, "should be a mapping of arguments to values or draws, {} for none", changes)
        for path in changes:
            if path.split(".")[0] == "data":
                raise ConfigurationError(f"{place}.{path}", "all imputers have the same data: set it under 'data'")
            if below := [other for other in changes if other.startswith(f"{path}.")]:
                raise ConfigurationError(f"{place}.{path}", f"sets what {below[0]!r} sets as well: leave one out")
    return node if BASELINE in node else {BASELINE: {}, **node}


def _at_most(batch_size: Any, limit: int) -> Any:
    """Return a batch size, or a draw of it, of at most ``limit``; what is neither stays for its signature to refuse."""
    if isinstance(batch_size, dict):
        return {
            name: [_at_most(one, limit) for one in values] if name in (*LISTED, "randint", "lograndint") else values
            for name, values in batch_size.items()
        }
    return min(batch_size, limit) if isinstance(batch_size, int) else batch_size
