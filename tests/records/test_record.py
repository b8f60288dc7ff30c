import errno
import os
from pathlib import Path

import pytest
from fabricated import fabricate

from vltune.errors import UserError
from vltune.records import record as records


def test_path_follows_from_the_identity(tmp_path):
    identity = fabricate(seed=3)["identity"]
    folder = "vilt_mini/vqa-shapes"
    assert records.path(tmp_path, identity) == tmp_path / "records" / folder / "lora-0a1b2c3d-seed3.json"
    assert records.path(tmp_path, identity, "costs") == tmp_path / "costs" / folder / "lora-0a1b2c3d.json"


def test_what_is_written_is_read(tmp_path):
    extras = {"history": [{"step": 1, "loss": 0.5}], "sweep": "mini", "bad_examples": ["ü.jpg"], "extra": 1}
    record = fabricate(**extras)
    record["identity"]["data"] = "any extra"
    file = records.write(record, tmp_path)
    assert records.read(file) == record
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("cost", lambda record: record["cost"].pop("macs")),
        ("cost.macs", lambda record: record["cost"].update(macs="many")),
        ("cost.method_params", lambda record: record["cost"].update(method_params=-1)),
        ("cost.train_step_ms", lambda record: record["cost"].update(train_step_ms={"median": 1.0})),
        ("status", lambda record: record.update(status="done")),
        ("identity.hash", lambda record: record["identity"].update(hash="xyz")),
        ("identity.seed", lambda record: record["identity"].update(seed="0")),
        ("identity.seed", lambda record: record["identity"].update(seed=2**32)),
        ("identity.seed", lambda record: record["identity"].update(seed=1.0)),
        ("identity.method", lambda record: record["identity"].update(method="../lora")),
        ("identity.method", lambda record: record["identity"].update(method="m" * 300)),
        ("metrics.test.vqa_score", lambda record: record["metrics"]["test"].update(vqa_score=100.5)),
        ("metrics.test.vqa_score", lambda record: record["metrics"]["test"].update(vqa_score=-0.1)),
        ("metrics.test", lambda record: record["metrics"]["test"].update({"a/b": 1.0})),
        ("config.engine", lambda record: record["config"].update(engine=[])),
        ("config.dataset", lambda record: record["config"].update(dataset="x")),
        ("config.dataset.train_fraction", lambda record: record["config"].update(dataset={"train_fraction": 0})),
        ("provenance.hardware.cpu", lambda record: record["provenance"].update(hardware={"cpu": 3})),
        ("provenance.earlier_hardware", lambda record: record["provenance"].update(earlier_hardware="Xeon")),
        ("provenance.earlier_hardware.0", lambda record: record["provenance"].update(earlier_hardware=[[]])),
        ("provenance.earlier_hardware.0.gpus.0", lambda of: of["provenance"].update(earlier_hardware=[{"gpus": [3]}])),
        ("provenance.kernels", lambda record: record["provenance"].update(kernels=[])),
        ("provenance.started", lambda record: record["provenance"].update(started="2025-13-01T00:00:00+00:00")),
        ("provenance.started", lambda record: record["provenance"].update(started="0001-01-01T00:00:00+14:00")),
        ("history.1.step", lambda record: record.update(history=[{"step": 1}, {"step": 2.0}])),
        ("schema", lambda record: record.update(schema=True)),
        ("schema", lambda record: record.update(schema=1.0)),
        ("(top level)", lambda record: record.pop("schema")),
        ("metrics.test.vqa_score", lambda record: record["metrics"]["test"].update(vqa_score=None)),
        ("error", lambda record: record.update(status="failed")),
        ("error", lambda record: record.update(error="a finished run has none")),
        ("history.0", lambda record: record.update(history=[{"loss": 1.0}])),
        ("(top level)", lambda record: record.pop("provenance")),
    ],
)
def test_a_record_that_breaks_the_schema_is_not_written(tmp_path, field, change):
    record = fabricate()
    change(record)
    with pytest.raises(UserError) as error:
        records.write(record, tmp_path)
    assert f"field '{field}'" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_named(tmp_path, value):
    record = fabricate(history=[{"step": 0, "loss": 1.0}, {"step": 1, "loss": value}])
    with pytest.raises(UserError, match=rf"field 'history\.1\.loss' is {value}"):
        records.write(record, tmp_path)
    with pytest.raises(UserError, match="not plain JSON"):
        records.write(fabricate(config={"folder": Path("data")}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_read_names_file_and_field(tmp_path):
    file = records.write(fabricate(), tmp_path)
    whole = file.read_text()
    for text, message in [
        (whole[:-20], "broken JSON"),
        (whole.replace("60.0", "NaN"), "broken JSON .*NaN"),
        (whole.replace("60.0", "1e999"), "broken JSON .*a number is too large"),
        (whole.replace("60.0", "1" * 400), "broken JSON .*a number is too large"),
        (whole.replace('"rank": 4', '"rank": ' + "[" * 200 + "]" * 200), "broken JSON .*nested more than 100 levels"),
        (whole.replace('"rank": 4', '"rank": ' + "[" * 9000 + "]" * 9000), "broken JSON .*recursion"),
        (whole.replace('"rank": 4', '"rank": "\\ud800"'), "broken JSON .*surrogates"),
        (whole.replace('"rank": 4', '"rank": 4, "rank": 8'), "broken JSON .*'rank' stands twice"),
        ("", "an empty file, no JSON: download or copy it again"),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the data itself, no JSON: run",
        ),
        ("<!DOCTYPE html><html>", "a web page, not the file itself, no JSON: download it again"),
        ("\0" * 400, "a file of zeros, no JSON: "),
        ("rank: 4", "a text that begins with rank: 4, no JSON: restore the file or run again"),
        ("[]", r"field '\(top level\)'"),
        ("null", r"field '\(top level\)'"),
        (
            whole.replace('"schema": 1', '"schema": 2'),
            "field 'schema' is 2, this vltune reads 1: use",
        ),
        (whole.replace('"schema": 1', '"schema": "1"'), "field 'schema' is \"1\", this vltune reads 1"),
        (whole.replace('"finished"', '"done"'), "field 'status'"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=message) as error:
            records.read(file)
        assert str(error.value).startswith(str(file))
    with pytest.raises(UserError, match=r"absent\.json: cannot be read"):
        records.read(tmp_path / "absent.json")
    file.write_bytes(whole.encode("utf-16"))
    with pytest.raises(UserError, match="a text in UTF-16, no JSON: save it as UTF-8"):
        records.read(file)
    file.write_bytes(b"\xef\xbb\xbf" + whole.replace('"rank": 4', '"rank": "\\ud83d\\ude00"').encode())
    assert records.read(file)["config"]["method"]["rank"] == "\U0001f600"


def test_a_write_that_dies_leaves_the_old_record(tmp_path, monkeypatch):
    file = records.write(fabricate(sweep="old"), tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        records.write(fabricate(sweep="new"), tmp_path)
    assert records.read(file)["sweep"] == "old"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda *arguments: (order.append("fsync"), fsync(*arguments)))
    monkeypatch.setattr(Path, "replace", lambda *arguments: (order.append("replace"), replace(*arguments)))
    records.write(fabricate(), tmp_path)
    assert order == ["fsync", "replace"]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "records").write_text("a file in the folder's place")
    with pytest.raises(UserError) as error:
        records.write(fabricate(), tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/records/vilt_mini/vqa-shapes: ")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"vqa-shapes: .*No space left on device.*free space"):
        records.write(fabricate(), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_flatten():
    tree = {"a": {"b": 1, "c": []}, "d": [2, {"e": None}]}
    assert records.flatten(tree) == {"a.b": 1, "a.c": [], "d.0": 2, "d.1.e": None}


def test_the_type_of_a_record_has_the_fields_of_its_schema():
    assert records.Record.__annotations__.keys() == records.SCHEMA["properties"].keys()
    assert {key for key, kind in records.Record.__annotations__.items() if "Required" in str(kind)} == {
        *records.SCHEMA["required"]
    }
    assert records.Identity.__annotations__.keys() == records.SCHEMA["properties"]["identity"]["properties"].keys()
