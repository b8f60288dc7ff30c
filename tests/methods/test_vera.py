"""VeRA is PEFT's, its frozen maps are one for all sites, and no file depends on how they were drawn."""

import copy

import pytest
import tiny
import torch
from methods.peft_layers import check, check_folded, equalise, wrapped
from test_combinations import disturb
from torch import nn

from vltune.engine.artifacts import read_tuned, write_tuned
from vltune.errors import UserError
from vltune.methods.vera import VeRA
from vltune.model import Model
from vltune.sites import PartSite
from vltune.tasks.vqa import VQA


def test_it_is_pefts_on_equal_tensors_at_layers_of_several_widths():
    from peft import VeraConfig

    torch.manual_seed(0)
    layers = {"query": nn.Linear(24, 32), "value": nn.Linear(40, 16)}
    theirs = wrapped(VeraConfig(r=12), layers)
    of_peft = theirs["query"]
    sites = [PartSite(role, layer) for role, layer in layers.items()]
    deltas = VeRA(rank=12).deltas(sites)
    frozen = deltas[0].frozen
    for ours, other in ((frozen.down, of_peft.vera_A["default"]), (frozen.up, of_peft.vera_B["default"])):
        assert ours.shape == other.shape
        assert ours.std().item() == pytest.approx(other.std().item(), rel=0.15)
        ours.copy_(other)
    for site, delta, other in zip(sites, deltas, theirs.values(), strict=True):
        site.put(delta)
        pairs = [(delta.d, other.vera_lambda_d["default"]), (delta.b, other.vera_lambda_b["default"])]
        assert all(torch.equal(*pair) for pair in pairs), "both start at 0.1 and at 0"
        equalise(pairs)
        x = torch.randn(2, 5, site.in_width)
        check(site, other, x, pairs)
        check_folded(site, x)


def model(seed):
    torch.manual_seed(seed)
    backbone = tiny.meter()
    method = VeRA(rank=8, roles=["query", "feed_forward_down"])
    method.sites_in = "all"
    torch.manual_seed(seed)
    return Model(backbone, VQA(backbone.pooled_width, backbone.width, tiny.ANSWERS), method).eval()


def test_its_frozen_maps_are_saved_once_and_read_back_whatever_the_seed(tmp_path):
    ours, other = model(1), model(2)
    disturb(ours)
    frozen = [name for name in ours.tuned_state() if ".frozen." in name]
    assert [name.rpartition(".")[2] for name in sorted(frozen)] == ["down", "up"]
    write_tuned(tmp_path / "tuned.safetensors", ours)
    batch = tiny.batch(tiny.SQUARE)
    with torch.no_grad():
        assert not torch.equal(other(batch), ours(batch))
        read_tuned(tmp_path / "tuned.safetensors", other)
        assert torch.equal(other(batch), ours(batch))


def test_its_frozen_maps_stay_one_when_a_model_is_copied_or_cast():
    made = copy.deepcopy(model(0)).to(torch.float64)
    frozen = {id(site.delta.frozen.down) for site in made.tuning.sites}
    assert len(frozen) == 1
    assert made.tuning.sites[0].delta.frozen.down.dtype == torch.float64


def test_a_wrong_rank_is_told_in_one_line():
    with pytest.raises(UserError, match=r"method\.rank=0: must be a whole number at least 1"):
        VeRA(rank=0).attach(tiny.vilt())


def test_the_vector_starts_where_it_is_told():
    (delta,) = VeRA(rank=4, d_init=0.3).deltas([PartSite("query", nn.Linear(6, 6))])
    assert delta.d.tolist() == pytest.approx([0.3] * 4)
