"""What a setting takes, and the line that tells what it does not."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from vltune.errors import UserError
from vltune.values import Count, Each, Folder, Maybe, Name, Range, Share, Words, checked, instead, place, shown


def told(kind, value, name="s"):
    with pytest.raises(UserError) as error:
        checked(name, value, kind)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "words"),
    [
        (int, [0, -3], [1.0, True, None, "1", [1], 2**60], "a whole number"),
        (float, [0, 0.5, -1e30], [math.nan, math.inf, True, "0.5", None, 10**60, 1e39], "a number"),
        (bool, [True, False], [0, 1, "true", None], "true or false"),
        (str, ["", "a"], [1, None, ["a"]], "a word"),
        (int | None, [None, 2], ["x"], "a whole number, or null"),
        (Count, [1], [0, -1, 1.5], "a whole number of at least 1"),
        (Share, [0, 0.5, 0.999], [-0.1, 1, 1.0], "a number from 0 to below 1"),
        (Annotated[float, Range(above=0, most=1)], [1, 1e-9], [0, 1.1], "a number above 0, at most 1"),
        (Annotated[int, Range(0, 2**32 - 1)], [0, 2**32 - 1], [-1, 2**32], "a whole number from 0 to 4294967295"),
        (Literal["true", "shuffled"], ["true"], [True, "false"], 'one of "true", shuffled'),
        (Literal[-1] | Count, [-1, 3], [0, -2], "-1 or a whole number of at least 1"),
        (Sequence[str], [[], ["a"]], ["a", [1], None, {"a": 1}], "a list, each a word"),
        (tuple[float, float], [[0.9, 1]], [[0.9], [1, 2, 3], "ab", None], "a list of 2, each a number"),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "b"}, [], None], "{name: value, ...}"),
        (
            Words(("val", "test")),
            [["val"]],
            [[], ["val", "val"], ["x"], "val"],
            "a list of val, test, none twice, at least",
        ),
        (Words(empty=True, twice=True), [[], ["a", "a"]], [[1], [""], None], "a list of words, or [] for none"),
        (Name, ["vilt_mini", "a.b-c"], ["", "a/b", "../a", ".a", "é", "a b", None, 3, "x" * 101], "a name of letters"),
        (Any, [None, {}], [], ""),
    ],
)
def test_a_value_is_of_the_type_or_is_told(kind, right, wrong, words):
    for value in right:
        assert checked("s", value, kind) == value
    for value in wrong:
        assert told(kind, value).startswith(f"s={shown(value)}: must be {words}")


def test_what_null_means_and_what_is_too_large_are_told():
    with pytest.raises(UserError, match="s=x: must be a whole number, or null for all"):
        checked("s", "x", int | None, hint=" for all")
    assert told(Count, 10**30).endswith("must be a whole number of at least 1, at most 9007199254740992")
    assert told(float, math.inf).endswith("s=inf: must be a number, at most 3.4e+38")


TABLE = {"seed": Count, "images": Maybe({"train": Count}, null=True), "sizes": Maybe(Each(Count))}


def test_a_table_names_the_setting_in_it():
    assert checked("d", {"seed": 1, "images": None}, TABLE) == {"seed": 1, "images": None}
    assert told(TABLE, {"seed": 1, "images": {"train": 0}}, "d").startswith("d.images.train=0: must be")
    assert told(TABLE, {"seed": 1, "sizes": {"rank": 0}}, "d").startswith("d.sizes.rank=0: must be")
    assert told(TABLE, {"images": None}, "d") == "d.seed: is missing; a run needs it"
    assert told(TABLE, {"sed": 1}, "d") == (
        "d.sed: there is no such setting; did you mean seed? there are seed, images, sizes"
    )
    assert told(TABLE, None, "d") == "d=null: must be {seed: ..., images: ..., sizes: ...}"
    assert told(TABLE, {"seed": 1, "sizes": [1]}, "d") == "d.sizes=[1]: must be {name: ..., ...}"


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
    assert checked("s", None, Path | None) is None
    assert checked("s", str(places / "folder"), Folder) == str(places / "folder")
    assert told(Folder, str(places / "file")).endswith("file: is a file, not a folder; give another path")
    monkeypatch.setenv("HOME", "/home/someone")
    assert place("s", "~/x") == "/home/someone/x"
    assert place("s", "a~/x") == "a~/x"


def test_a_value_is_shown_as_it_is_typed_and_on_one_line():
    assert shown({"a": [1, None, True], "b": "c"}) == "{a: [1,null,true], b: c}"
    assert shown("a\nb\x1b\udc80") == "a\\nb\\x1b\\udc80"
    assert len(shown("x" * 1000)) == 80


def test_what_was_perhaps_meant():
    assert instead("rnk", ["rank", "roles"]) == "did you mean rank? there are rank, roles"
    assert instead("x", ["rank"]) == "there are rank"
    assert instead("x", []) == "there is none"
