"""Blocks computed again give the same gradients to the bit, and keep less."""

import pytest
import tiny
import torch
from test_combinations import BACKBONES, METHODS, TASKS, disturb

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
