"""A study never takes another's folder by accident."""

from pathlib import Path

import pytest

from dgm_ray.errors import StudyError
from dgm_ray.tune.place import Place
from dgm_ray.tune.study import Study


def place(folder: Path, **options: bool) -> Place:
    return Place(folder, "sqlite:///x.db", **options)


def test_a_taken_name_offers_what_to_do(tmp_path: Path, study: Study) -> None:
    taken = place(tmp_path / "a")
    taken.check()
    taken.claim(study.node, study.resolved())
    with pytest.raises(StudyError, match="--resume it, --overwrite it, or give another --name"):
        taken.check()
    place(tmp_path / "a", resume=True).check()
    place(tmp_path / "b").check()


def test_overwriting_removes_a_study_and_nothing_else(tmp_path: Path, study: Study) -> None:
    place(tmp_path / "a").claim(study.node, study.resolved())
    (tmp_path / "a" / "old").write_text("x")
    again = place(tmp_path / "a", overwrite=True)
    again.check()
    again.claim(study.node, study.resolved())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["study.json"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(StudyError, match="is not a study's folder"):
        place(tmp_path / "thesis", overwrite=True).check()


def test_there_must_be_something_to_resume(tmp_path: Path, study: Study) -> None:
    with pytest.raises(StudyError, match="there is no study here to resume"):
        place(tmp_path / "a", resume=True).check()
    place(tmp_path / "a").claim(study.node, study.resolved())
    (tmp_path / "a" / "old").write_text("x")
    place(tmp_path / "a", resume=True).claim(study.node, study.resolved())
    assert (tmp_path / "a" / "old").exists()
    with pytest.raises(StudyError, match="what is here has no 'imputers', so it cannot go on with this file"):
        place(tmp_path / "a", resume=True).check("imputers")


def test_a_study_goes_on_with_the_data_it_had(tmp_path: Path, study: Study) -> None:
    place(tmp_path / "a").claim(study.node, study.resolved(), "one")
    before = (tmp_path / "a" / "study.json").read_text()
    with pytest.raises(StudyError, match="cannot go on with other data: the table, its split or its hidden cells"):
        place(tmp_path / "a", resume=True).claim(study.node, study.resolved(), "two")
    assert (tmp_path / "a" / "study.json").read_text() == before
    place(tmp_path / "a", resume=True).claim(study.node, study.resolved(), "one")


def test_artifacts_lie_beside_the_studies_unless_a_server_keeps_them(tmp_path: Path) -> None:
    assert place(tmp_path / "a").artifacts == tmp_path / "mlflow-artifacts"
    assert Place(tmp_path / "a", "http://localhost:5000").artifacts is None
