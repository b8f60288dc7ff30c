"""What an evaluator is: the way from a tuned model and a split to the split's prediction rows.

A task names its evaluator by the module of this folder that holds it: `evaluator = "per_example"`.  Adding one is adding a
file here with one subclass of `Evaluator`; nothing else knows it.

A split is scored by `evaluate.predictions`, which says what is out of memory and leaves out what there is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch.utils.data import Dataset

from vltune.engine.session import Session


class Evaluator(ABC):
    """session: the run that is scored.  Of it an evaluator may use

    - `fabric`: every process of the run calls `predict`, computes its share and returns all rows; `fabric.autocast` is the
      precision of the run, and `to_device(batch)` brings a batch to its device;
    - `model`, in inference (`with model.settled()`), and `model.task`, which makes rows of outputs;
    - `data`: `collate`, `eval_batch_size`, and `facts`, what the data tells beside its examples, such as class names;
    - `stop.check(fabric)` after each batch, in every process equally often, so that a run can be stopped anywhere;
    - `bad.note(batch)` for each batch, so that examples that cannot be read are counted;
    - `folder`: for what a stopped run goes on from, removed once the run is finished.
    """

    whole_splits = False  # whether a part of a split would give another score: `engine.eval_examples` is then refused

    def __init__(self, session: Session):
        self.session = session

    @abstractmethod
    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        """The rows that the task's `metrics` takes, the same ones in every process.  Gradients are off.

        dataset: of the split, which may be the first examples of it alone."""

    def beside(self, split: str) -> Path:
        """A folder for files that stay, such as generated images: it goes by the record's name, and only an evaluator
        that calls this has one."""
        folder = self.session.file.with_suffix("") / split
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def label(self, split: str) -> str:
        """What a person reads before figures of progress, and in errors."""
        return f"{self.session.label}, {split}" if self.session.label else split
