"""LoRA as Hugging Face PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`.

PEFT's is W + s B A with s = alpha / r; ours has no factor, so that alpha is r.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vltune.configuration import find
from vltune.errors import UserError
from vltune.methods.lora import LoRA
from vltune.methods.peft import VARIANTS, Peft
from vltune.records.record import Record
from vltune.sharing.layout import beside_method, theirs

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
START = "base_model.model."
SITES = {
    "at_query": "query",
    "at_key": "key",
    "at_value": "value",
    "at_projection": "out",
    "at_up": "up",
    "at_down": "down",
}
"""A site's name -> its layer's, beside it."""
OF_DELTA = {
    "down.weight": "lora_A.weight",
    "up.weight": "lora_B.weight",
    "tuner.lora_A.default.weight": "lora_A.weight",
    "tuner.lora_B.default.weight": "lora_B.weight",
    "tuner.lora_magnitude_vector.default.weight": "lora_magnitude_vector",
}
"""A tensor of a delta -> its name in PEFT's file."""
TYPES = {"lora": {}, **{kind: VARIANTS[kind][1] for kind in ("rslora", "dora")}}
"""Of `method=peft`, those that are a LoRA on the weights as they are, with the options that they stand for."""
SCALES = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
"""Options of PEFT's that a saved LoRA needs."""


def exported(record: Record, state: Mapping[str, Tensor], source: object) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's configuration and tensors of a run.  UserError where PEFT has no type for its method."""
    tensors, targets = {}, {}
    settings = options(record["config"]["method"], source)
    for key, tensor in state.items():
        site, inside, name = key.removeprefix("backbone.").partition(".delta.")
        if not inside:
            continue
        block, _, place = site.rpartition(".")
        module = theirs(f"{block}.{SITES.get(place, place)}", record)
        if module is None or name not in OF_DELTA:
            raise UserError(f"{source}: {key} has no place in a LoRA of PEFT's; --format vltune takes any")
        targets[module] = None
        tensors[f"{START}{module}.{OF_DELTA[name]}"] = tensor
    more, modules = beside_method(state, record)
    tensors |= {f"{START}{name}": tensor for name, tensor in more.items()}
    config = {
        "peft_type": "LORA",
        **settings,
        "bias": "none",
        "inference_mode": True,
        "target_modules": [*targets],
        "modules_to_save": modules,
        "base_model_name_or_path": None,
    }
    return config, tensors


def options(method: Mapping[str, Any], source: object) -> dict[str, Any]:
    """PEFT's of a method.  UserError for one that is no LoRA there."""
    kind = find(method["_target_"])
    if kind is LoRA:
        return {"r": method["rank"], "lora_alpha": method["rank"], "lora_dropout": method["dropout"]}
    if kind is Peft and method["type"] in TYPES:
        given = {**TYPES[method["type"]], **(method["options"] or {})}
        plain = not isinstance(given.get("init_lora_weights"), str)
        if plain and given.keys() <= {*SCALES, "init_lora_weights"}:
            return {name: value for name, value in given.items() if name in SCALES}
    told = method["name"] if kind is not Peft else f"{method['name']} method.type={method['type']}"
    raise UserError(
        f"{source}: method={told} cannot be a PEFT folder: LoRA and DoRA can, without patterns and without a "
        "start that changes the weights; --format vltune takes any"
    )
