"""mode=cost against the published ViLT columns, and against closed forms of what our code computes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from vltune.backbones.vilt import Vilt
from vltune.costs.macs import as_published, count, every_token, example, macs, parameters
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.tasks.model import Model
from vltune.tasks.vqa import VQA

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "results" / "paper" / "vilt.json").read_text())


def vilt_b(method):
    """ViLT-B/32 with a head of 3,129 answers."""
    return Model(Vilt(), VQA(768, [str(i) for i in range(3129)]), method)


@pytest.fixture(scope="module")
def published():
    """method -> (parameters in millions, MACs in 1e9), as printed."""
    return {name: (row.get("updated_params_M"), row["additional_gmacs"]) for name, row in PUBLISHED["rows"].items()}


PUBLISHED_SIZES = {
    "classifier_only": ClassifierOnly,
    "deep_prompt": DeepPrompt,
    "lora": LoRA,
    "scaled_pa": ScaledParallelAdapter,
    "adapter": Adapter,
    "apt": APT,
}


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_vilt_column_is_the_published_one(name, published):
    params, gmacs = published[name]
    model = vilt_b(PUBLISHED_SIZES[name]())
    assert f"{parameters(model)['method_params'] / 1e6:.2f}" == f"{params or 0:.2f}"
    with every_token(model.backbone):
        ours = as_published(model, example(40, (320, 640), 30522))
    assert ours / 1e9 == pytest.approx(gmacs, rel=0.015)


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


@pytest.mark.parametrize("name", CLOSED)
def test_measured_macs_are_the_closed_form(name):
    method, expected = CLOSED[name]
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.ANSWERS), method)
    assert macs(model, example(12, (64, 80), tiny.VOCABULARY))["additional_macs"] == pytest.approx(expected, rel=0.005)


def test_an_operator_that_nobody_counts_is_an_error():
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.ANSWERS), ClassifierOnly())
    model.task.head[2].forward = lambda x: x.cos()
    with pytest.raises(RuntimeError, match="neither counted nor known to be cheap: aten::cos"):
        count(model, example(12, (64, 80), tiny.VOCABULARY))


def test_fused_attention_is_counted():
    """A block's attention and linear layers, by hand."""
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.ANSWERS), ClassifierOnly())
    with every_token(model.backbone):
        total = count(model, example(12, (64, 80), tiny.VOCABULARY))
    blocks = LAYERS * (N * (4 * D * D + 2 * D * H + 2 * NORM) + 2 * N * N * D)
    patches = 20 * (3 * 16 * 16) * D
    head = D * D + D * 2 * D + 5 * 2 * D + 2 * D * len(tiny.ANSWERS)
    rest = total - blocks - patches - head - N * NORM - 12 * NORM
    assert 0 <= rest < 0.02 * total  # interpolating position embeddings


def test_mode_cost_needs_neither_data_nor_weights(tmp_path):
    command = [
        sys.executable,
        "run.py",
        "mode=cost",
        "backbone=vilt",
        "method=apt",
        "task=vqa",
        f"results_dir={tmp_path}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    record = json.loads(Path(done.stdout.splitlines()[-1].removeprefix("record: ")).read_text())
    assert record["cost"]["method_params"] == 1_916_940
    assert record["cost"]["additional_macs_as_published"] == 903_168_000
    assert record["cost"]["additional_macs"] == pytest.approx(888_422_400, rel=0.005)
