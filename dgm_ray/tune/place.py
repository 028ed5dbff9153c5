"""Where a study's files go."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgm_ray.errors import StudyError
from dgm_ray.tasks.model_folder import TABLE
from dgm_ray.training import write_json
from dgm_ray.training.storage import UNREACHABLE, Mirror, below, check_writable, is_uri

# What a study that is resumed may have otherwise; all else decides what its trials are.
_ENDS = ("samples", "time_budget", "stop", "max_failures", "keep")
FREE = (*_ENDS, "concurrent", "resources", "lanes", "compile", "mlflow")
SHOWN = 3  # differences
MODELS = "models"


@dataclass(frozen=True)
class Place:
    """Where a study is.

    folder: of this study, absolute. tracking_uri: MLflow's. resume, overwrite: what to do with a study in it.
    mirror: where the folder's files are kept, if that is not the folder itself; Ray writes there by itself.
    """

    folder: Path
    tracking_uri: str
    resume: bool = False
    overwrite: bool = False
    mirror: Mirror | None = None

    @classmethod
    def of(
        cls, storage: str, name: str, tracking_uri: str, *, resume: bool = False, overwrite: bool = False
    ) -> "Place":
        """Return the place of the study ``name`` in a folder, or below an URI that pyarrow has a file system for.

        Raises StudyError for an URI that it has none for.
        """
        if not is_uri(storage):
            return cls(Path(storage).absolute() / name, tracking_uri, resume, overwrite)
        working = tempfile.mkdtemp(prefix="dgm_ray_")
        atexit.register(shutil.rmtree, working, ignore_errors=True)
        folder = Path(working) / name
        try:
            mirror = Mirror(below(storage, name), folder)
        except UNREACHABLE as error:
            raise StudyError("--storage", " ".join(str(error).split()), storage) from None
        return cls(folder, tracking_uri, resume, overwrite, mirror)

    def inside(self, name: str) -> "Place":
        """Return the place of a study that is part of this one; what is there already is overwritten."""
        mirror = Mirror(below(self.mirror.uri, name), self.folder / name) if self.mirror else None
        if mirror:
            mirror.fetch()
        return Place(self.folder / name, self.tracking_uri, overwrite=True, mirror=mirror)

    @property
    def location(self) -> str:
        """The path or the URI of the study's folder, as others find it."""
        return self.mirror.uri if self.mirror else str(self.folder)

    @property
    def storage(self) -> str:
        """The path or the URI of the folder in which the study's folder is."""
        if not self.mirror:
            return str(self.folder.parent)
        base, mark, options = self.mirror.uri.partition("?")
        return f"{base.rpartition('/')[0]}{mark}{options}"

    def found(self, path: Path) -> str:
        """Return the path or the URI of a file in the study's folder, as others find it."""
        return below(self.mirror.uri, path.relative_to(self.folder).as_posix()) if self.mirror else str(path)

    @property
    def given(self) -> Path:
        """The winner's configuration in a command: its path, or that of a copy if it is elsewhere."""
        return Path(self.best.name) if self.mirror else self.best

    def local(self, path: str) -> Path:
        """Return where a file that Ray has written can be read. path: as Ray gives it."""
        return self.mirror.file(path) if self.mirror else Path(path)

    def publish(self) -> None:
        """Bring the files to where they are kept."""
        if self.mirror:
            self.mirror.publish()

    @property
    def settings(self) -> Path:
        """The space and the resolved settings; every study's folder has it."""
        return self.folder / "study.json"

    def written(self) -> dict[str, Any]:
        """Return what ``claim`` wrote."""
        study: dict[str, Any] = json.loads(self.settings.read_text(encoding="utf-8"))
        return study

    @property
    def journal(self) -> Path:
        """What was decided, in its order; what a resume needs."""
        return self.folder / "journal.jsonl"

    @property
    def lanes(self) -> Path:
        """How many lanes of each shape it pays to train together, if that was tried out."""
        return self.folder / "lanes.json"

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
    def history(self) -> Path:
        """One row per trial and epoch."""
        return self.folder / "history.parquet"

    @property
    def missing(self) -> Path:
        """The share of each variable's cells that is hidden."""
        return self.folder / "missing.csv"

    @property
    def imputation(self) -> Path:
        """The errors of each variable's test cells."""
        return self.folder / "imputation.csv"

    @property
    def scores(self) -> Path:
        """The figures of means and modes on the validation cells, and all of the winner's."""
        return self.folder / "scores.json"

    @property
    def winner(self) -> Path:
        """Some test rows as they are, as the winner completes them, and rows that it generates."""
        return self.folder / "winner.parquet"

    @property
    def environment(self) -> Path:
        """Where the study ran, and with what."""
        return self.folder / "environment.json"

    @property
    def report(self) -> Path:
        """The page about the study."""
        return self.folder / "report.html"

    @property
    def origin(self) -> Path:
        """What the table's columns are to a model."""
        return self.folder / TABLE

    def model(self, trial: int) -> Path:
        """Return the folder of a trial's model, which the best have."""
        return self.folder / MODELS / f"trial_{trial:04d}"

    @property
    def artifacts(self) -> Path | None:
        """Where MLflow keeps files when no server decides it: beside the studies, or else beside its database."""
        if not self.tracking_uri.startswith("sqlite:"):
            return None
        beside = Path(self.tracking_uri.removeprefix("sqlite:///")).absolute() if self.mirror else self.folder
        return beside.parent / "mlflow-artifacts"

    def check(self, section: str = "trial") -> None:
        """Raise StudyError unless the folder is free, or may be used again.

        section: what the file of a study that is resumed has: ``trial``, or ``imputers`` of a comparison.
        Raises StudyError as well if nothing can be written there.
        """
        self._check_writable()
        if self.mirror:
            self.mirror.fetch()
        if self.resume and not self.settings.exists():
            raise StudyError(self.location, "there is no study here to resume")
        if self.resume and section not in self.written()["space"]:
            raise StudyError(self.location, f"what is here has no {section!r}, so it cannot go on with this file")
        if self.resume or self._free:
            return
        if not self.overwrite:
            rule = "a study of this name is there: --resume it, --overwrite it, or give another --name"
            raise StudyError(self.location, rule)
        if not self.settings.exists():
            raise StudyError(self.location, "is not a study's folder, so it is not overwritten")

    @property
    def _free(self) -> bool:
        if self.mirror:
            return self.mirror.empty
        return not self.folder.exists() or not any(self.folder.iterdir())

    def _check_writable(self) -> None:
        try:
            check_writable(self.storage)
        except OSError as error:
            raise StudyError("--storage", f"cannot be written ({error})", self.storage) from None

    def check_unchanged(self, node: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Raise StudyError if a study that is resumed is another one now.

        node: what its file says. settings: resolved.
        """
        if not self.journal.exists():
            raise StudyError(self.location, "has no journal.jsonl, without which a study cannot go on")
        before = self.written()
        now = json.loads(json.dumps({"space": node, "settings": settings}))
        found = list(differences(_fixed(before), _fixed(now)))
        if found:
            more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            said = f"{'; '.join(found[:SHOWN])}{more}"
            raise StudyError(self.location, f"cannot go on as another study: {said}")

    def claim(self, node: Mapping[str, Any], settings: Mapping[str, Any], data: str = "") -> None:
        """Make the folder and write what the study is; an overwritten one is removed.

        data: the hash of what trials are trained on. Raises StudyError if a study that is resumed had other data.
        """
        if self.resume and data:
            before = self.written()
            if "data" in before and before["data"] != data:
                rule = "cannot go on with other data: the table, its split or its hidden cells are not what they were"
                raise StudyError(self.location, rule)
        if not self.resume and self.folder.exists():
            shutil.rmtree(self.folder)
        if not self.resume and self.mirror:
            self.mirror.clear()
        write_json(self.settings, {"space": node, "settings": settings, **({"data": data} if data else {})})
        self.publish()


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
