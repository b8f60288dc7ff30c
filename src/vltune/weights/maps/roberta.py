"""The key map of transformers' RoBERTa."""

from __future__ import annotations

from vltune.weights.keys import Family, both, within

RULES = [
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

MARKS = ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight")
# The pooler and the head of masked words are not the tower's own.
TRANSFORMERS = Family(
    name="transformers' RoBERTa",
    marks=MARKS,
    rules=RULES,
    unused=("embeddings.position_ids", "pooler.", "lm_head."),
    prepare=within("roberta.", MARKS),
)

TOWERS = {"text": (TRANSFORMERS,)}
