"""What an evaluator is: the way from a tuned model and a split to the split's prediction rows.

A task names its evaluator by the module of this folder that holds it: `evaluator = "per_example"`.  Adding one is adding a
file here with one subclass of `Evaluator`; nothing else knows it.

A split is scored by `evaluate.predictions`, which says what is out of memory and leaves out what there is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from uuid import uuid4

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vltune.batch import Batch
from vltune.engine import checkpoint
from vltune.engine.session import Session
from vltune.engine.source import loader
from vltune.errors import UserError
from vltune.runs.progress import Progress
from vltune.runs.together import told


class Evaluator(ABC):
    """session: the run that is scored.  Of it an evaluator may use

    - `fabric`: every process of the run calls `predict` and computes its share, and the first returns all rows;
      `fabric.autocast` is the precision of the run, and `to_device(batch)` brings a batch to its device;
    - `model`, in inference (`with model.settled()`), and `model.task`, which makes rows of outputs;
    - `data`: `collate`, `eval_batch_size`, and `facts`, what the data tells beside its examples, such as class names;
    - `stop.check(fabric)` after each batch, in every process equally often, so that a run can be stopped anywhere;
    - `bad.note(batch)` for each batch, so that examples that cannot be read are counted;
    - `folder`: for what a stopped run goes on from, removed once the run is finished.
    """

    whole_splits = False  # whether a part of a split would give another score: `engine.eval_examples` is then refused

    def __init__(self, session: Session):
        self.session = session

    def check(self) -> None:
        """Before training, in every process: UserError where something is not here that it will need."""
        return

    @abstractmethod
    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        """The rows that the task's `metrics` takes, in the first process; of the others it does not matter what they
        return.  Gradients are off.

        dataset: of the split, which may be the first examples of it alone."""

    def share(self, dataset: Dataset) -> tuple[DataLoader, int]:
        """This process's batches of a split, and how many the first has, who has most.

        They are those of a lone process, dealt out in turn: its numbers do not depend on how many compute them."""
        session, size = self.session, self.session.data.eval_batch_size
        every = [range(len(dataset))[start : start + size] for start in range(0, len(dataset), size)]
        rank, world = session.fabric.global_rank, session.fabric.world_size
        own, most = every[rank::world], len(every[::world])
        return loader(dataset, session.data.collate, session.settings.workers, size, batch_sampler=own), most

    @contextmanager
    def batches(self, split: str, dataset: Dataset) -> Iterator[Iterator[Batch]]:
        """This process's batches of a split, with the model in inference; each counts as done once the next is asked for.
        One whose examples could none be read has no `ids`."""
        session, fabric = self.session, self.session.fabric
        share, most = self.share(dataset)

        def one_by_one() -> Iterator[Batch]:
            for batch in share:
                session.bad.note(batch)
                yield batch
                progress.step()
                session.stop.check(fabric)
            for _ in range(most - len(share)):  # a process with a batch fewer is asked as often
                session.stop.check(fabric)

        session.model.eval()
        shown = Progress(self.label(split), len(share), unit="batch", show=fabric.is_global_zero)
        with closing(shown) as progress, session.model.settled():
            yield one_by_one()

    def together(self, split: str, found: list[list]) -> list:
        """In the first process, what all found of each of their batches, in the order of the split; in the others nothing.

        Each process writes its part into the run's folder, where the first reads it: nothing is sent but the file's name.
        Parts hold what a checkpoint can."""
        fabric, folder = self.session.fabric, self.session.folder
        if fabric.world_size == 1:
            return [*chain(*found)]
        # A name of its own: a network's file system may know an old file's.
        part = folder / f"{split}.{uuid4().hex}.part"
        checkpoint.save(part, {"found": found})
        parts = [folder / name for name in told(fabric, part.name)]
        if not fabric.is_global_zero:
            return []
        read = [checkpoint.load(each) for each in parts]
        if None in read:
            raise UserError(f"{parts[read.index(None)]}: is not seen here: several machines need one folder of results")
        for each in parts:
            each.unlink()
        return [*chain(*chain(*zip_longest(*(each["found"] for each in read), fillvalue=[])))]

    def beside(self, split: str) -> Path:
        """A folder for files that stay, such as generated images: it goes by the record's name, and only an evaluator
        that calls this has one."""
        folder = self.session.file.with_suffix("") / split
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check_numbers(self, split: str, scores: Tensor) -> None:
        """UserError where a score is not a number."""
        if not scores.isfinite().all():
            raise UserError(f"{self.label(split)}: a score is not a number: the training diverged, lower engine.lr")

    def label(self, split: str) -> str:
        """What a person reads before figures of progress, and in errors."""
        return f"{self.session.label}, {split}" if self.session.label else split
