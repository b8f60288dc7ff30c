import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from vltune.data.arrow import open_table
from vltune.data.shapes import ensure, vqav2
from vltune.data.shapes.layouts import LAYOUTS
from vltune.errors import UserError

IMAGES = {"train": 6, "val": 4, "test": 4}


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_generates_once(tmp_path):
    folder = tmp_path / "deep" / "shapes"
    ensure(folder, seed=1, images=IMAGES)
    assert {path.name for path in folder.iterdir()} == {"vqav2", ".vqav2.lock"}
    assert (folder / "vqav2" / "raw" / "v2_mscoco_train2014_annotations.json").exists()
    assert json.loads((folder / "vqav2" / "manifest.json").read_text())["images"]["train"] == 6
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    start = time.perf_counter()
    ensure(folder, seed=1, images=IMAGES)
    assert time.perf_counter() - start < 0.1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("layout", "arrow"),
    [
        ("nlvr2", "nlvr2_test1"),
        ("f30k", "f30k_caption_karpathy_test"),
        ("coco", "coco_caption_karpathy_test"),
        ("snli_ve", "snli_test"),
        ("objects", "objects_test"),
        ("places", "places_test"),
        ("textures", "textures_test"),
    ],
)
def test_every_layout(tmp_path, layout, arrow):
    images = dict.fromkeys(LAYOUTS[layout].few, 4) | {"test": 8}
    ensure(tmp_path, layout, images=images)
    assert {path.name for path in tmp_path.iterdir()} == {layout, f".{layout}.lock"}
    assert len(open_table(tmp_path / layout / f"{arrow}-00000-of-00001.arrow", [])) == 8
    ensure(tmp_path, layout, images=images)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"seed": 2}, "seed 2"),
        ({"images": IMAGES | {"val": 5}}, "val 5"),
        ({"questions_per_image": 3}, "questions_per_image 3"),
    ],
)
def test_other_arguments(tmp_path, other, told):
    wanted = {"seed": 1, "images": IMAGES, "questions_per_image": 4}
    ensure(tmp_path / "shapes", **wanted)
    message = (
        rf"^dataset.data_dir=.*/shapes: vqav2/ was generated with seed 1, .*, not with .*{told}.*; delete it, or name"
    )
    with pytest.raises(UserError, match=message):
        ensure(tmp_path / "shapes", **(wanted | other))


def test_leaves_a_foreign_folder_alone(tmp_path):
    (tmp_path / "vqav2" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"vqav2/ has no shapes\.json: not generated shapes"):
        ensure(tmp_path, images=IMAGES)
    assert [path.name for path in (tmp_path / "vqav2").iterdir()] == ["mine"]


def test_unknown_layout(tmp_path):
    with pytest.raises(
        UserError, match=r"^dataset.generate.layout=gqa: shapes are written as vqav2, nlvr2, f30k, coco, snli_ve"
    ):
        ensure(tmp_path, "gqa")


def test_killed_in_the_middle(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "shapes"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vltune.data.vqav2.prepare.prepare", killed)
        ensure(folder, images=IMAGES)
    assert not (folder / "vqav2").exists()
    ensure(folder, images=IMAGES)
    assert (folder / "vqav2" / "manifest.json").exists()
    assert not (folder / ".vqav2.partial").exists()


def _ensure_and_report(folder, barrier, queue):
    from vltune.data import shapes

    calls = []
    generate = shapes._generate
    shapes._generate = lambda *arguments: (calls.append(1), generate(*arguments))
    barrier.wait()
    shapes.ensure(folder, images=IMAGES)
    queue.put((len(calls), tree(folder)))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "shapes", barrier, queue)
    processes = [context.Process(target=_ensure_and_report, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    (first, files), (second, other_files) = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert first + second == 1
    assert files == other_files
    assert len(files) == 14 + 7 + 5 + 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    ensure(folder, images=IMAGES)
    return folder


def unmade(folder):
    """The one line that says why there is no world in a folder."""
    with pytest.raises(UserError) as error:
        ensure(folder, images=IMAGES)
    line = str(error.value)
    assert line.startswith(f"dataset.data_dir={folder}: ")
    assert "name another folder" in line
    assert "\n" not in line
    return line.removeprefix(f"dataset.data_dir={folder}: ")


@pytest.mark.parametrize("name", ["file", "file/deep", "link", "link/deep", "loop"])
def test_a_folder_that_is_none(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    what = "a file, not a folder" if name.startswith("file") else "a link that leads nowhere"
    assert unmade(tmp_path / name).startswith(f"{tmp_path / name.partition('/')[0]} is {what}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "loop"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
@pytest.mark.parametrize("folder", ["/proc/x", "/proc/self"])
def test_a_file_system_that_makes_nothing_is_not_waited_for(folder):
    assert unmade(Path(folder)).startswith("vqav2/ cannot be made there (")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_nothing(tmp_path, monkeypatch, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(vqav2, "write_image", fail)
        assert unmade(tmp_path).startswith(f"vqav2/ cannot be made there ({os.strerror(code)})")
    assert [path.name for path in tmp_path.iterdir()] == [".vqav2.lock"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fail)
        assert unmade(tmp_path / "deep").startswith(f"vqav2/ cannot be made there ({os.strerror(code)})")


SHARD = "vqav2_train-00000-of-00001.arrow"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("shapes.json", "vqav2/ has no shapes.json: not generated shapes, or a part of them; delete it, or"),
        ("manifest.json", "vqav2/ has no manifest.json: not generated shapes, or a part of them; delete it, or"),
        (SHARD, f"vqav2/ has lost {SHARD}; delete it to have it made anew, or"),
    ],
)
def test_a_folder_that_is_half_deleted(made, tmp_path, lost, message):
    shutil.copytree(made, tmp_path / "shapes")
    (tmp_path / "shapes" / "vqav2" / lost).unlink()
    assert unmade(tmp_path / "shapes").startswith(message)


@pytest.mark.parametrize("name", ["shapes.json", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"images": 5, "splits": 5}'])
def test_a_file_that_is_damaged(made, tmp_path, name, content):
    shutil.copytree(made, tmp_path / "shapes")
    (tmp_path / "shapes" / "vqav2" / name).write_bytes(content)
    message = "vqav2/ has a damaged shapes.json or manifest.json; delete it to have it made anew, or"
    assert unmade(tmp_path / "shapes").startswith(message)


def test_a_link_to_an_empty_folder_elsewhere(tmp_path):
    (tmp_path / "disk" / "vqav2").mkdir(parents=True)
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "vqav2").symlink_to(tmp_path / "disk" / "vqav2")
    ensure(tmp_path / "shapes", images=IMAGES)
    assert (tmp_path / "disk" / "vqav2" / "manifest.json").exists()


def test_splits_that_are_not_named_have_the_usual_number(monkeypatch, tmp_path):
    monkeypatch.setattr(vqav2.write_raw, "__defaults__", (0, {"train": 3, "val": 2, "test": 2}, 4))
    ensure(tmp_path, images={"train": 5})
    assert json.loads((tmp_path / "vqav2" / "shapes.json").read_text())["images"] == {"train": 5, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"seed": -1}, "dataset.generate.seed=-1: must be a whole number from 0 to 4294967295"),
        ({"seed": "a"}, "dataset.generate.seed=a: must be a whole number from 0 to 4294967295"),
        ({"layout": ["nlvr2"]}, "dataset.generate.layout=['nlvr2']: shapes are written as"),
        ({"images": 5}, "dataset.generate.images=5: give numbers by split, such as {train: 30, val: 10}"),
        ({"images": {"dev": 5}}, "dataset.generate.images: vqav2 has no split dev; it has train, val, test"),
        ({"images": {"val": 0}}, "dataset.generate.images: val=0: must be a whole number from 1 to 100,000"),
        ({"images": {"val": None}}, "dataset.generate.images: val=None: must be a whole number from 1 to 100,000"),
        ({"questions_per_image": 5}, "dataset.generate.questions_per_image=5: must be a whole number from 1 to 4"),
        ({"question_per_image": 3}, "dataset.generate.question_per_image: no such setting; there are layout, seed, "),
    ],
)
def test_settings_that_no_world_has(tmp_path, setting, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        ensure(tmp_path, **setting)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_for_another_says_so_and_hears_signals(tmp_path, signum):
    with FileLock(tmp_path / ".vqav2.lock"):
        code = f"from vltune.data.shapes import ensure; ensure({str(tmp_path)!r}, images={IMAGES})"
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        line = process.stderr.readline()
        process.send_signal(signum)
        process.communicate(timeout=10)
    assert line == f"{tmp_path / 'vqav2'}: waiting for the process that generates it\n"
    assert process.returncode in (-signum, 1)
    assert [path.name for path in tmp_path.iterdir()] == [".vqav2.lock"]
