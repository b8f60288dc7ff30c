"""A run's whole model in plain transformers: the same outputs."""

import json

import pytest
import tiny
import torch
from composed import composed
from fabricated import fabricate
from safetensors.torch import save_file
from sharing.test_peft_folder import CLASSES, LINEARS, LORA, PEFT, base, lines, oracle, outputs, true, types  # noqa: F401
from test_combinations import disturb

from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import fingerprints_of, weight_files
from vltune.errors import UserError
from vltune.sharing import adapter
from vltune.sharing.folder import EXTRA, export_merged, export_peft
from vltune.weights.backbones import load_backbone

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def built(config):
    groups = (config[group] for group in ("weights", "backbone", "task", "method"))
    return build_pretrained(*groups, {"answers": tiny.ANSWERS}).eval()


def tuned(method, tmp_path, task="vqa", weights="base", **more):
    """A model on the base's weights, moved off its start, and an adapter file of it.  more: of the backbone."""
    spec = {"width": tiny.WIDTH, "layers": 2, "heads": 4, "hidden": 64, "patch_size": 16, "image_size": 64}
    spec |= {"vocabulary_size": tiny.VOCABULARY, "max_text_len": tiny.TEXT, "token_types": types(task), "dropout": 0.0}
    spec |= {"name": "vilt", "_target_": "vltune.backbones.vilt.Vilt", "max_image_len": -1, "activation": "gelu"} | more
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    words = {"_target_": "vltune.data.tokenizer.Tokenizer", "vocabulary": str(vocabulary)}
    config = {
        "backbone": spec | {"tokenizer": words},
        "task": {"name": task, "_target_": CLASSES[task]} | ({"start": "random"} if task == "retrieval" else {}),
        "method": method,
        "weights": str(tmp_path / weights),
    }
    ours = built(config)
    disturb(ours)
    prints = {"weights": fingerprints_of(weight_files(config["weights"], config["backbone"]))}
    adapter.write(fabricate(config=config, fingerprints=prints), ours.tuned_state(), tmp_path / "a.safetensors")
    return ours


METHODS = {
    "lora": LORA,
    "lora at every linear layer": LORA | {"roles": LINEARS},
    "dora": PEFT | {"type": "dora"},
    "oft": PEFT | {"type": "oft", "options": {"oft_block_size": 8}},
    "pissa": PEFT | {"type": "pissa", "options": {"r": 2}},
    "classifier only": {"name": "classifier_only", "_target_": "vltune.methods.classifier_only.ClassifierOnly"},
    "full": {"name": "full", "_target_": "vltune.methods.full.Full"},
}


CASES = [("vqa", name) for name in METHODS] + [(task, "lora") for task in CLASSES if task != "vqa"]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_transformers_gives_the_same_outputs(task, name, base, tmp_path, monkeypatch):  # noqa: F811
    ours, batch = tuned(METHODS[name], tmp_path, task), true()
    with torch.no_grad():
        expected = ours(batch)
    export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names = {"FOLDER": tmp_path / "out"}
    exec(lines(tmp_path / "out", 2), names)
    assert (outputs(names["model"], batch) - expected).abs().max() > 1e-3, "the class token made no difference"
    exec(lines(tmp_path / "out", 1), names)
    torch.testing.assert_close(outputs(names["model"], batch), expected, atol=1e-5, rtol=0)
    if task != "retrieval":
        assert names["model"].config.num_labels == expected.shape[1]


@pytest.mark.parametrize("task", CLASSES)
def test_where_the_head_alone_is_trained_beside_it_the_folder_is_all(task, base, tmp_path):  # noqa: F811
    ours, batch = tuned(LORA | {"always_trained": "head_only"}, tmp_path, task), true()
    export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    names = {"FOLDER": tmp_path / "out"}
    exec(lines(tmp_path / "out", 1), names)
    with torch.no_grad():
        torch.testing.assert_close(outputs(names["model"], batch), ours(batch), atol=1e-5, rtol=0)


def in_the_file(tmp_path):
    """The base's weights in a file of ours, whose class token is no [CLS]; what it is called."""
    backbone = tiny.vilt(token_types=types("vqa"))
    load_backbone(backbone, tmp_path / "base" / "model.safetensors", 2)
    torch.nn.init.normal_(backbone.class_token)  # after tiny.vilt's seed
    save_file(backbone.state_dict(), tmp_path / "own.safetensors")
    return "own.safetensors"


def beside_it(tmp_path):
    torch.manual_seed(0)
    save_file({"class_token": torch.randn(1, 1, tiny.WIDTH)}, tmp_path / "base" / EXTRA)
    return "base"


@pytest.mark.parametrize("export", [export_merged, export_peft])
@pytest.mark.parametrize("place", [in_the_file, beside_it])
def test_a_class_token_of_the_weights_goes_along_where_it_is_not_trained(
    export,
    place,
    base,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    head_only = LORA | {"always_trained": "head_only"}
    ours, batch = tuned(head_only, tmp_path, weights=place(tmp_path)), true()
    export(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names = {"FOLDER": tmp_path / "out", "BASE": tmp_path / "base"}
    exec(lines(tmp_path / "out", 2), names)
    with torch.no_grad():
        expected = ours(batch)
    assert (outputs(names["model"], batch) - expected).abs().max() > 1e-3, "the class token made no difference"
    exec(lines(tmp_path / "out", 1), names)
    # Of 40 tokens the worst was 1e-5 apart, and 2e-6 where transformers was given our blocks' epsilon.
    torch.testing.assert_close(outputs(names["model"], batch), expected, atol=2e-5, rtol=0)


def test_an_adapter_of_weights_without_a_class_token_is_all(base, tmp_path):  # noqa: F811
    tuned(LORA | {"always_trained": "head_only"}, tmp_path)
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out" / EXTRA).exists()


@pytest.mark.parametrize("export", [export_merged, export_peft])
def test_patches_that_transformers_would_draw_at_random_are_refused(export, base, tmp_path):  # noqa: F811
    tuned(LORA, tmp_path, max_image_len=5)
    with pytest.raises(UserError, match=r"backbone.max_image_len=5: transformers draws that many patches at random"):
        export(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_interpolated_positions_are_in_a_whole_model_and_in_no_adapter(base, tmp_path, monkeypatch):  # noqa: F811
    with torch.no_grad():
        base.vilt.embeddings.position_embeddings.normal_(std=0.5)
    base.save_pretrained(tmp_path / "base")
    ours, batch = tuned(LORA, tmp_path, image_size=96), true()
    export_merged(tmp_path / "a.safetensors", tmp_path / "whole")
    monkeypatch.chdir(tmp_path / "whole")
    names = {"FOLDER": tmp_path / "whole", "BASE": tmp_path / "base"}
    exec(lines(tmp_path / "whole", 2) + lines(tmp_path / "whole", 1), names)
    with torch.no_grad():
        torch.testing.assert_close(outputs(names["model"], batch), ours(batch), atol=1e-5, rtol=0)
    export_peft(tmp_path / "a.safetensors", tmp_path / "adapter")
    with pytest.raises(AssertionError, match="the run had positions of 96 pixels, which --format merged holds"):
        exec(lines(tmp_path / "adapter", 2), names)


def test_attention_drops_nothing_in_a_training_that_goes_on_either(base, tmp_path):  # noqa: F811
    tuned(LORA, tmp_path, dropout=0.1, max_image_len=0)
    export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.1, 0.0)
    assert config["max_image_length"] == -1


def test_a_backbone_reads_the_folder_with_its_class_token(base, tmp_path):  # noqa: F811
    ours, batch = tuned(LORA, tmp_path), true()
    export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    fresh = tiny.vilt(token_types=types("vqa"))
    load_backbone(fresh, tmp_path / "out" / "model.safetensors", 2)
    torch.testing.assert_close(fresh.class_token, ours.backbone.class_token)
    with torch.no_grad():
        torch.testing.assert_close(fresh(batch).pooled, ours.backbone(batch).pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"class_token": torch.ones(1, 1, 16)}, r"class token of \(1, 1, 32\), and this holds one of \(1, 1, 16\)"),
        ({"other": torch.ones(1)}, r"class token of \(1, 1, 32\), and this holds none"),
        ({"class_token": torch.full((1, 1, 32), torch.nan)}, "32 of 32 values of class_token are NaN or infinite"),
    ],
)
def test_another_class_token_beside_it_is_told(held, told, base, tmp_path):  # noqa: F811
    save_file(held, tmp_path / "base" / EXTRA)
    with pytest.raises(UserError, match=rf"^\S+/{EXTRA}: .*{told}"):
        load_backbone(tiny.vilt(token_types=2), tmp_path / "base" / "model.safetensors", 2)


def test_what_does_not_fold_is_refused(base, tmp_path):  # noqa: F811
    tuned({"name": "apt", "_target_": "vltune.methods.apt.APT", "prompts": 3, "rank": 2}, tmp_path)
    with pytest.raises(UserError, match="what this method does at attention_output does not fold into a weight"):
        export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_weights_are_refused(base, tmp_path):  # noqa: F811
    tuned(LORA, tmp_path)
    with torch.no_grad():
        base.vilt.pooler.dense.bias += 1
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="was made with other weights than"):
        export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("always", ["paper", "head_only"])
def test_pretrained_weights_give_the_same_outputs_but_for_the_norms_epsilon(always, tmp_path, monkeypatch):
    chosen = ["method=lora", "backbone=vilt_mini", f"method.always_trained={always}"]
    config = composed(*chosen)
    ours = built(config)
    disturb(ours)
    prints = {"weights": fingerprints_of(weight_files(config["weights"], config["backbone"]))}
    adapter.write(fabricate(config=config, fingerprints=prints), ours.tuned_state(), tmp_path / "a.safetensors")
    export_merged(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names, batch = {"FOLDER": tmp_path / "out"}, true()
    exec(lines(tmp_path / "out", 2) + lines(tmp_path / "out", 1), names)
    with torch.no_grad():
        torch.testing.assert_close(outputs(names["model"], batch), ours(batch), atol=5e-5, rtol=0)


def test_tensors_of_another_model_are_told(base, tmp_path):  # noqa: F811
    tuned(LORA, tmp_path)
    record, state = adapter.tuned(tmp_path / "a.safetensors")
    for change in ({"backbone.class_token": torch.ones(1, 1, 16)}, {"backbone.other": torch.ones(1)}):
        adapter.write(record, state | change, tmp_path / "b.safetensors")
        with pytest.raises(
            UserError, match=r"b.safetensors: does not fit the model of its record: .*(class_token|other)"
        ):
            export_merged(tmp_path / "b.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
