"""From Tune's flat draws to a trial's configuration and back: what the driver and the trials have in common."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dgm_ray.space import LISTED, Draw, Place, draws_of, fill, labels_of

# Which values a trial was trained with: {"epoch": the first of them, "values": by label}. Most trials have one entry.
Schedule = list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A task configuration with draws in it, the metric that judges its trials, and others that its search looks at.

    seeds: with how many a trial trains its configuration; its figures are their means.
    Tune sees the draws only, each under a short name: ``generator_optimizer.lr``.
    """

    template: dict[str, Any]
    metric: str
    others: tuple[str, ...] = ()
    seeds: int = 1

    @property
    def draws(self) -> dict[str, tuple[Place, Draw]]:
        found = list(draws_of(self.template))
        labels = labels_of([place for place, _ in found])
        return {labels[place]: (place, draw) for place, draw in found}

    @property
    def of_seeds(self) -> str:
        """What a person reads after a number of epochs."""
        return f" of each of {self.seeds} seeds" if self.seeds > 1 else ""

    def configuration(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the trial whose draws are ``values``: plain data, as the task runner takes it."""
        filled = {place: decoded(draw, values[label]) for label, (place, draw) in self.draws.items()}
        configuration: dict[str, Any] = fill(self.template, filled)
        return configuration

    def label(self, name: str) -> str | None:
        """Return the label of the draw that has this label, or stands at this place of the file."""
        places = {".".join(("trial", *place)): label for label, (place, _) in self.draws.items()}
        return name if name in self.draws else places[name] if name in places else None

    def drawn(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a configuration the draws could have been, by label, as searchers name it.

        A draw whose place the configuration lacks, or which does not hold its value, is left out; so is a grid.
        """
        found = {label: (draw, _at(configuration, place)) for label, (place, draw) in self.draws.items()}
        return {
            label: encoded(value)
            for label, (draw, value) in found.items()
            if draw.distribution != "grid_search" and draw.holds(value)
        }


def _at(node: Any, place: Place) -> Any:
    """Return what stands at a place, or what no draw holds."""
    for step in place:
        if not isinstance(node, Mapping) or step not in node:
            return _at
        node = node[step]
    return node


def encoded(option: Any) -> Any:
    """Return an option of a choice as searchers and trackers can name it: lists and mappings as JSON text."""
    return json.dumps(option) if isinstance(option, list | dict) else option


def decoded(draw: Draw, value: Any) -> Any:
    """Return the option that ``encoded`` named; numbers come back as Python's own."""
    if draw.distribution in LISTED:
        return next(option for option in draw.arguments if _same(encoded(option), value))
    return plain(value)


def plain(value: Any) -> Any:
    """Return a number as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
