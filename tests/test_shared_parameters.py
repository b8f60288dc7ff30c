"""A parameter that several sites hold is one: counted once, stepped once, saved once.  So is one of the backbone's own."""

import pytest
import tiny
import torch
from test_combinations import BACKBONES, disturb
from torch import nn

from vltune.costs import macs, matching
from vltune.engine.artifacts import read_tuned, write_tuned
from vltune.engine.optimiser import adamw, parameter_groups
from vltune.model import Model
from vltune.sites import Delta
from vltune.tasks.vqa import VQA
from vltune.tuning import Method


class Shared(Method):
    """y + basis u: every site has its own u, and they all hold one basis, as a parameter and inside a module."""

    def __init__(self, roles=("attention_output", "feed_forward_output")):
        self.roles = roles

    def deltas(self, sites):
        basis, module = nn.Parameter(torch.randn(tiny.WIDTH)), nn.Linear(1, 1)
        return [Scaled(basis, module) for _ in sites]


class Scaled(Delta):
    def __init__(self, basis, module):
        super().__init__()
        self.basis, self.module, self.own = basis, module, nn.Parameter(torch.zeros(1))

    def forward(self, y, x):
        return y + self.basis * self.module(self.own)


class OwnBiases(Method):
    """The bias of every projection, in its place; the norms' too, of which some are the backbone's own either way."""

    def __init__(self, roles=("query", "value", "norm")):
        self.roles = roles

    def delta(self, site):
        return Bias()


class Bias(Delta):
    def around(self, part, x):
        return part(x)

    def trained(self, site):
        return [site.part.bias]


def model(backbone, method):
    return Model(backbone, VQA(backbone.pooled_width, backbone.width, tiny.ANSWERS), method)


def expected(of_model):
    sites = of_model.tuning.sites
    return {"shared": len(sites) + tiny.WIDTH + 2, "own": sum(site.width for site in sites)}


METHODS = {"shared": Shared, "own": OwnBiases}


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture(params=BACKBONES)
def made(request, name):
    return model(BACKBONES[request.param][0](), METHODS[name]())


def test_it_is_counted_once(made, name):
    assert len({id(p) for p in made.method_parameters}) == len(made.method_parameters)
    counts = macs.parameters(made)
    assert counts["method_params"] == expected(made)[name]
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert counts["method_params"] + counts["task_params"] == trained
    assert counts["total_params"] == sum(p.numel() for p in made.parameters())


def test_matching_counts_it_once(name):
    backbone = tiny.vilt().to("meta")
    count = matching.parameters(model(backbone, Method()), {})
    assert count(METHODS[name]()) == expected(model(tiny.vilt(), METHODS[name]()))[name]


def test_it_is_stepped_once(made):
    before = {id(p): p.detach().clone() for p in made.parameters() if p.requires_grad}
    optimiser = adamw(parameter_groups(made, [(0.1, [])], weight_decay=0.0), (0.9, 0.98), 1e-8)
    held = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(before)
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimiser.step()
    for parameter in made.parameters():
        if parameter.requires_grad:  # AdamW's first step is the rate, whatever the gradient
            torch.testing.assert_close(parameter, before[id(parameter)] - 0.1, atol=1e-6, rtol=0)


def test_it_is_saved_once_and_read_back(made, name, tmp_path):
    disturb(made)
    write_tuned(tmp_path / "tuned.safetensors", made)
    assert len(made.tuned_state()) == len({tensor.data_ptr() for tensor in made.tuned_state().values()})
    other = model(tiny.vilt() if made.backbone.pooled_width == tiny.WIDTH else tiny.meter(), METHODS[name]())
    other.task.load_state_dict(made.task.state_dict())
    read_tuned(tmp_path / "tuned.safetensors", other)
    batch = tiny.batch(tiny.SQUARE)
    with torch.no_grad():
        assert torch.equal(other.eval()(batch), made.eval()(batch))


def test_what_is_trained_with_every_method_is_not_the_methods_too():
    class Types(Method):
        def __init__(self):
            self.roles = ("query",)

        def delta(self, site):
            return OfTypes()

    class OfTypes(Delta):
        def trained(self, site):
            return [backbone.class_token, site.part.bias]

    backbone = tiny.vilt()
    made = model(backbone, Types())
    assert {id(p) for p in made.method_parameters}.isdisjoint(map(id, backbone.shared_parameters()))
    assert macs.parameters(made)["method_params"] == 2 * tiny.WIDTH
