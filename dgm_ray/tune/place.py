"""Where a study's files go."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgm_ray.errors import StudyError
from dgm_ray.training import write_json


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

    def claim(self, node: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Make the folder and write what the study is; an overwritten one is removed."""
        if self.resume:
            return
        if self.folder.exists():
            shutil.rmtree(self.folder)
        write_json(self.settings, {"space": node, "settings": settings})
