"""mode=eval with another data set."""

from types import SimpleNamespace

import pytest
from composed import settled

from vltune.errors import UserError
from vltune.experiment import transfer
from vltune.records.record import read_json
from vltune.settings.config import RunConfig

VQA = {"_target_": "vltune.tasks.vqa.VQA"}
CLASSES = {"_target_": "vltune.tasks.image_classification.ImageClassification"}


def test_of_several_processes_the_first_alone_writes(monkeypatch, tmp_path):
    """The others know no figures."""
    prints = {"weights": {}, "tokenizer": {}, "data": "generated"}
    monkeypatch.setattr(transfer, "prepare", lambda config: (None, prints))
    config = SimpleNamespace(dataset={"name": "emoji"}, plain={"dataset": {"name": "emoji"}})
    record = {"id": "lora-0", "identity": {"dataset": "shapes"}, "fingerprints": prints}
    file = tmp_path / "lora-0.json"
    transfer.scored_on_other_data(config, record, file, lambda config, data: {})
    assert not transfer.beside(file, "emoji").exists()
    transfer.scored_on_other_data(config, record, file, lambda config, data: {"test": {"accuracy": 50.0}})
    assert '"accuracy": 50.0' in transfer.beside(file, "emoji").read_text()


def test_other_data_of_a_name_gets_a_file_of_its_own_and_another_split_of_the_same_joins(monkeypatch, tmp_path):
    config = SimpleNamespace(dataset={"name": "emoji"}, plain={"dataset": {"name": "emoji"}})
    record, file = {"id": "lora-0", "identity": {"dataset": "shapes"}, "fingerprints": None}, tmp_path / "lora-0.json"

    def scored(data, **figures):
        monkeypatch.setattr(transfer, "prepare", lambda of: (None, {"weights": {}, "tokenizer": {}, "data": data}))
        return transfer.scored_on_other_data(config, record, file, lambda of, data: figures)

    first, other = scored("one", val={"accuracy": 40.0}), scored("another", val={"accuracy": 10.0})
    assert first == transfer.beside(file, "emoji") != other
    assert (scored("one", test={"accuracy": 50.0}), scored("another", test={"accuracy": 20.0})) == (first, other)
    figures = [[found["accuracy"] for found in read_json(each)["metrics"].values()] for each in (first, other)]
    assert figures == [[40.0, 50.0], [10.0, 20.0]]


@pytest.mark.parametrize(("own", "other", "folds"), [("coco", "f30k", 1), ("f30k", "coco", 5)])
def test_folds_are_those_of_the_other_data_and_all_of_its_examples_are_scored(own, other, folds):
    retrieval = ["backbone=vilt_mini", "task=retrieval", "method=lora"]
    tuned = RunConfig.of(settled(*retrieval, f"dataset={own}", "engine.eval_examples=100"))
    found = transfer.on_other_data(tuned, settled(*retrieval, f"dataset={other}"), "lora-0.json")
    assert (found.task["folds"], found.engine.eval_examples) == (folds, None)


@pytest.mark.parametrize(
    ("typed", "images"),
    [([], "shuffled"), (["dataset.images=shuffled"], "shuffled"), (["dataset.images='true'"], "true")],
)
def test_a_control_of_shuffled_images_stays_one(typed, images):
    tuned = RunConfig.of(settled("task=vqa", "dataset.images=shuffled"))
    found = transfer.on_other_data(tuned, settled("task=vqa", "dataset=vqav2", *typed), "lora-0.json", typed)
    assert found.dataset["images"] == images


@pytest.mark.parametrize("dataset", ["coco", "f30k"])
def test_a_data_set_that_its_task_reads_is_refused_with_the_task_that_is_to_be_typed(dataset):
    tuned = RunConfig.of(settled("task=retrieval", "dataset=coco"))
    with pytest.raises(
        UserError, match=rf"dataset={dataset}: is not read by karpathy, .*; add task=retrieval, or name"
    ):
        transfer.on_other_data(tuned, settled(f"dataset={dataset}"), "lora-0.json")


@pytest.mark.parametrize(
    ("classifier", "protocol", "kept"),
    [
        ("text", "few_shot", "full"),
        ("text", "base_to_new", "full"),
        ("cache", "few_shot", "few_shot"),
        ("linear", "base_to_new", "base_to_new"),
    ],
)
def test_classes_by_text_are_scored_whole_and_a_head_as_it_was_made(classifier, protocol, kept):
    job = ["backbone=clip_mini", "task=classification"]
    task = [f"task.classifier={classifier}", f"task.protocol={protocol}"]
    found = transfer.on_other_data(RunConfig.of(settled(*job, *task)), settled(*job), "lora-0.json")
    assert found.task["protocol"] == kept


@pytest.mark.parametrize(
    ("task", "what", "own", "theirs", "refused"),
    [
        (VQA, "answers", ["red", "1"], ["red", "1"], False),
        (VQA, "answers", ["red", "1"], ["1", "red"], True),
        (CLASSES | {"classifier": "linear"}, "classes", ["cat", "dog"], ["hat", "cat"], True),
        (CLASSES | {"classifier": "text"}, "classes", ["cat", "dog"], ["hat", "cat", "dog"], False),
        ({"_target_": "vltune.tasks.nlvr2.NLVR2"}, "answers", [], ["1"], False),
    ],
)
def test_a_head_is_not_scored_by_another_numbering(task, what, own, theirs, refused, monkeypatch):
    monkeypatch.setattr(transfer, "open_data", lambda config: SimpleNamespace(facts={what: own}))
    tuned, data = SimpleNamespace(task=task), SimpleNamespace(facts={what: theirs})
    if refused:
        with pytest.raises(UserError, match=rf"record\.json: its head was tuned for other {what}"):
            transfer.check_numbering(tuned, data, "record.json")
    else:
        transfer.check_numbering(tuned, data, "record.json")


@pytest.mark.parametrize("before", ["was", "is", None])
def test_a_head_is_not_scored_where_other_data_took_the_place_of_what_it_was_tuned_on(before, monkeypatch):
    """That numbers as the other data does, and not as the head."""
    own = SimpleNamespace(facts={"classes": ["cat", "dog"]}, fingerprint="is")
    monkeypatch.setattr(transfer, "open_data", lambda config: own)
    task = CLASSES | {"classifier": "linear"}
    tuned = SimpleNamespace(task=task, dataset={"data_dir": "data", "subfolder": "pets"})
    if before == "was":
        told = r"^record\.json: the order of its classes stands in .* on, and data/pets now holds another \(its fingerprint"
        with pytest.raises(UserError, match=told):
            transfer.check_numbering(tuned, own, "record.json", before)
    else:
        transfer.check_numbering(tuned, own, "record.json", before)


def test_where_what_it_was_tuned_on_is_not_here_that_is_told(monkeypatch):
    def absent(config):
        raise UserError("data/vqav2: no such folder")

    monkeypatch.setattr(transfer, "open_data", absent)
    with pytest.raises(UserError, match=r"the order of its answers stands in the data .*no such folder"):
        transfer.check_numbering(SimpleNamespace(task=VQA), SimpleNamespace(facts={"answers": []}), "record.json")
