import json
import multiprocessing
import time

import pytest

from vltune.data.arrow import open_table
from vltune.data.shapes import ensure
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
    ],
)
def test_every_layout(tmp_path, layout, arrow):
    images = dict.fromkeys(LAYOUTS[layout].few, 4) | {"test": 8}
    ensure(tmp_path, layout, images=images)
    assert {path.name for path in tmp_path.iterdir()} == {layout, f".{layout}.lock"}
    assert len(open_table(tmp_path / layout / f"{arrow}-00000-of-00001.arrow", [])) == 8
    ensure(tmp_path, layout, images=images)


@pytest.mark.parametrize("other", [{"seed": 2}, {"images": IMAGES | {"val": 5}}, {"questions_per_image": 3}])
def test_other_arguments(tmp_path, other):
    wanted = {"seed": 1, "images": IMAGES, "questions_per_image": 4}
    ensure(tmp_path / "shapes", **wanted)
    with pytest.raises(
        UserError, match=r"shapes/vqav2: was generated with .*'seed': 1.*, not .*; choose another folder"
    ):
        ensure(tmp_path / "shapes", **(wanted | other))


def test_leaves_a_foreign_folder_alone(tmp_path):
    (tmp_path / "vqav2" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="holds files that are not generated shapes"):
        ensure(tmp_path, images=IMAGES)
    assert [path.name for path in (tmp_path / "vqav2").iterdir()] == ["mine"]


def test_unknown_layout(tmp_path):
    with pytest.raises(UserError, match="layout='gqa': shapes are written as vqav2, nlvr2, f30k, coco, snli_ve"):
        ensure(tmp_path, "gqa")


def test_killed_in_the_middle(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "shapes"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vltune.data.prepare.vqav2.prepare", killed)
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
