"""mode=cost against the published columns, and against closed forms of what our code computes."""

import json
from pathlib import Path

import forked
import pytest
import tiny
import torch
from composed import composed
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn.functional import logsigmoid

from vltune.assemble.factory import build, build_method
from vltune.assemble.model import build_shapes
from vltune.costs.macs import HANDLERS, as_published, count, every_token, example, macs, parameters
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.bitfit import BitFit
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.dora import DoRA
from vltune.methods.fact import FacT
from vltune.methods.full import Full
from vltune.methods.ia3 import IA3
from vltune.methods.ln_tuning import LNTuning
from vltune.methods.lokr import LoKr
from vltune.methods.lora import LoRA
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.methods.ssf import SSF
from vltune.methods.vera import VeRA
from vltune.model import Model
from vltune.tasks.vqa import VQA

ROOT = Path(__file__).parents[2]
PAPER = {
    name: json.loads((ROOT / "results" / "paper" / f"{name}.json").read_text())["rows"] for name in ("vilt", "meter")
}
# METER's deep prompt: 13.05G follows from nothing found, ours is 10.77G as the paper counts elsewhere.  Its scaled parallel
# adapter: 1.12G is that of bottleneck 96, 3.82M parameters that of 102.
INCONSISTENT = {("meter", "deep_prompt"): 10.77, ("meter", "scaled_pa"): 1.19}


@pytest.fixture(scope="module", params=PAPER)
def paper(request):
    """A backbone at its published size with a head of 3,129 answers, from its configuration; random weights."""
    config = composed(f"backbone={request.param}", "task=vqa", "method=classifier_only")
    return request.param, build(config["backbone"]), config["backbone"]["protocol"]


@pytest.mark.parametrize("name", [name for name in PAPER["vilt"] if name != "full"])
def test_a_column_is_the_published_one(name, paper):
    """Parameters to the printed digit, multiply-accumulates as published within 1.5 %."""
    backbone_name, backbone, sizes = paper
    method = build_method(composed(f"backbone={backbone_name}", "task=vqa", f"method={name}")["method"])
    row = PAPER[backbone_name][name]
    model = Model(backbone, VQA(backbone.pooled_width, backbone.width, ["yes", "no"]), method)
    try:
        # The paper rounds, but cuts METER's deep prompt, 3.6864M, to 3.68.
        ours = sum(p.numel() for p in model.tuning.trained) / 1e6
        assert (row.get("updated_params_M") or 0) in (round(ours, 2), int(100 * ours) / 100)
        with every_token(backbone):
            counted = as_published(model, example(sizes["text_len"], sizes["image"], 1000))
        expected = INCONSISTENT.get((backbone_name, name), row["additional_gmacs"])
        assert counted / 1e9 == pytest.approx(expected, rel=0.015)
    finally:
        model.tuning.detach()


@pytest.mark.parametrize("paper", ["meter"], indirect=True)
def test_the_published_cost_of_a_scaled_parallel_adapter_on_meter_is_that_of_bottleneck_96(paper):
    _, backbone, sizes = paper
    model = Model(backbone, VQA(2 * 768, 768, ["yes", "no"]), ScaledParallelAdapter(bottleneck=96))
    with every_token(backbone):
        ours = as_published(model, example(sizes["text_len"], sizes["image"], 1000))
    assert f"{parameters(model)['method_params'] / 1e6:.2f}" == "3.60"
    assert f"{ours / 1e9:.2f}" == "1.12"


# Additional MACs of folded inference for N tokens, `layers` blocks of width d and feed-forward width h.
N, LAYERS, D, H, P, R, B = 12 + 1 + 20, 2, 32, 64, 5, 2, 6
NORM = 5 * D  # fvcore's count of an affine LayerNorm, a token
CLOSED = {
    "full": (Full(), 0),
    "classifier_only": (ClassifierOnly(), 0),
    "lora": (LoRA(rank=R), 0),
    "adapter": (Adapter(bottleneck=B), 2 * LAYERS * N * 2 * D * B),
    "scaled_pa": (ScaledParallelAdapter(bottleneck=B), LAYERS * N * (2 * D * B + NORM)),
    "apt": (APT(prompts=P, rank=R), LAYERS * 2 * N * P * D),
    "deep_prompt": (DeepPrompt(prompts=P), LAYERS * (P * 2 * D * D + 2 * N * P * D + P * NORM)),
    "shallow_prompt": (
        ShallowPrompt(prompts=P),
        LAYERS * (P * (4 * D * D + 2 * D * H + 2 * NORM) + 2 * D * ((N + P) ** 2 - N**2)) + P * NORM,
    ),
}
# The same of METER: T text and V image tokens, each stream's layers with self- and cross-attention.
T, V = 12, 1 + 16
CLOSED_METER = {
    "full": (Full(), 0),
    "classifier_only": (ClassifierOnly(), 0),
    "lora": (LoRA(rank=R), 0),
    "adapter": (Adapter(bottleneck=B), 3 * LAYERS * (T + V) * 2 * D * B),
    "scaled_pa": (ScaledParallelAdapter(bottleneck=B), 2 * LAYERS * (T + V) * (2 * D * B + NORM)),
    "apt": (APT(prompts=P, rank=R), 2 * LAYERS * 2 * (T + V) * P * D),
    "deep_prompt": (DeepPrompt(prompts=P), 2 * LAYERS * (2 * P * 2 * D * D + 2 * (T + V) * P * D)),
    "deep_prompt, as released": (
        DeepPrompt(prompts=P, roles=["cross_memory"]),
        LAYERS * (2 * P * 2 * D * D + 2 * (T + V) * P * D),
    ),
    "shallow_prompt": (
        ShallowPrompt(prompts=P),
        LAYERS
        * (
            2 * P * (8 * D * D + 2 * D * H + 3 * NORM)
            + 2 * D * ((T + P) ** 2 - T**2 + (V + P) ** 2 - V**2 + 2 * ((T + P) * (V + P) - T * V))
        ),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_measured_macs_are_the_closed_form(name):
    method, expected = CLOSED[name]
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)
    assert macs(model, example(12, (64, 80), tiny.VOCABULARY))["additional_macs"] == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("name", CLOSED_METER)
def test_measured_macs_of_meter_are_the_closed_form(name):
    method, expected = CLOSED_METER[name]
    model = Model(tiny.meter(), VQA(2 * tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)
    assert macs(model, example(T, (64, 64), tiny.VOCABULARY))["additional_macs"] == pytest.approx(expected, rel=0.005)


# They fold into the backbone's own layers.
FOLDED = {
    "dora": lambda: DoRA(rank=R),
    "ia3": IA3,
    "vera": lambda: VeRA(rank=R),
    "lokr": lambda: LoKr(factor=4, rank=R),
    "bitfit": BitFit,
    "ln_tuning": LNTuning,
    "ssf": SSF,
    "fact": lambda: FacT(rank=R),
}


@pytest.mark.parametrize("backbone", [tiny.vilt, tiny.meter])
@pytest.mark.parametrize("name", FOLDED)
def test_what_folds_costs_nothing_as_its_paper_says(name, backbone):
    made = backbone()
    model = Model(made, VQA(made.pooled_width, made.width, tiny.ANSWERS), FOLDED[name]())
    counted = macs(model, example(12, (64, 64), tiny.VOCABULARY))
    assert counted["additional_macs"] == counted["additional_macs_as_published"] == 0


# name -> parameters at ViLT-B's sizes: 12 layers of width 768 and 3072 hidden units, of which the linear layers give 9 and
# the norms 2 widths.
AT_FULL_SIZE = {
    "dora": 12 * 2 * (4 * 2 * 768 + 768),
    "ia3": 12 * (2 + 4) * 768,
    "vera": 12 * 2 * (256 + 768),
    "lokr": 12 * 2 * (8 * 8 + 4 * 2 * 96),
    "bitfit": 12 * (9 + 2) * 768,
    "ln_tuning": 12 * 2 * 2 * 768,
    "ssf": 12 * 2 * (9 + 2) * 768,
    "fact": 2 * 16 * 768 + 12 * (4 + 4 + 4) * 16**2,
}


@pytest.mark.parametrize("name", AT_FULL_SIZE)
def test_parameters_at_full_size_are_the_closed_form(name):
    config = composed("backbone=vilt", "task=vqa", f"method={name}")
    model = build_shapes(*(config[group] for group in ("backbone", "task", "dataset")))
    tuning = build_method(config["method"]).attach(model.backbone)
    assert sum(parameter.numel() for parameter in tuning.trained) == AT_FULL_SIZE[name]


def test_an_operator_that_nobody_counts_is_an_error():
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), ClassifierOnly())
    model.task.head[2].forward = lambda x: x.cosh()
    with pytest.raises(RuntimeError, match="neither counted nor known to be cheap: aten::cosh"):
        count(model, example(12, (64, 80), tiny.VOCABULARY))


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("uhr,rcd->uhcd", [(1, 10, 12), (12, 12, 768)], 10 * 12 * 12 * 768),
        ("...ab,bc->...ac", [(2, 3, 5, 7), (7, 11)], 2 * 3 * 5 * 7 * 11),
        ("...a,...ab->...b", [(3, 1, 7), (5, 7, 11)], 3 * 5 * 7 * 11),
        ("ab,cb,cd->ad", [(5, 7), (11, 7), (11, 13)], 5 * 7 * 11 + 5 * 11 * 13),
        ("abc, cd, bd -> ab", [(5, 7, 11), (11, 13), (7, 13)], 5 * 7 * 11 * 13 + 5 * 7 * 13),
    ],
)
def test_an_einsum_is_counted_to_the_unit(equation, shapes, macs):
    product = nn.Module()
    product.forward = lambda *operands: torch.einsum(equation, *operands)
    analysis = FlopCountAnalysis(product, tuple(torch.ones(shape) for shape in shapes)).set_op_handle(**HANDLERS)
    assert analysis.total() == macs


def test_what_a_new_head_does_to_each_number_costs_nothing_and_is_no_error():
    """As attention pooling with a mask, or a sigmoid loss's logits, has it."""
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), ClassifierOnly())
    shown = example(12, (64, 80), tiny.VOCABULARY)
    model.task.head[2].forward = lambda x: x
    before = count(model, shown)
    model.task.head[2].forward = lambda x: logsigmoid(x.masked_fill((x > 9).logical_not(), 0).log_softmax(-1))
    assert count(model, shown) == before


@pytest.mark.parametrize(("rows", "columns"), [(4, 5), (7, 11)])
def test_fused_attention_and_einsum_are_counted(rows, columns):
    """All of an example, by hand."""
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), ClassifierOnly())
    with every_token(model.backbone):
        counted = count(model, example(12, (16 * rows, 16 * columns), tiny.VOCABULARY))
    assert counted.keys() == {"example"}
    total, n = counted["example"], 12 + 1 + rows * columns
    blocks = LAYERS * (n * (4 * D * D + 2 * D * H + 2 * NORM) + 2 * n * n * D)
    patches = rows * columns * (3 * 16 * 16) * D
    head = D * D + D * 2 * D + 5 * 2 * D + 2 * D * len(tiny.ANSWERS)
    side = model.backbone.image.position.shape[0]
    positions = side * rows * side * D + side * rows * columns * D
    assert total == blocks + patches + head + n * NORM + 12 * NORM + positions


def test_mode_cost_needs_neither_data_nor_weights(tmp_path):
    done = forked.run("run.py", "mode=cost", "backbone=vilt", "method=apt", "task=vqa", f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = json.loads(Path(done.stdout.splitlines()[-1].removeprefix("record: ")).read_text())
    assert record["cost"]["method_params"] == 1_916_940
    assert record["cost"]["additional_macs_as_published"] == 903_168_000
    assert record["cost"]["additional_macs"] == pytest.approx(888_422_400, rel=0.005)
