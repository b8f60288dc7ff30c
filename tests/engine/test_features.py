"""Stored features: the same bits as computing them, computed once, and never trusted where something is wrong."""

import pickle
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from lightning_fabric import Fabric

from vltune.backbones.meter import Meter
from vltune.data.arrow import open_table, write_table
from vltune.data.collate import Collate
from vltune.data.karpathy import Karpathy
from vltune.data.nlvr2 import NLVR2 as NLVR2Reader
from vltune.data.shapes import ensure
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import SquareResize
from vltune.data.vqav2 import VQAv2
from vltune.engine import feature_store, features
from vltune.engine.evaluate import predict
from vltune.engine.interrupt import Interrupted, StopRequest
from vltune.engine.retrieval import score_pairs
from vltune.engine.settings import Settings
from vltune.engine.source import BadExamples, TrainingData
from vltune.engine.train import train
from vltune.errors import UserError
from vltune.methods.apt import APT
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.tasks.model import Model
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.vqa import VQA

TOKENIZER = Tokenizer(VOCABULARY, 20)
WORLDS = {  # task -> (reader, its splits, layout, head)
    "vqa": (VQAv2, ("vqav2_train", "vqav2_val"), "vqav2", lambda answers: VQA(2 * tiny.WIDTH, tiny.WIDTH, answers)),
    "nlvr2": (NLVR2Reader, ("nlvr2_train", "nlvr2_dev"), "nlvr2", lambda _: NLVR2(2 * tiny.WIDTH, tiny.WIDTH)),
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
    return features.attach(
        fabric or fabric_of(), model.backbone, readers, collate_of(readers[0]), folder, workers, stop
    )


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
    """How many images and texts the towers were given at a time, the probes left out."""
    seen = {"image": [], "text": []}
    for name, of_probe in (("image", 4), ("text", 1)):
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
    fabric, collate, bad = fabric_of(**more), collate_of(train_reader), BadExamples(0)
    with StopRequest() as stop:
        used = attach(model, readers, folder, fabric, workers, stop) if folder else []
        settings = Settings(lr=1e-2, batch_size=7, max_steps=3, accelerator="cpu", workers=workers)
        data = TrainingData(train_reader, collate, settings.batch_size, seed, workers)
        torch.manual_seed(seed)
        trained = train(fabric, model, data, settings, path, stop, bad, lambda: 0.0, lambda *_: None, "test")
        if task == "retrieval":
            file = path.with_suffix(".rows")
            rows = score_pairs(fabric, model, val_reader, collate, 5, workers, stop, bad, "val", file).tolist()
        else:
            rows = predict(fabric, model, val_reader, collate, 5, workers, stop, bad, "val")
    return used, model.tuned_state(), rows, trained.history


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("task", WORLDS)
def test_training_and_predictions_are_the_same_to_the_bit(world, tmp_path, task):
    used, state, rows, history = run(world, tmp_path / "with.pt", task, tmp_path / "features")
    none, expected_state, expected_rows, expected_history = run(world, tmp_path / "without.pt", task)
    assert (used, none) == (["text", "image"], [])
    assert history == expected_history
    assert state.keys() == expected_state.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected_state[name]), name
    assert rows == expected_rows
