"""LoRA, DoRA and (IA)3 as Hugging Face PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.

PEFT's LoRA is W + s B A with s = alpha / r; ours has no factor, so that alpha is r.  Its (IA)3 scales what a layer
gives, and what one of the `feedforward_modules` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vltune.configuration import find
from vltune.errors import UserError
from vltune.methods.dora import DoRA
from vltune.methods.ia3 import IA3, READERS
from vltune.methods.lora import LoRA
from vltune.methods.peft import VARIANTS, Peft
from vltune.records.record import Record
from vltune.sharing.adapter import check_parts
from vltune.sharing.changes import changes_weights
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
READING = {site for site, layer in SITES.items() if f"feed_forward_{layer}" in READERS}
"""Sites whose layer reads what (IA)3 scales."""
OF_DELTA = {
    "down.weight": "lora_A.weight",
    "up.weight": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
    "scale": "ia3_l",
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
    check_parts(record, source, "method")
    tensors, targets = {}, {}
    settings = options(record["config"]["method"], source)
    check_parts(record, source, "backbone", "task")
    for key, tensor in state.items():
        site, inside, name = key.removeprefix("backbone.").partition(".delta.")
        if not inside:
            continue
        block, _, place = site.rpartition(".")
        module = theirs(f"{block}.{SITES.get(place, place)}", record)
        if module is None or name not in OF_DELTA:
            raise UserError(f"{source}: {key} has no place in a file of PEFT's; --format vltune takes any")
        targets[module] = place
        shape = {"ia3_l": (1, -1) if place in READING else (-1, 1)}.get(OF_DELTA[name], tensor.shape)
        tensors[f"{START}{module}.{OF_DELTA[name]}"] = tensor.reshape(shape).contiguous()
    more, modules = beside_method(state, record, source)
    tensors |= {f"{START}{name}": tensor for name, tensor in more.items()}
    if settings["peft_type"] == "IA3":
        settings["feedforward_modules"] = [module for module, place in targets.items() if place in READING]
    config = {
        **settings,
        "inference_mode": True,
        "target_modules": [*targets],
        "modules_to_save": modules,
        "base_model_name_or_path": None,
    }
    return config, tensors


def options(method: Mapping[str, Any], source: object) -> dict[str, Any]:
    """PEFT's of a method.  UserError for one that it has no type for."""
    kind, low_rank = find(method["_target_"]), {"peft_type": "LORA", "bias": "none"}
    if kind in (LoRA, DoRA):
        own = {"r": method["rank"], "lora_alpha": method["rank"], "lora_dropout": method["dropout"]}
        return {**low_rank, **own, "use_dora": kind is DoRA}
    if kind is IA3:
        return {"peft_type": "IA3"}
    if kind is Peft and method["type"] in TYPES:
        given = {**TYPES[method["type"]], **(method["options"] or {})}
        plain = not changes_weights(given.get("init_lora_weights"))
        if plain and given.keys() <= {*SCALES, "init_lora_weights"}:
            return low_rank | {name: value for name, value in given.items() if name in SCALES}
    told = method["name"] if kind is not Peft else f"{method['name']} method.type={method['type']}"
    raise UserError(
        f"{source}: method={told} cannot be a PEFT folder: LoRA, DoRA and (IA)3 can, without patterns and without a "
        "start that changes the weights; --format vltune takes any"
    )
