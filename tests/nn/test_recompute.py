"""Blocks computed again give the same gradients to the bit, and keep less."""

import pytest
import tiny
import tiny_diffusion
import torch
from test_combinations import BACKBONES, METHODS, TASKS, disturb

from vltune.methods.adapter import Adapter
from vltune.methods.unipelt import UniPELT
from vltune.model import Model
from vltune.nn.recompute import recompute


def gradients(model, batch):
    """Of all that is trained, and the bytes that were kept for them."""
    kept = []
    torch.manual_seed(0)
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        loss = model.task.loss(model(batch), batch)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, sum(kept)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "classifier_only"])
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_are_equal(name, method, dropout):
    """Without dropout of the backbone's own, a method's at the end of a block and at the start of the next share a mask."""
    make, sizes = BACKBONES[name]
    backbone = make(dropout=dropout)
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), METHODS[method][0]())
    disturb(model)
    batch = backbone.arrange(tiny.batch(sizes))
    model.train()
    before, kept = gradients(model, batch)
    recompute(model)
    after, less = gradients(model, batch)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert less < 0.75 * kept or method in ("das", "lst"), "which act on blocks"


def assert_the_same(module, computed):
    """computed(): a scalar, of several passes through the module."""

    def found():
        torch.manual_seed(0)
        module.zero_grad()
        computed().backward()
        return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    module.train()
    before = found()
    recompute(module)
    after = found()
    assert before.keys() == after.keys() and before
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("method", ["lora", "convpass", "mona"])
@pytest.mark.parametrize("task", ["nlvr2", "retrieval"])
def test_gradients_are_those_of_each_pass_where_a_step_has_two(task, method):
    """Two grids, and captions of other lengths before one grid."""
    backbone = tiny.vilt()
    model = Model(backbone, TASKS[task](backbone.pooled_width, backbone.width), METHODS[method][0]())
    disturb(model)
    batch = tiny.batch()
    batch["image_1"], batch["image_1_size"] = tiny.images(((48, 64), (48, 48), (32, 64)), seed=2)
    batch = backbone.arrange(batch)
    assert_the_same(model, lambda: model.task.loss(model(batch), batch))


def gated(where):
    adapter = Adapter(4, init_std=0.5)
    adapter.sites_in = where
    return UniPELT([adapter])


def test_a_text_tower_called_twice_reads_each_text_at_its_own_end():
    backbone = tiny_diffusion.stable_diffusion()
    backbone.requires_grad_(False)
    for parameter in gated("text").attach(backbone).trained:
        parameter.requires_grad_(True)
    first, second = tiny_diffusion.ids().split(1)

    def computed():
        one, other = (backbone.embed_prompt({"text_ids": ids}) for ids in (first, second))
        return 3 * one.square().sum() + other.square().sum()

    assert_the_same(backbone, computed)


def test_texts_in_chunks_are_read_at_their_own_ends():
    torch.manual_seed(0)
    model = Model(tiny.clip(text_chunk=1), tiny.classification(), gated("towers"))
    disturb(model)
    batch = tiny.batch(tiny.SQUARE) | {"label": torch.arange(3)}
    assert_the_same(model, lambda: model.task.loss(model(batch), batch))
