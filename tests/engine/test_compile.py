"""Every method on every backbone is traced whole: nothing in a forward pass asks for a number or breaks the graph."""

import pytest
import tiny
import torch
from test_combinations import BACKBONES, METHODS, TASKS, disturb

from vltune.model import Model


def outputs(model, batch):
    torch.manual_seed(0)
    return model(batch)


def same_when_traced(model, batch, atol=1e-5):
    """With its gradients, in training."""
    torch.compiler.reset()
    traced = torch.compile(model, fullgraph=True, backend="eager")
    plain, found = (outputs(each, batch) for each in (model, traced))
    torch.testing.assert_close(found, plain, atol=atol, rtol=1e-5)
    return traced


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_each_method(method, name):
    make, sizes = BACKBONES[name]
    backbone = make()
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), METHODS[method][0]())
    disturb(model)
    same_when_traced(model.eval(), backbone.arrange(tiny.batch(sizes)))
