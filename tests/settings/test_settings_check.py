"""What a setting takes, and the line that tells what it does not."""

import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict

from vltune.errors import UserError
from vltune.settings.check import checked
from vltune.settings.engine import Splits
from vltune.settings.kinds import Count, FolderPath, Name, Null, Share, Words
from vltune.values import shown


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
        (Annotated[float, Interval(gt=0, le=1)], [1, 1e-9], [0, 1.1], "a number above 0, at most 1"),
        (
            Annotated[int, Interval(ge=0, le=2**32 - 1)],
            [0, 2**32 - 1],
            [-1, 2**32],
            "a whole number from 0 to 4294967295",
        ),
        (Literal["true", "shuffled"], ["true"], [True, "false"], 'one of "true", shuffled'),
        (Literal[-1] | Count, [-1, 3], [0, -2], "-1 or a whole number of at least 1"),
        (Sequence[str], [[], ["a"]], ["a", [1], None, {"a": 1}], "a list, each a word"),
        (tuple[float, float], [[0.9, 1]], [[0.9], [1, 2, 3], "ab", None], "a list of 2, each a number"),
        (Mapping[str, int], [{}, {"a": 1}], [[], None], "{name: ..., ...}"),
        (Splits, [["val"], ["val", "val"], []], [["x"], "val", None], "a list of val, test, or [] for none"),
        (Words, [[], ["a", "b"]], [["a", "a"], [1], [""], None, "a"], "a list of words, none twice, or [] for none"),
        (Iterable[str], [[], ["a"]], ["a", [1], None], "a list, each a word"),
        (Name, ["vilt_mini", "a.b-c"], ["", "a/b", "../a", ".a", "é", "a b", None, 3, "x" * 101], "a name of letters"),
        (Any, [None, {}], [], ""),
    ],
)
def test_a_value_is_of_the_type_or_is_told(kind, right, wrong, words):
    for value in right:
        assert checked("s", value, kind) == value
    for value in wrong:
        assert told(kind, value).startswith(f"s={shown(value)}: must be {words}")


def test_a_value_stays_as_it_was_written():
    assert type(checked("s", 1, float)) is int
    assert type(checked("s", [1, 2], tuple[float, float])[0]) is int
    assert list(checked("d", {"images": None, "seed": 1}, Drawn)) == ["images", "seed"]


def test_what_null_means_and_what_is_too_large_are_told():
    assert told(Annotated[int | None, Null(" for all")], "x") == "s=x: must be a whole number, or null for all"
    assert told(Count, 10**30).endswith("must be a whole number of at least 1, at most 9007199254740992")
    assert told(float, math.inf).endswith("s=inf: must be a number, at most 3.4e+38")


class Sizes(TypedDict):
    train: Count


class Drawn(TypedDict):
    seed: Count
    images: NotRequired[Sizes | None]
    sizes: NotRequired[Mapping[str, Count]]
    from_: NotRequired[Path | None]


def test_settings_of_settings_are_told_by_their_whole_name():
    assert checked("d", {"seed": 1, "images": None}, Drawn) == {"seed": 1, "images": None}
    assert told(Drawn, {"seed": 1, "images": {"train": 0}}, "d").startswith("d.images.train=0: must be")
    assert told(Drawn, {"seed": 1, "sizes": {"rank": 0}}, "d").startswith("d.sizes.rank=0: must be")
    assert told(Drawn, {"images": None}, "d") == "d.seed: is missing; a run needs it"
    assert told(Drawn, {"seed": 1, "sed": 1}, "d") == (
        "d.sed: there is no such setting; did you mean seed? there are seed, images, sizes, from"
    )
    assert told(Drawn, None, "d") == "d=null: must be {seed: ..., images: ..., sizes: ..., from: ...}"
    assert told(Drawn, {"seed": 1, "sizes": [1]}, "d") == "d.sizes=[1]: must be {name: ..., ...}"
    assert told(Drawn, {"seed": 1, "from": ""}, "d").startswith("d.from is empty: give a path")


def test_paths_are_looked_at_and_their_home_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "file").touch()
    assert checked("s", None, Path | None) is None
    assert checked("d", {"seed": 1, "from": "~/x"}, Drawn)["from"] == "/home/someone/x"
    assert checked("s", str(tmp_path), FolderPath) == str(tmp_path)
    assert told(FolderPath, str(tmp_path / "file")).endswith("file: is a file, not a folder; give another path")


def test_pydantic_is_imported_once_a_value_is_checked():
    modules = "vltune.runs.identity, vltune.settings.groups, vltune.configuration"
    code = f"import sys, {modules}; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
