"""Every method on every backbone is traced whole: nothing in a forward pass asks for a number or breaks the graph."""

import random
from functools import partial

import pytest
import tiny
import tiny_diffusion
import torch
from engine.test_training import run
from tasks.test_subject import METHODS as OF_SUBJECTS
from tasks.test_subject import model as painting
from test_combinations import BACKBONES, METHODS, OF_TOWERS, TASKS, InTwoTowers, disturb

from vltune.engine.compile import FOLDER, compiled, untraced
from vltune.errors import UserError
from vltune.methods.das import leave_out
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.nn.recompute import recompute

# What PEFT draws at random for a whole layer decides what is computed.
BROKEN = ("peft loha",)


def is_traced(model, batch, backend="eager"):
    """The same outputs in training, and a gradient for all that is trained."""
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.compiler.reset()
    traced, found = torch.compile(model, fullgraph=True, backend=backend), []
    for each in (model, traced):
        torch.manual_seed(0)
        found.append(each(batch))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    found[1].square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def made(method, name):
    backbone = BACKBONES[name][0](**({} if method == "das" else {"layers": 1}))
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), METHODS[method][0]())
    disturb(model)
    return model


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", [method for method in METHODS if method not in BROKEN])
def test_each_method_is(method, name):
    model = made(method, name)
    batch = model.backbone.arrange(tiny.batch(BACKBONES[name][1]))
    if model.backbone.towers() and method not in ("full", "lora"):  # whose towers the others pass by
        with torch.no_grad():
            batch["text_features"] = model.backbone.text_features(batch["text_ids"], batch["text_mask"])
            batch["image_features"] = model.backbone.image_features(batch["image"])
    # DAS alone branches by a number that it holds, which a graph's own compiler refuses as a symbol.
    is_traced(model, batch, "aot_eager" if method == "das" else "eager")


@pytest.mark.parametrize("method", OF_TOWERS)
def test_each_method_of_two_towers_is(method):
    model = Model(tiny.clip(), tiny.classification(), InTwoTowers().made(method))
    disturb(model)
    is_traced(model, model.backbone.arrange(tiny.batch(tiny.SQUARE)))


@pytest.mark.parametrize("method", OF_SUBJECTS)
def test_each_method_of_a_subject_is(method):
    model = painting(method)
    model.task.ids([model.task.caption, *model.task.class_captions])
    is_traced(model, tiny_diffusion.batch())


def test_what_cannot_be_traced_is_told(tmp_path):
    torch.compiler.reset()
    with pytest.raises(UserError, match=r"^engine\.compile=true: .*Data-dependent branching.*leave it out$"):
        run(tmp_path, model=made(*BROKEN, "vilt"), compile=True)


def test_the_blocks_that_a_checkpoint_leaves_out_are_those_that_are_compiled():
    torch.compiler.reset()
    model, other = made("das", "vilt").train(), made("das", "vilt").train()
    leave_out([block.at_block.delta for block in other.backbone.blocks], {0})
    batch, traced = model.backbone.arrange(tiny.batch()), torch.compile(model, fullgraph=True, backend="aot_eager")
    before = traced(batch)
    model.load_tuned(other.tuned_state())
    model.tuning.at(0, 1)
    torch.testing.assert_close(traced(batch), other(batch), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, other(batch), atol=1e-5)


def test_what_the_compiler_of_its_graphs_says_is_told():
    error = untraced(torch._dynamo.exc.BackendCompilerFailed(compiled, ValueError("no such number"), None))
    assert str(error) == "engine.compile=true: the model cannot be compiled whole (no such number); leave it out"


def test_batches_of_whatever_sizes_are_compiled(monkeypatch, tmp_path):
    """More graphs than torch allows by itself, of which a run would end in the middle."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    backbone = tiny.vilt(layers=1, max_image_len=12)
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), METHODS["prefix"][0]()).train()
    traced, draw = compiled(model, tmp_path), random.Random(0)
    for seed in range(20):
        rows = draw.choice((4, 4, 4, 4, 3, 2, 1))
        sizes = [(16 * draw.randint(2, 6), 16 * draw.randint(2, 6)) for _ in range(rows)]
        batch = {"ids": [*range(rows)]}
        batch["image"], batch["image_size"] = tiny.images(sizes, seed)
        batch["text_ids"], batch["text_mask"] = tiny.texts([draw.randint(3, 12) for _ in range(rows)], seed)
        assert traced(backbone.arrange(batch)).isfinite().all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 8


@pytest.mark.parametrize("name", BACKBONES)
def test_an_arranged_batch_is_the_same(name):
    model = made("lora", name).eval()
    batch = tiny.batch(BACKBONES[name][1])
    assert torch.equal(model(batch), model(model.backbone.arrange(batch)))


def test_where_nothing_compiles_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"engine\.compile=true: needs a C\+\+ compiler, such as g\+\+"):
        compiled(torch.nn.Linear(2, 2), tmp_path)


def test_what_is_compiled_is_kept_and_computes_the_same(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER, raising=False)
    backbone = tiny.vilt(layers=1)
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), LoRA(2, dropout=0.0)).eval()
    disturb(model)
    batch = backbone.arrange(tiny.batch())
    torch.compiler.reset()
    found = compiled(model, tmp_path)(batch)
    torch.testing.assert_close(found, model(batch), atol=1e-5, rtol=1e-5)
    assert [*(tmp_path / "compiled").rglob("*.so")]


@pytest.mark.parametrize("name", BACKBONES)
def test_blocks_computed_again_are(name):
    model = made("lora", name)
    recompute(model)
    is_traced(model, model.backbone.arrange(tiny.batch(BACKBONES[name][1])))


def test_the_texts_of_many_classes_are():
    model = Model(tiny.clip(text_chunk=2), tiny.classification(), InTwoTowers().made("lora"))
    is_traced(model, model.backbone.arrange(tiny.batch(tiny.SQUARE)))
