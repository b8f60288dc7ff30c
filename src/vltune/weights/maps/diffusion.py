"""Key maps of Stable Diffusion: diffusers' folder, whose parts' names are ours, and our own files."""

from __future__ import annotations

import re

from torch import Tensor

from vltune.weights.keys import Family, within

MARKS = ("unet.conv_in.weight", "text.embeddings.token_embedding.weight")
# transformers before 5 put all of a text encoder below `text_model.`; diffusers before 0.17 named the autoencoder's
# attention otherwise.
RENAMED = (
    (re.compile(r"^text\.text_model\."), "text."),
    (re.compile(r"^(vae\..*\.attentions\.\d+\.)query\."), r"\1to_q."),
    (re.compile(r"^(vae\..*\.attentions\.\d+\.)key\."), r"\1to_k."),
    (re.compile(r"^(vae\..*\.attentions\.\d+\.)value\."), r"\1to_v."),
    (re.compile(r"^(vae\..*\.attentions\.\d+\.)proj_attn\."), r"\1to_out.0."),
)


def tidy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as today's diffusers and transformers have them; where a name is taken, both stay."""
    tidied = {}
    for key, tensor in state.items():
        name = key
        for old, new in RENAMED:
            name = old.sub(new, name)
        tidied[key if name != key and name in state else name] = tensor
    return tidied


def of_run(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return tidy(within("backbone.", MARKS)(state))


FOLDER = Family(
    name="diffusers' Stable Diffusion",
    marks=(*MARKS, "vae.decoder.conv_in.weight"),
    rules=(),
    unused=("text.embeddings.position_ids",),
    prepare=tidy,
)
OURS = Family(name="vltune", marks=MARKS, rules=(), unused=("task.",), prepare=tidy)
TUNED = Family(name="what a run of vltune tuned", marks=MARKS, rules=(), prepare=of_run)
FAMILIES = (FOLDER, OURS, TUNED)
