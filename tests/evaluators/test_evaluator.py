"""The contract of evaluators, and what it carries: further ones are files of their own, found by the task's word."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from test_all_pairs import COLLATE

from vltune import evaluators
from vltune.errors import UserError
from vltune.evaluators.evaluate import check_splits, find, predictions
from vltune.evaluators.evaluator import Evaluator
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.engine import Settings
from vltune.tasks.vqa import VQA

NAMES = {path.stem for path in Path(evaluators.__file__).parent.glob("*.py")} - {"__init__", "evaluator", "evaluate"}


def session(folder, split=None, stop=None, **more):
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), LoRA(rank=2))
    fabric = Fabric(accelerator="cpu", devices=1)
    return tiny.session(fabric, model, folder, stop or StopRequest(), split=lambda name: split, collate=COLLATE, **more)


@pytest.fixture
def evaluator(monkeypatch):
    """Puts a further one into its room."""

    def put(kind, name):
        module = ModuleType(f"vltune.evaluators.{name}")
        kind.__module__, module.Evaluator = module.__name__, Evaluator
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return name

    return put


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_file_has_one_and_it_is_found_by_that_name(name):
    assert issubclass(find(name), Evaluator)


def test_there_are_those_of_the_tasks():
    assert {"per_example", "all_pairs"} <= NAMES


def test_a_split_that_there_is_not_has_no_predictions(tmp_path):
    assert predictions(session(tmp_path), "val") == []


class ZeroShot(Evaluator):
    """The class name whose text is nearest to an image: texts and images are encoded apart."""

    def predict(self, split, dataset):
        session = self.session
        backbone, names = session.model.backbone, session.data.facts["classes"]
        texts = session.data.collate([{"id": i, "text_ids": ids} for i, ids in enumerate(names.values())])
        texts = backbone.encode_text(texts).tokens.mean(1)
        rows = []
        for example in dataset:
            image = backbone.encode_image(session.data.collate([example])).tokens.mean(1)
            best = [*names][int((texts @ image.T).argmax())]
            rows.append({"id": example["id"], "prediction": best, "score": 1.0})
            session.stop.check(session.fabric)
        return rows


IMAGES = [{"id": i, "image": torch.full((3, 64, 64), 40 * i, dtype=torch.uint8)} for i in range(3)]


def test_it_carries_zero_shot_over_class_names(tmp_path, evaluator):
    of = session(tmp_path, IMAGES)
    of.model.task.evaluator = evaluator(ZeroShot, "zero_shot")
    of.data.facts["classes"] = {"cat": [5, 6], "dog": [7, 8, 9]}
    rows = predictions(of, "test")
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert {row["prediction"] for row in rows} <= {"cat", "dog"}


class Generate(Evaluator):
    """Writes a picture for each prompt, and judges it."""

    def predict(self, split, dataset):
        assert not torch.is_grad_enabled()
        rows, folder = [], self.beside(split)
        for example in dataset:
            file = folder / f"{example['id']}.png"
            file.write_bytes(bytes(example["id"]))
            rows.append({"id": example["id"], "prediction": file.name, "score": file.stat().st_size / 10})
        return rows


def test_it_carries_files_beside_the_record(tmp_path, evaluator):
    of = session(tmp_path, [{"id": 3}, {"id": 5}])
    of.model.task.evaluator = evaluator(Generate, "generate")
    assert [row["score"] for row in predictions(of, "test")] == [0.3, 0.5]
    assert sorted(path.name for path in of.file.with_suffix("").rglob("*.png")) == ["3.png", "5.png"]


class Crowded(Evaluator):
    whole_splits = True

    def predict(self, split, dataset):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_out_of_memory_is_told_in_one_line(tmp_path, evaluator):
    of = session(tmp_path, IMAGES, label="apt seed 0")
    of.model.task.evaluator = evaluator(Crowded, "crowded")
    with pytest.raises(UserError, match=r"apt seed 0, val: out of memory with engine.eval_batch_size=2: lower it and"):
        predictions(of, "val")


def test_answers_of_what_is_no_number_are_told(tmp_path):
    of = session(tmp_path, [example | {"text_ids": [1, 5, 6]} for example in IMAGES], label="lora seed 0")
    torch.nn.init.constant_(of.model.task.head[-1].bias, torch.nan)
    with pytest.raises(
        UserError, match=r"^lora seed 0, val: a score is not a number: the training diverged, lower engine"
    ):
        predictions(of, "val")


def test_a_part_of_a_split_is_refused_where_the_whole_one_counts(tmp_path, evaluator):
    of = session(tmp_path, IMAGES, settings=Settings(lr=1e-2, eval_examples=5, accelerator="cpu"))
    check_splits(of, "vqa")
    of.model.task.evaluator = evaluator(Crowded, "crowded")
    with pytest.raises(UserError, match=r"engine\.eval_examples=5: caption_ranking ranks whole splits; set it to null"):
        check_splits(of, "caption_ranking")


def test_it_is_stopped_between_two_batches(tmp_path, evaluator):
    stop = StopRequest()
    stop.signum = 15
    of = session(tmp_path, IMAGES, stop)
    of.model.task.evaluator = evaluator(ZeroShot, "zero_shot")
    of.data.facts["classes"] = {"cat": [5, 6]}
    with pytest.raises(Interrupted):
        predictions(of, "test")
