"""Key maps of CLIP and of its image tower alone: OpenAI's state dict, also open_clip's, and transformers' folders."""

from __future__ import annotations

from torch import Tensor

from vltune.weights.keys import Family, both, flat, inside, qkv, transpose, within


def split_positions(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(1 + grid^2, width) -> (1, width), (grid^2, width)"""
    return tensor[:1], tensor[1:]


def scalar(tensor: Tensor) -> Tensor:
    """() or (1,), as open_clip can have it -> ()"""
    return tensor.reshape(())


POSITIONS = ("class_position", "position")

OPENAI_BLOCKS = [
    *both("transformer.resblocks.{i}.ln_1", "blocks.{i}.norm1"),
    *qkv("transformer.resblocks.{i}.attn.in_proj", "blocks.{i}.attention", joint="_"),
    *both("transformer.resblocks.{i}.attn.out_proj", "blocks.{i}.attention.out"),
    *both("transformer.resblocks.{i}.ln_2", "blocks.{i}.norm2"),
    *both("transformer.resblocks.{i}.mlp.c_fc", "blocks.{i}.feed_forward.up"),
    *both("transformer.resblocks.{i}.mlp.c_proj", "blocks.{i}.feed_forward.down"),
]
OPENAI_RULES = [
    ("class_embedding", "class_token", None),
    ("positional_embedding", POSITIONS, split_positions),
    ("conv1.weight", "patch.weight", flat),
    *both("ln_pre", "norm_in"),
    *OPENAI_BLOCKS,
    *both("ln_post", "norm"),
]
OPENAI_TEXT_RULES = [
    ("token_embedding.weight", "word.weight", None),
    ("positional_embedding", "position", None),
    *OPENAI_BLOCKS,
    *both("ln_final", "norm"),
]

TRANSFORMERS_BLOCKS = [
    *both("encoder.layers.{i}.layer_norm1", "blocks.{i}.norm1"),
    *both("encoder.layers.{i}.self_attn.q_proj", "blocks.{i}.attention.query"),
    *both("encoder.layers.{i}.self_attn.k_proj", "blocks.{i}.attention.key"),
    *both("encoder.layers.{i}.self_attn.v_proj", "blocks.{i}.attention.value"),
    *both("encoder.layers.{i}.self_attn.out_proj", "blocks.{i}.attention.out"),
    *both("encoder.layers.{i}.layer_norm2", "blocks.{i}.norm2"),
    *both("encoder.layers.{i}.mlp.fc1", "blocks.{i}.feed_forward.up"),
    *both("encoder.layers.{i}.mlp.fc2", "blocks.{i}.feed_forward.down"),
]
TRANSFORMERS_RULES = [
    ("embeddings.class_embedding", "class_token", None),
    ("embeddings.position_embedding.weight", POSITIONS, split_positions),
    ("embeddings.patch_embedding.weight", "patch.weight", flat),
    *both("pre_layrnorm", "norm_in"),
    *TRANSFORMERS_BLOCKS,
    *both("post_layernorm", "norm"),
]
TRANSFORMERS_TEXT_RULES = [
    ("embeddings.token_embedding.weight", "word.weight", None),
    ("embeddings.position_embedding.weight", "position", None),
    *TRANSFORMERS_BLOCKS,
    *both("final_layer_norm", "norm"),
]

# As open_clip writes them for some models, `text.` stands before all that is the text tower's.
OF_TEXT = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")


def tidy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as OpenAI has them, without causal masks; where a name is taken, both stay, so that one is told as unknown."""
    tidied = {}
    for key, tensor in state.items():
        bare = key.removeprefix("text.")
        plain = bare if bare.startswith(OF_TEXT) and bare not in state else key
        if not plain.endswith("attn_mask"):
            tidied[plain] = tensor
    return tidied


WHOLE_OPENAI = Family(
    name="OpenAI's or open_clip's CLIP",
    marks=("token_embedding.weight", "visual.class_embedding", "visual.conv1.weight"),
    rules=[
        *inside("visual.", "image.", OPENAI_RULES),
        *inside("", "text.", OPENAI_TEXT_RULES),
        ("visual.proj", "image_projection.weight", transpose),
        ("text_projection", "text_projection.weight", transpose),
        ("logit_scale", "logit_scale", scalar),
    ],
    unused=("input_resolution", "context_length", "vocab_size"),
    prepare=tidy,
)
WHOLE_TRANSFORMERS = Family(
    name="transformers' CLIP",
    marks=("text_model.embeddings.token_embedding.weight", "vision_model.pre_layrnorm.weight"),
    rules=[
        *inside("vision_model.", "image.", TRANSFORMERS_RULES),
        *inside("text_model.", "text.", TRANSFORMERS_TEXT_RULES),
        ("visual_projection.weight", "image_projection.weight", None),
        ("text_projection.weight", "text_projection.weight", None),
        ("logit_scale", "logit_scale", scalar),
    ],
    unused=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
)
FAMILIES = (WHOLE_OPENAI, WHOLE_TRANSFORMERS)

OPENAI_MARKS = ("class_embedding", "conv1.weight")
TRANSFORMERS_MARKS = ("embeddings.class_embedding", "pre_layrnorm.weight")
# Text towers, projections and pooling heads beside the tower are not its own, nor is the last block that it leaves out.
OPENAI = Family(
    name="the image tower of OpenAI's CLIP",
    marks=OPENAI_MARKS,
    rules=OPENAI_RULES,
    unused=("proj",),
    spare="transformer.resblocks.",
    prepare=within("visual.", OPENAI_MARKS),
)
TRANSFORMERS = Family(
    name="the image tower of transformers' CLIP",
    marks=TRANSFORMERS_MARKS,
    rules=TRANSFORMERS_RULES,
    unused=("embeddings.position_ids",),
    spare="encoder.layers.",
    prepare=within("vision_model.", TRANSFORMERS_MARKS),
)

TOWERS = {"image": (OPENAI, TRANSFORMERS)}
