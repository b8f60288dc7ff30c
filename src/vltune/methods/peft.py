"""The tuners of Hugging Face PEFT (github.com/huggingface/peft), computed by PEFT, at linear layers.

    what PEFT's layer gives in the place of W x + b,  x: (B, N, in_width) -> (B, N, width)

PEFT works on copies of the layers, so that the backbone stays as it is; where it changes one (PiSSA takes from the weight
what its branch starts with), the copy is kept, and saved with what is trained.  Outside training what a tuner adds is
computed once.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import Delta, Linear, PartSite
from vltune.tuning import Method

# Tuners that PEFT chooses by options of another's, or that need one: (its type, options).
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("lora", {"use_dora": True}),
    "rslora": ("lora", {"use_rslora": True}),
    "pissa": ("lora", {"init_lora_weights": "pissa"}),
    "olora": ("lora", {"init_lora_weights": "olora"}),
    "frod": ("frod", {"progressbar": False}),
    "ia3": ("ia3", {"feedforward_modules": r".*\.feed_forward_down"}),  # whose input it scales, as in the paper
}
TOKENS = "makes or reads the tokens of a language model"
FROM_DATA = "starts from activations, gradients or a quantised weight, which only PEFT's own preparation gives it"
REFUSED = {
    **dict.fromkeys(
        ("prompt_tuning", "multitask_prompt_tuning", "p_tuning", "prefix_tuning", "adaption_prompt"), TOKENS
    ),
    **dict.fromkeys(("cpt", "cartridge", "shadow", "alora", "trainable_tokens"), TOKENS),
    **dict.fromkeys(("eva", "corda", "loftq", "lora_ga"), FROM_DATA),
    "adalora": "needs the budget and the penalty of PEFT's own training loop, without which it is a LoRA of rank init_r",
    "lily": "mixes by the mean over the whole batch: a score would depend on what else is in it, and on padding",
    "ln_tuning": "acts on norms, which are no linear layers",
    "poly": "routes between many tasks",
    "xlora": "mixes LoRAs that were trained before",
}
# What the sites decide, what needs more than options, and what would make a score a matter of chance.
OURS = {
    *(
        "task_type",
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
    ),
    *(
        "target_modules",
        "exclude_modules",
        "target_parameters",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
    ),
    *("bias", "fan_in_fan_out", "feedforward_modules", "layer_replication", "ensure_weight_tying", "runtime_config"),
    *("trainable_token_indices", "alora_invocation_tokens", "megatron_config", "megatron_core", "use_bdlora"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "monteclora_config"),
    *("arrow_config", "kasa_config", "runtime_offload_base_weight", "sample_at_inference", "save_only_topk_weights"),
}


class Peft(Method):
    """type: the tuner, by its name in PEFT, or one of LoRA's variants.
    options: of the tuner's configuration in PEFT, by their names there, or null for its defaults; a pattern names a layer
    as PEFT sees it, `layers.0.query` for the first query that is tuned."""

    kinds = (PartSite,)

    def __init__(
        self,
        type: str = "lora",
        options: Mapping[str, Any] | None = None,
        roles: Sequence[str] = ("query", "value"),
    ):
        self.type, self.options, self.roles = type, dict(options or {}), roles

    def misfit(self, site: PartSite) -> str | None:
        if not isinstance(site.part, nn.Linear):
            return "which is no linear layer of its own"
        return None if site.delta is None else "where another method acts already: PEFT's must be the first of a stack"

    def deltas(self, sites: Sequence[PartSite]) -> list[Delta]:
        config, layers = self.config(), [with_numbers(site.part) for site in sites]
        from peft import get_peft_model

        # Some tuners compute with the weights, which the meta device cannot.
        with torch.device("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that it changes, which are looked at below
            holder, names = held([site.role for site in sites], layers)
            try:
                get_peft_model(holder, config)
            except (ValueError, TypeError, ImportError, NotImplementedError, RuntimeError, KeyError) as error:
                raise self.refused(error) from None
        tuners = [holder.get_submodule(name) for name in names]
        self.check_kept(config, tuners)
        return [Tuner(*made, site.part) for *made, site in zip(tuners, layers, sites, strict=True)]

    def config(self):
        """PEFT's configuration.  UserError for a type or an option that is none, or that cannot be had here."""
        try:
            from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
        except ImportError:
            raise UserError("method=peft: Hugging Face PEFT is not installed; pip install peft") from None
        known = {kind.value.lower(): make for kind, make in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        if self.type in REFUSED:
            raise UserError(f"method.type={self.type}: {REFUSED[self.type]}")
        if self.type not in known.keys() | VARIANTS.keys():
            offered = ", ".join(sorted((known.keys() | VARIANTS.keys()) - REFUSED.keys()))
            raise UserError(f"method.type={self.type}: must be one of {offered}")
        name, fixed = VARIANTS.get(self.type, (self.type, {}))
        self.check_options(known[name], fixed.keys())
        try:
            return known[name](target_modules=sorted({*self.roles}), **fixed, **self.options)
        except (ValueError, TypeError, ImportError, NotImplementedError) as error:
            raise self.refused(error) from None

    def check_options(self, make: type, fixed: Sequence[str]) -> None:
        from pydantic import TypeAdapter, ValidationError

        kinds = get_type_hints(make)
        offered = [field.name for field in fields(make) if field.name not in {*OURS, *fixed}]
        for name, value in self.options.items():
            if name not in offered:
                raise UserError(
                    f"method.options.{name}: {self.type} has no such option here; it has {', '.join(offered)}"
                )
            if value in ("eva", "corda", "loftq", "lora_ga"):
                raise UserError(f"method.options.{name}={value}: {FROM_DATA}")
            try:
                TypeAdapter(kinds[name]).validate_python(value, strict=True)
            except ValidationError as error:
                told = error.errors(include_url=False)[0]["msg"]
                raise UserError(f"method.options.{name}={value}: {told}") from None

    def check_kept(self, config: Any, tuners: Sequence[nn.Module]) -> None:
        """UserError where PEFT took another value than it was given.  A pattern may give a layer another one."""
        patterns = any(name.endswith("_pattern") for name in self.options)
        for name, value in self.options.items():
            took = [getattr(config, name)]
            if not patterns:
                of_layers = (getattr(tuner, name, None) for tuner in tuners)
                took += [each["default"] for each in of_layers if isinstance(each, dict) and "default" in each]
            if other := [each for each in took if each != value]:
                raise UserError(f"method.options.{name}={value}: does not fit these layers, PEFT would take {other[0]}")

    def refused(self, error: Exception) -> UserError:
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return UserError(f"method.type={self.type} method.options={self.options}: PEFT refuses: {told}")


def with_numbers(layer: nn.Linear) -> nn.Linear:
    """The layer; in the place of one on the meta device, one of its shape."""
    if not layer.weight.is_meta:
        return layer
    with torch.random.fork_rng(devices=[]):
        return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="cpu")


def held(roles: Sequence[str], layers: Sequence[nn.Linear]) -> tuple[nn.Module, list[str]]:
    """Copies of the layers in a module as PEFT knows them, and their names in it, `layers.NUMBER.ROLE`."""
    holder, counts, names = nn.Module(), Counter(), []
    holder.layers = nn.ModuleList()
    for role, layer in zip(roles, layers, strict=True):
        number = counts[role]
        if number == len(holder.layers):
            holder.layers.append(nn.Module())
        setattr(holder.layers[number], role, copy.deepcopy(layer))
        names.append(f"layers.{number}.{role}")
        counts[role] += 1
    return holder, names


class Tuner(Delta):
    """tuner: PEFT's layer, which holds a copy of `before`.  linear: the block's, with the same numbers or none; where PEFT
    starts from another layer, that one stays in the tuner."""

    def __init__(self, tuner: nn.Module, before: nn.Linear, linear: nn.Linear):
        super().__init__()
        self.names = [name for name, parameter in tuner.named_parameters() if parameter.requires_grad]
        self.own_layer = not is_same(tuner.base_layer, before)
        if not self.own_layer:
            del tuner.base_layer
            object.__setattr__(tuner, "base_layer", linear)  # not registered, saved or moved a second time
        self.tuner = tuner.to(linear.weight.device)
        # What PEFT would make anew of weights or seeds is saved: another machine may make it otherwise.
        for module in tuner.modules():
            module._non_persistent_buffers_set.clear()

    def around(self, part: nn.Linear, x: Tensor) -> Tensor:
        _ = part.weight  # PEFT computes the layer itself; behind a gate, which knows its output alone, this refuses
        return self.tuner(x)

    def trained(self, site: PartSite) -> list[nn.Parameter]:
        return [self.tuner.get_parameter(name) for name in self.names]

    def fold(self, part: nn.Linear) -> Linear | None:
        merged = copy.deepcopy(self.tuner)
        merged.get_base_layer().float()  # the site rounds, once
        try:
            merged.merge()
        except (NotImplementedError, ValueError, RuntimeError):  # a bias, on a layer that has none
            return None
        layer = merged.get_base_layer()
        return Linear(layer.weight, layer.bias)


def is_same(layer: nn.Linear, other: nn.Linear) -> bool:
    """Whether two layers hold the same numbers."""
    pairs = [(layer.weight, other.weight), (layer.bias, other.bias)]
    return all(a is b or torch.equal(a, b) for a, b in pairs)
