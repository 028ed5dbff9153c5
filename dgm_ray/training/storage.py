"""Files that are kept on a file system of pyarrow's, such as an object store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pyarrow import ArrowException, fs

from dgm_ray.training.files import write_text

_HERE = fs.LocalFileSystem()
UNREACHABLE = (ValueError, OSError, NotImplementedError)  # what pyarrow raises for an URI is of these


def is_uri(storage: str) -> bool:
    """Tell an URI from a folder's path."""
    return "://" in storage


def below(uri: str, name: str) -> str:
    """Return the URI of what is called ``name`` in a folder; options after a ``?`` stay where they belong."""
    base, mark, options = uri.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def check_writable(storage: str) -> None:
    """Write a file to a folder, by path or URI, and remove it. Raises OSError with one line.

    What is missing of an URI's folder is made; of a path it is not: then the file is written above it.
    """
    try:
        if is_uri(storage):
            there, folder = fs.FileSystem.from_uri(storage)
            there.create_dir(folder, recursive=True)
        else:
            wanted = Path(storage).absolute()
            there, folder = _HERE, str(next(one for one in (wanted, *wanted.parents) if one.exists()))
        path = f"{folder.rstrip('/')}/.dgm_ray_{uuid4().hex}"
        with there.open_output_stream(path) as file:
            file.write(b"?")
        there.delete_file(path)
    except (ArrowException, OSError, ValueError, ImportError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise OSError(os.strerror(number) if number else " ".join(str(error).split())) from None


@contextmanager
def probe(storage: str) -> Iterator[list[str]]:
    """Write a file to a folder, which is made, and yield its path; nothing below an URI, which all can reach."""
    if is_uri(storage):
        yield []
        return
    path = Path(storage) / f".dgm_ray_{uuid4().hex}"
    write_text(path, "?")
    try:
        yield [str(path)]
    finally:
        path.unlink()


class Mirror:
    """A folder here whose files are kept in a folder elsewhere, in which others may write as well.

    uri: of the folder elsewhere, as pyarrow takes it. folder: here; what lies in its folders is not copied.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._there, self._path = fs.FileSystem.from_uri(uri)
        self._same: dict[str, tuple[int, int]] = {}  # what is the same on both sides

    @property
    def empty(self) -> bool:
        """Whether there is nothing elsewhere."""
        return not self._found()

    def fetch(self) -> None:
        """Copy the files that are elsewhere to here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for info in self._found():
            if info.type == fs.FileType.File:
                self._copy(info.path, self.folder / info.base_name)
        self._same = self._here()

    def publish(self) -> None:
        """Copy what has changed here since it was the same, and remove elsewhere what was removed here."""
        here = self._here()
        self._there.create_dir(self._path, recursive=True)
        for name in here:
            if name not in self._same or here[name] != self._same[name]:
                fs.copy_files(
                    str(self.folder / name), f"{self._path}/{name}", _HERE, self._there, use_threads=False
                )  # threads hang on uploads to S3: apache/arrow issue 32372
        for name in self._same.keys() - here.keys():
            self._there.delete_file(f"{self._path}/{name}")
        self._same = here

    def clear(self) -> None:
        """Remove the folder elsewhere, with all that is in it."""
        if not self.empty:
            self._there.delete_dir(self._path)
        self._same = {}

    def file(self, path: str) -> Path:
        """Return a copy here of a file elsewhere. path: on its file system, without scheme."""
        copy = self.folder.with_name(f"{self.folder.name}.copies") / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        self._copy(path, copy)
        return copy

    def _copy(self, path: str, to: Path) -> None:
        fs.copy_files(path, str(to), self._there, _HERE)

    def _found(self) -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = self._there.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return found

    def _here(self) -> dict[str, tuple[int, int]]:
        files = [path for path in self.folder.iterdir() if path.is_file()] if self.folder.exists() else []
        return {path.name: ((known := path.stat()).st_mtime_ns, known.st_size) for path in files}
