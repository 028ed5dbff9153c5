import pickle

import pytest

import dgm_ray.errors
from dgm_ray.errors import ConfigurationError, DataError, DGMError, nearest, one_line_errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a.b", "should be 1"), "a.b: should be 1"),
        (("a.b", "should be 1", "x"), "a.b: should be 1, not 'x'"),
        (("a.b", "should be 1", None), "a.b: should be 1, not None"),
        (("", "should be 1", 2), "should be 1, not 2"),
    ],
)
def test_an_error_is_the_place_the_rule_and_the_value(arguments: tuple[str, str], text: str) -> None:
    assert str(DGMError(*arguments)) == text
    assert DGMError(*arguments).place == arguments[0]


def test_a_long_value_is_cut() -> None:
    text = str(DGMError("a", "is long", "x" * 1000))
    assert text.endswith("…")
    assert len(text) == len("a: is long, not ") + 120
    assert str(DGMError("a", "fits", "x" * 118)).endswith("x'"), "a value of 120 characters is shown whole"


def test_the_tree_of_the_docstring_is_the_tree() -> None:
    names = [one.__name__ for one in DGMError.__subclasses__()]
    lines = (dgm_ray.errors.__doc__ or "").splitlines()
    assert [line.split()[1] for line in lines if line.startswith(("├──", "└──"))] == names


def test_the_nearest_name() -> None:
    assert nearest("sigmoyd", ["Tanh", "sigmoid"]) == "; did you mean 'sigmoid'?"
    assert nearest("xyz", ["Tanh", "sigmoid"]) == ""


def test_an_error_of_the_user_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise ConfigurationError("a.b", "should be 1", 2)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: a.b: should be 1, not 2\n"


def test_an_error_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018


@pytest.mark.parametrize(("place", "path", "whole"), [("a", "b", "b.a"), ("", "b", "b"), ("a", "", "a"), ("", "", "")])
def test_an_error_can_be_placed_by_who_knows_where_it_stands(place: str, path: str, whole: str) -> None:
    error = ConfigurationError(place, "should be 1", 2).under(path)
    assert type(error) is ConfigurationError
    assert (error.place, error.rule, error.value) == (whole, "should be 1", 2)
    assert str(ConfigurationError(place, "is bad").under("c.d")).endswith(": is bad"), "no value stays no value"


def test_an_error_gets_to_another_process() -> None:
    for error in (DataError("place", "rule"), DataError("place", "rule", None), ConfigurationError("", "rule", [1])):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert str(again.under("above")) == str(error.under("above"))
