"""Task heads in the authors' checkpoints, ViLT's and METER's alike."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from vltune.errors import UserError
from vltune.weights.files import read
from vltune.weights.keys import Family, both, load

# Beginnings of the keys of heads, which are no part of a backbone, and what each is for.
HEADS = {
    "mlm_score.": "masked words (mlm)",
    "itm_score.": "matching (itm)",
    "mpp_score.": "masked patches (mpp)",
    "rank_output.": "retrieval",
    "vqa_classifier.": "vqa",
    "nlvr2_classifier.": "nlvr2",
    "snli_classifier.": "snli_ve",
    "classifier.": "a classifier",
}

FINE_TUNED = Family(
    name="a fine-tuned head of the authors",
    marks=(),
    rules=[
        *(
            rule
            for task in ("vqa", "nlvr2", "snli")
            for layer in (0, 1, 3)
            for rule in both(f"{task}_classifier.{layer}", f"head.{layer}")
        ),
        *both("rank_output", "head"),
    ],
    unused=("",),
)


def true_row(tensor: Tensor) -> Tensor:
    """Of a matching head's two rows (no match, match), the second"""
    return tensor[1:]


MATCHING_LAYERS = ("itm_score.fc", "task.match")  # the authors', ours
MATCHING = Family(
    name="a pretrained matching head",
    marks=(),
    rules=[(f"{layer}.{p}", f"head.{p}", true_row) for layer in MATCHING_LAYERS for p in ("weight", "bias")],
    unused=("",),
)


def load_head(task: nn.Module, path: Path) -> None:
    """Loads a task's head from a fine-tuned checkpoint of the authors."""
    load(task, read(path), FINE_TUNED, path, name="this task's head")


def matching(path: Path) -> dict[str, Tensor]:
    """The pretrained matching head of a checkpoint, under our names; empty where it has none."""
    state, (_, ours) = read(path), MATCHING_LAYERS
    return {
        f"{ours}.{p}": state[f"{layer}.{p}"]
        for layer in MATCHING_LAYERS
        for p in ("weight", "bias")
        if f"{layer}.{p}" in state
    }


def start_from_matching(task: nn.Module, path: Path) -> None:
    """Sets a ranking head to the row of the pretrained matching head that says "match", as released."""
    state = read(path)
    if not any(f"{layer}.weight" in state for layer in MATCHING_LAYERS):
        raise UserError(
            f"{path}: has no matching head ({' or '.join(MATCHING_LAYERS)}) for retrieval to start from; "
            "use a pretrained checkpoint that has one, or task.start=random"
        )
    load(task, state, MATCHING, path, name="the ranking head")
