"""Every method at every role, in every place: it does the same folded and unfolded, or says in one line that it cannot."""

import pytest
import tiny
import torch
from backbones.test_swin import meter as meter_with_swin
from test_combinations import METHODS, disturb

from vltune.costs.macs import example, macs
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.model import Model
from vltune.sites import PLACES as SITES_IN
from vltune.sites import ROLES, sites
from vltune.tasks.vqa import VQA

BACKBONES = {
    "vilt": (tiny.vilt, tiny.SIZES, ("fusion", "all")),
    "meter": (tiny.meter, tiny.SQUARE, ("fusion", "text", "image", "towers", "all")),
    "meter with swin": (meter_with_swin, tiny.SQUARE, ("image", "towers", "all")),
    "clip": (tiny.clip, tiny.SQUARE, ("text", "image", "all")),
}
PLACES = [(backbone, where) for backbone, (*_, places) in BACKBONES.items() for where in places]
LINEARS = {"query", "key", "value", "projection", "feed_forward_up", "feed_forward_down"}
OUTPUTS = {"attention_output", "feed_forward_output", "parallel_output"}
# method -> the roles that it takes on some backbone; the feed-forward's layers are not square, which prompts need
TAKES = {
    "shallow_prompt": {"sequence"},
    "deep_prompt": {"memory", "cross_memory", "sequence"},
    "lora": LINEARS,
    "adapter": LINEARS | OUTPUTS | {"norm", "embedding"},
    "scaled_pa": LINEARS | OUTPUTS | {"norm", "embedding"},
    "apt": {"query", "key", "value", "projection", "norm", "embedding"} | OUTPUTS,
    "dora": LINEARS,
    "ia3": LINEARS,
    "vera": LINEARS,
    "lokr": LINEARS,
    "bitfit": LINEARS | {"norm"},
    "ln_tuning": {"norm"},
    "ssf": LINEARS | {"norm"},
    "fact": LINEARS,
    "adaptformer": LINEARS | OUTPUTS | {"norm", "embedding"},
    "rep_adapter": LINEARS,
    "compacter": LINEARS | OUTPUTS | {"norm", "embedding"},
    "convpass": LINEARS | OUTPUTS | {"norm", "embedding"},
    "mona": LINEARS | OUTPUTS | {"norm", "embedding"},
    "prefix": {"keys_values", "cross_keys_values"},
    "lst": {"block"},
}
# Roles of an image tower that a method does not fit: its hidden units are no multiple of its width; its bias is of three.
UNFIT = {
    ("fact", "meter"): {"feed_forward_up", "feed_forward_down"},
    ("bitfit", "meter with swin"): {"query", "key", "value"},
}
OWN = {"bitfit", "ln_tuning"}  # what they train is the backbone's and stays when they are taken off


def tuned(backbone, method, where):
    """Weights are as large as trained ones: with those of the start attention hardly attends, and hides what acts there."""
    method.sites_in = where
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(0.2 / layer.weight.std())
    joint = backbone.offers("fuse")
    task = VQA(backbone.pooled_width, backbone.width, tiny.ANSWERS) if joint else tiny.classification()
    model = Model(backbone, task, method).eval()
    disturb(model)
    return model


def check_folding(model, batch, acts=True):
    """And that the method does something, where it can be taken off: an inert one would fold as well."""
    with torch.no_grad():
        plain = model(batch)
        with model.tuning.folded():
            folded = model(batch)
        again = model(batch)
        with model.tuning.off():
            without = model(batch)
    torch.testing.assert_close(folded, plain, atol=1e-5 * plain.abs().max().item(), rtol=0)
    assert torch.equal(again, plain)
    assert (without - plain).abs().max() > 1e-3 or not acts


# A role that a method takes nowhere is refused alike in every place.
CASES = [
    (name, role, backbone, where)
    for name, takes in TAKES.items()
    for role in ROLES
    for backbone, where in PLACES
    if role in takes or where == "all"
]


@pytest.mark.parametrize(("name", "role", "backbone", "where"), CASES)
def test_a_role_folds_to_the_same_function_or_is_refused(name, role, backbone, where):
    make, sizes, _ = BACKBONES[backbone]
    made, method = make(), METHODS[name][0]()
    method.roles = [role]
    offered = {site.place for site in sites(made) if site.role == role}
    try:
        model = tuned(made, method, where)
    except UserError as error:
        assert str(error).startswith(f"method.roles=['{role}']: ")
        assert "\n" not in str(error)
        assert not tiny.tuned_sites(made)
        places = {site.place for site in sites(made)} & {*SITES_IN[where]}
        unfit = "image" in places and role in UNFIT.get((name, backbone), ())
        assert role not in TAKES[name] or places - offered or unfit, "a role that it takes, and that is there"
        return
    assert role in TAKES[name]
    assert {site.role for site in model.tuning.sites} == {role}
    batch = tiny.batch(sizes)
    model.task.loss(model(batch), batch).backward()
    assert all(parameter.grad is not None for parameter in model.method_parameters)
    check_folding(model, batch, acts=name not in OWN)


@pytest.mark.parametrize(("backbone", "where"), PLACES)
def test_lora_on_all_linear_layers(backbone, where):
    make, sizes, _ = BACKBONES[backbone]
    model = tuned(make(), LoRA(rank=2, roles=sorted(LINEARS)), where)
    assert {site.role for site in model.tuning.sites} == LINEARS
    check_folding(model, tiny.batch(sizes))


@pytest.mark.parametrize(("backbone", "where"), [each for each in PLACES if each[1] in ("fusion", "text", "image")])
def test_costs_are_the_closed_forms_at_every_role(backbone, where):
    """An adapter's are what the paper counts as well; LoRA folds."""
    make, _, _ = BACKBONES[backbone]
    batch = example(tiny.TEXT, (64, 64), tiny.VOCABULARY)
    for role in sorted(TAKES["adapter"] & {site.role for site in sites(make())}):
        counted = macs(tuned(make(), Adapter(6, roles=[role]), where), batch)
        assert counted["additional_macs"] == counted["additional_macs_as_published"] > 0, role
    counted = macs(tuned(make(), LoRA(rank=2, roles=sorted(LINEARS)), where), batch)
    assert counted["additional_macs"] == counted["additional_macs_as_published"] == 0


@pytest.mark.parametrize(
    ("method", "roles"), [(Adapter(6), OUTPUTS | LINEARS), (ScaledParallelAdapter(6), OUTPUTS), (LoRA(2), LINEARS)]
)
def test_swin_has_the_sites_of_a_block_of_ours(method, roles):
    method.roles = sorted(roles)
    backbone = meter_with_swin()
    names = backbone.state_dict().keys()
    model = tuned(backbone, method, "image")
    found = [site.role for site in tiny.tuned_sites(backbone.image)]
    assert {role: found.count(role) for role in found} == dict.fromkeys(roles, 6)
    check_folding(model, tiny.batch(tiny.SQUARE))
    assert {key for key in backbone.state_dict() if ".delta." not in key} == names


@pytest.mark.parametrize(
    ("make", "method", "where", "message"),
    [
        (tiny.vilt, LoRA(roles=["attention_output"]), "fusion", "LoRA cannot act at attention_output, which is a subl"),
        (
            tiny.vilt,
            LoRA(roles=["norm"]),
            "fusion",
            "LoRA cannot act at norm, which is no linear layer; it can at query,",
        ),
        (tiny.vilt, LoRA(roles=["query", "memory"]), "fusion", "LoRA cannot act at memory, which is a sequence that"),
        (
            tiny.vilt,
            DeepPrompt(roles=["query"]),
            "fusion",
            "cannot act at query, which is a layer; it can at sequence, memory",
        ),
        (tiny.vilt, ShallowPrompt(roles=["memory"]), "fusion", "cannot act at memory, which is a layer's own memory"),
        (
            tiny.vilt,
            METHODS["apt"][0]().__class__(roles=["feed_forward_up"]),
            "fusion",
            "which has 32 inputs and 64 outp",
        ),
        (tiny.vilt, LoRA(roles=["query", "cross_memory"]), "fusion", "Vilt has no site cross_memory with"),
        (tiny.vilt, LoRA(roles=[]), "fusion", "method.roles=[]: must be a list of one or more of query, key"),
        (tiny.vilt, LoRA(roles="query"), "fusion", "method.roles=query: must be a list of one or more of query, key"),
        (tiny.vilt, LoRA(roles=None), "fusion", "method.roles=None: must be a list of one or more of query"),
        (tiny.vilt, LoRA(roles=[3]), "fusion", "method.roles=[3]: must be a list of one or more of query, key"),
        (tiny.meter, ShallowPrompt(), "all", "with method.sites_in=all the text part of Meter would be left as it is"),
        (
            meter_with_swin,
            DeepPrompt(),
            "towers",
            "the image part of Meter would be left as it is, which has no such site",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(make, method, where, message):
    method.sites_in = where
    with pytest.raises(UserError) as error:
        method.attach(make())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
