"""The key map of the authors' METER checkpoints."""

from __future__ import annotations

import re

from torch import Tensor

from vltune.weights.heads import HEADS
from vltune.weights.keys import Family, both, inside, is_stack, transpose
from vltune.weights.maps import clip, roberta


def stream(name: str) -> list[tuple]:
    """A stream's fusion layers, and what the released methods put there."""
    theirs, ours = f"cross_modal_{name}_layers.{{i}}", f"{name}_layers.{{i}}"
    rules = [
        *both(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.feed_forward.up"),
        *both(f"{theirs}.output.dense", f"{ours}.feed_forward.feed_forward.down"),
        *both(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward.norm"),
        *both(f"{theirs}.output.adapter.down_sampler", f"{ours}.feed_forward.feed_forward.at_output.delta.down"),
        *both(f"{theirs}.output.adapter.up_sampler", f"{ours}.feed_forward.feed_forward.at_output.delta.up"),
        *both(f"cross_modal_{name}_pooler.dense", f"{name}_pooler.dense"),
        *both(f"cross_modal_{name}_transform", f"{name}_projection"),
    ]
    for their_attention, our_attention in (("attention", "self_attention"), ("crossattention", "cross_attention")):
        rules += attention(f"{theirs}.{their_attention}", f"{ours}.{our_attention}")
    return rules


def attention(theirs: str, ours: str) -> list[tuple]:
    at_output = f"{ours}.attention.at_output.delta"
    rules = [
        *both(f"{theirs}.self.query", f"{ours}.attention.query"),
        *both(f"{theirs}.self.key", f"{ours}.attention.key"),
        *both(f"{theirs}.self.value", f"{ours}.attention.value"),
        *both(f"{theirs}.output.dense", f"{ours}.attention.out"),
        *both(f"{theirs}.output.LayerNorm", f"{ours}.norm"),
        (f"{theirs}.output.APT.mm_tokens", f"{at_output}.prompts", None),
        (f"{theirs}.output.APT.scale", f"{at_output}.log_scale", None),
        (f"{theirs}.output.APT.mm.0.weight", f"{at_output}.map.0.weight", None),
        (f"{theirs}.output.APT.mm.1.weight", f"{at_output}.map.1.weight", None),
        *both(f"{theirs}.output.adapter.down_sampler", f"{at_output}.down"),
        *both(f"{theirs}.output.adapter.up_sampler", f"{at_output}.up"),
        *both(f"{theirs}.output.PA.adapter_layer_norm_before", f"{ours}.at_parallel.delta.norm"),
        *both(f"{theirs}.output.PA.down_proj", f"{ours}.at_parallel.delta.down"),
        *both(f"{theirs}.output.PA.up_proj", f"{ours}.at_parallel.delta.up"),
    ]
    for short, part in (("q", "query"), ("v", "value")):
        for letter, half in (("A", "down"), ("B", "up")):
            lora = f"{ours}.attention.at_{part}.delta.{half}.weight"
            rules.append((f"{theirs}.self.{short}_lora.lora_{letter}", lora, transpose))
    return rules


def tidy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that no rule can spell: Swin's, which are timm's with the downsampling a stage later, and deep prompts,
    (layers, 1, P, width) for the text's sequence, which the image stream reads, and for the image's, which the text's does.
    """
    tidied = {}
    for key, tensor in state.items():
        if swin := re.fullmatch(r"vit_model\.(layers|patch_embed|norm)\.?(.*)", key):
            part, rest = swin.groups()
            if rest.endswith(("attn_mask", "relative_position_index")):
                continue
            if later := re.fullmatch(r"(\d+)\.downsample\.(.*)", rest):
                rest = f"{int(later[1]) + 1}.downsample.{later[2]}"
            tidied[f"image.body.{part}.{rest}"] = tensor
        elif key in ("prompts.0", "prompts.1") and is_stack(tensor):
            reader = "image" if key == "prompts.0" else "text"
            for i, of_layer in enumerate(tensor):
                tidied[f"{reader}_layers.{i}.cross_attention.at_memory.delta.prompts"] = of_layer[0]
        else:
            tidied[key] = tensor
    return tidied


AUTHORS = Family(
    name="the authors' METER",
    marks=("cross_modal_text_transform.weight", "text_transformer.embeddings.word_embeddings.weight"),
    rules=[
        ("token4classifier", "class_token", None),
        ("token_type_embeddings.weight", "token_type.weight", None),
        *inside("text_transformer.", "text.", roberta.RULES),
        *inside("vit_model.visual.", "image.", clip.OPENAI_RULES),
        *stream("text"),
        *stream("image"),
    ],
    # CLIP's text side, of which METER's own code keeps the embeddings, is never run.
    unused=(
        *("text_transformer.embeddings.position_ids", "text_transformer.pooler."),
        *("vit_model.token_embedding.", "vit_model.positional_embedding", "vit_model.ln_final."),
        *HEADS,
    ),
    prepare=tidy,
)

FAMILIES = (AUTHORS,)
