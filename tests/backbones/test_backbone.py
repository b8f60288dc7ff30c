"""A backbone may lack parts: what needs them is told in one line, and the rest works."""

import ast
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import tiny
import torch
from tiny_diffusion import stable_diffusion
from torch import nn

import vltune
from vltune.backbones.backbone import DENOISING, JOINT, TWO_TOWERS, Backbone, Features
from vltune.costs.macs import example, macs
from vltune.errors import UserError
from vltune.methods.apt import APT
from vltune.model import Model
from vltune.nn.blocks import PreNormBlock
from vltune.nn.embeddings import unfold
from vltune.sites import place
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.task import Task
from vltune.tasks.vqa import VQA

PACKAGE = Path(vltune.__file__).parent
PARTS = {
    tiny.vilt: {*JOINT, "forward"},
    tiny.meter: {*Backbone.parts} - {*TWO_TOWERS, *DENOISING},
    tiny.clip: {*TWO_TOWERS, "text_features", "image_features"},
    stable_diffusion: {*DENOISING, "text_features", "image_features"},
}


class OfImages(VQA):
    """A task that makes do without texts."""

    needs = ("forward",)


class Patches(Backbone):
    """Images alone: no text, no fusion, no class token, nothing that is trained with every method."""

    width = pooled_width = tiny.WIDTH

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(3 * 16**2, self.width)
        self.block = PreNormBlock(self.width, 4, 64, nn.GELU(), dropout=0.0, eps=1e-6)
        place(self, "image")

    def forward(self, batch):
        return Features(self.block(self.patch(unfold(batch["image"], 16)), None).mean(1))


def patches(method, task=None, where="image"):
    torch.manual_seed(0)
    method.sites_in = where
    return Model(Patches(), task or OfImages(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)


@pytest.mark.parametrize("make", PARTS)
def test_a_backbone_says_which_parts_it_offers(make):
    backbone = make()
    assert {part for part in Backbone.parts if backbone.offers(part)} == PARTS[make]
    assert set(backbone.towers()) == ({"text", "image"} if backbone.offers("text_features") else set())


def test_one_without_text_and_fusion_is_tuned_saved_and_counted():
    model, batch = patches(APT(prompts=5, rank=2)), tiny.batch(tiny.SQUARE)
    model.task.loss(model(batch), batch).backward()
    assert all(parameter.grad is not None for parameter in model.method_parameters)
    assert model.shared_parameters == model.fusion_parameters == []
    model.load_tuned(model.tuned_state())
    assert macs(model, example(tiny.TEXT, (64, 64), tiny.VOCABULARY))["additional_macs"] == 2 * 16 * 5 * tiny.WIDTH


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda batch: patches(APT(prompts=5), Retrieval(tiny.WIDTH)),
            "Patches has no encode_text, which Retrieval needs; choose another backbone or task",
        ),
        (lambda batch: patches(APT(prompts=5), VQA(tiny.WIDTH, tiny.WIDTH, ["a"])), "no encode_text, which VQA needs"),
        (lambda batch: Patches().encode_text(batch), "Patches has no encode_text, which this needs"),
        (lambda batch: Backbone()(batch), "Backbone has no encode_text, which this needs"),
        (lambda batch: patches(APT(prompts=5), where="fusion"), "Patches has no site attention_output with"),
    ],
)
def test_a_part_that_it_lacks_is_told_in_one_line(call, message):
    with pytest.raises(UserError) as error:
        call(tiny.batch(tiny.SQUARE))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def asked(tree):
    """What is read of a `backbone` in a file's code."""
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {
        node.attr
        for node in reads
        if (isinstance(node.value, ast.Name) and node.value.id == "backbone")
        or (isinstance(node.value, ast.Attribute) and node.value.attr == "backbone")
    }


def test_nothing_is_asked_of_a_backbone_that_its_contract_does_not_name():
    declared = {*dir(Backbone), *Backbone.__annotations__, *vars(nn.Module())}
    rooms = ("costs", "engine", "evaluators", "experiment", "features", "methods", "tasks")
    files = [file for room in rooms for file in (PACKAGE / room).rglob("*.py")]
    found = {file: asked(ast.parse(file.read_text())) - declared for file in files}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize("file", sorted((PACKAGE / "tasks").glob("*.py")), ids=lambda file: file.stem)
def test_a_task_needs_the_parts_that_it_asks_for(file):
    module = import_module(f"vltune.tasks.{file.stem}")
    made_here = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Task)]
    needed = {part for each in made_here for part in each.needs}
    assert asked(ast.parse(file.read_text())) & {*Backbone.parts} <= needed | {"text_features", "image_features"}


@pytest.mark.parametrize("make", [partial(tiny.vilt, dropout=0.5), partial(tiny.meter, text_dropout=0.5)])
def test_a_class_token_starts_as_in_inference_whatever_the_mode(make):
    backbone = make()
    backbone.start_class_token(2)
    start = backbone.class_token.detach().clone()
    backbone.train()
    backbone.start_class_token(2)
    assert torch.equal(backbone.class_token, start)
    assert backbone.text.training


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (tiny.vilt, {("text", 1e-12), ("blocks", 1e-6), ("norm", 1e-6)}),
        (tiny.meter, {("text", 1e-5), ("image", 1e-5), ("text_layers", 1e-12), ("image_layers", 1e-12)}),
        (tiny.clip, {("text", 1e-5), ("image", 1e-5)}),
    ],
)
def test_norms_have_the_epsilons_of_the_released_models(make, expected):
    """Too small to be seen in outputs of order 1."""
    norms = ((name, part.eps) for name, part in make().named_modules() if isinstance(part, nn.LayerNorm))
    assert {(name.partition(".")[0], eps) for name, eps in norms} == expected


@pytest.mark.parametrize(
    ("make", "calls"), [(partial(tiny.vilt, dropout=0.1), 8), (partial(tiny.meter, text_dropout=0.1, dropout=0.1), 29)]
)
def test_every_dropout_of_a_backbone_acts_in_training(make, calls):
    """ViLT's at both embeddings and three times a block: in the feed-forward, and behind it and attention."""
    backbone, called = make().train(), []
    there = {name for name, part in backbone.named_modules() if isinstance(part, nn.Dropout)}
    for name in there:
        backbone.get_submodule(name).register_forward_hook(lambda *call, name=name: called.append(name))
    backbone(tiny.batch(tiny.SQUARE))
    assert {*called} == there
    assert len(called) == calls
