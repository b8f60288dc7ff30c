"""What a tuned model is called in transformers: the class, and the names of its modules there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vltune.backbones.vilt import Vilt
from vltune.configuration import find
from vltune.errors import UserError
from vltune.records.record import Record
from vltune.tasks.vqa import VQA
from vltune.weights.maps.vilt import TRANSFORMERS_BACKBONE

if TYPE_CHECKING:
    from torch import Tensor

BACKBONES = {Vilt: TRANSFORMERS_BACKBONE}
"""Of those that transformers has, the rules of its names (`Family.rules`)."""
CLASSES = {(Vilt, VQA): "ViltForQuestionAnswering"}
INSIDE, HEAD = "vilt.", "classifier."
"""Where such a class holds the backbone and the head."""
CLASS_TOKEN = "backbone.class_token"
"""What transformers has no place for: there the text's first embedding, which ends in a LayerNorm, stands for it."""


def class_of(record: Record, source: object) -> str:
    """The class in transformers that a tuned model is.  UserError where there is none."""
    config = record["config"]
    found = CLASSES.get((find(config["backbone"]["_target_"]), find(config["task"]["_target_"])))
    if found is None:
        raise UserError(
            f"{source}: transformers has no class for backbone={config['backbone']['name']} with "
            f"task={config['task']['name']}; --format vltune takes any"
        )
    return found


def theirs(module: str, record: Record) -> str | None:
    """The name in transformers of a module of a record's backbone, `blocks.3.attention.query`; None where it has none."""
    return their_name(find(record["config"]["backbone"]["_target_"]), module)


def their_name(backbone: type, module: str) -> str | None:
    """The same of a backbone's class."""
    numbers, plain = re.findall(r"\d+", module), re.sub(r"\d+", "{i}", module)
    for name, ours, _ in BACKBONES.get(backbone, ()):
        if isinstance(ours, str) and ours.rpartition(".")[0] == plain:
            name = name.rpartition(".")[0]
            return INSIDE + (name.replace("{i}", numbers[0]) if "{i}" in name else name)
    return None


def beside_method(state: Mapping[str, Tensor], record: Record) -> tuple[dict[str, Tensor], list[str]]:
    """Of what was tuned, by transformers' names, what is trained with every method (head, pooler, token types), and the
    modules that hold it.  The class token is left out."""
    found, modules = {}, []
    for key, tensor in state.items():
        if ".delta." in key or key == CLASS_TOKEN:
            continue
        module, _, kind = key.rpartition(".")
        if key.startswith("task.head."):
            name = HEAD + module.removeprefix("task.head.")
            modules.append(HEAD.rstrip("."))
        else:
            name = theirs(module.removeprefix("backbone."), record)
            modules.append(str(name))
        if name is None:
            raise UserError(f"{record['id']}: transformers has no place for {key}; --format vltune takes any")
        found[f"{name}.{kind}"] = tensor
    return found, list(dict.fromkeys(modules))
