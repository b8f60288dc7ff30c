"""Key maps of CLIP's image tower: OpenAI's state dict and transformers' folders."""

from __future__ import annotations

from torch import Tensor

from vltune.weights.keys import Family, both, flat, qkv, within


def split_positions(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(1 + grid^2, width) -> (1, width), (grid^2, width)"""
    return tensor[:1], tensor[1:]


POSITIONS = ("class_position", "position")

OPENAI_RULES = [
    ("class_embedding", "class_token", None),
    ("positional_embedding", POSITIONS, split_positions),
    ("conv1.weight", "patch.weight", flat),
    *both("ln_pre", "norm_in"),
    *both("transformer.resblocks.{i}.ln_1", "blocks.{i}.norm1"),
    *qkv("transformer.resblocks.{i}.attn.in_proj", "blocks.{i}.attention", joint="_"),
    *both("transformer.resblocks.{i}.attn.out_proj", "blocks.{i}.attention.out"),
    *both("transformer.resblocks.{i}.ln_2", "blocks.{i}.norm2"),
    *both("transformer.resblocks.{i}.mlp.c_fc", "blocks.{i}.feed_forward.up"),
    *both("transformer.resblocks.{i}.mlp.c_proj", "blocks.{i}.feed_forward.down"),
    *both("ln_post", "norm"),
]

TRANSFORMERS_RULES = [
    ("embeddings.class_embedding", "class_token", None),
    ("embeddings.position_embedding.weight", POSITIONS, split_positions),
    ("embeddings.patch_embedding.weight", "patch.weight", flat),
    *both("pre_layrnorm", "norm_in"),
    *both("encoder.layers.{i}.layer_norm1", "blocks.{i}.norm1"),
    *both("encoder.layers.{i}.self_attn.q_proj", "blocks.{i}.attention.query"),
    *both("encoder.layers.{i}.self_attn.k_proj", "blocks.{i}.attention.key"),
    *both("encoder.layers.{i}.self_attn.v_proj", "blocks.{i}.attention.value"),
    *both("encoder.layers.{i}.self_attn.out_proj", "blocks.{i}.attention.out"),
    *both("encoder.layers.{i}.layer_norm2", "blocks.{i}.norm2"),
    *both("encoder.layers.{i}.mlp.fc1", "blocks.{i}.feed_forward.up"),
    *both("encoder.layers.{i}.mlp.fc2", "blocks.{i}.feed_forward.down"),
    *both("post_layernorm", "norm"),
]

OPENAI_MARKS = ("class_embedding", "conv1.weight")
TRANSFORMERS_MARKS = ("embeddings.class_embedding", "pre_layrnorm.weight")
# Text towers, projections and pooling heads beside the tower are not its own, nor is the last block that it leaves out.
OPENAI = Family(
    name="OpenAI's CLIP",
    marks=OPENAI_MARKS,
    rules=OPENAI_RULES,
    unused=("proj",),
    spare="transformer.resblocks.",
    prepare=within("visual.", OPENAI_MARKS),
)
TRANSFORMERS = Family(
    name="transformers' CLIP",
    marks=TRANSFORMERS_MARKS,
    rules=TRANSFORMERS_RULES,
    unused=("embeddings.position_ids",),
    spare="encoder.layers.",
    prepare=within("vision_model.", TRANSFORMERS_MARKS),
)

TOWERS = {"image": (OPENAI, TRANSFORMERS)}
