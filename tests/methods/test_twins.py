"""`method=peft` and the method of the same name here compute and learn the same on every backbone."""

import copy

import pytest
import tiny
import torch
from test_combinations import BACKBONES

from vltune.methods.bitfit import BitFit
from vltune.methods.dora import DoRA
from vltune.methods.ia3 import IA3
from vltune.methods.lokr import LoKr
from vltune.methods.lora import LoRA
from vltune.methods.peft import Peft
from vltune.methods.vera import VeRA
from vltune.model import Model
from vltune.tasks.vqa import VQA

LOW_RANK = {"down.weight": "lora_A.default.weight", "up.weight": "lora_B.default.weight"}
# method -> (ours, PEFT's, {a tensor of ours at a site: PEFT's})
TWINS = {
    "lora": (lambda: LoRA(rank=2, dropout=0.0), lambda: Peft("lora", {"r": 2, "lora_alpha": 2}), LOW_RANK),
    "dora": (
        lambda: DoRA(rank=2),
        lambda: Peft("dora", {"r": 2, "lora_alpha": 2}),
        LOW_RANK | {"magnitude": "lora_magnitude_vector.default.weight"},
    ),
    "vera": (
        lambda: VeRA(rank=16),
        lambda: Peft("vera", {"r": 16}),
        {
            "d": "vera_lambda_d.default",
            "b": "vera_lambda_b.default",
            "frozen.down": "vera_A.default",
            "frozen.up": "vera_B.default",
        },
    ),
    "ia3": (IA3, lambda: Peft("ia3", roles=IA3().roles), {"scale": "ia3_l.default"}),
    "lokr": (
        lambda: LoKr(factor=4, rank=2),
        lambda: Peft("lokr", {"r": 2, "alpha": 2, "decompose_factor": 4}),
        {
            "outer": "lokr_w1.default",
            "inner.0.weight": "lokr_w2_b.default",
            "inner.1.weight": "lokr_w2_a.default",
        },
    ),
    "bitfit": (lambda: BitFit(roles=["query", "value"]), lambda: Peft("beft"), {None: "beft_bias.default"}),
}


def deltas(model):
    return [delta for _, _, of_part in model.tuning.parts for delta in of_part]


def tensors(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def equalise(ours, theirs, names):
    """Has both hold the same numbers off their starts."""
    generator = torch.Generator().manual_seed(1)
    for site, one, other in zip(ours.tuning.sites, deltas(ours), deltas(theirs), strict=True):
        for name, of_peft in names.items():
            theirs_ = tensors(other.tuner)[of_peft]
            change = torch.empty(theirs_.shape).normal_(std=0.3, generator=generator)
            theirs_.add_(change)
            if name is None:  # the backbone's own bias, of which PEFT trains a difference
                site.part.bias.add_(theirs_.view(-1))
            else:
                own = tensors(one)[name]
                own.copy_(theirs_.view(own.shape))


def trained(model, batch, steps=3):
    """Logits before and after some steps; a head that both have learns with them."""
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    seen = [model(batch).detach()]
    for _ in range(steps):
        model.task.loss(model(batch), batch).backward()
        optimiser.step()
        optimiser.zero_grad()
    return [*seen, model(batch).detach()]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", TWINS)
def test_both_compute_and_learn_the_same(name, backbone):
    make, pefts, names = TWINS[name]
    built, sizes = BACKBONES[backbone]
    torch.manual_seed(0)
    untuned = built()
    task = VQA(untuned.pooled_width, untuned.width, tiny.ANSWERS)
    # Without dropout, and with the state of evaluation, in which both compute unfolded.
    ours, theirs = (Model(copy.deepcopy(untuned), copy.deepcopy(task), each()).eval() for each in (make, pefts))
    equalise(ours, theirs, names)
    batch = tiny.batch(sizes)
    with torch.no_grad():
        without = task.eval()(untuned, batch)
    (before, after), (other, learnt) = trained(ours, batch), trained(theirs, batch)
    assert (before - without).abs().max() > 3e-4  # 30 times what they may differ by
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(before, other, atol=1e-5 * other.abs().max().item(), rtol=0)
    torch.testing.assert_close(after, learnt, atol=1e-4 * learnt.abs().max().item(), rtol=0)
