"""Every method on every backbone: one parameter each."""

import copy
from collections import Counter
from typing import ClassVar

import pytest
import tiny
import tiny_diffusion
import torch
from presented import PAPER
from torch.nn.functional import one_hot

from vltune.costs.macs import parameters
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.adaptformer import AdaptFormer
from vltune.methods.apt import APT
from vltune.methods.bitfit import BitFit
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.clip_adapter import ClipAdapter
from vltune.methods.cocoop import CoCoOp
from vltune.methods.compacter import Compacter
from vltune.methods.convpass import Convpass
from vltune.methods.coop import CoOp
from vltune.methods.custom_diffusion import CustomDiffusion
from vltune.methods.das import DAS
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.dora import DoRA
from vltune.methods.fact import FacT
from vltune.methods.full import Full
from vltune.methods.ia3 import IA3
from vltune.methods.ln_tuning import LNTuning
from vltune.methods.lokr import LoKr
from vltune.methods.lora import ClipLoRA, LoRA
from vltune.methods.lst import LST
from vltune.methods.maple import Left, MaPLe
from vltune.methods.mona import Mona
from vltune.methods.peft import Peft
from vltune.methods.prefix import Prefix
from vltune.methods.rep_adapter import RepAdapter
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.methods.ssf import SSF
from vltune.methods.textual_inversion import TextualInversion
from vltune.methods.unipelt import UniPELT
from vltune.methods.vera import VeRA
from vltune.model import Model
from vltune.sites import sites
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.snli_ve import SNLIVE
from vltune.tasks.vqa import VQA
from vltune.tuning import Stack

# backbone -> (how it is made, the sizes of its images)
BACKBONES = {"vilt": (tiny.vilt, tiny.SIZES), "meter": (tiny.meter, tiny.SQUARE)}
TASKS = {
    "vqa": lambda in_width, width: VQA(in_width, width, tiny.ANSWERS),
    "nlvr2": NLVR2,
    "retrieval": lambda in_width, width: Retrieval(in_width),
    "snli_ve": SNLIVE,
}


def of_unipelt(site):
    """A prefix, a LoRA or an adapter, and its gate."""
    if site.role in ("query", "value"):
        return 2 * (site.in_width + site.width) + site.in_width + 1
    return ((2 * 6 + 1) * site.width + 6 if site.role == "feed_forward_output" else 2 * 5 * site.width) + site.width + 1


def of_das(site):
    """An adapter in the place of each block that is left out, and one beside each sublayer of the others."""
    if site.role == "block":
        return 15 * site.width + 6 if site.delta.slot >= 0 else 0
    return 9 * site.width + 3 if site.delta._block[0].slot < 0 else 0


# method -> (how it is made, its parameters at a site, whether it starts as the identity)
METHODS = {
    "full": (Full, None, True),
    "classifier_only": (ClassifierOnly, lambda site: 0, True),
    "shallow_prompt": (lambda: ShallowPrompt(prompts=5), lambda site: 5 * site.width, False),
    "deep_prompt": (lambda: DeepPrompt(prompts=5), lambda site: 5 * site.width, False),
    "lora": (lambda: LoRA(rank=2), lambda site: 2 * (site.in_width + site.width), True),
    "adapter": (lambda: Adapter(bottleneck=6), lambda site: (2 * 6 + 1) * site.width + 6, False),
    "scaled_pa": (
        lambda: ScaledParallelAdapter(bottleneck=6),
        lambda site: (6 + 2) * site.in_width + 6 + (6 + 1) * site.width,
        False,
    ),
    "apt": (lambda: APT(prompts=5, rank=2), lambda site: (5 + 2 * 2) * site.width + 1, False),
    "adaptformer": (lambda: AdaptFormer(bottleneck=6), lambda site: (2 * 6 + 1) * site.width + 6, True),
    "rep_adapter": (
        lambda: RepAdapter(units=3, groups=2),
        lambda site: 6 * (site.in_width + 1) + 4 * site.in_width if site.role in ("query", "feed_forward_up") else 0,
        True,
    ),
    "compacter": (
        lambda: Compacter(units=3, n=2, rule_std=0.1),
        lambda site: 2 * (site.width + 6) + 6 + site.width,
        False,
    ),
    "das": (lambda: DAS(bottleneck=3), of_das, False),
    "prefix": (lambda: Prefix(prompts=5), lambda site: 2 * 5 * site.width, False),
    "convpass": (lambda: Convpass(bottleneck=4), lambda site: (2 * 4 + 1) * site.width + 9 * 4**2 + 2 * 4, True),
    "mona": (
        lambda: Mona(bottleneck=4),
        lambda site: (2 * 4 + 1 + 4) * site.width + 4 + 4 * (9 + 25 + 49 + 3) + 4**2 + 4,
        False,
    ),
    "mam": (
        lambda: Stack([Prefix(prompts=5), AdaptFormer(bottleneck=6, scale=4.0, dropout=0.0)]),
        lambda site: (2 * 6 + 1) * site.width + 6 if site.role == "feed_forward_output" else 2 * 5 * site.width,
        False,
    ),
    "unipelt": (
        lambda: UniPELT([Prefix(prompts=5), LoRA(rank=2), Adapter(bottleneck=6, roles=["feed_forward_output"])]),
        of_unipelt,
        False,
    ),
    "lst": (
        lambda: LST(head_width=4, side_heads=2),
        lambda site: (
            12 * 8**2 + 13 * 8 + 1 + 8 * site.width * (1 + (site.delta.first is not None) + (site.delta.up is not None))
        ),
        False,
    ),
    "dora": (lambda: DoRA(rank=2), lambda site: 2 * (site.in_width + site.width) + site.width, True),
    "ia3": (IA3, lambda site: site.in_width if site.role == "feed_forward_down" else site.width, True),
    "vera": (lambda: VeRA(rank=40), lambda site: 40 + site.width, True),
    "lokr": (lambda: LoKr(factor=4, rank=2), lambda site: 4**2 + 2 * (site.in_width + site.width) // 4, True),
    "bitfit": (BitFit, lambda site: site.width, True),
    "ln_tuning": (LNTuning, lambda site: 2 * site.width, True),
    "ssf": (SSF, lambda site: 2 * site.width, False),
    "fact": (
        lambda: FacT(rank=2),
        lambda site: 2**2 * max(site.in_width, site.width) // min(site.in_width, site.width),
        True,
    ),
    "peft": (lambda: Peft("lora", {"r": 2}), lambda site: 2 * (site.in_width + site.width), True),
    "peft oft": (lambda: Peft("oft", {"oft_block_size": 8}), lambda site: site.in_width // 8 * 28, True),
    "peft boft": (
        lambda: Peft("boft", {"boft_block_size": 8}),
        lambda site: site.in_width // 8 * 64 + site.width,
        True,
    ),
    "peft loha": (lambda: Peft("loha", {"r": 2}), lambda site: 2 * 2 * (site.in_width + site.width), True),
}
# method -> parameters that its sites share
SHARED = {"compacter": 2**3, "fact": 2 * 2 * tiny.WIDTH}
# How many sites of each role a backbone of 2 layers has where both modalities meet; METER's layers are of two streams, each
# with self- and cross-attention, and their norms are of these and of the feed-forward.
OF_ATTENTION = ("query", "key", "value", "projection", "attention_output", "parallel_output")
OF_FEED_FORWARD = ("feed_forward_up", "feed_forward_down", "feed_forward_output")
SITES = {
    "vilt": dict.fromkeys(OF_ATTENTION, 2)
    | dict.fromkeys(OF_FEED_FORWARD, 2)
    | {"norm": 4, "memory": 2, "keys_values": 2, "sequence": 1, "block": 2},
    "meter": dict.fromkeys(OF_ATTENTION, 8)
    | dict.fromkeys(OF_FEED_FORWARD, 4)
    | {"norm": 12, "sequence": 2, "block": 4}
    | dict.fromkeys(("memory", "cross_memory", "keys_values", "cross_keys_values"), 4),
}
APT_VARIANTS = {
    "softmax": {"activation": "softmax"},
    "full map": {"map": "full"},
    "no map": {"map": "none"},
    "learned scale": {"scale": "learned"},
    "gated scale": {"scale": "gated"},
    "on the feed-forward": {"roles": ["feed_forward_output"]},
}


def disturb(model, scale=0.1):
    """Moves every trained parameter off its start, where half a method may be zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)


def on(*tasks):
    """The fixture of a test's task: `make_task(backbone)`."""

    @pytest.fixture(params=tasks)
    def make_task(self, request):
        return lambda backbone: TASKS[request.param](backbone.pooled_width, backbone.width)

    return make_task


class OnEveryBackbone:
    """What is asked of every method.  methods: a table as `METHODS`.  make_task: on which tasks."""

    methods: dict
    on_own: tuple = ()  # those that train parameters of the backbone's
    shared: ClassVar[dict] = {}

    def made(self, method):
        return self.methods[method][0]()

    @pytest.fixture(params=BACKBONES)
    def backbone(self, request):
        made = BACKBONES[request.param][0]()
        made.name = request.param
        return made

    @pytest.fixture
    def batch(self, backbone):
        return tiny.batch(BACKBONES[backbone.name][1])

    def test_starts_as_promised(self, method, backbone, make_task, batch):
        identity = self.methods[method][2]
        untouched = copy.deepcopy(backbone)
        torch.manual_seed(0)
        task = make_task(backbone).eval()
        model = Model(backbone, task, self.made(method)).eval()
        with torch.no_grad():
            ours, before = model(batch), task(untouched, batch)
        if identity:
            torch.testing.assert_close(ours, before, atol=0, rtol=0)
        else:
            assert not torch.equal(ours, before)

    def test_trains_exactly_its_set(self, method, backbone, make_task):
        size = self.methods[method][1]
        own = {id(p) for p in backbone.parameters()}
        always = {id(p) for p in backbone.shared_parameters()}
        task = make_task(backbone)
        model = Model(backbone, task, self.made(method))
        trained = {id(p) for p in model.parameters() if p.requires_grad}
        of_method = {id(p) for p in model.method_parameters}
        assert trained == always | {id(p) for p in task.parameters()} | of_method
        assert not always & of_method
        if size is None:
            assert trained == {id(p) for p in model.parameters()}
            return
        expected = sum(map(size, model.tuning.sites)) + self.shared.get(method, 0)
        assert sum(p.numel() for p in model.method_parameters) == parameters(model)["method_params"] == expected
        if method not in self.on_own:
            assert not of_method & own

    def test_every_trained_parameter_gets_a_gradient(self, method, backbone, make_task, batch):
        model = Model(backbone, make_task(backbone), self.made(method))
        disturb(model)
        model.train()
        if (loss := model.task.loss(model(batch), batch)).requires_grad:
            loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
            else:
                assert parameter.grad is None, name

    def test_backbone_keys_are_unchanged(self, method, backbone, make_task):
        before = set(backbone.state_dict())
        Model(backbone, make_task(backbone), self.made(method))
        added = set(backbone.state_dict()) - before
        assert before <= set(backbone.state_dict())
        assert all(".delta." in key for key in added)

    def test_folding_changes_nothing(self, method, backbone, make_task, batch):
        model = Model(backbone, make_task(backbone), self.made(method)).eval()
        disturb(model)
        keys = set(model.state_dict())
        saved = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with torch.no_grad():
            plain = model(batch)
            with model.tuning.folded():
                folded = model(batch)
                assert set(model.state_dict()) == keys
            again = model(batch)
        torch.testing.assert_close(folded, plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again, plain, atol=0, rtol=0)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, saved[key]), key

    def test_the_last_layer_for_the_class_token_alone_gives_the_same(self, method, backbone, make_task, batch):
        model = Model(backbone, make_task(backbone), self.made(method)).eval()
        disturb(model)
        with torch.no_grad():
            one = model(batch)
            backbone.last_layer = "all"
            every = model(batch)
        torch.testing.assert_close(one, every, atol=1e-5, rtol=1e-5)

    def test_padding_is_masked(self, method, backbone, make_task, batch):
        """An example alone and the same beside longer texts and larger images."""
        model = Model(backbone, make_task(backbone), self.made(method)).eval()
        disturb(model)
        alone = tiny.alone(batch, 1, 7, batch["image_size"][1].tolist())
        with torch.no_grad():
            torch.testing.assert_close(model(alone)[0, :1], model(batch)[1, :1], atol=1e-5, rtol=1e-4)

    def test_saves_and_loads(self, method, backbone, make_task, batch):
        model = Model(copy.deepcopy(backbone), make_task(backbone), self.made(method)).eval()
        other = Model(copy.deepcopy(backbone), make_task(backbone), self.made(method)).eval()
        disturb(model)
        other.load_tuned(model.tuned_state())
        with torch.no_grad():
            assert torch.equal(model(batch), other(batch))


@pytest.mark.parametrize("method", METHODS)
class TestMethod(OnEveryBackbone):
    """On a task of one image and on one of two: the others call a backbone as these."""

    methods, on_own, shared, make_task = METHODS, ("bitfit", "ln_tuning"), SHARED, on("vqa", "nlvr2")


@pytest.mark.parametrize("method", PAPER)
class TestPaper(OnEveryBackbone):
    """The paper's methods on its other tasks as well."""

    methods, make_task = METHODS, on("retrieval", "snli_ve")


# Of two towers alone, as METHODS: CoCoOp's h and MaPLe's maps are counted at the sites that they lie at.
OF_TOWERS = {
    "coop": (lambda: CoOp(prompts=5), lambda site: 5 * site.width, False),
    "cocoop": (
        lambda: CoCoOp(prompts=5, reduction=10),
        lambda site: 5 * site.width + 2 * (site.image_width + 1) + 3 * site.width,
        False,
    ),
    "maple": (
        lambda: MaPLe(prompts=3, depth=2),
        lambda site: of_maple(site, 3 * site.width if site.place == "text" else (24 + 1) * site.width),
        False,
    ),
    "ivlp": (lambda: MaPLe(prompts=3, depth=2, coupled=False), lambda site: of_maple(site, 3 * site.width), False),
    "clip_lora": (lambda: ClipLoRA(rank=2, dropout=0.0), lambda site: 2 * (site.in_width + site.width), True),
    "clip_adapter": (lambda: ClipAdapter(), lambda site: 2 * site.width * (site.width // 4), False),
}
OF_TEXT = ("coop", "cocoop")


def of_maple(site, size):
    """Of one of two blocks, the second, and of the sequence before both."""
    return 0 if isinstance(site.delta, Left) else size


class InTwoTowers(OnEveryBackbone):
    """In both towers of CLIP, whose widths differ."""

    methods, on_own = METHODS | OF_TOWERS, ("bitfit", "ln_tuning")
    shared: ClassVar = SHARED | {"fact": 2 * 2 * (24 + 40)}

    def made(self, method):
        made = super().made(method)
        for each in (made, *getattr(made, "methods", ())):
            each.sites_in = "text" if method in OF_TEXT else "image" if method == "clip_adapter" else "towers"
        return made

    protocol = "few_shot"

    @pytest.fixture
    def make_task(self):
        return lambda backbone: tiny.classification(protocol=self.protocol)

    @pytest.fixture
    def backbone(self):
        return tiny.clip()

    @pytest.fixture
    def batch(self):
        return tiny.batch(tiny.SQUARE)


@pytest.mark.parametrize("method", METHODS | OF_TOWERS)
class TestTwoTowers(InTwoTowers):
    """Whatever the protocol: the other trains on fewer classes, and all else is the same."""


@pytest.mark.parametrize("method", OF_TOWERS)
class TestBaseToNew(InTwoTowers):
    """The methods that act on classes' texts, of which half are trained on."""

    protocol = "base_to_new"


# Methods that one which paints alone has room for: as METHODS.
OF_PAINTING = {
    "textual_inversion": (TextualInversion, lambda site: site.width, False),
    "custom_diffusion": (
        CustomDiffusion,
        lambda site: site.width * (1 if site.role == "words" else site.in_width),
        False,
    ),
}


@pytest.mark.parametrize("method", OF_PAINTING)
def test_a_method_of_painting_has_its_size_at_every_site(method):
    make, size, _ = OF_PAINTING[method]
    model = Model(tiny_diffusion.stable_diffusion(), tiny_diffusion.subject(), make())
    assert parameters(model)["method_params"] == sum(map(size, model.tuning.sites)) > 0
    assert {site.cross for site in model.tuning.sites if site.role != "words"} <= {True}


@pytest.mark.parametrize("backbone", SITES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_acts_at_every_site_of_its_roles(method, backbone):
    made = METHODS[method][0]()
    tuning, counts = made.attach(BACKBONES[backbone][0]()), SITES[backbone]
    roles = [role for each in getattr(made, "methods", [made]) for role in getattr(each, "roles", ())]
    assert len(tuning.sites) == sum(counts.get(role, 0) for role in roles)


@pytest.mark.parametrize("backbone", SITES)
def test_a_backbone_has_every_site_of_its_blocks(backbone):
    found = Counter(site.role for site in sites(BACKBONES[backbone][0]()) if site.place == "fusion")
    assert found == SITES[backbone]


@pytest.mark.parametrize(
    ("where", "text", "image", "fusion"),
    [("fusion", 0, 0, 8), ("text", 2, 0, 0), ("image", 0, 2, 0), ("towers", 2, 2, 0), ("all", 2, 2, 8)],
)
def test_a_method_acts_where_it_is_told(where, text, image, fusion):
    backbone, method = tiny.meter(), APT(prompts=5, rank=2)
    method.sites_in = where
    model = Model(backbone, VQA(2 * tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)
    counts = [len(tiny.tuned_sites(part)) for part in (backbone.text, backbone.image, backbone)]
    assert counts == [text, image, text + image + fusion]
    batch = tiny.batch(tiny.SQUARE)
    model.task.loss(model.train()(batch), batch).backward()
    assert all(parameter.grad is not None for parameter in model.method_parameters)


def test_a_frozen_tower_gives_the_same_in_training_and_builds_no_graph():
    backbone = tiny.meter(text_dropout=0.5)
    model = Model(backbone, VQA(2 * tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), LoRA(rank=2)).train()
    batch = tiny.batch(tiny.SQUARE)
    features = backbone.text_features(batch["text_ids"], batch["text_mask"])
    assert not features.requires_grad
    assert torch.equal(features, backbone.text_features(batch["text_ids"], batch["text_mask"]))
    assert not backbone.image_features(batch["image"]).requires_grad
    assert model.training
    assert backbone.text_layers.training
    tuned = Model(tiny.meter(text_dropout=0.5), VQA(2 * tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), Full()).train().backbone
    assert not torch.equal(*(tuned.text_features(batch["text_ids"], batch["text_mask"]) for _ in range(2)))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_frozen_text_tower_gives_the_same_in_any_batch(threads):
    backbone, before = tiny.meter(), torch.get_num_threads()
    ids, mask = tiny.texts([12, 7, 9, 5, 11, 6] * 4)
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            together = backbone.text_features(ids, mask)
            for text, length, features in zip(ids, mask.sum(1).tolist(), together, strict=True):
                alone = backbone.text_features(text[None, :length], None)[0]
                torch.testing.assert_close(alone, features[:length], atol=1e-5, rtol=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("variant", APT_VARIANTS)
def test_apt_variants_train_and_fold(variant):
    backbone = tiny.vilt()
    model = Model(backbone, VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), APT(prompts=5, rank=2, **APT_VARIANTS[variant]))
    disturb(model)
    batch = tiny.batch()
    model.task.loss(model(batch), batch).backward()
    assert all(p.grad is not None for p in model.method_parameters)
    with torch.no_grad():
        plain = model.eval()(batch)
        with model.tuning.folded():
            torch.testing.assert_close(model(batch), plain, atol=1e-5, rtol=1e-5)
    place = APT_VARIANTS[variant].get("roles", ["attention_output"])
    assert {site.role for site in model.tuning.sites} == set(place)


def test_apt_is_its_equation():
    """(y + a psi(x K^T) P) e^s with K = P + P W1 W2, written out."""
    delta = APT(prompts=3, rank=2).delta(next(s for s in sites(tiny.vilt()) if s.role == "attention_output"))
    y, x = torch.randn(2, 4, tiny.WIDTH), torch.randn(2, 4, tiny.WIDTH)
    with torch.no_grad():
        delta.map[1].weight.normal_()
        delta.log_scale.fill_(0.3)
        p, w1, w2 = delta.prompts, delta.map[0].weight.t(), delta.map[1].weight.t()
        weights = (x @ (p + p @ w1 @ w2).t()).clamp(min=0)
        expected = (y + weights.max(-1, keepdim=True).values * (weights @ p)) * torch.tensor(0.3).exp()
        torch.testing.assert_close(delta(y, x), expected, atol=1e-6, rtol=1e-5)


def placed(method, where):
    method.sites_in = where
    return method


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rank=0), "method.rank=0: must be a whole number between 1 and the width 32"),
        (lambda: LoRA(rank=33), "method.rank=33: must be a whole number between 1 and the width 32"),
        (lambda: APT(rank=33), "method.rank=33"),
        (lambda: APT(prompts=0), "method.prompts=0: must be a whole number at least 1"),
        (lambda: DeepPrompt(prompts=0), "method.prompts=0"),
        (lambda: ShallowPrompt(prompts=-1), "method.prompts=-1"),
        (lambda: Adapter(bottleneck=0), "method.bottleneck=0"),
        (lambda: Adapter(bottleneck="six"), "method.bottleneck=six"),
        (lambda: LoRA(roles=["qery"]), "method.roles: there is no role 'qery'; there are query, key, value"),
        (
            lambda: DeepPrompt(roles=["cross_memory"]),
            "Vilt has no site cross_memory with method.sites_in=fusion; it offers query, key",
        ),
        (lambda: APT(activation="gelu"), "method.activation=gelu: must be one of relu, softmax"),
        (lambda: APT(map="half"), "method.map=half: must be one of low_rank, full, none"),
        (lambda: APT(scale="min"), "method.scale=min: must be one of max, learned, gated"),
        (
            lambda: placed(APT(), "towers"),
            "Vilt has no site attention_output with method.sites_in=towers; it offers none",
        ),
        (lambda: placed(APT(), "head"), "method.sites_in=head: must be one of fusion, text, image, towers, all"),
    ],
)
def test_wrong_settings_are_told_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make().attach(tiny.vilt())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_soft_targets_are_what_the_loss_sees():
    task, batch = VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), tiny.batch()
    targets = task.targets(batch, torch.zeros(1))
    expected = torch.stack([one_hot(torch.tensor(i), 4) + 0.3 * one_hot(torch.tensor(3), 4) for i in range(3)])
    torch.testing.assert_close(targets, expected)


@pytest.mark.parametrize(
    ("make", "role", "name", "spread"),
    [
        (lambda: LoRA(rank=8, init_std=0.5), "query", "down.weight", 0.5),
        (lambda: Adapter(bottleneck=32, init_std=0.3), "attention_output", "up.weight", 0.3),
        (lambda: ScaledParallelAdapter(bottleneck=32, init_std=0.4), "attention_output", "down.weight", 0.4),
        (lambda: APT(prompts=40, prompt_std=0.7), "attention_output", "prompts", 0.7),
        (lambda: APT(prompts=4, rank=32, map_std=0.2), "attention_output", "map.0.weight", 0.2),
        (lambda: DeepPrompt(prompts=40, init_bound=0.6), "memory", "prompts", 0.6 / 3**0.5),
        (lambda: ShallowPrompt(prompts=40), "sequence", "prompts", 32**-0.5),
    ],
)
def test_initialisation_is_as_configured(make, role, name, spread):
    torch.manual_seed(0)
    delta = make().delta(next(site for site in sites(tiny.vilt()) if site.role == role))
    assert delta.get_parameter(name).std().item() == pytest.approx(spread, rel=0.1)


def test_the_most_patches_are_drawn_in_training_and_fixed_otherwise():
    backbone = tiny.vilt(max_image_len=5)
    batch = tiny.batch()

    def embedded(most):
        return backbone.image(batch["image"], backbone.image.chosen(batch["image"], batch["image_size"], most))

    with torch.no_grad():
        first, mask, _ = embedded(5)
        again, *_ = embedded(5)
        assert first.shape[1] == 1 + 5
        assert mask is None, "every image has five"
        assert torch.equal(first, again)
        backbone.train()
        drawn = [embedded(5)[0] for _ in range(3)]
        assert not torch.equal(drawn[0], drawn[1])
        every, *_ = embedded(-1)
    for tokens in (first, *drawn):
        for kept, available in zip(tokens, every, strict=True):
            assert all((available - token).abs().sum(-1).min() < 1e-5 for token in kept)
            assert len({tuple(token.tolist()) for token in kept}) == 6
