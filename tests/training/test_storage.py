"""Files here and elsewhere are the same after each exchange, and what others write there stays as it is."""

from pathlib import Path

import pytest

from dgm_ray.training import write_text
from dgm_ray.training.storage import Mirror, below, check_writable, is_uri


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror((tmp_path / "there").as_uri(), tmp_path / "here")


def test_what_changes_here_changes_there(mirror: Mirror, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert mirror.empty
    for name in ("a", "b"):
        write_text(here / name, "1")
    write_text(here / "part" / "c", "of a mirror of its own")
    mirror.publish()
    assert names(there) == ["a", "b"]
    write_text(here / "a", "22")
    (here / "b").unlink()
    write_text(there / "others", "x")
    mirror.publish()
    assert names(there) == ["a", "others"]
    assert (there / "a").read_text() == "22"
    assert not mirror.empty


def test_what_others_have_written_is_not_written_over(mirror: Mirror, tmp_path: Path) -> None:
    """Ray writes its state into the same folder; a copy of it here must not take its place again."""
    write_text(tmp_path / "there" / "state", "old")
    mirror.fetch()
    assert (tmp_path / "here" / "state").read_text() == "old"
    write_text(tmp_path / "there" / "state", "new")
    write_text(tmp_path / "here" / "ours", "1")
    mirror.publish()
    assert (tmp_path / "there" / "state").read_text() == "new"


def test_a_folder_of_another_comes_alone(mirror: Mirror, tmp_path: Path) -> None:
    write_text(tmp_path / "there" / "study.json", "{}")
    write_text(tmp_path / "there" / "trial" / "checkpoint.pt", "large")
    mirror.fetch()
    assert names(tmp_path / "here") == ["study.json"]
    copy = mirror.file(str(tmp_path / "there" / "trial" / "checkpoint.pt"))
    assert copy.read_text() == "large"
    assert tmp_path / "there" not in copy.parents
    mirror.clear()
    mirror.clear()
    assert not (tmp_path / "there").exists()
    assert names(tmp_path / "here") == ["study.json"]


def test_options_of_an_uri_stay_at_its_end() -> None:
    assert below("s3://bucket/x?region=here", "a") == "s3://bucket/x/a?region=here"
    assert below("gs://bucket/", "a") == "gs://bucket/a"
    assert [is_uri(one) for one in ("s3://bucket", "results", "/a/b", "c:/x")] == [True, False, False, False]


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "deep" / "folder"))
    assert list(tmp_path.iterdir()) == []
    check_writable((tmp_path / "made").as_uri())
    assert [list(path.iterdir()) for path in tmp_path.iterdir()] == [[]]
    (tmp_path / "file").touch()
    for storage in (str(tmp_path / "file" / "x"), (tmp_path / "file" / "x").as_uri()):
        with pytest.raises(OSError, match=r"^Not a directory$"):
            check_writable(storage)
