"""Attention is the same whichever kernel computes it."""

import pytest
import tiny
import torch
from composed import settled

from vltune.engine import processor
from vltune.experiment.setup import make_fabric
from vltune.methods.lora import LoRA
from vltune.methods.lst import LST
from vltune.model import Model
from vltune.nn.attend import attend, choose, kernel, used
from vltune.nn.lowered import lowered
from vltune.settings.config import RunConfig
from vltune.tasks.vqa import VQA


@pytest.fixture(autouse=True)
def _as_before():
    yield
    choose("auto")


def inputs(dtype=torch.float32, queries=5, keys=7):
    torch.manual_seed(0)
    return [torch.randn(2, 3, count, 8, dtype=dtype, requires_grad=True) for count in (queries, keys, keys)]


def masks(queries=5, keys=7):
    of_keys = torch.ones(2, keys, dtype=torch.bool)
    of_keys[0, 4:] = False
    each = torch.ones(2, queries, keys, dtype=torch.bool).tril(2)
    return {"none": None, "of keys": of_keys, "of each token": each}


def computed(chosen, mask, dtype=torch.float32):
    choose(chosen)
    given = inputs(dtype)
    y = attend(*given, mask)
    y.float().square().sum().backward()
    return [y.detach(), *(x.grad for x in given)]


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_outputs_and_gradients_are_equal(name, dtype, apart):
    mask = masks()[name]
    for one, other in zip(computed("fused", mask, dtype), computed("plain", mask, dtype), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=apart, rtol=apart)


@pytest.mark.parametrize("method", [LoRA, LST])
def test_so_is_a_whole_model(method):
    found = []
    for chosen in ("fused", "plain"):
        choose(chosen)
        torch.manual_seed(0)
        backbone = tiny.vilt()
        made = Model(backbone, VQA(backbone.pooled_width, backbone.width, tiny.ANSWERS), method()).eval()
        found.append(made(tiny.batch()))
    assert torch.allclose(*found, atol=1e-5)


def test_dropout_leaves_out_weights_of_either_kernel():
    given = inputs(queries=50, keys=400)
    for chosen in ("fused", "plain"):
        choose(chosen)
        kept, dropped = attend(*given), attend(*given, dropout=0.5)
        assert not torch.allclose(kept, dropped, atol=1e-2)
        assert torch.allclose(kept.mean(), dropped.mean(), atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "trains", "dropout", "chosen"),
    [
        (torch.float32, True, 0.0, "fused"),
        (torch.float32, True, 0.1, "plain"),
        (torch.float32, False, 0.1, "fused"),
        (torch.bfloat16, True, 0.0, "plain"),
        (torch.bfloat16, False, 0.0, "fused"),
    ],
)
def test_auto_is_plain_where_fused_is_slow(dtype, trains, dropout, chosen):
    choose("auto")
    given = inputs(dtype)
    with torch.set_grad_enabled(trains):
        attend(*given, dropout=dropout)
    assert used() == {"training" if trains else "inference": [chosen]}
    assert kernel("cuda", dtype == torch.bfloat16, trains, dropout > 0) == "fused"


def test_auto_is_fused_where_weights_would_fill_the_memory():
    choose("auto", tiles=False)
    for trains in (True, False):
        assert kernel("cpu", True, trains, weights=618**2) == "plain"
        assert kernel("cpu", True, trains, weights=4096**2) == "fused"
        assert kernel("cpu", True, trains, drops=True, weights=4096**2) == ("plain" if trains else "fused")


@pytest.mark.parametrize(("tiles", "chosen"), [(True, "fused"), (False, "plain")])
def test_inference_in_bfloat16_follows_the_processor(tiles, chosen, monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(f"flags : fpu avx512_bf16 {'amx_bf16' if tiles else ''}\n")
    make_fabric(RunConfig.of(settled("engine.accelerator=cpu")).engine)
    with torch.no_grad():
        attend(*inputs(torch.bfloat16))
    assert used() == {"inference": [chosen]}
    assert kernel("cpu", lower=False, trains=False) == "fused"


def test_nothing_to_go_back_through_is_inference():
    choose("auto")
    attend(*(x.detach() for x in inputs(torch.bfloat16)))
    assert used() == {"inference": ["fused"]}


@pytest.mark.parametrize("chosen", ["fused", "plain"])
def test_a_setting_forces_it(chosen):
    make_fabric(RunConfig.of(settled(f"engine.attention={chosen}", "engine.accelerator=cpu")).engine)
    attend(*inputs())
    assert used() == {"training": [chosen]}


def test_what_is_given_twice_is_cast_once():
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    assert [each is given for each, given in zip(lowered(x, y, x), (x, y, x), strict=True)] == [True] * 3
    with torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as seen:
        first, other, again = lowered(x, y, x)
    assert first is again
    assert first.dtype == other.dtype == torch.bfloat16
    assert sum(event.count for event in seen.key_averages() if event.key == "aten::_to_copy") == 2
