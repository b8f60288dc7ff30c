"""One prediction for each example of a split."""

from __future__ import annotations

from contextlib import closing

from torch import Tensor
from torch.utils.data import Dataset

from vltune.evaluators.evaluator import Evaluator
from vltune.runs.progress import Progress


class PerExample(Evaluator):
    """The task's `predictions` of every example, in the order of the dataset."""

    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        session, found = self.session, []
        fabric, model = session.fabric, session.model
        batches, most = self.share(dataset)
        progress = Progress(self.label(split), len(batches), unit="batch", show=fabric.is_global_zero)
        model.eval()
        with closing(progress), model.settled():
            for batch in batches:
                session.bad.note(batch)
                found.append([])
                if batch["ids"]:
                    batch = session.to_device(batch)
                    with fabric.autocast():
                        output = model(batch)
                    if isinstance(output, Tensor):  # pretraining has several
                        self.check_numbers(split, output)
                    found[-1] = model.task.predictions(output, batch)
                progress.step()
                session.stop.check(fabric)
            for _ in range(most - len(batches)):  # a process with a batch fewer is asked as often
                session.stop.check(fabric)
        return self.together(split, found)
