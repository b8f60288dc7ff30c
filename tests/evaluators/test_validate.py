"""Which figure of validation decides which checkpoint is kept."""

from types import SimpleNamespace

import pytest
import tiny

from vltune.errors import UserError
from vltune.evaluators import evaluate
from vltune.tasks.image_classification import ImageClassification


def session(protocol):
    task = ImageClassification(20, ["a", "b", "c", "d"], ["a {}"], tiny.Words(), protocol=protocol)
    alone = SimpleNamespace(is_global_zero=True, world_size=1)
    return SimpleNamespace(model=SimpleNamespace(task=task), fabric=alone)


def rows(*scores):
    shared = {"prediction": "a", "class": "a", "confidence": 0.5, "half": "base"}
    return [{"id": number, "score": score, **shared} for number, score in enumerate(scores)]


@pytest.mark.parametrize("protocol", ["few_shot", "base_to_new"])
def test_it_is_the_accuracy_of_what_validation_holds(protocol, monkeypatch):
    """Of base to new, base classes alone."""
    monkeypatch.setattr(evaluate, "predictions", lambda session, split: rows(1.0, 0.0, 1.0, 1.0))
    assert evaluate.validate(session(protocol)) == 75.0
    assert session("base_to_new").model.task.chosen_by.name == "base"


def test_a_split_without_answers_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(evaluate, "predictions", lambda session, split: rows(None, None))
    with pytest.raises(UserError, match=r"^engine\.select=best: the validation split has no accuracy, as its answers"):
        evaluate.validate(session("few_shot"))
