"""The contract carries every kind of method: throw-away ones pass what is asked of real ones."""

import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from composed import composed
from engine.test_training import run
from test_combinations import BACKBONES, OnEveryBackbone, disturb, on
from torch import nn
from torch.nn.functional import conv2d
from yaml import safe_load

from vltune.assemble.factory import build_method, check_values
from vltune.configuration import check_constructors
from vltune.costs.macs import example, macs, parameters
from vltune.engine.artifacts import read_tuned, write_tuned
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.runs.identity import decisive
from vltune.runs.signals import Interrupted
from vltune.sites import BlockSite, Delta, KeyValueSite, Linear, PartSite, TokenSite
from vltune.tasks.vqa import VQA
from vltune.tuning import Method, Stack

ROOT = Path(__file__).parents[1]


class AtRoles(Method):
    """make: the delta at a site."""

    def __init__(self, roles, make, kinds=Method.kinds):
        self.roles, self.delta, self.kinds = roles, make, kinds


class SharedBasis(Method):
    """VeRA's shape: W x + b * (B (d * (A x))) with A and B random, frozen and every site's."""

    kinds, roles, rank = (PartSite,), ("query", "value"), 3

    def deltas(self, sites):
        down, up = (nn.Parameter(torch.randn(n, m)) for n, m in ((self.rank, tiny.WIDTH), (tiny.WIDTH, self.rank)))
        return [Scales(down, up) for _ in sites]


class Scales(Delta):
    def __init__(self, down, up):
        super().__init__()
        self.down, self.up = down, up
        self.d, self.b = nn.Parameter(torch.ones(len(down))), nn.Parameter(torch.zeros(len(up)))

    def around(self, part, x):
        return part(x) + self.b * (self.d * (x @ self.down.t()) @ self.up.t())

    def fold(self, part):
        return Linear(part.weight + self.b[:, None] * (self.up * self.d) @ self.down, part.bias)

    def trained(self, site):
        return [self.d, self.b]


class OwnBias(Delta):
    """BitFit's: the backbone's own biases."""

    def around(self, part, x):
        return part(x)

    def trained(self, site):
        return [site.part.bias]


class ChangedInput(Delta):
    """RepAdapter's shape: what a layer reads is changed, and folds into it."""

    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.map.weight)

    def around(self, part, x):
        return part(x + self.map(x))

    def fold(self, part):
        return Linear(part.weight + part.weight @ self.map.weight, part.bias)


class Replaced(Delta):
    """DoRA's shape: another weight in the place of the layer's."""

    def __init__(self, weight):
        super().__init__()
        self.size, self.direction = nn.Parameter(torch.ones(len(weight))), nn.Parameter(torch.zeros_like(weight))

    def around(self, part, x):
        return self.fold(part)(x)

    def fold(self, part):
        return Linear(self.size[:, None] * (part.weight + self.direction), part.bias)


class Penalised(Adapter):
    """What it trains is drawn to nothing."""

    def penalty(self, deltas):
        return torch.stack([delta.up.weight.square().sum() for delta in deltas]).sum()


class Scheduled(Method):
    """Comes in step by step; how far it has come is no parameter."""

    roles = ("attention_output",)

    def delta(self, site):
        return Share(site.width)

    def at(self, deltas, step, total):
        for delta in deltas:
            delta.share.fill_((step + 1) / total)


class Share(Delta):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))
        self.register_buffer("share", torch.zeros(()))

    def forward(self, y, x):
        return y + self.share * self.scale * x


class Skipped(Method):
    """DAS's shape: the first block is left out for a bottleneck, the others stay as they are."""

    kinds, roles = (BlockSite,), ("block",)

    def chosen(self, backbone):
        return super().chosen(backbone)[:1]

    def delta(self, site):
        return Bypass(site.width)


class Bypass(Delta):
    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, width)
        nn.init.zeros_(self.map.weight)

    def around(self, part, x):
        return x + self.map(x)


class Side(Method):
    """LST's shape: a narrow path beside the blocks, which reads what each gives and enters at the last one."""

    kinds, roles = (BlockSite,), ("block",)

    def deltas(self, sites):
        path = [None]
        return [Beside(site.width, path, last=site is sites[-1]) for site in sites]


class Beside(Delta):
    def __init__(self, width, path, last):
        super().__init__()
        self.down, self.path = nn.Linear(width, 4), path
        self.up = nn.Linear(4, width) if last else None
        if last:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def around(self, part, x):
        y = part(x)
        self.path[0] = self.down(y[:, :1]) + (0 if self.path[0] is None else self.path[0])
        if self.up is None:
            return y
        side, self.path[0] = self.up(self.path[0]), None
        return torch.cat([y[:, :1] + side, y[:, 1:]], dim=1)


class SeesData(Method):
    """Its scale is that of what the sublayers give on the first batches, measured once and kept."""

    roles = ("attention_output",)

    def delta(self, site):
        return Measured(site.width)

    def start(self, deltas, model, batches):
        for delta in deltas:
            delta.seen = []
        with torch.no_grad():
            for batch in batches(1):
                model(batch)
        for delta in deltas:
            delta.scale.copy_(torch.stack(delta.seen).mean())
            del delta.seen


class Measured(Delta):
    def __init__(self, width):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, y, x):
        if hasattr(self, "seen"):
            self.seen.append(y.std())
        return y + self.scale * self.shift


class Prefix(Method):
    """Prefix tuning's shape: keys and values of its own, which a map gives of fewer numbers; folded, once."""

    kinds, roles, optional = (KeyValueSite,), ("keys_values", "cross_keys_values"), ("cross_keys_values",)

    def delta(self, site):
        return KeysAndValues(site.width)


class KeysAndValues(Delta):
    def __init__(self, width):
        super().__init__()
        self.inner, self.map = nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 2 * width)

    def forward(self):
        return self.map(self.inner).chunk(2, dim=-1)

    def folded(self):
        keys, values = self()
        return lambda: (keys, values)


class OfInput(Method):
    """Prompts that a small network makes of what they join, each example's own; padding says nothing."""

    kinds, roles = (TokenSite,), ("sequence",)

    def delta(self, site):
        return Made(site)


class Made(Delta):
    def __init__(self, site):
        super().__init__()
        self._site = (site,)
        self.down, self.up = nn.Linear(site.width, 4), nn.Linear(4, 3 * site.width)

    def forward(self):
        tokens, mask = self._site[0].reads
        mask = tokens.new_ones(tokens.shape[:2]) if mask is None else mask.to(tokens.dtype)
        mean = (mask[..., None] * tokens).sum(1) / mask.sum(1, keepdim=True)
        return self.up(self.down(mean).relu()).unflatten(-1, (3, -1))


class Convolved(Delta):
    """Convpass's shape: a convolution over the patches of what a sublayer reads; any other token is an image of one."""

    def __init__(self, site):
        super().__init__()
        self.kernel, self.layout = nn.Parameter(torch.zeros(site.width, 1, 3, 3)), site.layout

    def forward(self, y, x):
        alone = x * self.kernel[:, 0, 1, 1]
        return y + (alone if self.layout is None else self.layout.grid.map(self.convolve, x, alone))

    def convolve(self, cells):
        return conv2d(cells, self.kernel, padding=1, groups=len(self.kernel))


def at(*roles, make, kinds=Method.kinds):
    return lambda: AtRoles(roles, make, kinds)


W = tiny.WIDTH
# method -> (how it is made, its parameters at a site, whether it starts as the identity)
METHODS = {
    "shared state": (SharedBasis, lambda site: SharedBasis.rank + W, True),
    "own biases": (at("query", "value", "norm", make=lambda site: OwnBias()), lambda site: site.width, True),
    "changed input": (
        at("query", "feed_forward_up", make=lambda site: ChangedInput(site.in_width), kinds=(PartSite,)),
        lambda site: site.in_width**2,
        True,
    ),
    "replaced linear": (
        at("key", "feed_forward_down", make=lambda site: Replaced(site.part.weight), kinds=(PartSite,)),
        lambda site: site.width * (site.in_width + 1),
        True,
    ),
    "penalty": (lambda: Penalised(6), lambda site: (2 * 6 + 1) * W + 6, False),
    "schedule": (Scheduled, lambda site: W, True),
    "block skipped": (Skipped, lambda site: W * (W + 1), False),
    "side path": (Side, lambda site: 4 * (W + 1) + (0 if site.delta.up is None else 5 * W), True),
    "sees data": (SeesData, lambda site: W, True),
    "convolution": (
        at("value", "attention_output", "feed_forward_output", make=Convolved),
        lambda site: 9 * site.width,
        True,
    ),
    "keys and values": (Prefix, lambda site: 3 * 4 + 5 * 2 * W, False),
    "prompts of the input": (OfInput, lambda site: 4 * (W + 1) + 3 * W * 5, False),
    "two, apart": (
        lambda: Stack([LoRA(rank=2), DeepPrompt(prompts=3)]),
        lambda site: 2 * 2 * W if site.role in ("query", "value") else 3 * W,
        False,
    ),
    "two at one output": (
        lambda: Stack([APT(prompts=3, rank=2), Adapter(6)]),
        lambda site: (2 * 6 + 1) * W + 6 + ((3 + 2 * 2) * W + 1 if site.role == "attention_output" else 0),
        False,
    ),
    "two at one layer": (
        lambda: Stack([LoRA(rank=2, roles=["query"]), AtRoles(["query"], lambda site: ChangedInput(W), (PartSite,))]),
        lambda site: 2 * 2 * W + W**2,
        True,
    ),
    "two of keys and values": (lambda: Stack([Prefix(), Prefix()]), lambda site: 2 * (3 * 4 + 5 * 2 * W), False),
    "two of prompts, one of the input": (
        lambda: Stack([OfInput(), DeepPrompt(2, roles=["memory"]), AtRoles(["sequence"], Made, (TokenSite,))]),
        lambda site: 2 * W if site.role == "memory" else 2 * (4 * (W + 1) + 3 * W * 5),
        False,
    ),
    "two of prompts": (lambda: Stack([DeepPrompt(3), DeepPrompt(2)]), lambda site: 5 * W, False),
    "one, and own biases": (
        lambda: Stack([LoRA(rank=2), AtRoles(["query", "value"], lambda site: OwnBias())]),
        lambda site: 2 * 2 * W + W,
        True,
    ),
}


@pytest.mark.parametrize("method", METHODS)
class TestContract(OnEveryBackbone):
    methods, on_own, make_task = METHODS, ("own biases", "one, and own biases"), on("vqa", "nlvr2")


def model(method, backbone="vilt"):
    torch.manual_seed(0)
    made = BACKBONES[backbone][0]()
    return Model(made, VQA(made.pooled_width, made.width, tiny.ANSWERS), method)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_is_once_in_the_file_and_read_back_whatever_the_seed(method, backbone, tmp_path):
    ours, file = model(METHODS[method][0](), backbone), tmp_path / "tuned.safetensors"
    disturb(ours)
    with torch.no_grad():
        for buffer in (buffer for site in ours.tuning.sites for buffer in site.delta.buffers()):
            buffer.fill_(0.3)
    state = ours.tuned_state()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    write_tuned(file, ours)
    other = model(METHODS[method][0](), backbone)
    disturb(other, scale=1.0)
    read_tuned(file, other)
    batch = tiny.batch(tiny.SQUARE)
    with torch.no_grad():
        assert torch.equal(other.eval()(batch), ours.eval()(batch))


@torch.no_grad()
def test_prompts_of_a_text_of_clip_s_are_made_of_what_it_says_alone():
    """Whatever stands behind its end, and however far."""
    torch.manual_seed(0)
    backbone, method = tiny.clip(), OfInput()
    method.sites_in = "text"
    method.attach(backbone)
    alone = torch.tensor([[1, 5, 7, tiny.END_OF_TEXT]])
    among = torch.tensor([[1, 5, 7, tiny.END_OF_TEXT, 0, 0], [1, 5, 7, tiny.END_OF_TEXT, 9, tiny.END_OF_TEXT]])
    found = backbone.embed_text(among)
    torch.testing.assert_close(found, backbone.embed_text(alone).expand(2, -1), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found[:1], backbone.embed_text(torch.tensor([[1, 6, 7, tiny.END_OF_TEXT]])), atol=1e-6)


FOLD = {"shared state", "own biases", "changed input", "replaced linear", "two at one layer", "one, and own biases"}


@pytest.mark.parametrize("method", METHODS)
def test_costs_are_of_what_inference_computes(method):
    """Nothing where it folds, less than nothing where a block is left out."""
    added = macs(model(METHODS[method][0]()), example(tiny.TEXT, (64, 64), tiny.VOCABULARY))["additional_macs"]
    assert (added == 0) == (method in FOLD | {"schedule", "sees data"})
    assert (added < 0) == (method == "block skipped")


def test_a_penalty_is_in_the_loss_of_training(tmp_path):
    drawn, free = (run(tmp_path / str(i), model=model(make(6)))[0] for i, make in enumerate((Penalised, Adapter)))
    size = [sum(d.up.weight.square().sum() for _, _, deltas in m.tuning.parts for d in deltas) for m in (drawn, free)]
    assert size[0] < 0.5 * size[1]


@pytest.mark.parametrize("parts", [8, 4])
def test_a_penalty_is_counted_once_a_step_whatever_the_accumulation(tmp_path, parts):
    _, trained = run(tmp_path, model=model(Penalised(6)), micro_batch_size=parts, max_steps=1)
    _, whole = run(tmp_path / "whole", model=model(Penalised(6)), max_steps=1)
    assert trained.history[0]["train/loss"] == pytest.approx(whole.history[0]["train/loss"], rel=1e-3)


def shares(of_model):
    return [delta.share.item() for _, _, deltas in of_model.tuning.parts for delta in deltas]


def test_a_schedule_is_stepped_before_every_optimiser_step_and_goes_on_after_a_stop(tmp_path):
    straight, _ = run(tmp_path / "straight", model=model(Scheduled()))
    assert shares(straight) == [1.0, 1.0]
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", stop_at=5, model=model(Scheduled()))
    resumed, _ = run(tmp_path / "stopped", model=model(Scheduled()))
    for (name, a), b in zip(resumed.tuned_state().items(), straight.tuned_state().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("more", [{}, {"micro_batch_size": 2}])
def test_a_start_sees_the_first_steps_data_once(tmp_path, more):
    """The same examples in whatever parts; after a stop it does not look again."""
    seen = []

    class Looks(SeesData):
        def start(self, deltas, model, batches):
            seen.append([id for batch in batches(2) for id in batch["ids"]])
            super().start(deltas, model, batches)

    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=3, model=model(Looks()), **more)
    trained, _ = run(tmp_path, model=model(Looks()), **more)
    assert len(seen) == 1
    assert len(set(seen[0])) == 16
    scales = [delta.scale.item() for _, _, deltas in trained.tuning.parts for delta in deltas]
    assert all(scale not in (0.0, 1.0) for scale in scales)


def test_the_first_examples_are_those_of_the_first_steps(tmp_path):
    seen = {}
    for size in (8, 2):

        class Looks(SeesData):
            def start(self, deltas, model, batches):
                seen[size] = sorted(id for batch in batches(2) for id in batch["ids"])  # noqa: B023 (run at once)

        run(tmp_path / str(size), model=model(Looks()), micro_batch_size=size, max_steps=1)
    assert seen[8] == seen[2]


@pytest.mark.parametrize(("size", "left"), [(8, [0, 0, 0]), (2, [3, 2, 1, 0] * 3)])
def test_the_first_batches_tell_how_many_of_their_step_follow(tmp_path, size, left):
    seen = []

    class Looks(SeesData):
        def start(self, deltas, model, batches):
            seen.extend(batch["left"] for batch in batches(3))

    run(tmp_path, model=model(Looks()), micro_batch_size=size, max_steps=4)
    assert seen == left


class Nowhere(SeesData):
    def chosen(self, backbone):
        return [site for site in super().chosen(backbone) if site.place == "image"]


def test_a_method_that_has_no_site_is_refused():
    told = (
        r"^method\.roles=\['attention_output'\]: Nowhere has no site on Vilt and would tune nothing; choose other roles"
    )
    with pytest.raises(UserError, match=told):
        model(Nowhere())
    with pytest.raises(
        UserError, match=r"^method\.methods: names no method, and nothing would be tuned; give one or more$"
    ):
        Stack([])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_head_alone_may_be_trained_beside_the_method(backbone):
    paper, method = model(LoRA(rank=2), backbone), LoRA(rank=2)
    method.always_trained = "head_only"
    head = model(method, backbone)
    trained = sum(p.numel() for p in head.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in [*head.head_parameters, *head.method_parameters])
    shared = sum(p.numel() for p in paper.backbone.shared_parameters())
    ours, theirs = parameters(head), parameters(paper)
    assert (ours["method_params"], ours["task_params"]) == (theirs["method_params"], theirs["task_params"] - shared)
    assert len(head.tuned_state()) < len(paper.tuned_state())


def test_what_is_always_trained_is_one_of_two():
    method = ClassifierOnly()
    method.always_trained = "head"
    with pytest.raises(UserError, match=r"method\.always_trained=head: must be one of paper, head_only"):
        model(method)


MAM = """
name: mam
_target_: vltune.tuning.Stack
methods:
  deep_prompt: {_target_: vltune.methods.deep_prompt.DeepPrompt, prompts: 3, roles: [memory]}
  scaled_pa: {_target_: vltune.methods.scaled_pa.ScaledParallelAdapter, bottleneck: 6, sites_in: all, label: a}
"""


def test_a_stack_is_configured_by_the_methods_in_it():
    spec = safe_load(MAM)
    method = build_method(spec)
    assert [type(each).__name__ for each in method.methods] == ["DeepPrompt", "ScaledParallelAdapter"]
    assert [each.sites_in for each in method.methods] == ["fusion", "all"]
    assert {site.role for site in model(method).tuning.sites} == {"memory", "parallel_output"}


def test_a_stack_of_configured_methods_is_a_file_of_its_own(tmp_path):
    """What the document shows: each keeps its settings, and takes others."""
    conf = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    document = ROOT / "docs" / "adding-a-method.md"
    (shown,) = re.findall(r"```text\n(.*?)```", document.read_text(), flags=re.DOTALL)
    (conf / "method" / "mam.yaml").write_text(shown)
    overrides = ["method=mam", "engine.lr=1e-3", "method.methods.deep_prompt.prompts=7"]
    config = composed(*overrides, project=tmp_path)
    check_values(config)
    check_constructors(config)
    deep_prompt, scaled_pa = build_method(config["method"]).methods
    assert (deep_prompt.prompts, scaled_pa.scale) == (7, 4.0)
    config["method"]["methods"]["scaled_pa"]["bottle"] = 3
    with pytest.raises(UserError, match=r"method\.methods\.scaled_pa\.bottle: there is no such setting"):
        check_constructors(config)


def test_the_order_of_a_stack_is_in_the_hash_and_how_its_methods_are_shown_is_not():
    spec, other, shown = safe_load(MAM), safe_load(MAM), safe_load(MAM)
    other["methods"] = dict(reversed(other["methods"].items()))
    shown["methods"]["scaled_pa"] |= {"label": "b", "always_trained": "paper"}
    assert decisive("method", spec) == decisive("method", shown) != decisive("method", other)


def test_full_tuning_cannot_be_stacked_with_anything():
    spec = safe_load(MAM)
    spec["methods"]["full"] = {"_target_": "vltune.methods.full.Full"}
    with pytest.raises(
        UserError, match=r"^method\.methods: Full trains every weight, and nothing can be stacked with it$"
    ):
        build_method(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bottle": 3}, "method.bottle: scaled_pa has no such setting; it has bottleneck"),
        ({"always_trained": "head_only"}, "method.methods.scaled_pa.always_trained: is of the whole stack"),
    ],
)
def test_a_wrong_setting_in_a_stack_is_told_in_one_line(change, message):
    spec = safe_load(MAM)
    spec["methods"]["scaled_pa"] |= change
    with pytest.raises(UserError) as error:
        build_method(spec)
    assert message in str(error.value)
