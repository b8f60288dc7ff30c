"""What a task is: the one file to read before writing one.

A task is a head on a backbone's features, the loss that trains it, the rows that say what it predicted, and the metrics
that follow from these rows.  It is one file here and one in conf/task; nothing else knows it.  Whatever tables, tests,
comparisons and logs say of predictions and scores follows from what is declared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vltune.backbones.backbone import JOINT, Backbone
from vltune.batch import Batch
from vltune.metrics import metric
from vltune.metrics.metric import Metric, Prediction


@dataclass(frozen=True)
class RowColumn:
    """A column of prediction rows, beside `id`, `prediction` and `score`.  A row that lacks it has none there."""

    name: str
    kind: Literal["text", "number", "share", "real", "image"]
    """number: a whole one.  share: from 0 to 1.  real: any other.  image: a file in the folder beside the record
    (`Evaluator.beside`), by its path from there, such as `test/7.png`."""


class Task(nn.Module):
    """images: the batch's keys of an example's images.

    evaluator: how rows are made of a split: a module of vltune.evaluators, such as `per_example`, or `all_pairs`, which
    scores every image with every text of a split.
    columns: what its rows hold beside an example's id, prediction and score.
    metrics: what is made of the rows; one of them is `primary`.
    needs: the parts of a backbone (`Backbone.parts`) that it calls; a backbone that lacks one is refused before any data is
    read.  A task of a text and an image needs all three; `forward` alone says that a backbone of images will do.
    submission: the form in which an official server takes its predictions (vltune.results.submission), if one does.
    generator: of a task that reads no data, which mode=pretrain trains: what draws its batches, as `MODULE.NAME` of
    vltune.data.shapes.
    """

    images: tuple[str, ...] = ("image",)
    evaluator = "per_example"
    columns: tuple[RowColumn, ...] = ()
    metrics: tuple[Metric, ...]
    needs: ClassVar[tuple[str, ...]] = JOINT
    submission: str | None = None
    generator: str | None = None

    @classmethod
    def check_backbone(cls, backbone: type[Backbone]) -> None:
        """UserError, which names both and the part, where it lacks one that the task needs."""
        for part in cls.needs:
            if not backbone.offers(part):
                raise backbone.lack(part, cls.__name__)

    def meet(self, text_is_fixed: bool) -> None:
        """Once a method is attached.  text_is_fixed: of a backbone of two towers, whether texts stay the same in a run."""

    def also_trains(self, backbone: Backbone) -> list[nn.Parameter]:
        """What of the backbone trains for it, whatever the method."""
        return []

    def unread(self, backbone: Backbone) -> list[nn.Parameter]:
        """What of the backbone its loss does not follow from, and nothing trains."""
        return []

    def check_trained(self, backbone: Backbone, parameters: Sequence[nn.Parameter]) -> None:
        """UserError where training these of a method would make wrong what the task keeps."""

    def begin(self, backbone: Backbone) -> None:
        """Once pretrained weights are in: starts what of the head follows from them."""

    whole_batches: ClassVar[bool] = False
    """Whether an example's loss is of all others of its batch, so that parts of a batch would train something else."""

    recalls = False
    """Whether it is given what the untuned backbone paints (`vltune.features.recalled`) before anything is trained."""

    looks_at_data = False
    """Whether `look` is to be called before the first step."""

    def look(self, backbone: Backbone, batches: Iterable[Batch]) -> None:
        """batches: of all training examples, each once, never augmented.  Gradients are off."""

    def decided(self) -> dict[str, Tensor]:
        """By their names in the task, what a run saves of it beside what it trained."""
        return {}

    @contextmanager
    def settled(self) -> Iterator[None]:
        """In here nothing changes but examples, and what does not follow from them may be computed once."""
        yield

    def forward(self, backbone: nn.Module, batch: Batch) -> Tensor:
        """The head's output for a batch, (B, ...)."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def counted(self, backbone: Backbone, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """What costs are counted on, a batch of one: by name the parts that make it up, of which costs are told apart where
        there are several."""
        return {"example": lambda: self(backbone, batch)}

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The mean loss of a batch, a scalar."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        """One row an example, which the evaluator `per_example` asks for."""
        raise TypeError(f"{type(self).__name__} has no predictions")

    @property
    def chance_loss(self) -> float | None:
        """The loss of one that knows nothing, above which training has failed; None where that is not known."""
        return None

    @classmethod
    def numbered_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The facts of its data whose order is that of its head's rows.  settings: as configured."""
        return ()

    @property
    def primary(self) -> Metric:
        return metric.primary(self.metrics)

    @property
    def chosen_by(self) -> Metric:
        """By which the best checkpoint is chosen: the primary one, or what validation has of it."""
        return self.primary

    def figures(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """{metric: its value} over all rows of a split; empty where the truth is unknown."""
        return metric.figures(self.metrics, predictions)

    def declaration(self) -> dict[str, Any]:
        """What a record says of its scores and predictions."""
        scores = {"scores": [each.declaration() for each in self.metrics]}
        return scores | ({"submission": self.submission} if self.submission else {})


class KeptTexts:
    """A part of tasks: what texts are to a backbone is computed once, at its first use, where it stays the same, throughout
    a run or while nothing changes but examples.

    keeps_texts: whether it does now, in which case the task may put it into `_kept`."""

    text_is_fixed = False
    _settled = False

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[Any, Tensor] = {}

    @property
    def keeps_texts(self) -> bool:
        return self.text_is_fixed or (self._settled and not torch.is_grad_enabled())

    def meet(self, text_is_fixed: bool) -> None:
        self.text_is_fixed = text_is_fixed

    @contextmanager
    def settled(self) -> Iterator[None]:
        before, self._settled = self._settled, True
        try:
            yield
        finally:
            self._settled = before
            if not self.text_is_fixed:
                self._kept = {}
