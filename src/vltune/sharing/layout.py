"""What a tuned model is called in transformers: the class, and the names of its modules there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vltune.backbones.vilt import Vilt
from vltune.configuration import find
from vltune.errors import UserError
from vltune.records.record import Record
from vltune.sharing.adapter import check_parts
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.snli_ve import SNLIVE
from vltune.tasks.vqa import VQA
from vltune.weights.maps.vilt import TRANSFORMERS_BACKBONE

if TYPE_CHECKING:
    from torch import Tensor

BACKBONES = {Vilt: TRANSFORMERS_BACKBONE}
"""Of those that transformers has, the rules of its names (`Family.rules`)."""
INSIDE, OWN_HEAD = "vilt.", "task.head"
"""Where a class of transformers' holds the backbone; where a tuned model of ours holds the head."""


@dataclass(frozen=True)
class Counterpart:
    """What a tuned model is in transformers.  head: what holds the head there.  settings: of its configuration, which a
    pretrained model's lacks."""

    name: str
    head: str = "classifier"
    settings: Mapping[str, int] = field(default_factory=dict)


CLASSES = {
    (Vilt, VQA): Counterpart("ViltForQuestionAnswering"),
    (Vilt, SNLIVE): Counterpart("ViltForQuestionAnswering"),
    (Vilt, NLVR2): Counterpart(
        "ViltForImagesAndTextClassification", settings={"num_images": 2, "modality_type_vocab_size": 3}
    ),
    (Vilt, Retrieval): Counterpart("ViltForImageAndTextRetrieval", head="rank_output"),
}
TOKEN_TYPES = "backbone.token_type.weight"
CLASS_TOKEN = "backbone.class_token"
"""What transformers has no place for: there the text's first embedding, which ends in a LayerNorm, stands for it."""


def counterpart(record: Record, source: object) -> Counterpart:
    """UserError where there is none."""
    check_parts(record, source, "backbone", "task")
    config = record["config"]
    found = CLASSES.get((find(config["backbone"]["_target_"]), find(config["task"]["_target_"])))
    if found is None:
        raise UserError(
            f"{source}: transformers has no class for backbone={config['backbone']['name']} with "
            f"task={config['task']['name']}; --format vltune takes any"
        )
    if (most := config["backbone"].get("max_image_len", -1)) > 0:
        raise UserError(
            f"{source}: backbone.max_image_len={most}: transformers draws that many patches at random for every score, "
            "where these were evenly spaced; --format vltune takes any"
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


def outputs(state: Mapping[str, Tensor]) -> int:
    """How many numbers the head gives for an example."""
    return len(state[max(key for key in state if key.startswith(OWN_HEAD) and key.endswith(".bias"))])


def beside_method(state: Mapping[str, Tensor], record: Record, source: object) -> tuple[dict[str, Tensor], list[str]]:
    """Of what was tuned, by transformers' names, what is trained with every method (head, pooler, token types), and the
    modules that hold it.  The class token is left out."""
    found, modules, head = {}, [], counterpart(record, source).head
    for key, tensor in state.items():
        if ".delta." in key or key == CLASS_TOKEN:
            continue
        module, _, kind = key.rpartition(".")
        if key.startswith(OWN_HEAD):
            name = head + module.removeprefix(OWN_HEAD)
            modules.append(head)
        else:
            name = theirs(module.removeprefix("backbone."), record)
            modules.append(str(name))
        if name is None:
            raise UserError(f"{source}: transformers has no place for {key}; --format vltune takes any")
        found[f"{name}.{kind}"] = tensor
    return found, list(dict.fromkeys(modules))
