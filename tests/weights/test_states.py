"""Wherever a training script put the state dict, it is found; where several could be meant, none is taken."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from vltune.errors import UserError
from vltune.weights.files import read

STATE = {"a.weight": torch.ones(2, 3), "b.bias": torch.zeros(3)}
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}
ADAM = {"state": {0: {"exp_avg": torch.ones(2, 3), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}
NAMED_ADAM = {"state": {"a.weight": {"exp_avg": torch.ones(2, 3)}}}
UNDER_MODULE = {f"module.{name}": tensor for name, tensor in STATE.items()}

FOUND = {
    "a script's": {"model": STATE, "epoch": 3},
    "a tutorial's": {"model_state_dict": STATE, "optimizer_state_dict": ADAM, "loss": torch.tensor(0.1)},
    "nested twice": {"state_dict": {"state_dict": STATE}, "step": 3},
    "DeepSpeed's": {
        "module": STATE,
        "optimizer": None,
        "param_shapes": [{"a.weight": torch.Size([2, 3])}],
        "frozen_param_fragments": {"a.weight": torch.ones(6)},
        "ds_config": {"zero": {"stage": 1}},
    },
    "moving averages'": {"n_averaged": torch.tensor(5), **UNDER_MODULE},
    "averages alone": {"ema": UNDER_MODULE, "decay": 0.999},
    "beside plain values": {**STATE, "epoch": 3, "config": {"lr": 1e-3}},
    "beside random state": {"net": STATE, "torch_rng_state": torch.get_rng_state(), "cuda_rng": [torch.ones(3)]},
    "beside an optimiser by name": {"network": STATE, "optim": NAMED_ADAM, "lr_scheduler": {"last": torch.ones(2)}},
    "beside arguments": {
        "model": STATE,
        "args": argparse.Namespace(lr=1e-3, out=Path("/x")),
        "best": np.float64(0.5),
    },
    "Lightning's": {
        "state_dict": STATE,
        "callbacks": {"ema": {"w": torch.ones(2)}},
        "loops": {"fit": {"x": torch.ones(2)}},
        "hyper_parameters": {"pos_weight": torch.ones(3)},
    },
    "in a list": {"models": [{"state_dict": STATE}]},
    "beside single tensors": {"model": STATE, "class_weights": torch.ones(3), "memory": {"queue": torch.ones(3)}},
    "beside NumPy's random state": {"model": STATE, "numpy": np.random.get_state()},
    "beside an unnamed optimiser": {
        "model": STATE,
        "g": {"state": {"a.w": {"b.c": torch.ones(2)}}, "param_groups": []},
    },
    "compiled": {f"_orig_mod.{name}": tensor for name, tensor in STATE.items()},
    "FSDP's": {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in STATE.items()},
    "with activations computed again": {
        name.replace(".", "._checkpoint_wrapped_module."): tensor for name, tensor in STATE.items()
    },
    "one under two names": {"state_dict": STATE, "model": STATE},
}


@pytest.mark.parametrize("content", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_dict_is_found(content, zipped, tmp_path):
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "a.ckpt")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


ALONE = r"save the weights alone, torch\.save\(model\.state_dict\(\), FILE\)"
ONE_ALONE = r"save one alone, as in torch\.save\(checkpoint\["


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 3, "lr": 1e-3}, rf"holds no state dict of tensors, its keys are epoch, lr; {ALONE}"),
        ({"optimizer": ADAM, "epoch": 3}, "holds no state dict of tensors, its keys are optimizer, epoch"),
        ({"step": torch.tensor(3)}, "holds no state dict of tensors, its keys are step"),
        ({}, "holds no state dict of tensors, its keys are none"),
        ([STATE, OTHER], r"holds 2 state dicts, 0, 1, .*torch\.save\(checkpoint\[0\], FILE\)"),
        ({"models": [STATE, OTHER]}, r"2 state dicts, models\.0, models\.1, .*checkpoint\[\"models\"\]\[0\]"),
        ([3], "its keys are 1 in a list"),
        (3, "holds int, no state dict"),
        (
            {"state": {0: {"exp_avg": torch.ones(2)}, 1: {"exp_avg": torch.ones(2)}}, "param_groups": []},
            "holds no state",
        ),
        (
            {b"a.weight": torch.ones(2), "x\x1b[31m\n": 3, "y" * 99: 3},
            r"its keys are a\.weight, x\?\[31m\?, y{57}\.\.\.;",
        ),
        ({**STATE, 3: torch.ones(2)}, "has a tensor under 3, which is no name of a parameter"),
        ({**STATE, "x\n": torch.ones(2)}, r"has a tensor under x\?, which is no name of a parameter"),
        ({"model": {"a.weight": np.ones(3)}}, "holds no state dict of tensors, its keys are model"),
        (torch.ones(2), "holds Tensor, no state dict"),
        (
            {"model": STATE, "ema": OTHER},
            rf"holds 2 state dicts, model, ema, and which is meant .*{ONE_ALONE}\"model\"",
        ),
        ({"model": STATE, "model_ema": OTHER, "optimizer": ADAM}, "holds 2 state dicts, model, model_ema,"),
        ({"state_dict": STATE, "state_dict_ema": OTHER}, "holds 2 state dicts, state_dict, state_dict_ema,"),
        (
            {"all": {"student": STATE, "teacher": OTHER}},
            r"2 state dicts, all\.student, all\.teacher,.*\[\"all\"\]\[\"student\"\]",
        ),
        ({**STATE, "ema": OTHER}, rf"holds 2 state dicts, the outermost, ema, .*{ONE_ALONE}\"ema\""),
        (
            {"a.weight": STATE["a.weight"], "a._orig_mod.weight": OTHER["a.weight"]},
            r"has both a\.weight and a\._orig_mod\.weight",
        ),
        ({**STATE, "module.a.weight": OTHER["a.weight"]}, r"has both a\.weight and module\.a\.weight"),
        ({**UNDER_MODULE, **STATE, "model.c": torch.ones(2)}, r"has both module\.a\.weight and a\.weight"),
        (
            {**UNDER_MODULE, "module.model.b.bias": OTHER["b.bias"], "n_averaged": torch.tensor(1)},
            r"has both module\.b\.bias and module\.model\.b\.bias",
        ),
    ],
)
def test_what_is_ambiguous_or_not_there_is_told(content, told, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=rf"a\.ckpt: .*{told}") as error:
        read(tmp_path / "a.ckpt")
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_holds_itself_is_read(tmp_path):
    content = {"model": STATE}
    content["self"] = content
    torch.save(content, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt").keys() == STATE.keys()
