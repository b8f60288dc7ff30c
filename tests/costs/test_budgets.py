"""`+match=params|macs`: the size is the nearest, and the number what is measured on the model that is really built."""

from functools import cache, partial
from pathlib import Path

import pytest
import tiny
import torch
from composed import composed
from omegaconf import OmegaConf
from presented import ALL
from presented import METHODS as METHODS_OF

from vltune.assemble.factory import check_values
from vltune.assemble.match import sized
from vltune.configuration import find
from vltune.costs.macs import example, macs, parameters
from vltune.costs.matching import COUNTERS, Form, on_meta, solve
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.cocoop import CoCoOp
from vltune.methods.coop import CoOp
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.dora import DoRA
from vltune.methods.fact import FacT
from vltune.methods.lokr import LoKr
from vltune.methods.lora import LoRA
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.methods.vera import VeRA
from vltune.model import Model
from vltune.runs.identity import identity
from vltune.settings.config import RunConfig
from vltune.tasks.matching import Matching
from vltune.tasks.vqa import VQA
from vltune.tuning import Method, Stack

CONF = Path(__file__).parents[2] / "conf"


def method_of(name):
    """What its file builds."""
    return OmegaConf.load(CONF / "method" / f"{name}.yaml").get("_target_", "vltune.tuning.Method")


FOLD = [LoRA, DoRA, VeRA, FacT, partial(LoKr, factor=2)]
METHODS = [ShallowPrompt, DeepPrompt, *FOLD, Adapter, ScaledParallelAdapter, APT]
# backbone -> (how it is made, the size of its image)
BACKBONES = {"vilt": (tiny.vilt, (64, 80)), "meter": (tiny.meter, (64, 64))}


def built(backbone, method):
    made = BACKBONES[backbone][0]()
    return Model(made, VQA(made.pooled_width, made.width, tiny.ANSWERS), method)


def measured(backbone, method, by):
    """What a record would hold, of the model with numbers in it."""
    model = built(backbone, method)
    if by == "params":
        return parameters(model)["method_params"]
    return macs(model, example(tiny.TEXT, BACKBONES[backbone][1], tiny.VOCABULARY))["additional_macs"]


@cache
def of_reference(backbone, prompts, by):
    return measured(backbone, APT(prompts=prompts, rank=2), by)


@cache
def counter(backbone, by):
    with torch.device("meta"):
        model = built(backbone, ClassifierOnly())
    return COUNTERS[by](model, on_meta(example(tiny.TEXT, BACKBONES[backbone][1], tiny.VOCABULARY)))


@pytest.mark.parametrize("by", COUNTERS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_no_other_size_is_nearer_and_the_number_is_the_measured_one(method, backbone, by):
    def make(size):
        return method(**{getattr(method, "func", method).size: size})

    if method in FOLD and by == "macs":
        with pytest.raises(UserError, match=r"\+match=macs: \w+'s rank changes nothing in that.*match it by params"):
            solve(by, counter(backbone, by), make, 10**6)
        return

    for prompts in (41, 7):
        budget = of_reference(backbone, prompts, by)
        try:
            size, _, reached = solve(by, counter(backbone, by), make, budget)
        except UserError as error:
            if "is too much" in str(error):
                assert method in FOLD, "a rank is bounded by the layer"
                continue
            assert "is too little" in str(error)
            assert measured(backbone, make(1), by) > budget
            continue
        assert reached == measured(backbone, make(size), by)
        others = [measured(backbone, make(other), by) for other in (size - 1, size + 1) if other > 0]
        assert abs(reached - budget) <= min(abs(other - budget) for other in others)


@pytest.mark.parametrize(
    "sizes",
    [{"map": "full"}, {"map": "none"}, {"scale": "gated"}, {"roles": ["attention_output", "feed_forward_output"]}],
)
@pytest.mark.parametrize("by", COUNTERS)
def test_a_variant_of_a_method_is_matched_as_it_is(sizes, by):
    size, _, reached = solve(by, counter("meter", by), lambda prompts: APT(prompts=prompts, rank=2, **sizes), 60_000)
    assert reached == measured("meter", APT(prompts=size, rank=2, **sizes), by)
    assert abs(reached - 60_000) <= abs(measured("meter", APT(prompts=size + 1, rank=2, **sizes), by) - 60_000)


def test_a_form_is_the_polynomial_and_the_nearest_of_all_sizes():
    def cost(size):
        return 3 * size**2 + 5 * size + 7

    form = Form.through(*map(cost, (1, 2, 3)))
    assert [form(size) for size in range(20)] == [cost(size) for size in range(20)]
    for budget in range(400):
        assert form.nearest(budget) == min(range(20), key=lambda size: abs(cost(size) - budget)), budget


def test_a_cost_that_is_no_polynomial_of_degree_two_is_a_bug_that_is_told():
    with pytest.raises(RuntimeError, match="by a polynomial of degree two"):
        solve("params", lambda method: 2**method.rank, lambda size: LoRA(rank=size), 10**6)


def resolved(*overrides):
    return RunConfig.of(composed(*overrides))


def test_the_size_is_in_the_configuration_and_in_the_hash():
    config = sized(resolved("+match=params", "method=lora", "backbone=meter_mini"))
    assert config.method["rank"] == 6
    # APT's 16 prompts of rank 4 at 8 sites, and LoRA's rank 6 at 16.
    assert config.match["budget"] == 8 * (16 * 64 + 2 * 4 * 64 + 1)
    assert config.match["reached"] == 16 * 2 * 6 * 64
    same = composed("method=lora", "backbone=meter_mini", "method.rank=6")
    assert identity(config.plain, {}) == identity(same, {})


@pytest.mark.parametrize("by", COUNTERS)
@pytest.mark.parametrize("name", [name for name in ALL if find(method_of(name)).size])
def test_families_say_which_methods_can_be_matched(name, by):
    """What cannot folds, so that it adds no MACs, or its size has an end: LoKr's."""
    chosen, can = [f"+match={by}", f"method={name}"], f"by_{by}" in METHODS_OF[name].families
    if can:
        match = sized(resolved(*chosen)).match
        assert abs(match["reached"] - match["budget"]) < 0.15 * match["budget"]
        return
    with pytest.raises(UserError, match=r"is too much|as it folds into the backbone; match it by params"):
        sized(resolved(*chosen))


def test_where_a_size_has_an_end_another_setting_moves_it():
    match = sized(resolved("+match=params", "method=lokr", "method.factor=2")).match
    assert (match["budget"], match["reached"]) == (6148, 8 * (2 * 2 + 12 * 2 * 32))


def test_a_family_of_what_can_be_matched_holds_no_method_without_a_size():
    named = [name for name, each in METHODS_OF.items() if {"by_params", "by_macs"} & {*each.families}]
    assert all(find(method_of(name)).size for name in named)


@pytest.mark.parametrize("by", COUNTERS)
def test_the_reference_itself_is_matched_by_its_own_size(by):
    config = sized(resolved(f"+match={by}"))
    assert config.method["prompts"] == 16
    assert config.match["budget"] == config.match["reached"]


def test_another_reference_and_a_budget():
    adapter = sized(resolved("+match=macs", "method@match.reference=adapter", "match.reference.bottleneck=5"))
    assert adapter.match["budget"] == 2 * 4 * (16 + 1 + 16) * 2 * 64 * 5
    given = sized(resolved("+match=params", "method=deep_prompt", "match.budget=2.6e3"))
    assert given.method["prompts"] == 10
    assert (given.match["budget"], given.match["reached"]) == (2600, 4 * 10 * 64)


def test_at_full_size_the_published_sizes_have_each_others_parameters():
    """3.83M of APT with 200 prompts, 3.82M of a scaled parallel adapter with bottleneck 102: METER's published rows."""
    config = resolved("+match=params", "backbone=meter", "task=vqa", "method=scaled_pa", "match.budget=3.82e6")
    assert sized(config).method["bottleneck"] == 102
    assert sized(config.changed(method=config.match["reference"])).method["prompts"] == 199


@pytest.mark.parametrize(
    ("chosen", "tokens"),
    [
        (["task=vqa", "backbone.image_tower=swin_b384"], 12 * (40 + 144)),
        # 288 pixels; the first layer of the text's stream attends to the text once, for both images.
        (["task=nlvr2"], 24 * (40 + 325) - 40),
    ],
)
def test_other_image_towers_and_resolutions_are_counted_as_they_are(chosen, tokens):
    config = sized(resolved("backbone=meter", *chosen, "+match=macs", "method=scaled_pa"))
    assert config.match["budget"] == tokens * 2 * 200 * 768
    norm = 5 * 768
    assert config.match["reached"] == tokens * (2 * 768 * config.method["bottleneck"] + norm)


@pytest.mark.parametrize("task", [tiny.classification, Matching], ids=["classification", "matching"])
@pytest.mark.parametrize(
    "methods",
    [
        (lambda: CoCoOp(2),),
        (lambda: CoOp(2), lambda: CoCoOp(3)),
        (lambda: CoCoOp(3), lambda: ShallowPrompt(2)),
        (lambda: CoCoOp(2), lambda: CoCoOp(1)),
        (lambda: CoOp(2), lambda: ShallowPrompt(1)),
    ],
)
def test_what_texts_are_given_is_matched_as_it_is_counted(methods, task):
    """Also where it follows from the image, alone and beside others at the same sequence."""

    def made():
        every = [method() for method in methods]
        for each in every:
            each.sites_in = "text"
        return Stack(every)

    def model(method):
        return Model(tiny.clip(), task(20), method)

    shown = example(5, (64, 64), tiny.VOCABULARY)
    with torch.device("meta"):
        untuned = model(ClassifierOnly())
    assert COUNTERS["macs"](untuned, on_meta(shown))(made()) == macs(model(made()), shown)["additional_macs"] > 0


def test_what_follows_the_image_is_matched_where_images_are_compared_with_texts():
    config = resolved("backbone=clip_mini", "task=matching", "method=cocoop", "method.words=null", "+match=macs")
    assert sized(config).match["reached"] > 0


@pytest.mark.parametrize("backbone", ["clip", "clip_mini"])
def test_where_a_text_has_no_room_for_so_many_tokens_that_is_told(backbone):
    config = resolved(f"backbone={backbone}", "task=matching", "method=coop", "+match=macs", "match.budget=1e12")
    with pytest.raises(UserError, match=r"costs are counted on texts of .* tokens, of which .* there is room for"):
        sized(config)


@pytest.mark.parametrize(
    ("chosen", "typed", "message"),
    [
        (["method=full"], [], "+match=params: full has no size to choose; run it without +match"),
        (["method=classifier_only"], [], "+match=params: classifier_only has no size to choose"),
        (["method=question_only"], [], "+match=params: question_only has no size to choose"),
        (["method=lora"], ["method.rank=3"], "method.rank=3 and +match=params: the budget decides method.rank"),
        (["method=lora"], ["++method.rank=3"], "++method.rank=3 and +match=params: the budget decides method.rank"),
        (["method=lora", "match.budget=100"], [], "100 is too little: with LoRA's rank = 1 there are 1,024"),
        (["method=lora", "match.budget=1e6"], [], "1,000,000 is too much: method.rank=977: must be a whole number"),
        (["method=lora", "match.budget=much"], [], "match.budget=much: must be a number above 0, or null"),
        (["method=lora", "match.budget=-1"], [], "match.budget=-1: must be a number above 0"),
        (["method=lora", "match.by=time"], [], "match.by=time: must be one of params, macs"),
        (["method=lora", "match.reference.prompts=0"], [], "match.reference.prompts=0: must be a whole number"),
        (["method=lora", "method.roles=[qery]"], [], "there is no role 'qery'"),
    ],
)
def test_what_cannot_be_matched_is_told_in_one_line(chosen, typed, message):
    config = composed("+match=params", *chosen)
    with pytest.raises(UserError) as error:
        check_values(config)
        sized(RunConfig.of(config), typed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_match_nothing_changes():
    config = resolved()
    assert sized(config) is config
    assert Method.size is None
