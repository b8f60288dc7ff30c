"""What every `prepare` shares, tried with Flickr30K's layout: stopped and resumed runs, shards, what is left in `out`."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vltune.atomic import replacing
from vltune.data import pool
from vltune.data.karpathy.prepare import prepare_coco, prepare_f30k
from vltune.data.manifest import MANIFEST
from vltune.data.preparation import pipeline, shards
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.pipeline import STAGING
from vltune.errors import BadExampleError, UserError

VLTUNE = str(Path(sys.executable).parent / "vltune")
STEM = "f30k_caption_karpathy"


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory, paint):
    path = tmp_path_factory.mktemp("jpeg") / "1.jpg"
    paint(path, 1, (24, 16))
    return path


@pytest.fixture
def write_raw(tmp_path, jpeg):
    def write(images, val=1):
        """A raw folder of so many training images, `val` of val and one of test, all alike."""
        raw = tmp_path / "raw"
        (raw / "flickr30k-images").mkdir(parents=True)
        splits = ["train"] * images + ["val"] * val + ["test"]
        entries = []
        for number, split in enumerate(splits):
            os.link(jpeg, raw / "flickr30k-images" / f"{number}.jpg")
            sentences = [{"raw": f"caption {k} of {number}"} for k in range(2)]
            entries.append({"filename": f"{number}.jpg", "split": split, "sentences": sentences})
        (raw / "dataset_flickr30k.json").write_text(json.dumps({"images": entries}))
        return raw

    return write


def image(raw, number):
    return raw / "flickr30k-images" / f"{number}.jpg"


def spoil(raw, number, content):
    """Not through the link that all images share."""
    image(raw, number).unlink()
    image(raw, number).write_bytes(content)


def manifest(out):
    return json.loads((out / MANIFEST).read_text())


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("[!.]*")}


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


HANGING = """
import os, pathlib, time

read = pathlib.Path.read_bytes

def hanging(path):
    if str(path) == os.environ["HANGS"]:
        time.sleep(600)
    return read(path)

pathlib.Path.read_bytes = hanging
"""


class Stuck:
    """A preparation that hangs where it reads one of its images, as on a disk that does not answer."""

    def __init__(self, raw, out, number, shards, readers):
        self.folder = out / STAGING
        (site := raw.parent / "site").mkdir()
        (site / "sitecustomize.py").write_text(HANGING)  # Python runs it at its start, in each process
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        hangs = os.environ | {"HANGS": str(image(raw, number)), "PYTHONPATH": os.pathsep.join(paths)}
        self.command = [VLTUNE, "prepare", "f30k", "--raw", raw, "--out", out, "--readers", str(readers)]
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True, env=hangs)
        until(lambda: len([*self.folder.glob("*.arrow.json")]) == shards)

    def end(self, signum):
        """Exit status, and the last line said."""
        workers = children(self.process.pid)
        self.process.send_signal(signum)
        said = self.process.stderr.read()
        self.process.wait(60)
        until(lambda: not any(map(is_running, workers)))
        return self.process.returncode, said.splitlines()[-1]

    def resume(self):
        return subprocess.run(self.command, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("signum", "images", "readers", "shards", "status"),
    [
        (signal.SIGKILL, 4100, 2, 6, -9),
        (signal.SIGINT, 4100, 2, 6, 130),
        (signal.SIGTERM, 1100, 1, 1, 143),
    ],
)
def test_a_stopped_run_is_resumed_at_the_last_whole_shard(write_raw, tmp_path, signum, images, readers, shards, status):
    raw, out = write_raw(images), tmp_path / "out"
    stuck = Stuck(raw, out, 1050, shards, readers)
    found, said = stuck.end(signum)
    assert found == status
    if signum != signal.SIGKILL:
        number = f"{shards} shards are" if shards > 1 else "1 shard is"
        assert said == f"{out}: stopped, {number} finished; the same command goes on from there"
        assert not [*stuck.folder.glob(".*.tmp")]
    assert [path.name for path in out.iterdir()] == [STAGING]
    kept = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in stuck.folder.glob(f"{STEM}_*.arrow")}
    assert len(kept) == shards

    done = stuck.resume()
    assert f"train images: {images}" in done.stdout
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.arrow")}
    assert {name: after[name] for name in kept} == kept
    assert len(after) == shards + (1 if readers > 1 else 3)
    assert not (out / STAGING).exists()
    prepare_f30k(raw, tmp_path / "undisturbed", progress=False)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_run_stopped_before_its_raw_files_are_read_keeps_nothing(write_raw, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Entries, "add", stop)
    with pytest.raises(KeyboardInterrupt, match="out: stopped, nothing is kept; the same command begins anew"):
        prepare_f30k(write_raw(2), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(write_raw, tmp_path, monkeypatch):
    raw, out, write = write_raw(1100), tmp_path / "out", shards.write_table

    def write_first_only(path, schema, batches):
        if "_train-00000" in path.name:
            return write(path, schema, batches)
        with replacing(path) as file:
            file.write_bytes(b"ARROW1")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards, "write_table", write_first_only)
    message = rf"{STEM}_train-00001-of-00002\.arrow cannot be written here \(No space left on device\): free space"
    with pytest.raises(UserError, match=message) as error:
        prepare_f30k(raw, out, progress=False, readers=1)
    assert "\n" not in str(error.value)
    assert [path.name for path in out.iterdir()] == [STAGING]
    assert not [*(out / STAGING).glob(".*.tmp")]
    [kept] = (out / STAGING).glob("*.arrow")
    number = kept.stat().st_ino
    monkeypatch.undo()
    prepare_f30k(raw, out, progress=False)
    assert (out / kept.name).stat().st_ino == number
    assert manifest(out)["images"]["train"] == 1100


def test_a_killed_run_is_not_resumed_where_the_raw_files_are_others(write_raw, tmp_path):
    raw, out = write_raw(1100), tmp_path / "out"
    stuck = Stuck(raw, out, 1050, 1, 1)
    stuck.end(signal.SIGKILL)
    [first] = stuck.folder.glob(f"{STEM}_*.arrow")
    before = first.stat().st_ino, first.stat().st_mtime_ns
    os.utime(raw / "dataset_flickr30k.json")
    stuck.resume()
    after = (out / first.name).stat()
    assert (after.st_ino, after.st_mtime_ns) != before
    assert manifest(out)["images"] == {"train": 1100, "val": 1, "test": 1}


def test_two_runs_do_not_write_to_one_folder(write_raw, tmp_path):
    raw, out = write_raw(1100), tmp_path / "out"
    stuck = Stuck(raw, out, 1050, 1, 1)
    with pytest.raises(UserError, match=r"out: another `vltune prepare` writes here; wait for it"):
        prepare_f30k(raw, out, progress=False)
    assert len([*stuck.folder.glob("*.arrow.json")]) == 1
    assert stuck.end(signal.SIGINT)[0] == 130


def test_shards_of_a_thousand_rows(write_raw, tmp_path):
    raw = write_raw(2001)
    prepare_f30k(raw, tmp_path / "out", progress=False)
    names = [f"{STEM}_train-{number:05d}-of-00003.arrow" for number in range(3)]
    assert manifest(tmp_path / "out")["splits"][f"{STEM}_train"] == [
        {"file": name, "rows": rows, "texts": 2 * rows} for name, rows in zip(names, (1000, 1000, 1), strict=True)
    ]
    size = (raw / "dataset_flickr30k.json").stat().st_size
    assert manifest(tmp_path / "out")["source_bytes"] == {"dataset_flickr30k.json": size}
    assert manifest(tmp_path / "out")["captions"] == {"train": 4002, "val": 2, "test": 2}


def test_an_earlier_preparation_is_replaced_and_other_files_stay(write_raw, tmp_path):
    raw, out = write_raw(1001), tmp_path / "out"
    prepare_f30k(raw, out, progress=False)
    (out / "mine.txt").write_text("kept")
    (out / f"{STEM}_train.arrow").write_text("as earlier versions left it, beside their manifest")
    shutil.rmtree(raw)
    prepare_f30k(write_raw(2), out, progress=False)
    splits = {f"{STEM}_{split}-00000-of-00001.arrow" for split in ("train", "val", "test")}
    assert {path.name for path in out.iterdir()} == splits | {MANIFEST, "mine.txt"}
    assert manifest(out)["images"]["train"] == 2


def recaption(raw):
    file = raw / "dataset_flickr30k.json"
    file.write_text(file.read_text().replace("caption 0 of 1", "caption 9 of 1"))


def test_what_is_there_already_is_not_made_again(write_raw, tmp_path):
    raw, out = write_raw(2), tmp_path / "out"
    command = [VLTUNE, "prepare", "f30k", "--raw", raw, "--out", out]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    made = {path.name: path.stat().st_ino for path in out.iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout
    assert again.stderr.splitlines()[-1] == (
        f"{out}: prepared before, and no raw file changed since; delete {out / MANIFEST} to have it made anew"
    )
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == made


@pytest.mark.parametrize(
    "change",
    [
        lambda raw, out: recaption(raw),
        lambda raw, out: os.utime(image(raw, 1), ns=(0, 0)),  # as unpacked again, with the time of the archive
        lambda raw, out: (out / f"{STEM}_train-00000-of-00001.arrow").unlink(),
        lambda raw, out: (out / MANIFEST).unlink(),
        lambda raw, out: (out / MANIFEST).write_text("{"),
    ],
    ids=["captions of the same length", "an image", "no shard", "no manifest", "half a manifest"],
)
def test_what_has_changed_since_is_made_anew(write_raw, tmp_path, change):
    raw, out = write_raw(2), tmp_path / "out"
    prepare_f30k(raw, out, progress=False)
    made = (out / f"{STEM}_val-00000-of-00001.arrow").stat().st_ino
    change(raw, out)
    prepare_f30k(raw, out, progress=False)
    assert (out / f"{STEM}_val-00000-of-00001.arrow").stat().st_ino != made
    prepare_f30k(raw, tmp_path / "undisturbed", progress=False)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_another_raw_folder_is_another_preparation_however_old_it_is(write_raw, tmp_path, capsys):
    raw, out = write_raw(2), tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(raw, other)
    for number in range(4):
        spoil(other, number, image(raw, number).read_bytes() + b"of the other")
    prepare_f30k(raw, out, progress=False)
    later = time.time_ns() + 10**12
    os.utime(out / MANIFEST, ns=(later, later))
    prepare_f30k(other, out, progress=False)
    prepare_f30k(other, tmp_path / "undisturbed", progress=False)
    assert contents(out) == contents(tmp_path / "undisturbed")
    prepare_f30k(other, out)
    assert "prepared before" in capsys.readouterr().err


def of_as_many_bytes(raw, tmp_path):
    """A folder like `raw`, made before anything is prepared, of which one image has other content of the same size."""
    other = shutil.copytree(raw, tmp_path / "other")
    time.sleep(0.05)  # the clock of a file system may tick a few milliseconds apart
    content = bytearray(image(raw, 1).read_bytes())
    content[-10] ^= 1
    spoil(other, 1, bytes(content))
    return other


def test_another_raw_folder_of_the_same_names_and_sizes_is_another_preparation(write_raw, tmp_path, capsys):
    raw, out = write_raw(2), tmp_path / "out"
    other = of_as_many_bytes(raw, tmp_path)
    for each in (raw, other, raw):
        prepare_f30k(each, out)
        assert "prepared before" not in capsys.readouterr().err
        prepare_f30k(each, tmp_path / each.name / "prepared", progress=False)
        assert contents(out) == contents(tmp_path / each.name / "prepared")
    raw.rename(tmp_path / "first")
    other.rename(raw)
    prepare_f30k(raw, out)
    assert "prepared before" not in capsys.readouterr().err
    prepare_f30k(raw, out)
    assert "prepared before" in capsys.readouterr().err


@pytest.mark.parametrize("digit", [100, 10**6, 10**9])
def test_a_file_system_that_keeps_no_nanoseconds_knows_what_is_there_already(write_raw, tmp_path, capsys, digit):
    raw, out = write_raw(2), tmp_path / "out"
    prepare_f30k(raw, out, progress=False)
    kept = (out / MANIFEST).stat().st_mtime_ns // digit * digit
    os.utime(out / MANIFEST, ns=(kept, kept))
    prepare_f30k(raw, out)
    assert "prepared before" in capsys.readouterr().err


def test_a_stopped_run_is_not_resumed_on_another_folder_that_was_put_in_the_place_of_the_first(write_raw, tmp_path):
    raw, out = write_raw(1001), tmp_path / "out"
    other = of_as_many_bytes(raw, tmp_path)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_counts", interrupted)
        prepare_f30k(raw, out, progress=False)
    assert (out / STAGING).exists()
    raw.rename(tmp_path / "first")
    other.rename(raw)
    prepare_f30k(raw, out, progress=False)
    prepare_f30k(raw, tmp_path / "undisturbed", progress=False)
    assert contents(out) == contents(tmp_path / "undisturbed")


def interrupted(*args):
    raise KeyboardInterrupt


def test_what_was_bad_is_tried_again(write_raw, tmp_path):
    raw, out = write_raw(2), tmp_path / "out"
    good = image(raw, 1).read_bytes()
    spoil(raw, 1, b"<html>")
    prepare_f30k(raw, out, max_bad=1, progress=False)
    with pytest.raises(BadExampleError, match=r"1 bad image or entry where --max-bad is 0"):
        prepare_f30k(raw, out, progress=False)
    spoil(raw, 1, good)
    assert prepare_f30k(raw, out, progress=False)["train images"] == 2


def test_an_earlier_preparation_stays_where_a_later_one_fails(write_raw, tmp_path):
    raw, out = write_raw(2), tmp_path / "out"
    prepare_f30k(raw, out, progress=False)
    before = contents(out)
    spoil(raw, 1, b"<html>")
    with pytest.raises(BadExampleError):
        prepare_f30k(raw, out, progress=False)
    assert contents(out) == before
    assert not (out / STAGING).exists()


def test_folders_of_others_are_left_alone(write_raw, tmp_path):
    raw, out = write_raw(2), tmp_path / "out"
    out.mkdir()
    (out / f"{STEM}_train.arrow").write_text("ViLT's own")
    with pytest.raises(
        UserError, match=rf"out: holds {STEM}_train\.arrow, which is not of an earlier run.*; name another"
    ):
        prepare_f30k(raw, out, progress=False)
    (out / f"{STEM}_train.arrow").unlink()
    prepare_f30k(raw, out, progress=False)
    coco = tmp_path / "coco"
    for folder in ("train2014", "val2014"):
        (coco / folder).mkdir(parents=True)
    (coco / "dataset_coco.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=rf"out: holds {STEM}_test-00000-of-00001\.arrow, which is not of"):
        prepare_coco(coco, out, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written \(.*\); name another folder"):
        prepare_f30k(raw, tmp_path / "file", progress=False)


def test_images_that_do_not_fit_are_told_before_they_are_read(write_raw, tmp_path):
    raw = write_raw(2)
    image(raw, 1).unlink()
    with image(raw, 1).open("w") as file:
        file.truncate(2**43)  # takes no space here
    with pytest.raises(UserError, match=r"out: 8,796\.1 GB of images go there, .* GB are free; free space, or name"):
        prepare_f30k(raw, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_images_and_entries_are_counted_together(write_raw, tmp_path):
    raw, file = write_raw(8), "dataset_flickr30k.json"
    content = json.loads((raw / file).read_text())
    del content["images"][0]["sentences"]
    content["images"][1]["filename"] = 7
    (raw / file).write_text(json.dumps(content))
    for number in range(2, 6):
        image(raw, number).unlink()
    with pytest.raises(BadExampleError) as error:
        prepare_f30k(raw, tmp_path / "out", max_bad=5, progress=False)
    assert str(error.value) == (
        f"{raw}: 6 bad images or entries where --max-bad is 5: "
        f"{file} entry 1 (not an official Karpathy entry: it lacks 'sentences'), "
        f"{file} entry 2 (not an official Karpathy entry: its filename is 7, expected text), "
        "flickr30k-images/2.jpg (missing), flickr30k-images/3.jpg (missing), flickr30k-images/4.jpg (missing) and 1 more; "
        "fetch those files again or allow more"
    )
    assert not (tmp_path / "out").exists()
    spoil(raw, 6, b"")
    counts = prepare_f30k(raw, tmp_path / "out", max_bad=7, progress=False)
    assert (counts["train images"], counts["unreadable images"], counts["bad entries"]) == (1, 5, 2)
    found = manifest(tmp_path / "out")
    assert found["bad_images"] == {f"flickr30k-images/{number}.jpg": "missing" for number in range(2, 6)} | {
        "flickr30k-images/6.jpg": "an empty file"
    }
    assert [*found["bad_entries"]] == [f"{file} entry 1", f"{file} entry 2"]


def test_a_raw_folder_that_is_none(write_raw, tmp_path):
    raw = write_raw(1)
    for wrong in (raw / "nowhere", raw / "dataset_flickr30k.json"):
        with pytest.raises(UserError, match=rf"{wrong.name}: no such folder; --raw names the one that holds the files"):
            prepare_f30k(wrong, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_reader_that_dies_is_told():
    with pytest.raises(
        UserError, match=r"a reader process ended unexpectedly, .*; give the command again with --readers 1"
    ):
        list(pool.run(os._exit, [1], 2))


def test_readers_do_not_pay_for_what_they_do_not_use():
    code = (
        "import sys, vltune.cli, vltune.data.preparation.shards, vltune.data.check.rows;"
        "sys.exit(str({'torch', 'transformers', 'timm', 'hydra'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
