"""Values as they are typed: shown on one line, and what can be no path."""

import os

import pytest

from vltune.errors import UserError
from vltune.values import finite, instead, place, shown


@pytest.fixture
def places(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "=null: must be a path"),
        (5, "=5: must be a path; if it is called that: --out='\"5\"'"),
        (True, "=true: must be a path"),
        (["a"], "=[a]: must be a path"),
        ({"a": 1}, "={a: 1}: must be a path"),
        ("", " is empty: give a path; an unset variable of the shell leaves none"),
        ("  ", " is empty"),
        ("a\0b", "=a\\x00b: no path (embedded null byte); give another"),
        (
            "~nobody-of-that-name/x",
            "=~nobody-of-that-name/x: no path (Could not determine home directory.); give another",
        ),
        ("x" * 300, ": cannot be looked at (File name too long); give another path"),
        ("HERE/file/below", "HERE/file is a file, not a folder; give another path"),
        ("HERE/dangling", "HERE/dangling is a link to nowhere, which is not there"),
        ("HERE/dangling/below", "HERE/dangling is a link to nowhere, which is not there"),
        ("HERE/loop", ": cannot be looked at (a link to itself); give another path"),
        ("HERE/pipe", ": is neither a file nor a folder; give another path"),
        ("/dev/null", "=/dev/null: is neither a file nor a folder; give another path"),
    ],
)
def test_what_can_be_no_path_is_told_with_the_name_of_the_setting(places, value, message):
    value = value.replace("HERE", str(places)) if isinstance(value, str) else value
    with pytest.raises(UserError) as error:
        place("--out", value)
    assert str(error.value).startswith("--out")
    assert message.replace("HERE", str(places)) in str(error.value)
    assert str(error.value).isprintable()


def test_a_path_may_be_there_or_not_and_its_home_is_filled_in(places, monkeypatch):
    for name in ("folder", "file", "absent", "absent/below"):
        assert place("s", str(places / name)) == str(places / name)
    assert place("s", str(places / "folder"), folder=True) == str(places / "folder")
    with pytest.raises(UserError, match="file: is a file, not a folder; give another path"):
        place("s", str(places / "file"), folder=True)
    monkeypatch.setenv("HOME", "/home/someone")
    assert place("s", "~/x") == "/home/someone/x"
    assert place("s", "a~/x") == "a~/x"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_of_an_option_has_an_end(number):
    finite("--points", 1.5)
    finite("--rate", None)
    with pytest.raises(UserError, match=rf"^--points={number}: must be a finite number$"):
        finite("--points", float(number))


def test_a_value_is_shown_as_it_is_typed_and_on_one_line():
    assert shown({"a": [1, None, True], "b": "c"}) == "{a: [1,null,true], b: c}"
    assert shown("a\nb\x1b\udc80") == "a\\nb\\x1b\\udc80"
    assert len(shown("x" * 1000)) == 80


def test_what_was_perhaps_meant():
    assert instead("rnk", ["rank", "roles"]) == "did you mean rank? there are rank, roles"
    assert instead("x", ["rank"]) == "there are rank"
    assert instead("x", []) == "there is none"
