"""Key maps of the towers' own checkpoints: CLIP's image tower and RoBERTa."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from vltune.weights.files import read
from vltune.weights.keys import Family, both, flat, load, qkv, recognise, within


def split_positions(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(1 + grid^2, width) -> (1, width), (grid^2, width)"""
    return tensor[:1], tensor[1:]


POSITIONS = ("class_position", "position")

OPENAI_CLIP_RULES = [
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

TRANSFORMERS_CLIP_RULES = [
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

ROBERTA_RULES = [
    ("embeddings.word_embeddings.weight", "embedding.word.weight", None),
    ("embeddings.position_embeddings.weight", "embedding.position.weight", None),
    ("embeddings.token_type_embeddings.weight", "embedding.segment.weight", None),
    *both("embeddings.LayerNorm", "embedding.norm"),
    *both("encoder.layer.{i}.attention.self.query", "blocks.{i}.self_attention.attention.query"),
    *both("encoder.layer.{i}.attention.self.key", "blocks.{i}.self_attention.attention.key"),
    *both("encoder.layer.{i}.attention.self.value", "blocks.{i}.self_attention.attention.value"),
    *both("encoder.layer.{i}.attention.output.dense", "blocks.{i}.self_attention.attention.out"),
    *both("encoder.layer.{i}.attention.output.LayerNorm", "blocks.{i}.self_attention.norm"),
    *both("encoder.layer.{i}.intermediate.dense", "blocks.{i}.feed_forward.feed_forward.up"),
    *both("encoder.layer.{i}.output.dense", "blocks.{i}.feed_forward.feed_forward.down"),
    *both("encoder.layer.{i}.output.LayerNorm", "blocks.{i}.feed_forward.norm"),
]


OPENAI_MARKS = ("class_embedding", "conv1.weight")
TRANSFORMERS_MARKS = ("embeddings.class_embedding", "pre_layrnorm.weight")
ROBERTA_MARKS = ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight")
# Text towers, projections and pooling heads beside the tower are not its own, nor is the last block that it leaves out.
OPENAI_CLIP = Family(
    name="OpenAI's CLIP",
    marks=OPENAI_MARKS,
    rules=OPENAI_CLIP_RULES,
    unused=("proj",),
    spare="transformer.resblocks.",
    prepare=within("visual.", OPENAI_MARKS),
)
TRANSFORMERS_CLIP = Family(
    name="transformers' CLIP",
    marks=TRANSFORMERS_MARKS,
    rules=TRANSFORMERS_CLIP_RULES,
    unused=("embeddings.position_ids",),
    spare="encoder.layers.",
    prepare=within("vision_model.", TRANSFORMERS_MARKS),
)
ROBERTA = Family(
    name="transformers' RoBERTa",
    marks=ROBERTA_MARKS,
    rules=ROBERTA_RULES,
    unused=("embeddings.position_ids", "pooler.", "lm_head."),
    prepare=within("roberta.", ROBERTA_MARKS),
)


# The part of a backbone that a tower is -> its layouts.
TOWERS = {"text": (ROBERTA,), "image": (OPENAI_CLIP, TRANSFORMERS_CLIP)}


def load_image_tower(tower: nn.Module, path: Path) -> None:
    """Loads a `ClipTower` from OpenAI's state dict or a transformers folder."""
    load_from(tower, path, "image")


def load_text_tower(tower: nn.Module, path: Path) -> None:
    """Loads a `RobertaTower` from a transformers folder."""
    load_from(tower, path, "text")


def load_from(tower: nn.Module, path: Path, part: str) -> None:
    state = read(path)
    load(tower, state, recognise(state, TOWERS[part], path), path, name=f"this backbone's {part} tower")
