"""What a method is held to: a reference on equal tensors, and closed forms of what it costs."""

import tiny
import torch
from test_combinations import BACKBONES

from vltune.costs.macs import example, macs
from vltune.model import Model
from vltune.tasks.vqa import VQA

WIDTH, HIDDEN, LAYERS = tiny.WIDTH, 64, 2
TEXT, IMAGE = 12, 1 + 16  # tokens of each stream of METER's
TOKENS = TEXT + IMAGE  # of both, and of ViLT's one sequence


def assert_agree(ours, reference, *tensors):
    """Two functions of nothing give the same to 1e-5, and the same gradient in each of the tensors that both read."""
    outputs = [ours(), reference()]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(7))
    gradients = [torch.autograd.grad((output * weights).sum(), tensors) for output in outputs]
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def off_its_start(module, scale=0.3):
    """The same module in inference, with every parameter moved, where half a method may be zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def states(*shapes):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def tuned(backbone, method):
    torch.manual_seed(0)
    made = BACKBONES[backbone][0]()
    return Model(made, VQA(made.pooled_width, made.width, tiny.ANSWERS), method)


def additional_macs(backbone, method):
    return macs(tuned(backbone, method), example(TEXT, (64, 64), tiny.VOCABULARY))["additional_macs"]
