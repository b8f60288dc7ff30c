"""Predictions of a split, by the evaluator that the task names."""

from __future__ import annotations

from importlib import import_module

import torch
from torch.utils.data import Subset

from vltune.engine.memory import evaluating
from vltune.engine.session import Session
from vltune.errors import UserError
from vltune.evaluators.evaluator import Evaluator
from vltune.runs.together import told


def find(name: str) -> type[Evaluator]:
    """The evaluator that stands in the module `vltune.evaluators.NAME`."""
    module = import_module(f"vltune.evaluators.{name}")
    (found,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Evaluator) and each.__module__ == module.__name__
    )
    return found


def check_splits(session: Session, task: str) -> None:
    """UserError where a part of each split is asked for that the task's evaluator has no use for, or it lacks something."""
    evaluator = find(session.model.task.evaluator)
    if (count := session.settings.eval_examples) is not None and evaluator.whole_splits:
        raise UserError(f"engine.eval_examples={count}: {task} ranks whole splits; set it to null")
    evaluator(session).check()


def validate(session: Session) -> float:
    """What the task chooses by, on the validation split, in every process: the first one tells the others.

    UserError where the split has none of it."""
    rows, task = predictions(session, "val"), session.model.task
    name = task.chosen_by.name
    metric = told(session.fabric, task.figures(rows).get(name) if session.fabric.is_global_zero else None)[0]
    if metric is None:
        raise UserError(
            f"engine.select=best: the validation split has no {name}, as its answers are not there; use last"
        )
    return metric


@torch.no_grad()
def predictions(session: Session, split: str) -> list[dict]:
    """Prediction rows of a split, in the first process; none where there is no such split."""
    dataset, settings = session.data.split(split), session.settings
    if dataset is None:
        return []
    if settings.eval_examples is not None:
        dataset = Subset(dataset, range(min(settings.eval_examples, len(dataset))))
    evaluator = find(session.model.task.evaluator)(session)
    session.folder.mkdir(parents=True, exist_ok=True)
    with evaluating(evaluator.label(split), session.data.eval_batch_size):
        return evaluator.predict(split, dataset)
