"""Oracles of our sites, such as PEFT's layers: the same layer and tensors on both sides, outputs and gradients compared."""

import copy

import torch
from torch import nn


def wrapped(config, layers):
    """PEFT's layers in the place of copies of ours.  layers: {name: layer}."""
    from peft import get_peft_model

    holder = nn.Module()
    for name, layer in layers.items():
        setattr(holder, name, copy.deepcopy(layer))
    config.target_modules = [*layers]
    tuned = get_peft_model(holder, config).base_model.model
    return {name: getattr(tuned, name) for name in layers}


def equalise(pairs):
    """Draws one tensor for each pair of parameters, ours and theirs, which may be of another shape."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for ours, theirs in pairs:
            value = torch.randn(ours.shape, generator=generator)
            ours.copy_(value)
            theirs.copy_(value.view(theirs.shape))


def check(ours, theirs, x, pairs):
    """ours and theirs: functions of x.  Outputs and gradients, x's among them, differ by at most 1e-5 of the largest."""
    outputs, gradients = [], []
    for act, parameters in ((ours, [pair[0] for pair in pairs]), (theirs, [pair[1] for pair in pairs])):
        own = x.clone().requires_grad_()
        y = act(own)
        probe = torch.linspace(-1, 1, y.numel()).view_as(y)
        outputs.append(y.detach())
        gradients.append(torch.autograd.grad((y * probe).sum(), [own, *parameters]))
    for one, other in [outputs, *zip(*gradients, strict=True)]:
        other = other.view_as(one)
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())


def check_folded(site, x):
    """A folded site gives what it gave before."""
    with torch.no_grad():
        plain = site(x)
        site.fold()
        torch.testing.assert_close(site(x), plain, rtol=0, atol=1e-5 * plain.abs().max().item())
        site.unfold()
