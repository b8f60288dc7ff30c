"""What is computed from files once: kept, read again, and never trusted where the files or it have changed."""

import importlib.util
import os
import pickle
import sys

import numpy as np
import pytest

from vltune.data.index import FOLDER, code_of, open_index

ARRAYS = {"row": np.array([0, 0, 1], np.int32), "score": np.array([0.3, 1.0]), "none": np.zeros(0, np.uint8)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.arrow"
    path.write_text("content")
    return path


@pytest.fixture
def opened(file):
    """Opens the index of the file; `built` counts how often it was computed."""

    def open_it(about="rows"):
        def build():
            open_it.built += 1
            return ARRAYS

        return open_index([file], about, build)

    open_it.built = 0
    return open_it


def holds_all(index):
    return all(
        index[name].dtype == array.dtype and index[name].tolist() == array.tolist() for name, array in ARRAYS.items()
    )


def kept(file):
    [path] = (file.parent / FOLDER).iterdir()
    return path


def test_computed_once(opened, file):
    assert holds_all(opened())
    assert holds_all(opened())
    assert opened.built == 1
    assert kept(file).suffix == ".arrow"


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("more content"),
        lambda file: os.utime(file, ns=(0, 10**18)),
    ],
    ids=["size", "time"],
)
def test_computed_anew_for_another_file(opened, file, change):
    opened()
    change(file)
    assert holds_all(opened())
    assert opened.built == 2


def test_kept_apart_by_what_it_is_about(opened):
    opened("rows")
    opened("tokens")
    assert opened.built == 2


def test_a_change_of_the_code_that_computes_it_is_told(tmp_path, monkeypatch):
    def code(text):
        """Of a class in a file that is written and imported anew."""
        (tmp_path / "mine.py").write_text(text)
        spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        exec(text, vars(module))
        return code_of(module.Mine, int)

    wrong, same, mended = map(code, ["class Mine(int): by = 2"] * 2 + ["class Mine(int): by = 3"])
    assert wrong == same != mended
    nowhere = type("Nowhere", (int,), {"__module__": "__nowhere__"})
    assert code_of(int, int) == code_of(nowhere, int) != mended


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-30], lambda content: b"ARROW1" * 50])
def test_a_damaged_one_is_computed_anew(opened, file, damage):
    opened()
    path = kept(file)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    assert holds_all(opened())
    assert opened.built == 2
    assert path.read_bytes() == content


def test_stays_in_memory_where_nothing_can_be_written(opened, file):
    (file.parent / FOLDER).write_text("no folder")
    index = opened()
    assert holds_all(index)
    assert holds_all(pickle.loads(pickle.dumps(index)))


def test_a_mapped_one_is_sent_to_other_processes_by_name(opened):
    index = opened()
    sent = pickle.dumps(index)
    assert ARRAYS["row"].tobytes() not in sent
    assert holds_all(pickle.loads(sent))


def test_entries_of_files_as_they_no_longer_are_go_with_the_next_one(file, tmp_path):
    """Not those of other vocabularies, of other files, or what is no index; one that is still mapped can be read on."""
    other = tmp_path / "other.arrow"
    other.write_text("content")

    def entries(*opened):
        before = set((tmp_path / FOLDER).glob("*"))
        for files, about in opened:
            open_index(files, about, lambda: ARRAYS)
        return set((tmp_path / FOLDER).glob("*")) - before

    stale = entries(([file], "rows"), ([file], "tokens"), ([other, file], "rows"))
    valid = entries(([other], "rows"), ([other], "tokens"))
    assert (len(stale), len(valid)) == (3, 2)
    mapped = open_index([file], "rows", lambda: ARRAYS)
    (tmp_path / FOLDER / "notes.txt").write_text("kept")
    (tmp_path / FOLDER / "damaged.arrow").write_text("")
    file.write_text("more content")
    new = entries(([file], "rows"))
    assert len(new) == 1
    assert set((tmp_path / FOLDER).glob("*")) == valid | new | {tmp_path / FOLDER / "notes.txt"}
    assert holds_all(mapped)
    other.unlink()
    newer = entries(([file], "tokens"))
    assert set((tmp_path / FOLDER).glob("*.arrow")) == new | newer
