"""A run's LoRA, DoRA or (IA)3 in plain transformers and PEFT: the same outputs."""

import json
from functools import partial

import pytest
import tiny
import torch
from fabricated import fabricate
from test_combinations import TASKS, disturb
from weights.test_transformers import oracle  # noqa: F401

from vltune.errors import UserError
from vltune.methods.apt import APT
from vltune.methods.dora import DoRA
from vltune.methods.ia3 import IA3
from vltune.methods.lora import LoRA
from vltune.methods.peft import Peft
from vltune.model import Model
from vltune.sharing import adapter
from vltune.sharing.folder import EXTRA, export_peft
from vltune.sharing.peft_types import options
from vltune.weights.backbones import load_backbone

peft = pytest.importorskip("peft", reason="PEFT is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
CLS = 2
LINEARS = ["query", "key", "value", "projection", "feed_forward_up", "feed_forward_down"]
LORA = {"_target_": "vltune.methods.lora.LoRA", "name": "lora", "rank": 3, "dropout": 0.1}
PEFT = {"_target_": "vltune.methods.peft.Peft", "name": "peft", "options": None}


@pytest.fixture
def base(oracle, tmp_path):  # noqa: F811
    """transformers' model with a head, its backbone the oracle's; saved to `base`."""
    oracle.config.num_labels = len(tiny.ANSWERS)
    model = transformers.ViltForQuestionAnswering(oracle.config).eval()
    model.vilt.load_state_dict(oracle.state_dict())
    model.save_pretrained(tmp_path / "base")
    return model


CLASSES = {
    "vqa": "vltune.tasks.vqa.VQA",
    "nlvr2": "vltune.tasks.nlvr2.NLVR2",
    "retrieval": "vltune.tasks.retrieval.Retrieval",
    "snli_ve": "vltune.tasks.snli_ve.SNLIVE",
}


def types(task):
    return 3 if task == "nlvr2" else 2


def tuned(method, settings, tmp_path, always="paper", task="vqa"):
    """A model on the base's weights, moved off its start, and an adapter file of it."""
    backbone = tiny.vilt(token_types=types(task))
    load_backbone(backbone, tmp_path / "base" / "model.safetensors", CLS)
    method.always_trained = always
    ours = Model(backbone, TASKS[task](tiny.WIDTH, tiny.WIDTH), method).eval()
    disturb(ours)
    config = {
        "backbone": {"name": "vilt", "_target_": "vltune.backbones.vilt.Vilt"},
        "task": {"name": task, "_target_": CLASSES[task]},
        "method": settings,
    }
    adapter.write(fabricate(config=config), ours.tuned_state(), tmp_path / "a.safetensors")
    return ours


def true():
    """A batch of true captions alone, whose texts begin as a tokenizer's."""
    batch = {key: value for key, value in tiny.batch(tiny.SQUARE).items() if not key.startswith("false")}
    batch["text_ids"][:, 0] = CLS
    return batch


def called(model, batch):
    """What a model of transformers' makes of one of our batches."""
    two = [batch["image_0"], batch["image_1"]]
    images = torch.stack(two, 1) if model.config.num_images == 2 else batch["image"]
    mask = torch.ones_like(images[..., 0, :, :], dtype=torch.long)
    with torch.no_grad():
        return model(
            input_ids=batch["text_ids"],
            attention_mask=batch["text_mask"].long(),
            pixel_values=images,
            pixel_mask=mask,
        )


def outputs(model, batch):
    return called(model, batch).logits


def lines(folder, number):
    """Of the README's blocks of code one."""
    return (folder / "README.md").read_text().split("```python\n")[number].partition("```")[0]


CASES = {
    "lora": (lambda: LoRA(rank=3), LORA),
    "lora at every linear layer": (lambda: LoRA(rank=3, roles=LINEARS), LORA),
    "dora": (lambda: DoRA(rank=3), {**LORA, "_target_": "vltune.methods.dora.DoRA", "name": "dora"}),
    "ia3": (IA3, {"_target_": "vltune.methods.ia3.IA3", "name": "ia3"}),
    "ia3 of outputs alone": (
        lambda: IA3(roles=["key", "feed_forward_up"]),
        {"_target_": "vltune.methods.ia3.IA3", "name": "ia3"},
    ),
    "peft's lora": (
        lambda: Peft("lora", {"r": 2, "lora_alpha": 7}),
        {**PEFT, "type": "lora", "options": {"r": 2, "lora_alpha": 7}},
    ),
    "peft's rslora": (lambda: Peft("rslora", {"r": 4}), {**PEFT, "type": "rslora", "options": {"r": 4}}),
    **{
        f"peft's lora from {start}": (
            partial(Peft, "lora", {"r": 4, "init_lora_weights": start}),
            {**PEFT, "type": "lora", "options": {"r": 4, "init_lora_weights": start}},
        )
        for start in ("gaussian", "orthogonal", "mica")
    },
    "peft's dora": (lambda: Peft("dora"), {**PEFT, "type": "dora"}),
}


@pytest.mark.parametrize("case", CASES)
def test_peft_gives_the_same_outputs(case, base, tmp_path, monkeypatch):
    make, settings = CASES[case]
    ours, batch = tuned(make(), settings, tmp_path), true()
    with torch.no_grad():
        expected, untuned = ours(batch), outputs(base, batch)
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names = {"BASE": tmp_path / "base", "FOLDER": tmp_path / "out"}
    exec(lines(tmp_path / "out", 2), names)
    assert (outputs(names["model"], batch) - expected).abs().max() > 1e-3, "the class token made no difference"
    exec(lines(tmp_path / "out", 1), names)
    assert (expected - untuned).abs().max() > 0.1
    torch.testing.assert_close(outputs(names["model"], batch), expected, atol=1e-5, rtol=0)
    merged = names["model"]
    if settings["name"] == "ia3":  # PEFT cannot unload one beside a head of several layers
        merged.merge_adapter()
    else:
        merged = merged.merge_and_unload()
    torch.testing.assert_close(outputs(merged, batch), expected, atol=1e-5, rtol=0)


def test_a_base_that_would_leave_patches_out_is_told_to_take_all(base, tmp_path, monkeypatch):
    ours, batch = tuned(LoRA(rank=3), LORA, tmp_path), true()
    base.config.max_image_length = 3
    base.save_pretrained(tmp_path / "base")
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names = {"BASE": tmp_path / "base", "FOLDER": tmp_path / "out"}
    exec(lines(tmp_path / "out", 2) + lines(tmp_path / "out", 1), names)
    base.config.max_image_length = -1  # the oracle's own, of other tests
    with torch.no_grad():
        torch.testing.assert_close(outputs(names["model"], batch), ours(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", CLASSES)
def test_peft_gives_the_same_outputs_on_every_task(task, base, tmp_path, monkeypatch):
    ours, batch = tuned(LoRA(rank=3), LORA, tmp_path, task=task), true()
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names = {"BASE": tmp_path / "base", "FOLDER": tmp_path / "out"}
    exec(lines(tmp_path / "out", 2) + lines(tmp_path / "out", 1), names)
    with torch.no_grad():
        torch.testing.assert_close(outputs(names["model"], batch), ours(batch), atol=1e-5, rtol=0)


def test_a_second_images_token_type_that_nothing_holds_is_refused(base, tmp_path):
    tuned(LoRA(rank=3), LORA, tmp_path, "head_only", "nlvr2")
    with pytest.raises(UserError, match="token types for one image, and a PEFT folder that holds the head alone none"):
        export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_the_head_alone_is_trained_beside_it_nothing_lies_beside_the_folder(base, tmp_path):
    ours, batch = tuned(LoRA(rank=3), LORA, tmp_path, "head_only"), true()
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out" / EXTRA).exists()
    assert "class token is not in it" not in (tmp_path / "out" / "README.md").read_text()
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(outputs(loaded, batch), ours(batch), atol=1e-5, rtol=0)


def test_the_first_line_of_the_card_says_what_is_missing(base, tmp_path):
    tuned(LoRA(rank=3), LORA, tmp_path)
    export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    head, first = (tmp_path / "out" / "README.md").read_text().split("---\n")[1:]
    assert json.loads(head.splitlines()[0].partition(": ")[2]) == ["vltune", "vilt_mini", "lora", "vqa"]
    assert first.startswith("The class token is not in it")
    assert len(lines(tmp_path / "out", 1).strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("make", "settings", "told"),
    [
        (lambda: APT(prompts=3, rank=2), {"_target_": "vltune.methods.apt.APT", "name": "apt"}, "method=apt cannot be"),
        (lambda: Peft("oft", {"oft_block_size": 8}), {**PEFT, "type": "oft"}, "method=peft method.type=oft cannot be"),
        (lambda: Peft("pissa"), {**PEFT, "type": "pissa"}, "method=peft method.type=pissa cannot be a PEFT folder"),
    ],
)
def test_what_peft_has_no_type_for_is_refused(make, settings, told, base, tmp_path):
    tuned(make(), settings, tmp_path)
    with pytest.raises(UserError, match=told):
        export_peft(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("start", ["pissa_niter_4", "OLoRA", "loftq"])
def test_a_start_that_changes_the_weights_is_refused(start):
    with pytest.raises(UserError, match="without a start that changes the weights"):
        options({**PEFT, "type": "lora", "options": {"init_lora_weights": start}}, "a.json")


def test_weights_that_nobody_has_are_refused(base, tmp_path):
    tuned(LoRA(rank=3), LORA, tmp_path)
    record, state = adapter.tuned(tmp_path / "a.safetensors")
    adapter.write(record | {"config": record["config"] | {"weights": None}}, state, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="weights=null: what lies beneath started at random"):
        export_peft(tmp_path / "b.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
