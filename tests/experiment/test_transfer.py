"""mode=eval with another data set."""

from types import SimpleNamespace

from vltune.experiment import transfer


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
