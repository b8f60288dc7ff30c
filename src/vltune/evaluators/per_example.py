"""One prediction for each example of a split."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from vltune.evaluators.evaluator import Evaluator


class PerExample(Evaluator):
    """The task's `predictions` of every example, in the order of the dataset."""

    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        session, found = self.session, []
        with self.batches(split, dataset) as batches:
            for batch in batches:
                found.append([])
                if batch["ids"]:
                    batch = session.to_device(batch)
                    with session.fabric.autocast():
                        output = session.model(batch)
                    if isinstance(output, Tensor):  # pretraining has several
                        self.check_numbers(split, output)
                    found[-1] = session.model.task.predictions(output, batch)
        return self.together(split, found)
