"""Pretraining of a small text-to-image model on shapes, in two parts of one run.

First the text encoder reads alone: at a clause's last word it tells size, colour, shape and place, at the end of the text
what is said of each quarter.  Then it stays as it is, and the denoising network learns to paint after it:

    loss = w_t |f(z_t, t, text) - target|^2

Together from the start, the network learned for minutes from texts that told nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.backbones.backbone import DENOISING, Backbone
from vltune.batch import Batch
from vltune.judges.judge import opened
from vltune.judges.shapes import ShapesJudge
from vltune.metrics.metric import Metric, Prediction
from vltune.pictures import as_bytes
from vltune.tasks.task import RowColumn, Task


class TextToImage(Task):
    """width: of text states.  attributes: how many values size, colour, shape and place of a clause have, each with one for
    unsaid.
    sampler_steps: steps of the sampler for a picture that is scored.
    guidance: how far its caption leads away from the empty one.

    What is scored: by the judge of shapes, whether each object that a caption places is there in shape, colour and size,
    and in both shape and colour (`placed`); whether nothing is in the other quarters (`empty`); and the share of pictures
    of which all quarters are right in shape and colour (`whole`)."""

    needs = DENOISING
    generator = "painting.PaintingBatches"
    columns = (RowColumn("kind", "text"),)
    metrics = (
        *(Metric(f"{kind}_right", rows={"kind": kind}) for kind in ("shape", "colour", "size", "placed", "empty")),
        Metric("whole_right", primary=True, rows={"kind": "whole"}),
    )

    def __init__(self, width: int, attributes: Sequence[int], sampler_steps: int = 25, guidance: float = 2.0):
        super().__init__()
        _, colours, shapes, places = self.attributes = [*attributes]
        self.quarters, self.of_quarter = places - 1, [shapes, colours]
        self.sampler_steps, self.guidance = sampler_steps, guidance
        self.clause = nn.Linear(width, sum(self.attributes))
        self.cells = nn.Linear(width, self.quarters * sum(self.of_quarter))

    def also_trains(self, backbone: Backbone) -> list[nn.Parameter]:
        """The text encoder's, which learns first and then no more."""
        return [parameter for part in backbone.towers()["text"] for parameter in part.parameters()]

    @cached_property
    def judge(self) -> tuple[ShapesJudge]:
        """In a tuple, so that it is no part of what is trained and saved."""
        return (opened(ShapesJudge),)

    def begin(self, backbone: Backbone) -> None:
        backbone.check_sampler(self.sampler_steps)

    def forward(self, backbone: Backbone, batch: Batch) -> Any:
        """-> while it reads, by name pairs of logits (N, values) and labels (N,); then (B,) each picture's weighted squared
        error; of a batch to score (B, 3, H, W) in [-1, 1], pictures of its texts."""
        if "wanted" in batch:
            return self.paint(backbone, batch)
        if "clauses" in batch:
            return self.read(backbone.embed_prompt(batch), batch)
        with torch.no_grad():
            texts = backbone.embed_prompt(batch)
            latents = backbone.encode_picture(batch)
        return backbone.errors(latents, texts)

    def read(self, texts: Tensor, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """texts: (B, T, width)"""
        rows, columns = batch["ends"].unbind(1)
        clauses = self.clause(texts[rows, columns]).split(self.attributes, dim=-1)
        last = columns.new_zeros(len(texts)).scatter_reduce_(0, rows, columns, "amax") + 1
        cells = self.cells(texts[torch.arange(len(texts), device=last.device), last])
        cells = cells.view(len(texts), self.quarters, -1).split(self.of_quarter, dim=-1)
        found = [*zip(clauses, batch["clauses"].unbind(-1), strict=True)]
        return found + [
            (logits.flatten(0, 1), labels.flatten())
            for logits, labels in zip(cells, batch["cells"].unbind(-1), strict=True)
        ]

    def paint(self, backbone: Backbone, batch: Batch) -> Tensor:
        texts, empty = backbone.embed_prompt(batch), backbone.embed_prompt({"text_ids": batch["empty_ids"]})
        return backbone.paint(texts, empty, backbone.noise(batch["ids"]), self.sampler_steps, self.guidance)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        if "clauses" in batch:
            return torch.stack([F.cross_entropy(logits.float(), labels) for logits, labels in output]).sum()
        return output.mean()

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        [judge] = self.judge
        seen = judge.to(output.device).read(as_bytes(output).to(output.device))
        found = torch.stack([seen["shape"], seen["colour"], seen["size"]], -1).to(batch["wanted"].device)
        right, there = found == batch["wanted"], batch["wanted"][..., 0] > 0
        both = right[..., :2].all(-1)
        scores = [(f, right[..., k], there) for k, f in enumerate(("shape", "colour", "size"))]
        scores += [("placed", both, there), ("empty", right[..., 0], ~there)]
        whole = torch.where(there, both, right[..., 0]).all(1, keepdim=True)
        scores.append(("whole", whole, torch.ones_like(whole)))
        return [
            {"id": batch["ids"][row], "prediction": kind, "kind": kind, "score": float(good[row, place])}
            for kind, good, counts in scores
            for row, place in counts.nonzero().tolist()
        ]
