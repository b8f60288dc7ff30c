"""Key maps of ViLT checkpoints: the authors' `.ckpt` and transformers' folders."""

from __future__ import annotations

from torch import Tensor

from vltune.weights.heads import HEADS
from vltune.weights.keys import Family, both, flat, is_stack, qkv, transpose, within


def split_positions(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1 + grid^2, width) -> (1, 1, width), (grid, grid, width)"""
    side = round((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, :1], tensor[0, 1:].unflatten(0, (side, side))


POSITIONS = ("image.class_position", "image.position")


def unstack_prompts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`prompt` (layers, 1, P, width) as one entry a layer."""
    if "prompt" not in state or not is_stack(state["prompt"]):
        return state
    layers = {f"prompt.{i}": layer[0] for i, layer in enumerate(state["prompt"])}
    return {key: tensor for key, tensor in state.items() if key != "prompt"} | layers


AUTHORS_BACKBONE = [
    ("token4classifier", "class_token", None),
    ("text_embeddings.word_embeddings.weight", "text.word.weight", None),
    ("text_embeddings.position_embeddings.weight", "text.position.weight", None),
    ("text_embeddings.token_type_embeddings.weight", "text.segment.weight", None),
    *both("text_embeddings.LayerNorm", "text.norm"),
    ("token_type_embeddings.weight", "token_type.weight", None),
    ("transformer.cls_token", "image.class_token", None),
    ("transformer.pos_embed", POSITIONS, split_positions),
    ("transformer.patch_embed.proj.weight", "image.patch.weight", flat),
    ("transformer.patch_embed.proj.bias", "image.patch.bias", None),
    *both("transformer.blocks.{i}.norm1", "blocks.{i}.norm1"),
    *qkv("transformer.blocks.{i}.attn.qkv", "blocks.{i}.attention"),
    *both("transformer.blocks.{i}.attn.proj", "blocks.{i}.attention.out"),
    *both("transformer.blocks.{i}.norm2", "blocks.{i}.norm2"),
    *both("transformer.blocks.{i}.mlp.fc1", "blocks.{i}.feed_forward.up"),
    *both("transformer.blocks.{i}.mlp.fc2", "blocks.{i}.feed_forward.down"),
    *both("transformer.norm", "norm"),
    *both("pooler.dense", "pooler.dense"),
]

AUTHORS_METHODS = [
    ("prompt.0", "at_sequence.delta.prompts", None),
    ("prompt.{i}", "blocks.{i}.at_memory.delta.prompts", None),
    ("transformer.blocks.{i}.attn.APT.mm_tokens", "blocks.{i}.attention.at_output.delta.prompts", None),
    ("transformer.blocks.{i}.attn.APT.scale", "blocks.{i}.attention.at_output.delta.log_scale", None),
    ("transformer.blocks.{i}.attn.APT.mm.0.weight", "blocks.{i}.attention.at_output.delta.map.0.weight", None),
    ("transformer.blocks.{i}.attn.APT.mm.1.weight", "blocks.{i}.attention.at_output.delta.map.1.weight", None),
    ("transformer.blocks.{i}.attn.q_lora.lora_A", "blocks.{i}.attention.at_query.delta.down.weight", transpose),
    ("transformer.blocks.{i}.attn.q_lora.lora_B", "blocks.{i}.attention.at_query.delta.up.weight", transpose),
    ("transformer.blocks.{i}.attn.v_lora.lora_A", "blocks.{i}.attention.at_value.delta.down.weight", transpose),
    ("transformer.blocks.{i}.attn.v_lora.lora_B", "blocks.{i}.attention.at_value.delta.up.weight", transpose),
    *both("transformer.blocks.{i}.attn.PA.adapter_layer_norm_before", "blocks.{i}.at_parallel.delta.norm"),
    *both("transformer.blocks.{i}.attn.PA.down_proj", "blocks.{i}.at_parallel.delta.down"),
    *both("transformer.blocks.{i}.attn.PA.up_proj", "blocks.{i}.at_parallel.delta.up"),
    *both("transformer.blocks.{i}.adapter0.down_sampler", "blocks.{i}.attention.at_output.delta.down"),
    *both("transformer.blocks.{i}.adapter0.up_sampler", "blocks.{i}.attention.at_output.delta.up"),
    *both("transformer.blocks.{i}.adapter1.down_sampler", "blocks.{i}.feed_forward.at_output.delta.down"),
    *both("transformer.blocks.{i}.adapter1.up_sampler", "blocks.{i}.feed_forward.at_output.delta.up"),
]

TRANSFORMERS_BACKBONE = [
    ("embeddings.text_embeddings.word_embeddings.weight", "text.word.weight", None),
    ("embeddings.text_embeddings.position_embeddings.weight", "text.position.weight", None),
    ("embeddings.text_embeddings.token_type_embeddings.weight", "text.segment.weight", None),
    *both("embeddings.text_embeddings.LayerNorm", "text.norm"),
    ("embeddings.token_type_embeddings.weight", "token_type.weight", None),
    ("embeddings.cls_token", "image.class_token", None),
    ("embeddings.position_embeddings", POSITIONS, split_positions),
    ("embeddings.patch_embeddings.projection.weight", "image.patch.weight", flat),
    ("embeddings.patch_embeddings.projection.bias", "image.patch.bias", None),
    *both("encoder.layer.{i}.layernorm_before", "blocks.{i}.norm1"),
    *both("encoder.layer.{i}.attention.attention.query", "blocks.{i}.attention.query"),
    *both("encoder.layer.{i}.attention.attention.key", "blocks.{i}.attention.key"),
    *both("encoder.layer.{i}.attention.attention.value", "blocks.{i}.attention.value"),
    *both("encoder.layer.{i}.attention.output.dense", "blocks.{i}.attention.out"),
    *both("encoder.layer.{i}.layernorm_after", "blocks.{i}.norm2"),
    *both("encoder.layer.{i}.intermediate.dense", "blocks.{i}.feed_forward.up"),
    *both("encoder.layer.{i}.output.dense", "blocks.{i}.feed_forward.down"),
    *both("layernorm", "norm"),
    *both("pooler.dense", "pooler.dense"),
]

AUTHORS = Family(
    name="the authors' ViLT",
    marks=("transformer.blocks.0.attn.qkv.weight", "token_type_embeddings.weight"),
    rules=[*AUTHORS_BACKBONE, *AUTHORS_METHODS],
    unused=("text_embeddings.position_ids", *HEADS),
    prepare=unstack_prompts,
)
TRANSFORMERS = Family(
    name="transformers' ViLT",
    marks=("embeddings.text_embeddings.word_embeddings.weight", "embeddings.patch_embeddings.projection.weight"),
    rules=TRANSFORMERS_BACKBONE,
    unused=("embeddings.text_embeddings.position_ids", *HEADS),
    prepare=within("vilt."),  # models with a head hold the backbone there
)

FAMILIES = (AUTHORS, TRANSFORMERS)
