"""`vltune shapes`: raw files that `vltune prepare` takes; all of them or nothing."""

import errno
import filecmp
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vltune.cli import app
from vltune.data.dataset import preparations
from vltune.data.shapes import layouts, vqav2
from vltune.data.shapes.classes import WORLDS
from vltune.data.shapes.layouts import LAYOUTS


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line that a refusal says."""
    result = invoke("shapes", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_every_layout_is_of_a_data_set():
    assert LAYOUTS.keys() <= preparations().keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_it_writes_is_prepared_by_the_command_that_it_tells_and_nothing_is_wrong_with_that(layout, tmp_path):
    out = tmp_path / "deep" / "a folder"
    result = invoke("shapes", layout, "--out", out)
    assert result.exit_code == 0, result.output
    wrote, told = result.stdout.splitlines()
    counts = ", ".join(f"{split} {count}" for split, count in LAYOUTS[layout].few.items())
    assert wrote.startswith(f"{out}: {layout}, {counts} ")
    assert list(tmp_path.rglob("*.partial")) == []
    vltune, *command = shlex.split(told.removeprefix("go on with: "))
    assert vltune == "vltune"
    prepared = invoke(*command)
    assert prepared.exit_code == 0, prepared.output
    assert "unreadable images: 0" in prepared.stdout
    assert invoke("check", command[command.index("--out") + 1]).exit_code == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_image_of_each_split_is_enough(layout, tmp_path):
    ones = ",".join(f"{split}={2 if split == 'train' else 1}" for split in LAYOUTS[layout].few)
    written = invoke("shapes", layout, "--out", tmp_path / "a", "--images", ones)
    _, *command = shlex.split(written.stdout.splitlines()[1].removeprefix("go on with: "))
    prepared = invoke(*command)
    assert prepared.exit_code == 0, prepared.output


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_help_says_how_many_there_are_where_none_are_asked_for(layout):
    told = " ".join(invoke("shapes", "--help").stdout.split())
    assert "30 of train, 10 of any other; of image classes 2 and 1 a class; dreambooth: 5 a subject" in told
    if layout == "dreambooth":
        assert {*LAYOUTS[layout].few.values()} == {5}
        return
    classes = len(WORLDS[layout].pairs("recombined")) if layout in WORLDS else None
    train, other = (2 * classes, classes) if classes else (30, 10)
    assert LAYOUTS[layout].few == {split: train if split == "train" else other for split in LAYOUTS[layout].few}


def test_numbers_by_split(tmp_path):
    assert invoke("shapes", "f30k", "--out", tmp_path / "a", "--images", "val=3, test=0").exit_code == 0
    images = json.loads((tmp_path / "a" / "dataset_flickr30k.json").read_text())["images"]
    splits = [image["split"] for image in images]
    assert {split: splits.count(split) for split in ("train", "val", "test")} == {"train": 30, "val": 3, "test": 0}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_split_may_be_empty(layout, tmp_path):
    none = ",".join(f"{split}=0" for split in LAYOUTS[layout].few)
    assert invoke("shapes", layout, "--out", tmp_path / "a", "--images", none).exit_code == 0
    assert not [path for path in files(tmp_path) if path.suffix in (".jpg", ".png")]


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        few = "train=4,val=2,test=2"
        assert invoke("shapes", "vqav2", "--out", tmp_path / name, "--images", few, "--seed", seed).exit_code == 0
    a, b, c = (tmp_path / name for name in "abc")
    assert filecmp.cmpfiles(a, b, files(a), shallow=False)[1:] == ([], [])
    assert not filecmp.cmpfiles(a, c, [file for file in files(a) if file.suffix == ".jpg"], shallow=False)[0]


SPLITS = "it has train, val, test"


@pytest.mark.parametrize(
    ("layout", "images", "message"),
    [
        ("vqav2", "dev=3", f"--images: vqav2 has no split dev; {SPLITS}"),
        ("f30k", "restval=3", f"--images: f30k has no split restval; {SPLITS}"),
        ("coco", "dev=3", "--images: coco has no split dev; it has train, restval, val, test"),
        ("vqav2", "train", "--images train: give numbers by split, such as train=30,val=10,test=10"),
        ("vqav2", "", "--images is empty: an unset variable of the shell leaves nothing"),
        ("vqav2", "=3", "--images =3: give numbers by split, such as train=30,val=10,test=10"),
        ("vqav2", "train=3,", "--images train=3,: give numbers by split, such as train=30,val=10,test=10"),
        ("vqav2", "train=3,train=3", "--images train=3,train=3: train stands twice"),
        *(
            ("vqav2", f"val={value}", f"--images: val={value[:20]}: must be a whole number from 0 to 100,000")
            for value in ("", "x", "-1", "1.5", "1e3", "٣", "100001", "9" * 5000)
        ),
        ("f30k", "test=1001", "--images: test=1001: captions tell at most 1000 images apart; give fewer"),
        ("coco", "val=1001", "--images: val=1001: captions tell at most 1000 images apart; give fewer"),
    ],
)
def test_numbers_that_no_world_has(layout, images, message, tmp_path):
    assert refused(layout, "--out", tmp_path / "raw", "--images", images) == f"error: {message}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", ["-1", "x", "1.0", "4294967296"])
def test_seeds_that_are_none(seed, tmp_path):
    line = refused("vqav2", "--out", tmp_path / "raw", f"--seed={seed}")
    assert line == f"error: --seed={seed}: must be a whole number from 0 to 4294967295"


def test_an_unknown_layout(tmp_path):
    line = refused("gqa", "--out", tmp_path / "raw")
    known = "vqav2, nlvr2, f30k, coco, snli_ve, objects, places, textures, dreambooth"
    assert line == f"error: layout 'gqa' is not known: use one of {known}"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("file", "a file; name a folder"),
        ("file/raw", "is a file, not a folder; give another path"),
        ("link", "is a link to nowhere, which is not there"),
        ("loop", "cannot be looked at (a link to itself); give another path"),
        ("full", "holds something already; name a folder that is new or empty"),
        ("x" * 300, "cannot be looked at (File name too long); give another path"),
    ],
)
def test_a_folder_that_cannot_be_written(place, out, reason):
    before = {path: path.lstat().st_mtime_ns for path in place.rglob("*")}
    line = refused("vqav2", "--out", place / out)
    assert line.endswith(f" {reason}")
    assert str(place / out)[:40] in line
    assert {path: path.lstat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
def test_a_file_system_that_makes_no_folders():
    assert refused("vqav2", "--out", "/proc/x").startswith("error: /proc/x: cannot be written (")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, pixels):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vqav2, "write_image", full)
    line = refused("vqav2", "--out", tmp_path / "deep" / "raw")
    assert line.endswith("raw: cannot be written (No space left on device); name another folder")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    layouts.write("vqav2", tmp_path / "link", {"train": 2, "val": 1, "test": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]
    assert (tmp_path / "empty" / "train2014").is_dir()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_nothing(tmp_path, signum, status):
    arguments = ["vqav2", "--out", str(tmp_path / "deep" / "raw"), "--images", "train=100000"]
    command = [sys.executable, "-m", "vltune", "shapes", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not next(tmp_path.rglob("*.jpg"), None):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signum)
    said = f"stopped by {signum.name}\n"
    assert (process.communicate(timeout=10)[1], process.returncode) == (said, status)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layout", "file", "images"),
    [
        ("nlvr2", "data/train.json", "images/train/*/*.png"),
        ("snli_ve", "snli_ve_train.jsonl", "flickr30k-images/*.jpg"),
    ],
)
def test_a_part_of_a_set_is_the_beginning_of_the_whole(layout, file, images, tmp_path):
    """Of pairs that share statements, of images that share hypotheses."""
    for whole, part in ((8, 7), (6, 5)):
        written = {}
        for count in (whole, part):
            layouts.write(layout, folder := tmp_path / str(count), {"train": count, "val": 0, "test": 0})
            pictures = [path.read_bytes() for path in sorted(folder.glob(images))]
            written[count] = (folder / file).read_text().splitlines(), pictures
        for all_, some in zip(written[whole], written[part], strict=True):
            assert some == all_[: len(all_) * part // whole]
