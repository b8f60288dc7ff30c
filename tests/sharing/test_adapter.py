"""An adapter file: what a run tuned, with its record inside."""

import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from fabricated import fabricate
from safetensors.torch import save_file
from test_combinations import METHODS, disturb
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_tensors
from vltune.errors import UserError
from vltune.model import Model
from vltune.records import record as records
from vltune.sharing import adapter
from vltune.sharing.card import card
from vltune.sharing.folder import export_vltune
from vltune.tasks.vqa import VQA

RECORD = fabricate(
    metrics={"val": {"vqa_score": 61.25}, "test": {"vqa_score": 60.5}},
    total_params=282718,
    fingerprints={"weights": {"backbone": "a661ff"}, "tokenizer": {"vocabulary": "6698ad"}, "data": "24ea14"},
    history=[{"step": 1, "train/loss": 5.0}],
)


def model(name):
    return Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), METHODS[name][0]()).eval()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_a_file(method, tmp_path):
    ours, other, batch = model(method), model(method), tiny.batch()
    disturb(ours)
    adapter.write(RECORD, ours.tuned_state(), tmp_path / "a.safetensors")
    record, state = adapter.tuned(tmp_path / "a.safetensors")
    assert record == {key: value for key, value in RECORD.items() if key != "history"}
    other.load_tuned(state)
    with torch.no_grad():
        assert torch.equal(ours(batch), other(batch))


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_who_may_read_tensors_is_as_the_umask_says(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_record_with_its_tensors_becomes_a_folder(tmp_path, monkeypatch):
    file = records.write(RECORD, tmp_path)
    ours = model("lora")
    save_file(ours.tuned_state(), file.with_suffix(".safetensors"))
    made = export_vltune(file, tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["README.md", made.name]
    assert adapter.record_of(made)["identity"] == RECORD["identity"]
    assert (tmp_path / "out" / "README.md").read_text() == card(
        adapter.record_of(made), "What a run of vltune tuned, in one file", f"python run.py mode=eval from={made.name}"
    )
    with pytest.raises(UserError, match="out: is there already; name a new folder"):
        export_vltune(file, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for here in (Path(), tmp_path / "out"):
        with pytest.raises(UserError, match="is the folder that you are in, and a new one would take its place"):
            export_vltune(file, here)
    monkeypatch.chdir(tmp_path)
    file.with_suffix(".safetensors").unlink()
    with pytest.raises(UserError, match="the tuned parameters of this record are not here"):
        export_vltune(file, tmp_path / "other")
    assert not [each for each in tmp_path.iterdir() if "other" in each.name]


def broken(**changes):
    def make(file):
        meta = {"form": "1", "vltune": "0.1.0", "record": json.dumps(RECORD)} | changes
        save_file({"a": torch.zeros(1)}, file, {key: value for key, value in meta.items() if value is not None})

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken(form=None), "holds tensors and no record of a run; vltune export RECORD makes a file that has one"),
        (broken(form="2"), "an adapter file of version 2, written by vltune 0.1.0; this vltune, "),
        (broken(record="{"), "the record in it: broken JSON"),
        (broken(record=json.dumps(RECORD | {"schema": 9})), "the record in it: field 'schema' is 9"),
        (
            broken(
                record=json.dumps(
                    RECORD | {"status": "failed", "error": "boom", "metrics": {"val": None, "test": None}}
                )
            ),
            "the run is failed; only a finished one has a tuned",
        ),
        (lambda file: file.write_bytes(b"\x20" + bytes(7) + b"{nothing"), "not a whole safetensors file"),
        (lambda file: file.write_text("hello"), "no JSON"),
        (lambda file: file.mkdir(), "is a folder, no JSON: give a record in it"),
        (lambda file: None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_adapter_file_is_told_in_one_line(make, message, tmp_path):
    make(tmp_path / "a.safetensors")
    with pytest.raises(UserError) as error:
        adapter.tuned(tmp_path / "a.safetensors")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.safetensors")])
    assert result.exit_code != 0


def test_inspect_tells_what_it_is(tmp_path):
    adapter.write(RECORD, model("lora").tuned_state(), tmp_path / "a.safetensors")
    told = dict(adapter.described(tmp_path / "a.safetensors"))
    assert (told["method"], told["backbone"], told["for backbone weights"]) == ("lora", "vilt_mini", "sha256 a661ff")
    assert (told["val vqa_score"], told["test vqa_score"]) == ("61.25", "60.50")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.safetensors")])
    assert result.exit_code == 0
    assert "a661ff" in result.output


def test_scores_of_a_part_of_each_split_are_told_as_a_trial(tmp_path):
    told = "A trial: they are of the first 64 examples of each split."
    trial = RECORD | {"config": {"method": {"rank": 4}, "engine": {"eval_examples": 64}}}
    assert told in card(trial, "", "") and "trial" not in card(RECORD, "", "")
    for record, said in ((trial, "the first 64 examples of each split: a trial"), (RECORD, None)):
        adapter.write(record, {"a": torch.zeros(1)}, tmp_path / "a.safetensors")
        assert dict(adapter.described(tmp_path / "a.safetensors")).get("scored") == said


def test_a_card_says_how_images_are_made_ready():
    """Another library's processor has a size, a mean and a deviation of its own."""
    transform = {"_target_": "vltune.data.transforms.MinMaxResize", "shorter": 64, "mean": [0.5, 0.5, 0.5]}
    with_images = RECORD | {"config": RECORD["config"] | {"backbone": {"transform": transform}}}
    assert f"| images are made ready by | `{json.dumps(transform)}` |" in card(with_images, "", "").splitlines()
    assert "made ready" not in card(RECORD, "", "")


OF_SUBJECT = {"name": "subject", "guidance": 2.0, "judges": {}, "classifier": "text"}
WITHOUT = {
    "generate": ({"task": OF_SUBJECT}, ["generate", "FILE", "--prompt", "a z"], "backbone"),
    "generate of nothing": ({}, ["generate", "FILE", "--prompt", "a z"], "task"),
    "classify": (
        {"task": OF_SUBJECT},
        ["classify", "--from", "FILE", "--image", "a.png", "--classes", "cat"],
        "backbone",
    ),
    "judge": ({"engine": {}}, ["judge", "FILE"], "task"),
    "peft": ({"task": OF_SUBJECT}, ["export", "FILE", "--out", "out", "--format", "peft"], "backbone"),
    "diffusers": (
        {"method": {"_target_": "vltune.methods.lora.LoRA", "name": "lora"}},
        ["export", "FILE", "--out", "out", "--format", "diffusers"],
        "backbone",
    ),
    "merged": ({"task": OF_SUBJECT}, ["export", "FILE", "--out", "out", "--format", "merged"], "backbone"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_record_without_what_a_model_is_built_of_is_told_in_one_line(name, tmp_path, monkeypatch):
    config, command, part = WITHOUT[name]
    monkeypatch.chdir(tmp_path)
    file = records.write(RECORD | {"config": config}, tmp_path)
    save_file({"a": torch.zeros(1)}, file.with_suffix(".safetensors"))
    result = CliRunner().invoke(app, [str(file) if each == "FILE" else each for each in command])
    assert result.exit_code == 2
    told = f"error: {file}: field 'config.{part}': is missing, so that nothing can be built of it; give another\n"
    assert result.stderr == told
