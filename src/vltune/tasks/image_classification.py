"""Image classification by a backbone of two towers (CLIP): a class is what the text tower makes of its name.

    logits = e^s cos(image, class),  class = text("a photo of a {name}.")

With several templates a class is the mean of its normalised embeddings, normalised again (Radford et al. 2021, arXiv
2103.00020, section 3.1.4).  Other classifiers: `linear`, a linear layer on the normalised image times sqrt(dim), whose rows
may start as the classes (`linear_from_text`); `cache`, which adds what similar training images are (Tip-Adapter, Zhang et
al. 2022, arXiv 2207.09519, eqs. 4 to 6): alpha exp(-beta (1 - image F^T)) L, with F the normalised training images and L
their classes.

Protocols: `few_shot` and `full` choose among all classes.  `base_to_new` (Zhou et al. 2022, arXiv 2203.05557) trains on the
first half of the classes, the base, and tells the test images of each half among the classes of that half.  A linear layer
has no row for a new class: its images of the new half have no score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.backbones.backbone import TWO_TOWERS, Backbone
from vltune.batch import Batch
from vltune.data.labelled import shots as few
from vltune.data.labelled.shots import OF_FEW, apart
from vltune.errors import UserError
from vltune.metrics.metric import Metric, Prediction
from vltune.nn.whole import in_float32
from vltune.tasks.task import KeptTexts, RowColumn, Task

PROTOCOLS = (*OF_FEW, "full")
CLASSIFIERS = ("text", "linear", "linear_from_text", "cache")

ACCURACY = Metric("accuracy", primary=True, signs=True)
PER_CLASS = Metric("mean_per_class", parts="class")
CALIBRATION = Metric("calibration_error", better="less", calibration="confidence")
HALVES = (
    Metric("base", rows={"half": "base"}, signs=True),
    Metric("new", rows={"half": "new"}, signs=True),
    Metric("h", primary=True, harmonic_of=("base", "new")),
)


class ImageClassification(KeptTexts, Task):
    """classes: their names, in the order of the data's labels.  templates: what prompts are made of, each with a `{}` for
        the name; of several, a class is the mean.
    tokenizer: gives a text's token ids, `max_length` at most; None, where no data is read: prompts are stand-ins.
    protocol: of PROTOCOLS; classifier: of CLASSIFIERS.  shots: training images a class, of which a cache has as many rows.
    alpha, beta: of the cache.  cache_trained: whether its images are trained from there on (Tip-Adapter-F).
    """

    needs = TWO_TOWERS
    columns = (RowColumn("class", "text"), RowColumn("confidence", "share"))
    metrics = (ACCURACY, PER_CLASS, CALIBRATION)

    def __init__(
        self,
        in_width: int,
        classes: Sequence[str],
        templates: Sequence[str],
        tokenizer: Callable[[str], list[int]] | None = None,
        protocol: str = "few_shot",
        classifier: str = "text",
        shots: int = 16,
        alpha: float = 1.0,
        beta: float = 5.5,
        cache_trained: bool = False,
    ):
        super().__init__()
        for name, value, known in (("protocol", protocol, PROTOCOLS), ("classifier", classifier, CLASSIFIERS)):
            if value not in known:
                raise UserError(f"task.{name}={value}: must be one of {', '.join(known)}")
        if protocol == "base_to_new" and len(classes) == 1:
            raise UserError("task.protocol=base_to_new: there is one class, and no new half; take few_shot or full")
        self.classes, self.tokenizer, self.classifier = list(classes), tokenizer, classifier
        self.called = apart(self.classes)
        self.templates = len(templates)
        self.base = base_classes(len(classes)) if protocol == "base_to_new" else len(classes)
        if protocol == "base_to_new":
            self.columns, self.metrics = (*self.columns, RowColumn("half", "text")), (*HALVES, PER_CLASS, CALIBRATION)
        self.register_buffer("prompts", padded(prompts(classes, templates, tokenizer)), persistent=False)
        self.head = nn.Linear(in_width, self.base) if classifier.startswith("linear") else None
        self.cache = None
        if classifier == "cache":
            if protocol not in OF_FEW:
                raise UserError("task.classifier=cache: holds every training image; use a protocol of few shots")
            self.cache = Cache(in_width, self.base * shots, len(classes), alpha, beta, cache_trained)

    @classmethod
    def numbered_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return () if settings.get("classifier") == "text" else ("classes",)

    @property
    def chosen_by(self) -> Metric:
        """Validation holds no new class, so that it has no harmonic mean."""
        return HALVES[0] if HALVES[0] in self.metrics else self.primary

    def unread(self, backbone: Backbone) -> list[nn.Parameter]:
        """Texts and their likeness to images, where a linear layer tells the classes."""
        return [] if self.head is None else backbone.of_tower()["text"]

    def check_trained(self, backbone: Backbone, parameters: Sequence[nn.Parameter]) -> None:
        trained = {id(parameter) for parameter in parameters}
        if self.cache is not None and any(id(parameter) in trained for parameter in backbone.of_tower()["image"]):
            raise UserError(
                "task.classifier=cache: holds what images are to the tower before it is tuned, and the method would tune "
                "it; choose method.sites_in=text, or another classifier"
            )

    def begin(self, backbone: Backbone) -> None:
        if self.classifier == "linear_from_text":
            with torch.no_grad():
                rows = self.class_features(backbone, None, self.base)
                # Of a vector with itself and with its opposite: the scale alone, without what is added to all logits.
                scale = (backbone.compare(rows[:1], rows[:1]) - backbone.compare(rows[:1], -rows[:1])) / 2
                self.head.weight.copy_(scale * rows / rows.shape[1] ** 0.5)
                self.head.bias.zero_()

    def look(self, backbone: Backbone, batches: Iterable[Batch]) -> None:
        if self.cache is not None:
            self.cache.fill(
                (F.normalize(backbone.embed_image(batch), dim=-1), batch["label"]) for batch in batches if batch["ids"]
            )

    @property
    def looks_at_data(self) -> bool:
        return self.cache is not None

    def decided(self) -> dict[str, Tensor]:
        return {} if self.cache is None else {f"cache.{name}": tensor for name, tensor in self.cache.decided().items()}

    def forward(self, backbone: Backbone, batch: Batch) -> Tensor:
        """-> (B, classes) logits; with protocol=base_to_new (B, base classes) in training, and by a linear layer"""
        image = backbone.embed_image(batch)
        if self.head is not None:
            return self.head(F.normalize(image, dim=-1) * image.shape[1] ** 0.5)
        count = self.base if self.training else len(self.classes)
        logits = backbone.compare(image, self.class_features(backbone, image, count))
        return logits if self.cache is None else logits + self.cache(F.normalize(image, dim=-1))[:, :count]

    def class_features(self, backbone: Backbone, image: Tensor | None, count: int) -> Tensor:
        """(C, dim), normalised, of the first `count` classes, or with a method that makes texts of images (B, C, dim)."""
        if (kept := self._kept.get(count)) is not None and kept.device == self.prompts.device:
            return kept
        features = F.normalize(backbone.embed_text(self.prompts[:, :count].flatten(0, 1), image), dim=-1)
        features = features.unflatten(-2, (self.templates, count)).mean(-3)
        if self.templates > 1:
            features = F.normalize(features, dim=-1)
        if features.dim() == 2 and self.keeps_texts:
            self._kept[count] = features.detach()
        return features

    def counted(self, backbone: Backbone, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """An image and one class of as long a prompt as costs are counted on, a method's tokens among it where it would be
        too long; the image alone where there is no text."""
        if self.head is not None:
            return {"image": lambda: self(backbone, batch)}
        image = torch.zeros(1, backbone.pooled_width, device=self.prompts.device)
        ids = backbone.in_room(batch["text_ids"], image)
        return {"image": lambda: backbone.embed_image(batch), "class": lambda: backbone.embed_text(ids, image)}

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(output.float(), batch["label"])

    @property
    def chance_loss(self) -> float | None:
        return math.log(self.base) if self.base > 1 else None  # of one class everything is known

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        label, logits = batch["label"], output.float()
        halves, known = self.base < len(self.classes), logits.shape[1]
        if halves and known > self.base:
            of_new = torch.arange(known, device=label.device) >= self.base
            logits = logits.masked_fill(of_new != (label >= self.base)[:, None], -torch.inf)
        confidence, best = logits.softmax(1).max(1)
        found = zip(batch["ids"], best.tolist(), label.tolist(), confidence.tolist(), strict=True)
        return [
            {
                "id": id,
                "prediction": self.called[said],
                "score": float(said == true) if true < known else None,
                "class": self.called[true],
                "confidence": min(share, 1.0),
            }
            | ({"half": "base" if true < self.base else "new"} if halves else {})
            for id, said, true, share in found
        ]


class Cache(nn.Module):
    """(B, dim), normalised -> (B, classes): alpha exp(-beta (1 - image F^T)) L.  rows: training images."""

    def __init__(self, dim: int, rows: int, classes: int, alpha: float, beta: float, trained: bool):
        super().__init__()
        self.classes, self.alpha, self.beta = classes, alpha, beta
        if trained:
            self.images = nn.Parameter(torch.zeros(rows, dim))
        else:
            self.register_buffer("images", torch.zeros(rows, dim))
        self.register_buffer("labels", torch.zeros(rows, dtype=torch.int64))

    @torch.no_grad()
    def fill(self, examples: Iterable[tuple[Tensor, Tensor]]) -> None:
        """UserError where there are fewer or more images than rows."""
        images, labels = (torch.cat(each) for each in zip(*examples, strict=True))
        if len(images) != len(self.images):
            raise UserError(
                f"task.classifier=cache: {len(images)} training images can be read, and task.shots say {len(self.images)}"
            )
        self.images.copy_(images)
        self.labels.copy_(labels)

    def decided(self) -> dict[str, Tensor]:
        """What is saved beside what is trained."""
        return dict(self.named_buffers())

    def forward(self, image: Tensor) -> Tensor:
        with in_float32(image.device):  # as Clip.compare
            alike = (self.beta * (image.float() @ self.images.float().t() - 1)).exp()
        return self.alpha * alike @ F.one_hot(self.labels, self.classes).to(alike.dtype)


def base_classes(count: int) -> int:
    """How many of all classes are the base."""
    return len(few.base_classes(count))


def prompts(
    classes: Sequence[str], templates: Sequence[str], tokenizer: Callable[[str], list[int]] | None
) -> list[list[list[int]]]:
    """Token ids, for each template those of each class.  UserError where a prompt is too long for the text tower."""
    if tokenizer is None:
        return [[[1] * 16 for _ in classes] for _ in templates]
    found = [[tokenizer(template.replace("{}", name)) for name in classes] for template in templates]
    for template, of_template in zip(templates, found, strict=True):
        for name, ids in zip(classes, of_template, strict=True):
            if len(ids) >= tokenizer.max_length:
                raise UserError(
                    f"{template.replace('{}', name)!r}: has {tokenizer.max_length} tokens or more, all that the text "
                    "tower takes (backbone.max_text_len); shorten the template or the name"
                )
    return found


def padded(ids: list[list[list[int]]]) -> Tensor:
    """(templates, classes, T) int64, T the longest: what follows a text's end is never seen."""
    longest = max((len(text) for of_template in ids for text in of_template), default=0)
    return torch.tensor([[text + [0] * (longest - len(text)) for text in of] for of in ids], dtype=torch.int64)
