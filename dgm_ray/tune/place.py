"""Where a study's files go."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgm_ray.errors import StudyError
from dgm_ray.training import write_json

# What a study that is resumed may have otherwise; all else decides what its trials are.
FREE = ("samples", "concurrent", "time_budget", "stop", "max_failures", "keep", "resources")
SHOWN = 3  # differences


@dataclass(frozen=True)
class Place:
    """folder: of this study, absolute. tracking_uri: MLflow's. resume, overwrite: what to do with a study in it."""

    folder: Path
    tracking_uri: str
    resume: bool = False
    overwrite: bool = False

    @property
    def settings(self) -> Path:
        """The space and the resolved settings; every study's folder has it."""
        return self.folder / "study.json"

    @property
    def journal(self) -> Path:
        """What was decided, in its order; what a resume needs."""
        return self.folder / "journal.jsonl"

    @property
    def best(self) -> Path:
        """The winner's configuration."""
        return self.folder / "best.json"

    @property
    def table(self) -> Path:
        """One row per trial."""
        return self.folder / "results.parquet"

    @property
    def text(self) -> Path:
        """The same, to be read without Parquet."""
        return self.folder / "results.csv"

    @property
    def missing(self) -> Path:
        """The share of each variable's cells that is hidden."""
        return self.folder / "missing.csv"

    @property
    def imputation(self) -> Path:
        """The errors of each variable's test cells."""
        return self.folder / "imputation.csv"

    @property
    def artifacts(self) -> Path | None:
        """Where MLflow keeps files when no server decides it."""
        return self.folder.parent / "mlflow-artifacts" if self.tracking_uri.startswith("sqlite:") else None

    def check(self, section: str = "trial") -> None:
        """Raise StudyError unless the folder is free, or may be used again.

        section: what the file of a study that is resumed has: ``trial``, or ``imputers`` of a comparison.
        """
        if self.resume and not self.settings.exists():
            raise StudyError(str(self.folder), "there is no study here to resume")
        if self.resume and section not in json.loads(self.settings.read_text(encoding="utf-8"))["space"]:
            raise StudyError(str(self.folder), f"what is here has no {section!r}, so it cannot go on with this file")
        if self.resume or not self.folder.exists() or not any(self.folder.iterdir()):
            return
        if not self.overwrite:
            rule = "a study of this name is there: --resume it, --overwrite it, or give another --name"
            raise StudyError(str(self.folder), rule)
        if not self.settings.exists():
            raise StudyError(str(self.folder), "is not a study's folder, so it is not overwritten")

    def check_unchanged(self, node: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Raise StudyError if a study that is resumed is another one now.

        node: what its file says. settings: resolved.
        """
        if not self.journal.exists():
            raise StudyError(str(self.folder), "has no journal.jsonl, without which a study cannot go on")
        before = json.loads(self.settings.read_text(encoding="utf-8"))
        now = json.loads(json.dumps({"space": node, "settings": settings}))
        found = list(differences(_fixed(before), _fixed(now)))
        if found:
            more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            said = f"{'; '.join(found[:SHOWN])}{more}"
            raise StudyError(str(self.folder), f"cannot go on as another study: {said}")

    def claim(self, node: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Make the folder and write what the study is; an overwritten one is removed."""
        if not self.resume and self.folder.exists():
            shutil.rmtree(self.folder)
        write_json(self.settings, {"space": node, "settings": settings})


def differences(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yield what differs between two nodes, each as ``place: was THEN, is NOW``."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            one, other = (node[key] if key in node else _MISSING for node in (then, now))
            yield from differences(one, other, f"{place}.{key}" if place else str(key))
    elif then != now:
        yield f"{place} was {_short(then)}, is {_short(now)}"


def _fixed(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a study decides what its trials are."""
    settings = {name: value for name, value in study["settings"].items() if name not in FREE}
    held = study["settings"]["resources"]
    # A trial's threads and device are part of its configuration; its shares of memory are not.
    device = "GPU" if held["gpu"] or held["gpu_memory"] is not None else "CPU"
    space = {name: node for name, node in study["space"].items() if name != "tune"}
    return space | {"tune": settings | {"resources": {"cpu": held["cpu"], "device": device}}}


_MISSING = object()


def _short(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
