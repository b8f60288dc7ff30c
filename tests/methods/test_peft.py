"""`method=peft`: each tuner of the installed PEFT acts like any method, or is refused by name with the reason."""

import builtins
import copy
import subprocess
import sys

import pytest
import tiny
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from test_combinations import disturb
from tiny_diffusion import inputs, stable_diffusion
from torch import nn

from vltune.assemble.factory import build_method
from vltune.configuration import check_spec
from vltune.costs.macs import example, macs
from vltune.engine.precision import hold
from vltune.errors import UserError
from vltune.methods.bitfit import BitFit
from vltune.methods.lora import LoRA
from vltune.methods.peft import REFUSED, VARIANTS, Peft, held
from vltune.model import Model
from vltune.sites import sites
from vltune.tasks.vqa import VQA
from vltune.tuning import Stack

TYPES = sorted({kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING} | VARIANTS.keys())
OPTIONS = {
    "oft": {"oft_block_size": 8},
    "boft": {"boft_block_size": 8},
    "vera": {"r": 16},
    "pvera": {"r": 16},
    "fourierft": {"n_frequency": 20},
    "waveft": {"n_frequency": 20},
    "hra": {"r": 4},
    "vblora": {"r": 4, "num_vectors": 32, "vector_length": 16},
    "unilora": {"r": 4, "theta_d_length": 64},
    "c3a": {"block_size": 16},
    "road": {"group_size": 16},
    "gralora": {"r": 4},
    "psoft": {"r": 4},
    "miss": {"r": 4},
    "shira": {"r": 4},
}
MISSING = {"adamss"}  # needs scikit-learn


def model(method, backbone=None):
    return Model(backbone or tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method).eval()


@pytest.mark.parametrize("kind", [each for each in TYPES if each not in REFUSED.keys() | MISSING])
def test_a_type_trains_folds_and_is_read_back_under_another_seed(kind):
    batch, before = tiny.batch(), tiny.vilt().state_dict()
    ours = model(Peft(kind, OPTIONS.get(kind)))
    backbone = ours.backbone.state_dict()
    assert all(torch.equal(tensor, backbone[name]) for name, tensor in before.items()), "the backbone was changed"
    disturb(ours)
    ours.task.loss(ours.train()(batch), batch).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in ours.parameters() if p.requires_grad)
    ours.eval()
    backbone = tiny.vilt()
    torch.manual_seed(7)
    other = model(Peft(kind, OPTIONS.get(kind)), backbone)
    other.load_tuned(ours.tuned_state())
    with torch.no_grad():
        plain = ours(batch)
        with ours.tuning.folded():
            torch.testing.assert_close(ours(batch), plain, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours(batch), plain)
        assert torch.equal(other(batch), plain)
    with torch.device("meta"):
        shapes = model(Peft(kind, OPTIONS.get(kind)))
    assert {name: t.shape for name, t in shapes.tuned_state().items()} == {
        name: t.shape for name, t in ours.tuned_state().items()
    }


def test_every_type_of_peft_is_offered_or_refused():
    known = {kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert {kind for kind, _ in VARIANTS.values()} <= known
    assert not VARIANTS.keys() & REFUSED.keys()
    with pytest.raises(UserError, match=r"method.type=lroa: must be one of adamss, .*, dora, .*, lora, ") as error:
        model(Peft("lroa"))
    assert not {*str(error.value).partition("one of ")[2].split(", ")} & REFUSED.keys()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_cannot_be_here_is_refused_with_the_reason(kind):
    with pytest.raises(UserError) as error:
        model(Peft(kind))
    assert str(error.value) == f"method.type={kind}: {REFUSED[kind]}"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("oft", {"oft_block_size": 7}, "method.options.oft_block_size=7: does not fit these layers, PEFT would take 8"),
        ("lora", {"rank": 4}, "method.options.rank: lora has no such option here; it has r, lora_alpha, "),
        ("lora", {"target_modules": ["key"]}, "method.options.target_modules: lora has no such option here"),
        ("dora", {"use_dora": False}, "method.options.use_dora: dora has no such option here"),
        ("lora", {"r": "four"}, "method.options.r=four: Input should be a valid integer"),
        ("lora", {"use_rslora": "false"}, "method.options.use_rslora=false: Input should be a valid boolean"),
        ("lora", {"r": 0}, "method.type=lora method.options={'r': 0}: PEFT refuses: `r` should be a positive integer"),
        ("lora", {"init_lora_weights": "eva"}, "method.options.init_lora_weights=eva: starts from activations"),
        ("lora", {"init_lora_weights": "loftq"}, "method.options.init_lora_weights=loftq: starts from activations"),
        ("vblora", {"vector_length": 48}, "PEFT refuses: `in_features` 32 must be divisible by `vector_length` 48"),
        ("boft", {"boft_block_size": 7}, "method.type=boft method.options={'boft_block_size': 7}: PEFT refuses: "),
    ],
)
def test_an_option_that_does_not_fit_is_told_in_one_line(kind, options, message):
    backbone = tiny.vilt()
    with pytest.raises(UserError) as error:
        Peft(kind, options).attach(backbone)
    assert str(error.value).startswith(message) or message in str(error.value)
    assert "\n" not in str(error.value)
    assert not tiny.tuned_sites(backbone)


def test_what_is_missing_is_told_in_one_line(monkeypatch):
    def without(name, *more, find=builtins.__import__):
        if name.partition(".")[0] == "peft":
            raise ImportError(name)
        return find(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"^method=peft: Hugging Face PEFT is not installed; pip install peft$"):
        model(Peft())


def test_only_its_users_pay_for_its_import():
    code = (
        "import sys; from vltune.assemble.factory import build_method;"
        "build_method({'name': 'lora', '_target_': 'vltune.methods.lora.LoRA'});"
        "build_method({'name': 'peft', '_target_': 'vltune.methods.peft.Peft'});"
        "sys.exit('peft' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_layer_that_peft_changes_is_a_copy_that_is_saved(kind):
    ours = model(Peft(kind, {"r": 2}))
    kept = [name for name in ours.tuned_state() if name.endswith("base_layer.weight")]
    assert len(kept) == len(ours.tuning.sites)
    assert not torch.equal(ours.tuned_state()[kept[0]], ours.backbone.blocks[0].attention.query.weight)
    assert not [name for name in model(Peft("lora")).tuned_state() if "base_layer" in name]


def test_ia3_scales_what_the_feed_forwards_second_layer_reads():
    ours = model(Peft("ia3", roles=["key", "value", "feed_forward_down"]))
    disturb(ours)
    of = {site.role: site for site in ours.tuning.sites if site in {*sites(ours.backbone.blocks[0])}}
    down, value = of["feed_forward_down"], of["value"]
    x, hidden = torch.randn(2, 5, tiny.WIDTH), torch.randn(2, 5, 64)
    with torch.no_grad():
        scale = down.delta.trained(down)[0].flatten()
        torch.testing.assert_close(down(hidden), down.part(hidden * scale))
        scale = value.delta.trained(value)[0].flatten()
        torch.testing.assert_close(value(x), value.part(x) * scale)


def test_a_pattern_names_a_layer_as_peft_sees_it():
    ours = model(Peft("lora", {"r": 4, "rank_pattern": {"layers.0.query": 2}}))
    ranks = [site.delta.tuner.r["default"] for site in ours.tuning.sites]
    assert sorted(ranks) == [2, 4, 4, 4]
    assert {site.delta.tuner.r["default"] for site in ours.tuning.sites if site.role == "value"} == {4}


def test_layers_are_held_by_their_role_and_place():
    layers = [nn.Linear(2, 2) for _ in range(3)]
    holder, names = held(["query", "value", "query"], layers)
    assert names == ["layers.0.query", "layers.0.value", "layers.1.query"]
    assert all(torch.equal(holder.get_submodule(n).weight, each.weight) for n, each in zip(names, layers, strict=True))
    assert not {*holder.parameters()} & {p for each in layers for p in each.parameters()}


def test_in_a_stack_it_is_the_first_at_a_site():
    batch = tiny.batch()
    ours = model(Stack([Peft("dora", {"r": 2}), LoRA(rank=2)]))
    disturb(ours)
    with torch.no_grad():
        plain = ours(batch)
        with ours.tuning.folded():
            torch.testing.assert_close(ours(batch), plain, atol=1e-5, rtol=1e-5)
    with pytest.raises(
        UserError, match=r"Peft cannot act at query, where another method acts already: PEFT's must be "
    ):
        model(Stack([LoRA(rank=2), Peft("dora", {"r": 2})]))
    with pytest.raises(UserError, match=r"Peft cannot act at norm, which is no linear layer of its own"):
        model(Peft(roles=["norm"]))


@pytest.mark.parametrize("kind", ["lora", "dora", "frod", "oft", "ia3", "pissa"])
@pytest.mark.parametrize("more", [[], [LoRA(rank=2)]])
def test_weights_that_are_held_lower_are_rounded_once(kind, more):
    ours = model(Stack([Peft(kind, OPTIONS.get(kind)), *more]))
    disturb(ours)
    hold(ours, "bf16-mixed")
    folded = []
    for dtype in (torch.bfloat16, torch.float32):
        with ours.tuning.folded():
            folded.append([site._folded[0].weight for site in ours.tuning.sites])
        assert {weight.dtype for weight in folded[-1]} == {dtype}
        ours.float()
    assert all(torch.equal(low, exact.bfloat16()) for low, exact in zip(*folded, strict=True))


@pytest.mark.parametrize("more", [[], [LoRA(rank=2)]])
def test_a_layer_that_peft_changes_is_not_trained_by_another_as_well(more):
    with pytest.raises(UserError, match="BitFit trains the backbone's layer at query, and a method before it computes"):
        Stack([Peft("pissa", {"r": 2}), *more, BitFit()]).attach(tiny.vilt())
    Stack([Peft("lora", {"r": 2}), *more, BitFit()]).attach(tiny.vilt())


@pytest.mark.parametrize(("kind", "options"), [("beft", {}), ("lora", {"r": 2, "lora_bias": True})])
def test_a_bias_of_a_layer_without_one_does_not_fold_and_computes_the_same(kind, options):
    backbone = stable_diffusion()
    tuning = Peft(kind, options).attach(backbone)
    for parameter in tuning.trained:
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    with torch.no_grad():
        plain = backbone.denoise(*inputs(backbone))
        with tuning.folded():
            assert torch.equal(backbone.denoise(*inputs(backbone)), plain)


def test_what_folds_costs_nothing():
    ours = model(Peft("oft", {"oft_block_size": 8}))
    assert macs(ours, example(tiny.TEXT, (64, 64), tiny.VOCABULARY)) == macs(
        model(Peft("lora")), example(tiny.TEXT, (64, 64), tiny.VOCABULARY)
    )
    found = macs(ours, example(tiny.TEXT, (64, 64), tiny.VOCABULARY))
    assert (found["additional_macs"], found["additional_macs_as_published"]) == (0, None)


def test_its_settings_are_checked_before_anything_is_built():
    spec = {"name": "peft", "_target_": "vltune.methods.peft.Peft", "type": "dora", "options": {"r": 4}}
    spec["roles"] = ["query"]
    check_spec("method", copy.deepcopy(spec), "method")
    assert build_method(spec).options == {"r": 4}
    assert build_method(spec | {"options": None}).options == {}
    for key, value, told in [
        ("options", 4, r"method.options=4: must be \{name: ..., ...\}, or null"),
        ("type", 4, "method.type=4: must be a word"),
    ]:
        with pytest.raises(UserError, match=told):
            check_spec("method", spec | {key: value}, "method")
