"""Stored features: the same bits as computing them, computed once, and never trusted where something is wrong."""

import pickle
import re
import shutil
import signal
import time
from types import SimpleNamespace

import pyarrow as pa
import pytest
import tiny
import torch
from lightning_fabric import Fabric
from PIL import Image
from several import fork, processes

from vltune.backbones.meter import Meter
from vltune.data.arrow import open_table, write_table
from vltune.data.collate import Collate
from vltune.data.dataset import preparation
from vltune.data.karpathy.reader import Karpathy
from vltune.data.labelled.reader import LabelledImages
from vltune.data.nlvr2 import reader as nlvr2
from vltune.data.shapes import ensure
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import SquareResize
from vltune.data.vqav2.reader import SCHEMA, VQAv2
from vltune.engine.source import TrainingData
from vltune.engine.train import train
from vltune.errors import UserError
from vltune.evaluators.evaluate import predictions
from vltune.features import cache
from vltune.features import store as feature_store
from vltune.methods.apt import APT
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.runs.turn import turn
from vltune.settings.engine import Settings
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.vqa import VQA

PROBE = {"image": 4, "text": 1}  # examples of one
TOKENIZER = Tokenizer(VOCABULARY, 20)
WORLDS = {  # task -> (reader, its splits, layout, head)
    "vqa": (VQAv2, ("vqav2_train", "vqav2_val"), "vqav2", lambda answers: VQA(2 * tiny.WIDTH, tiny.WIDTH, answers)),
    "nlvr2": (nlvr2.NLVR2Reader, ("nlvr2_train", "nlvr2_dev"), "nlvr2", lambda _: NLVR2(2 * tiny.WIDTH, tiny.WIDTH)),
    "retrieval": (
        Karpathy,
        ("f30k_caption_karpathy_train", "f30k_caption_karpathy_val"),
        "f30k",
        lambda _: Retrieval(2 * tiny.WIDTH),
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for _, _, layout, _ in WORLDS.values():
        ensure(root, layout, seed=1, images={"train": 10, "val": 6, "test": 2})
    return root


def read(world, task="vqa", splits=(0, 1), **more):
    """The readers of training and validation."""
    reader, names, layout, _ = WORLDS[task]
    transform = SquareResize(64, crop=False, **more)
    return [reader(world / layout, [names[i]], TOKENIZER, transform) for i in splits]


def collate_of(reader):
    return Collate(TOKENIZER.pad_id, reader.transform.mean, reader.transform.std)


def make_model(task="vqa", answers=tiny.ANSWERS, method=None, weights=0):
    torch.manual_seed(weights)
    tower = {"width": 48, "layers": 2, "heads": 2, "hidden": 64}
    text = {**tower, "vocabulary_size": TOKENIZER.size, "positions": 22}
    image = {**tower, "kind": "clip", "patch_size": 16, "image_size": 64}
    backbone = Meter(text, "clip", {"clip": image}, tiny.WIDTH, layers=2, heads=4, hidden=64, token_types=3)
    return Model(backbone, WORLDS[task][3](answers), method or APT(prompts=5, rank=2))


def fabric_of(precision="32-true"):
    return Fabric(accelerator="cpu", devices=1, precision=precision)


def attach(model, readers, folder, fabric=None, workers=0, stop=None):
    stop = stop or StopRequest()
    settings = Settings(lr=1e-2, workers=workers, features_dir=folder)
    collate = collate_of(readers[0])
    session = tiny.session(fabric or fabric_of(), model, folder, stop, settings=settings, collate=collate)
    return cache.attach(session, readers)


def everything(readers):
    """All that a reader gives of each example."""
    return [reader[i] for reader in readers for i in range(len(reader))]


def same(left, right):
    return len(left) == len(right) and all(
        a.keys() == b.keys()
        and all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else str(a[k]) == str(b[k]) for k in a)
        for a, b in zip(left, right, strict=True)
    )


@pytest.fixture
def calls(monkeypatch):
    """How many images and texts the towers were given at a time, the probes among them."""
    seen = {name: [] for name in PROBE}
    for name in PROBE:
        compute = getattr(Meter, f"{name}_features")

        def counted(self, x, *more, name=name, compute=compute):
            seen[name].append(len(x))
            return compute(self, x, *more)

        monkeypatch.setattr(Meter, f"{name}_features", counted)
    return seen


def run(world, path, task, folder=None, seed=0, workers=0, **more):
    """Three steps of 7 examples in training, then validation: parameters, predictions and the losses."""
    readers = train_reader, val_reader = read(world, task)
    torch.manual_seed(seed)
    model = make_model(task, getattr(train_reader, "answers", None))
    fabric, collate = fabric_of(**more), collate_of(train_reader)
    with StopRequest() as stop:
        used = attach(model, readers, folder, fabric, workers, stop) if folder else []
        settings = Settings(lr=1e-2, batch_size=7, max_steps=3, accelerator="cpu", workers=workers)
        data = TrainingData(train_reader, collate, settings.batch_size, seed, workers)
        torch.manual_seed(seed)
        of_data = {"training": lambda: data, "collate": collate, "split": lambda _: val_reader, "eval_batch_size": 5}
        session = tiny.session(fabric, model, path, stop, settings=settings, **of_data)
        trained = train(session, lambda: 0.0)
        rows = predictions(session, "val")
    return used, model.tuned_state(), rows, trained.history


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("task", WORLDS)
def test_training_is_the_same_but_for_rounding(world, tmp_path, task):
    """A tower that is given other batches may round otherwise, and AdamW makes a step of any difference: so the losses are
    compared, which start equal."""
    used, state, rows, history = run(world, tmp_path / "with", task, tmp_path / "features")
    none, expected_state, expected_rows, expected_history = run(world, tmp_path / "without", task)
    assert (used, none) == (["text", "image"], [])
    losses, expected = ([point["train/loss"] for point in points] for points in (history, expected_history))
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert losses == pytest.approx(expected, rel=1e-2)
    assert state.keys() == expected_state.keys()
    assert [row["id"] for row in rows] == [row["id"] for row in expected_rows]


def test_what_is_kept_is_what_the_towers_give(world, tmp_path):
    for task in WORLDS:
        model, readers, pixels = make_model(task), read(world, task), read(world, task)
        attach(model, readers, tmp_path)
        collate = collate_of(pixels[0])
        for kept, fresh in zip(everything(readers), everything(pixels), strict=True):
            batch = collate([fresh])
            with torch.no_grad():
                text = model.backbone.text_features(batch["text_ids"], batch["text_mask"])[0]
                torch.testing.assert_close(kept["text_features"], text, atol=1e-5, rtol=1e-5)
                for column in pixels[0].image_columns:
                    image = model.backbone.image_features(batch[column])[0]
                    torch.testing.assert_close(kept[f"{column}_features"], image, atol=1e-5, rtol=1e-5)


def test_towers_run_once_for_all_seeds_and_methods(world, tmp_path, calls):
    run(world, tmp_path / "first", "nlvr2", tmp_path / "features")
    readers = read(world, "nlvr2")
    stored = ((reader, i, which) for reader in readers for i in range(reader.pictures()) for which in (0, 1))
    distinct = {
        "image": len({reader.content(i, which).to_pybytes() for reader, i, which in stored}),
        "text": sum(len(list(reader.texts())) for reader in readers),  # once for each split, in its company there
    }
    for name, count in PROBE.items():
        assert sum(calls[name]) == count + distinct[name]
        calls[name].clear()
    run(world, tmp_path / "second", "nlvr2", tmp_path / "features", seed=1)
    attach(make_model("nlvr2", method=LoRA(rank=2)), read(world, "nlvr2"), tmp_path / "features")
    assert calls == {name: [count, count] for name, count in PROBE.items()}


def test_another_split_goes_into_a_further_file(world, tmp_path):
    attach(make_model(), read(world, splits=[0]), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    readers = read(world)
    attach(make_model(), readers, tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    assert (len(before), len(after)) == (2, 4) and before.items() <= after.items()
    fresh = read(world)
    attach(make_model(), fresh, tmp_path / "fresh")
    assert same(everything(readers), everything(fresh))


def flip(path, key=False):
    """Changes one byte of the last row's data, or of its key."""
    table = open_table(path, ["key", "data"])
    content, row = bytearray(path.read_bytes()), table["key" if key else "data"][-1].as_py()
    content[content.rindex(row) + 5] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_but_close(path):
    content = path.read_bytes()
    path.write_bytes(content[:500] + content[-300:])


def of_another(path):
    """A file of another tower that was copied here."""
    table = open_table(path, ["key", "data", "crc32"])
    schema = table.schema.with_metadata({**table.schema.metadata, "tower": "another"})
    path.unlink()
    write_table(path, schema, table.replace_schema_metadata(schema.metadata).to_batches())


def killed(path):
    """As a process leaves it that is killed while it writes."""
    path.rename(path.with_name(f".{path.name}.0123.tmp"))
    cut(path.with_name(f".{path.name}.0123.tmp"))


DAMAGE = {
    "row": (flip, r"row \d+ is damaged"),
    "key": (lambda path: flip(path, key=True), r"row \d+ is damaged"),
    "cut": (cut, "truncated"),
    "cut inside": (cut_but_close, "damaged"),
    "another": (of_another, "another tower"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "killed": (killed, None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_computed_anew(world, tmp_path, capsys, damage):
    readers, expected = read(world, splits=[1]), read(world, splits=[1])
    attach(make_model(), expected, tmp_path / "whole")
    attach(make_model(), readers, tmp_path / "hurt")
    hurt, said = DAMAGE[damage]
    for path in list((tmp_path / "hurt").rglob("*.arrow")):
        shutil.copyfile(
            path, copy := path.with_suffix(".copy")
        )  # a file that is mapped is not changed under its reader
        copy.replace(path)
        hurt(path)
    capsys.readouterr()
    again = read(world, splits=[1])
    attach(make_model(), again, tmp_path / "hurt")
    lines = [line for line in capsys.readouterr().err.splitlines() if "computed anew" in line]
    assert len(lines) == (2 if said else 0)
    for line in lines:
        assert re.search(said, line)
    assert same(everything(again), everything(expected))
    assert not list((tmp_path / "hurt").rglob("*.tmp")) and len(list((tmp_path / "hurt").rglob("*.arrow"))) == 2


def test_another_tower_transform_or_precision_has_its_own(world, tmp_path, calls):
    def keep(transform=None, precision="32-true", change=None, **more):
        model = make_model(**more)
        if change:
            change(model.backbone)
        readers = read(world, splits=[1], **(transform or {}))
        attach(model, readers, tmp_path, fabric_of(precision))
        return len(list(tmp_path.glob("image-*"))), len(list(tmp_path.glob("text-*"))), readers[0][0]

    def other_heads(backbone):
        for block in backbone.image.blocks:
            block.attention.heads = 3

    def one_weight(backbone):
        backbone.text.embedding.word.weight.data[100] += 1  # of a word that the probe does not hold

    images, texts, first = keep()
    assert keep()[:2] == (1, 1) == (images, texts)
    assert keep(transform={"mean": (0.4, 0.5, 0.5)})[:2] == (2, 1)
    assert keep(change=one_weight)[:2] == (2, 2)
    assert keep(change=other_heads)[:2] == (3, 2)
    half = keep(precision="bf16-mixed")
    assert half[:2] == (4, 3)
    assert half[2]["image_features"].dtype == half[2]["text_features"].dtype == torch.bfloat16
    torch.testing.assert_close(half[2]["image_features"].float(), first["image_features"], atol=0.1, rtol=0.1)


def test_images_decoded_fast_have_their_own(world, tmp_path):
    for decode in ("exact", "fast", "exact"):
        attach(make_model(), read(world, splits=[1], decode=decode), tmp_path)
    assert len(list(tmp_path.glob("image-*"))) == 2
    assert len(list(tmp_path.glob("text-*"))) == 1


def in_towers(**sizes):
    method = LoRA(**sizes)
    method.sites_in = "towers"
    return method


def test_what_is_tuned_is_not_kept(world, tmp_path):
    readers = read(world)
    for method in (Full(), in_towers(rank=2)):
        assert attach(make_model(method=method), readers, tmp_path) == []
    frozen_but_tuned = make_model(method=in_towers(rank=2))
    frozen_but_tuned.requires_grad_(False)
    assert attach(frozen_but_tuned, readers, tmp_path) == []
    vilt = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), APT(prompts=5, rank=2))
    assert attach(vilt, readers, tmp_path) == []
    assert not list(tmp_path.iterdir()) and readers[0].features is None


@pytest.mark.parametrize("augmented", [{"randaugment": "released-m9-n2"}, {"augment": "crop_flip"}])
def test_augmentation_keeps_only_texts(world, tmp_path, augmented):
    readers = read(world, **augmented)
    assert attach(make_model(), readers, tmp_path) == ["text"]
    assert {"image", "text_features"} <= readers[0][0, 5].keys()


def test_rows_without_texts_keep_only_images(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        (tmp_path / "raw" / split / "dog").mkdir(parents=True)
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(tmp_path / "raw" / split / "dog" / "0.png")
    preparation("folder")(tmp_path / "raw", tmp_path / "data", progress=False)
    reader = LabelledImages(tmp_path / "data", ["folder_train"], TOKENIZER, SquareResize(64, crop=False))
    assert attach(make_model(), [reader], tmp_path / "features") == ["image"]
    assert reader[0].keys() == {"id", "image_features", "label"}


def test_a_broken_image_is_still_told(world, tmp_path):
    reader, names, layout, _ = WORLDS["vqa"]
    [path] = (world / layout).glob(f"{names[1]}*.arrow")
    [batch] = open_table(path, SCHEMA.names).combine_chunks().to_batches()
    images = batch["image"].to_pylist()
    images[2] = images[2][:40]
    batch = batch.set_column(batch.schema.get_field_index("image"), "image", pa.array(images, pa.binary()))
    write_table(tmp_path / f"{names[1]}.arrow", batch.schema, [batch])
    broken = reader(tmp_path, [names[1]], TOKENIZER, SquareResize(64, crop=False))
    expected = everything([broken])
    attach(make_model(), [broken], tmp_path / "features")
    found = everything([broken])
    assert [example.get("bad") for example in found] == [example.get("bad") for example in expected]
    assert any("bad" in example for example in found) and any("image_features" in example for example in found)


def test_workers_read_it_too(world, tmp_path):
    readers = read(world, splits=[1])
    attach(make_model(), readers, tmp_path, workers=1)
    assert same(everything(pickle.loads(pickle.dumps(readers))), everything(readers))


def test_a_stop_leaves_what_was_finished(world, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 4)
    monkeypatch.setattr(cache, "FILE_BYTES", 1)  # each block is a file
    stop, write = StopRequest(), feature_store.Store.write

    def write_and_stop(self, batches):
        name = write(self, batches)
        if self.folder.name.startswith("image"):
            stop.signum = signal.SIGTERM
        return name

    with monkeypatch.context() as patch:
        patch.setattr(feature_store.Store, "write", write_and_stop)
        with pytest.raises(Interrupted):
            attach(make_model(), read(world), tmp_path, stop=stop)
    finished = set(tmp_path.glob("image-*/*.arrow"))
    assert len(finished) == 1 and not list(tmp_path.rglob("*.tmp"))
    readers = read(world)
    attach(make_model(), readers, tmp_path)
    assert finished < set(tmp_path.glob("image-*/*.arrow"))
    fresh = read(world)
    attach(make_model(), fresh, tmp_path / "fresh")
    assert same(everything(readers), everything(fresh))


def test_a_part_of_a_block_is_computed_in_the_company_of_all_of_it(world, tmp_path, monkeypatch):
    """As it was the first time: alone, its last digits could be others."""
    monkeypatch.setattr(cache, "BLOCK", 4)
    expected = read(world, splits=[1])
    attach(make_model(), expected, tmp_path / "whole")
    for folder in (tmp_path / "whole").iterdir():
        (file,) = folder.glob("*.arrow")
        table = open_table(file, ["key", "data", "crc32"])
        schema = table.schema
        part = tmp_path / "part" / folder.name / file.name
        part.parent.mkdir(parents=True)
        assert table.num_rows > 4
        write_table(part, schema, table.take([*range(0, table.num_rows, 3)]).to_batches())
    readers = read(world, splits=[1])
    attach(make_model(), readers, tmp_path / "part")
    assert len(list((tmp_path / "part").rglob("*.arrow"))) == 4
    assert same(everything(readers), everything(expected))


def test_who_waits_can_be_stopped(tmp_path, capsys):
    store, other = (feature_store.Store(tmp_path, {"modality": "text"}, torch.zeros(1, 2, 3)) for _ in range(2))
    stop = StopRequest()
    with store.locked(stop.check):
        stop.signum = signal.SIGTERM
        with pytest.raises(Interrupted), other.locked(stop.check):
            pass
    assert "waiting" in capsys.readouterr().err


def test_a_full_disk_is_told_before(world, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"features of .* take .* GB and .* GB are free.*engine\.cache_features=false"):
        attach(make_model(), read(world), tmp_path)


def test_a_folder_that_cannot_be_made_is_told(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"engine\.features_dir"):
        attach(make_model(), read(world, splits=[1]), tmp_path / "file")


def together(world, folder_of, expected=None, asked=None, splits=(0, 1)):
    """In each of two processes: whether it has what `expected` holds, and how many blocks of each kind its towers were
    given; or Interrupted.  asked: which of them is asked to stop as soon as it has written images."""

    def work(fabric):
        fabric.launch()
        seen, stop = dict.fromkeys(PROBE, -1), StopRequest()  # the probe is one batch more
        features, write = {name: getattr(Meter, f"{name}_features") for name in PROBE}, feature_store.Store.write

        def counted(name):
            def call(self, *inputs):
                seen[name] += 1
                return features[name](self, *inputs)

            return call

        def write_and_stop(self, batches):
            name = write(self, batches)
            if fabric.global_rank == asked and self.folder.name.startswith("image"):
                stop.signum = signal.SIGTERM
            return name

        for name in PROBE:
            setattr(Meter, f"{name}_features", counted(name))
        feature_store.Store.write = write_and_stop
        readers = read(world, splits=splits)
        attach(make_model(), readers, folder_of(fabric.global_rank), fabric, stop=stop)
        return same(everything(readers), expected), seen

    return processes(work)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 4)
    monkeypatch.setattr(cache, "FILE_BYTES", 1)  # each block is a file


@pytest.fixture
def alone(world, tmp_path, small_blocks, calls):
    """What one process makes, and of how many blocks."""
    readers = read(world)
    attach(make_model(), readers, tmp_path / "alone")
    return everything(readers), {name: len(calls[name]) - 1 for name in PROBE}


def test_the_processes_of_a_run_share_the_work(world, tmp_path, alone):
    expected, blocks = alone
    (right, first), (also, second) = together(world, lambda rank: tmp_path / "two", expected)
    assert right and also
    for name, count in blocks.items():
        assert count > 2 and (first[name], second[name]) == (count - count // 2, count // 2)
    for folder in (tmp_path / "alone").iterdir():
        assert len(list((tmp_path / "two" / folder.name).glob("*.arrow"))) == len(list(folder.glob("*.arrow")))
    assert not [path for path in (tmp_path / "two").rglob("*") if path.suffix in (".tmp", ".mark")]


def test_they_share_what_is_missing_and_compute_nothing_that_is_there(world, tmp_path, alone):
    attach(make_model(), read(world, splits=[1]), tmp_path / "two")
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.arrow")}
    found = together(world, lambda rank: tmp_path / "two", alone[0])
    assert [right for right, _ in found] == [True, True]
    assert there.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.arrow")}.items()
    assert all(sum(seen[name] for _, seen in found) < alone[1][name] for name in PROBE)
    assert together(world, lambda rank: tmp_path / "two", alone[0]) == [(True, dict.fromkeys(PROBE, 0))] * 2


def test_processes_that_see_no_common_folder_compute_all_each(world, tmp_path, alone):
    assert together(world, lambda rank: tmp_path / f"disk of {rank}", alone[0]) == [(True, alone[1])] * 2


@pytest.mark.parametrize("asked", [0, 1])
def test_one_of_them_that_is_asked_stops_all_and_finished_files_stay(world, tmp_path, alone, asked):
    assert together(world, lambda rank: tmp_path / "two", asked=asked) == [Interrupted] * 2
    finished = {*(tmp_path / "two").glob("image-*/*.arrow")}
    assert len(finished) == 2 and not list((tmp_path / "two").rglob("*.tmp"))
    assert [right for right, _ in together(world, lambda rank: tmp_path / "two", alone[0])] == [True, True]
    assert finished < {*(tmp_path / "two").glob("image-*/*.arrow")}


def test_they_wait_for_another_run(world, tmp_path, alone, capfd):
    """As one process: the first has the lock, and tells the others."""
    attach(make_model(), read(world, splits=[1]), tmp_path / "two")
    [texts] = (tmp_path / "two").glob("text-*")
    other = fork.Process(target=hold, args=(texts, began := fork.Event()))
    other.start()
    began.wait()
    found = together(world, lambda rank: tmp_path / "two", alone[0])
    other.join()
    assert [right for right, _ in found] == [True, True]
    assert capfd.readouterr().err.count("waiting for the process") == 1


def hold(folder, began):
    with turn(folder, lambda: None, "features", "none"):
        began.set()
        time.sleep(3)
