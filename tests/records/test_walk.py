"""Links between folders and files, in circles too."""

import os
from pathlib import Path

import pytest
from fabricated import Root
from presented import build, report

from vltune.records import folders, store
from vltune.records.merge import merge
from vltune.records.pack import pack
from vltune.records.walk import json_files
from vltune.results.compare.match import compare

PLACE = "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed0.json"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "results")


def told_by(found):
    return [(error.args[0].partition(": ")[0], error.args[0].partition(": ")[2]) for error in found]


def loaded(root):
    broken = []
    records = [record["path"] for record in store.load(root.folder, broken.append)]
    return records, told_by(broken)


def moved(root, place, to):
    """What lies at `place` lies at `to` now, and a link leads there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    (root.folder / place).rename(to)
    (root.folder / place).symlink_to(to)


@pytest.mark.parametrize("place", ["records", "records/vilt_mini", "records/vilt_mini/vqa-shapes", PLACE])
def test_all_commands_see_what_lies_on_another_disk(root, tmp_path, place):
    root.add(61.0)
    moved(root, place, tmp_path / "disk" / "there")
    assert loaded(root) == ([PLACE], [])
    (run,) = folders.find(root.folder, pytest.fail)
    assert run.file == root.folder / PLACE
    (row,) = compare(root.folder, root.folder).rows
    assert row.scores["test.vqa_score"].a == 61.0
    (file,) = merge([root.folder], tmp_path / "into")[root.folder]
    assert (file.outcome, file.what) == ("added", PLACE)
    assert next(row for row in build("vilt_mini", root.folder).rows if row.method == "lora").cells["vqa"].n == 1
    assert report("vilt_mini", root.folder, tmp_path / "out", ("md",))


def test_a_record_that_two_links_lead_to_counts_once(root, tmp_path):
    file = root.add(61.0)
    root.add(63.0, seed=1)
    moved(root, "records/vilt_mini", tmp_path / "disk")
    (root.folder / "records" / "a copy").symlink_to(tmp_path / "disk")
    (root.folder / "records" / "zz").symlink_to(root.folder / "records" / "vilt_mini")
    file.with_name("another name.json").symlink_to(file)
    os.link(file, file.with_name("a hard link.json"))
    found, told = loaded(root)
    assert (found, told) == ([PLACE, PLACE.replace("seed0", "seed1")], [])
    assert len(folders.find(root.folder, pytest.fail)) == 2


def test_links_in_circles_end(root, tmp_path):
    root.add(61.0)
    folder = root.folder / "records" / "vilt_mini"
    (folder / "up").symlink_to(root.folder / "records")
    (folder / "higher").symlink_to(tmp_path)
    (folder / "here").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "back").symlink_to(folder)
    (folder / "other").symlink_to(tmp_path / "other")
    found, told = loaded(root)
    assert found == [PLACE]
    assert [place for place, _ in told] == [str(folder / "itself")]


def test_what_lies_in_a_record_s_own_folder_is_no_record(root, tmp_path):
    own = root.add(61.0).with_suffix("")
    own.mkdir()
    (own / "on-emoji.json").write_text('{"from": "lora-0a1b2c3d-seed0", "metrics": {}}')
    assert loaded(root) == ([PLACE], [])
    assert [run.file for run in folders.find(root.folder, pytest.fail)] == [root.folder / PLACE]
    (file,) = merge([root.folder], tmp_path / "into")[root.folder]
    assert (file.outcome, file.what) == ("added", PLACE)
    assert [*pack(root.folder, pytest.fail)] == []


def test_many_links_to_one_folder_take_no_longer(tmp_path):
    """Each level is reached by two links: 2 ** 30 ways to the last."""
    for level in range(30):
        folder = tmp_path / "all" / f"level {level}"
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / name).symlink_to(tmp_path / "all" / f"level {level + 1}")
    (tmp_path / "all" / "level 30").mkdir()
    (tmp_path / "all" / "level 30" / "x.json").write_text("{}")
    (tmp_path / "start").symlink_to(tmp_path / "all" / "level 0")
    (found,) = json_files(tmp_path / "start", pytest.fail)
    assert found.samefile(tmp_path / "all" / "level 30" / "x.json")


def test_what_could_hold_a_record_and_is_not_read_is_told(root):
    file = root.add(61.0)
    file.with_suffix(".parquet").write_bytes(b"")
    file.with_suffix(".safetensors").write_bytes(b"")
    for name in ("copy.JSON", "copy.json.gz", "copy.json~", "notes.txt", f".{file.name}.0.tmp"):
        file.with_name(name).write_text("{}")
    (root.folder / "records" / "not mounted").symlink_to(root.folder / "nowhere")
    file.with_name("gone.json").symlink_to(root.folder / "nowhere.json")
    file.with_name("folder.json").mkdir()
    os.mkfifo(file.with_name("pipe.json"))
    os.mkfifo(root.add(62.0, seed=1).with_suffix(".parquet"))
    found, told = loaded(root)
    assert found == [PLACE, PLACE.replace("seed0", "seed1")]
    said = {place.rpartition("/")[2]: why for place, why in told}
    ending = "not read, for its name does not end in .json: rename or unpack it, or move it away"
    assert {name: why for name, why in said.items() if name.startswith("copy")} == dict.fromkeys(
        ("copy.JSON", "copy.json.gz", "copy.json~"), ending
    )
    assert said["not mounted"] == "a link to what is not there: mount or restore that, or remove the link"
    assert said["gone.json"].startswith("cannot be read (No such file")
    assert said["folder.json"] == "is a folder, no JSON: move it away"
    assert said["pipe.json"] == "is no regular file, no JSON: move it away"
    assert said["lora-0a1b2c3d-seed0.parquet"].startswith("no file of predictions (an empty file")
    assert said["lora-0a1b2c3d-seed1.parquet"].startswith("no file of predictions (no regular file)")
    assert len(said) == 9


@pytest.mark.parametrize("kind", ["records", "costs"])
def test_a_part_of_the_results_that_is_not_mounted_is_told(root, kind):
    root.add(61.0, kind="costs" if kind == "records" else "records")
    (root.folder / kind).symlink_to(root.folder / "nowhere")
    _, told = loaded(root)
    assert told == [
        (str(root.folder / kind), "is no folder, or a link to none: mount or restore it, or move it away"),
    ]


def test_records_that_lie_loose_where_one_stands(root, monkeypatch):
    file = root.add()
    monkeypatch.chdir(file.parent)
    assert [each.file.name for each in folders.find(Path(), pytest.fail)] == [file.name]
