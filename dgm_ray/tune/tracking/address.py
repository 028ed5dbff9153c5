"""Whether a tracking URI can be one, before anything starts."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from dgm_ray.errors import StudyError, nearest
from dgm_ray.tune.tracking.outbox import without_password

OPTION = "--tracking-uri"
KINDS = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


def check_uri(uri: str) -> None:
    """Raise StudyError for an URI of no kind that MLflow has, and for a database that is none, or another program's.

    Whether a server answers is not asked: a study needs none.
    """
    kind = uri.partition(":")[0].partition("+")[0]
    shown = without_password(uri)
    if kind == "file" or ("://" not in uri and kind != "databricks"):
        rule = "is a folder, which MLflow writes no more: give a database, such as sqlite:///mlflow.db, or a server"
        raise StudyError(OPTION, rule, shown)
    if kind not in KINDS:
        raise StudyError(OPTION, f"should begin with one of {', '.join(KINDS)}{nearest(kind, KINDS)}", shown)
    if path := database_of(uri):
        _check_database(path, shown)


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite database, None of all else."""
    return Path(unquote(uri.partition(":///")[2].partition("?")[0])) if uri.startswith("sqlite") else None


def _check_database(path: Path, shown: str) -> None:
    """Raise StudyError unless a file is MLflow's database, or can become one."""
    if not path.name or path.is_dir():
        raise StudyError(OPTION, "should name a file", shown)
    if not path.exists():
        if not path.absolute().parent.is_dir():
            raise StudyError(OPTION, f"there is no folder {path.absolute().parent}", shown)
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA schema_version").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        if "locked" in str(error):  # another study writes
            return
        raise StudyError(OPTION, f"cannot be read ({error})", shown) from None
    except sqlite3.DatabaseError as error:
        raise StudyError(OPTION, f"is no database, or a damaged one ({error})", shown) from None
    if tables and "alembic_version" not in tables:
        raise StudyError(OPTION, "is the database of another program", shown)
