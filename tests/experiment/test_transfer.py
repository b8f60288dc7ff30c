"""mode=eval with another data set."""

from types import SimpleNamespace

import pytest

from vltune.errors import UserError
from vltune.experiment import transfer

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


def test_where_what_it_was_tuned_on_is_not_here_that_is_told(monkeypatch):
    def absent(config):
        raise UserError("data/vqav2: no such folder")

    monkeypatch.setattr(transfer, "open_data", absent)
    with pytest.raises(UserError, match=r"the order of its answers stands in the data .*no such folder"):
        transfer.check_numbering(SimpleNamespace(task=VQA), SimpleNamespace(facts={"answers": []}), "record.json")
