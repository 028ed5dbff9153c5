"""``dgm-ray sync``: send what studies have written down and MLflow has not got."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dgm_ray.errors import ConfigurationError, StudyError, nearest
from dgm_ray.tune.tracking.address import OPTION, check_uri
from dgm_ray.tune.tracking.delivery import Busy, Delivery, one_line
from dgm_ray.tune.tracking.outbox import REQUESTS, requests_of, without_password
from dgm_ray.tune.tracking.reading import RESULTS
from dgm_ray.tune.tracking.sender import connect

if TYPE_CHECKING:
    from dgm_ray.training.storage import Mirror

PAUSE = 1.0  # seconds between two attempts

Say = Callable[[str], None]


def sync(studies: Sequence[str], uri: str | None, wait: float, say: Say) -> None:
    """Send what is left of studies to an MLflow, and say how much that was.

    studies: folders, names of folders below ./results, or URIs of folders; those in a comparison's are sent as well.
    uri: the one that each study had by default. wait: seconds without progress until MLflow counts as not answering.

    Raises ConfigurationError for a study that is not there, StudyError for one without requests, for an URI that is
    none, and for an MLflow that does not answer.
    """
    for study in studies:
        if "://" in study:
            _sync_kept(study, uri, wait, say)
            continue
        folder = Path(study) if Path(study).is_dir() else RESULTS / study
        for one in _folders(folder, study):
            _send(one, str(one), uri, wait, say)


def _folders(folder: Path, study: str) -> list[Path]:
    """Return the folders of a study or a comparison that have requests."""
    if not folder.is_dir():
        known = sorted(path.parent.name for path in RESULTS.glob(f"*/{REQUESTS}"))
        rule = f"there is no such folder, nor is it in {RESULTS}{nearest(study, known)}"
        raise ConfigurationError("STUDY", rule, study)
    found = sorted(path.parent for path in (*folder.glob(REQUESTS), *folder.glob(f"*/{REQUESTS}")))
    if not found:
        raise StudyError(str(folder), f"has no {REQUESTS}: no study has written here what MLflow gets")
    return found


def _sync_kept(study: str, uri: str | None, wait: float, say: Say) -> None:
    """Send what is left of a study that is kept elsewhere, and write there what was sent."""
    from dgm_ray.training.storage import UNREACHABLE, Mirror

    working = tempfile.mkdtemp(prefix="dgm_ray_")
    try:
        try:
            mirror = Mirror(study, Path(working) / "study")
            mirror.fetch()
        except UNREACHABLE as error:
            raise StudyError("STUDY", " ".join(str(error).split()), study) from None
        if not (mirror.folder / REQUESTS).exists():
            raise StudyError(study, f"has no {REQUESTS}: no study has written here what MLflow gets")
        try:
            _send(mirror.folder, study, uri, wait, say, lambda path: _copied(mirror, path))
        finally:
            mirror.publish()
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _copied(mirror: "Mirror", path: Path) -> Path:
    """Return a copy of what the study's process had a copy of."""
    _, mark, inside = str(path).partition(".copies/")
    if path.exists() or not mark:
        return path
    for there in (inside, f"/{inside}"):  # only a local path begins with a slash
        with suppress(OSError):
            return mirror.file(there)
    return path


def _send(
    folder: Path,
    name: str,
    uri: str | None,
    wait: float,
    say: Say,
    copied: Callable[[Path], Path] = lambda path: path,
) -> None:
    uri = uri or _uri_of(folder, name)
    check_uri(uri)
    delivery, runs = Delivery(folder, uri, lambda: connect(uri), copied), set[str]()
    count, refused, progress, checked = 0, delivery.sent.refused, time.monotonic(), False
    while True:
        try:
            if not checked:
                delivery.check()
                runs, checked = set(delivery.sent.runs), True
            while sent := delivery.deliver():
                count, progress = count + sent, time.monotonic()
            delivery.kill()
            break
        except Exception as error:
            if time.monotonic() - progress > wait:
                delivery.release()
                if isinstance(error, Busy):
                    raise StudyError(name, f"another process sends it; {wait:g} s were waited (--wait)") from None
                rule = f"does not answer, or not well, in {wait:g} s (--wait): {one_line(error)}"
                raise StudyError(OPTION, rule, without_password(uri)) from None
        time.sleep(min(PAUSE, wait))
    delivery.release()
    new = len(delivery.sent.runs.keys() - runs)
    say(f"{name}: {count} requests sent, {new} runs made" if count else f"{name}: all was sent before")
    if delivery.sent.refused > refused:
        say(f"warning: {delivery.sent.refused - refused} were refused, the first: {delivery.sent.refusal}")


def _uri_of(folder: Path, name: str) -> str:
    """Return the tracking URI that a study had at last."""
    uris = [str(request["uri"]) for _, request in requests_of(folder) if request["do"] == "study"]
    if not uris:
        raise StudyError(name, "does not say where it is sent: give --tracking-uri")
    return uris[-1]
