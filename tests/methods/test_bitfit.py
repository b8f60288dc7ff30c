"""BitFit trains the biases that the released code trains, and with the same gradients."""

import copy

import pytest
import tiny
import torch
from backbones.test_swin import meter as meter_with_swin
from torch import nn

from vltune.errors import UserError
from vltune.methods.bitfit import BitFit
from vltune.model import Model
from vltune.sites import PartSite
from vltune.tasks.vqa import VQA


@pytest.mark.parametrize("make", [tiny.vilt, tiny.meter])
def test_its_step_is_that_of_a_backbone_with_all_but_its_biases_frozen(make):
    """As in benzakenelad/BitFit, GLUEvaluator.py: what has `bias` in its name is trained; here, what a block has."""
    backbone, task = make(), VQA(make().pooled_width, tiny.WIDTH, tiny.ANSWERS)
    model = Model(copy.deepcopy(backbone), copy.deepcopy(task), BitFit())
    plain = nn.ModuleList([backbone, task])
    layers = ["blocks."] if make is tiny.vilt else ["text_layers.", "image_layers."]
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(layers)) and name.endswith("bias"))
    biases = {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    ours = dict(model.backbone.named_parameters())
    assert {id(ours[name]) for name in biases} == {id(parameter) for parameter in model.method_parameters}
    batch = tiny.batch(tiny.SQUARE)
    for trained in (model, plain):
        logits = trained(batch) if trained is model else task(backbone, batch)
        task.loss(logits, batch).backward()
    for name, bias in biases.items():
        torch.testing.assert_close(ours[name].grad, bias.grad, rtol=0, atol=1e-5 * bias.grad.abs().max().item())


def test_a_keys_bias_is_trained_and_changes_nothing():
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), BitFit(roles=["key"])).eval()
    batch = tiny.batch()
    with torch.no_grad():
        before = model(batch)
        for parameter in model.method_parameters:
            parameter.normal_()
        torch.testing.assert_close(model(batch), before, atol=1e-5, rtol=0)


def test_a_layer_without_a_bias_of_its_own_is_refused_in_one_line():
    method = BitFit()
    method.sites_in = "all"
    with pytest.raises(
        UserError, match="BitFit cannot act at query, whose bias is a share of a larger layer's; it can"
    ):
        method.attach(meter_with_swin())
    assert BitFit().cannot(PartSite("query", nn.Linear(4, 4, bias=False))) == "which has no bias"
