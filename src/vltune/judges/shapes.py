"""The embedded world's own judge: reads what each quarter of a small picture shows, also the two colours and the textures
that no caption names.

It is trained here (`python -m vltune.judges.shapes_training`), on textured objects too, as DINO has seen dogs.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.data.shapes.quarters import CORNERS, PAINTS, QUARTERS, TEXTURES
from vltune.data.shapes.scenes import COLOURS, POSITIONS, SHAPES, SIZES
from vltune.judges.judge import Judge

WEIGHTS = files("vltune").joinpath("weights/shapes_judge.safetensors")
READ = {
    "shape": 1 + len(SHAPES),
    "colour": 1 + len(PAINTS),
    "size": 1 + len(SIZES),
    "texture": len(TEXTURES),
    "second": 1 + len(PAINTS),
}
PLACES = tuple(POSITIONS[corner] for corner in CORNERS)
_SAID = {
    word: (name, number)
    for name, words in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES))
    for number, word in enumerate(words, 1)
}


class QuarterReader(nn.Module):
    """(B, 3, 32, 32) in [-1, 1] -> (B, 4, 96), what each quarter holds; `heads` read its positive part."""

    def __init__(self):
        super().__init__()
        layers = [(3, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 64, 1)]
        self.body = nn.Sequential(*(convolved(*each) for each in layers))
        self.feature = nn.Linear(64 * 16, 96)
        self.heads = nn.ModuleDict({name: nn.Linear(96, values) for name, values in READ.items()})

    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.body(pictures)  # (B, 64, 8, 8)
        cells = seen.unflatten(2, (2, 4)).unflatten(4, (2, 4))  # (B, 64, 2, 4, 2, 4)
        return self.feature(cells.permute(0, 2, 4, 1, 3, 5).reshape(len(seen), QUARTERS, -1))

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """(B, 4, 96) -> by attribute logits (B, 4, values)."""
        positive = features.relu()
        return {name: head(positive) for name, head in self.heads.items()}


class ShapesJudge(Judge):
    """Of pictures of 32 x 32 pixels.  Their cosine is that of what quarters hold; a text's figure is the share of its words
    for shapes, colours and sizes that the picture shows, where the text says a place at this one."""

    pictures = "likeness"
    texts = "faithful"
    texts_unit = "share"

    def __init__(self):
        from safetensors.torch import load

        super().__init__()
        content = WEIGHTS.read_bytes()
        self.digest = sha256(content).hexdigest()[:12]
        self.reader = QuarterReader()
        self.reader.load_state_dict({name: tensor.float() for name, tensor in load(content).items()})
        self.requires_grad_(False).eval()

    @property
    def identity(self) -> str:
        return f"{type(self).__name__} {WEIGHTS.name} {self.digest}"

    def features(self, pictures: Tensor) -> Tensor:
        scaled = pictures.to(self.reader.feature.weight.device).float() / 127.5 - 1
        return self.reader(scaled)

    def embed(self, pictures: Tensor) -> Tensor:
        """(B, 3, 32, 32) uint8 -> (B, 4, 96)"""
        features = self.features(pictures)
        there = self.reader.read(features)["shape"].argmax(-1) > 0
        return F.normalize(features, dim=-1) * there[..., None]

    def read(self, pictures: Tensor) -> dict[str, Tensor]:
        """(B, 3, 32, 32) uint8 -> by attribute (B, 4) int64, as `Quarters` counts; all are 0 where a quarter is empty."""
        found = {name: logits.argmax(-1) for name, logits in self.reader.read(self.features(pictures)).items()}
        there = found["shape"] > 0
        return {name: values * there for name, values in found.items()}

    def agreement(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        seen = self.read(pictures)
        shown = [shares({name: values[row] for name, values in seen.items()}, text) for row, text in enumerate(prompts)]
        return torch.tensor(shown)


def convolved(taken: int, given: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(taken, given, 3, stride, 1), nn.BatchNorm2d(given), nn.ReLU())


def shares(seen: dict[str, Tensor], prompt: str) -> float:
    """The share of a prompt's words for shapes, colours and sizes that a picture shows; 1 where it has none.

    seen: by attribute (4,) of what each quarter shows.  Clauses, joined by "and", are of different objects: of those
    without a place the best assignment counts."""
    clauses = [clause for text in prompt.split(" and ") if (clause := attributes(text))[0]]
    said = sum(len(words) for words, _ in clauses)
    if not said:
        return 1.0
    fits = [[fit(seen, words, place, quarter) for quarter in range(QUARTERS)] for words, place in clauses[:QUARTERS]]
    ways = permutations(range(QUARTERS), len(fits))
    return max(sum(fit[quarter] for fit, quarter in zip(fits, way, strict=True)) for way in ways) / said


def attributes(clause: str) -> tuple[dict[str, int], int | None]:
    """{attribute: number} of the words that it says, and the quarter that it names."""
    place = next((number for number, words in enumerate(PLACES) if f"at the {words}" in clause), None)
    return dict(_SAID[word] for word in clause.split() if word in _SAID), place


def fit(seen: dict[str, Tensor], words: dict[str, int], place: int | None, quarter: int) -> int:
    """How many of the words a quarter shows, none at another place than theirs."""
    if place is not None and place != quarter:
        return 0
    return sum(int(seen[name][quarter]) == number for name, number in words.items())
