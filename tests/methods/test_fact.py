"""FacT is the released forward of its tensor-train form: JieShibo/PETL-ViT, FacT/fact_tt.py, restated."""

import pytest
import tiny
import torch
from methods.peft_layers import check, check_folded
from torch import nn

from vltune.errors import UserError
from vltune.methods.fact import FacT
from vltune.sites import PartSite

WIDTH, RANK, SCALE = 16, 3, 0.7
SQUARE = ("query", "key", "value", "projection")


def layers():
    square = {role: nn.Linear(WIDTH, WIDTH) for role in SQUARE}
    return square | {"feed_forward_up": nn.Linear(WIDTH, 4 * WIDTH), "feed_forward_down": nn.Linear(4 * WIDTH, WIDTH)}


def tuned():
    """Sites of a block with FacT, away from its start."""
    torch.manual_seed(0)
    sites = [PartSite(role, layer) for role, layer in layers().items()]
    for site, delta in zip(sites, FacT(rank=RANK, scale=SCALE).deltas(sites), strict=True):
        site.put(delta.eval())
        nn.init.normal_(delta.core.weight)
    nn.init.normal_(delta.factors.v.weight)
    return {site.role: site for site in sites}


def released(site):
    """What the released code computes at this layer: its FacTu, FacTv and FacTs are linear layers without a bias."""
    u, v, core = site.delta.factors.u, site.delta.factors.v, site.delta.core

    def square(x):
        return site.part(x) + v(core(u(x))) * SCALE

    def up(x):
        batch, tokens, width = x.shape
        change = v(core(u(x)).reshape(batch, tokens, 4, RANK)).reshape(batch, tokens, 4 * width)
        return site.part(x) + change * SCALE

    def down(x):
        batch, tokens, hidden = x.shape
        change = v(core(u(x.reshape(batch, tokens, 4, hidden // 4)).reshape(batch, tokens, 4 * RANK)))
        return site.part(x) + change * SCALE

    return {"feed_forward_up": up, "feed_forward_down": down}.get(site.role, square)


@pytest.mark.parametrize("role", [*SQUARE, "feed_forward_up", "feed_forward_down"])
def test_a_layer_is_the_released_one(role):
    site = tuned()[role]
    x = torch.randn(2, 5, site.in_width)
    trained = [(parameter, parameter) for parameter in site.delta.parameters()]
    assert len(trained) == 3
    check(site, released(site), x, trained)
    check_folded(site, x)


def test_every_site_has_the_same_two_factors_which_start_at_no_change():
    sites = [PartSite(role, layer) for role, layer in layers().items()]
    deltas = FacT(rank=RANK).deltas(sites)
    assert len({id(delta.factors.u.weight) for delta in deltas}) == 1
    assert not deltas[0].factors.v.weight.any()
    assert all(delta.core.weight.any() for delta in deltas)
    assert deltas[0].dropout.p == 0.1


def test_layers_of_another_width_have_factors_of_their_own():
    method = FacT(rank=2, roles=SQUARE)
    method.sites_in = "all"
    tuning = method.attach(tiny.meter())
    widths = {site.delta.factors.u.in_features for site in tuning.sites}
    assert widths == {24, 40, 32}
    assert len({id(site.delta.factors) for site in tuning.sites}) == 3
    assert sum(p.numel() for p in tuning.trained) == 2 * 2 * (24 + 40 + 32) + 2**2 * len(tuning.sites)


def test_what_does_not_fit_is_told_in_one_line():
    method = FacT(rank=2)
    method.sites_in = "image"
    message = (
        "FacT cannot act at feed_forward_up, which has 40 inputs and 48 outputs: neither is a multiple of the other"
    )
    with pytest.raises(UserError, match=message):
        method.attach(tiny.meter())
    with pytest.raises(UserError, match=r"method\.rank=33: must be a whole number between 1 and the width 32"):
        FacT(rank=33).attach(tiny.vilt())
