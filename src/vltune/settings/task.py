"""`task`: what a task's configuration holds beside the arguments of its constructor and of its data's reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict

from vltune.settings.kinds import OPEN, Name, NotDecisive, NotItself, Size, Words

Shots = Literal[1, 2, 4, 8, 16]


class TaskSplits(TypedDict):
    train: NotRequired[Words]
    """Splits of the toy world to train on."""
    val: NotRequired[Words]
    """Splits of the toy world that validation reads."""
    test: NotRequired[Words]
    """Splits of the toy world that the test reads."""


class TaskSettings(TypedDict):
    __pydantic_config__ = OPEN

    name: Name
    """What records and tables call it."""
    reader: NotRequired[Annotated[str | None, NotItself()]]
    """What reads its data."""
    token_types: Size
    """Rows of the table of token types: the text's, and one for each image."""
    data_name: NotRequired[Annotated[Name, NotItself()]]
    """What records and tables call the toy world for this task, where that is not shapes alone."""
    layout: NotRequired[Annotated[Name, NotItself()]]
    """The raw layout that the toy world is written in for this task."""
    splits: NotRequired[Annotated[TaskSplits, NotItself()]]
    """The splits of the toy world in that layout."""
    protocol: NotRequired[Literal["few_shot", "base_to_new", "full"]]
    """Of image classification: few images a class, the same of half of the classes, or all images."""
    shots: NotRequired[Shots]
    """Of these protocols: training images of each class."""
    template: NotRequired[Literal["first", "ensemble", "name", "own"]]
    """Prompts: the data set's first template, all published ones, a class's name alone, or dataset.template."""
    names: NotRequired[Annotated[Mapping[str, Name], NotItself()]]
    """By protocol, what the task's name is."""
    steps: NotRequired[Annotated[Mapping[str, Size], NotItself()]]
    """By shots, the optimiser steps that recipes refer to."""
    caption_tokens: NotRequired[Annotated[int, Interval(ge=3, le=1000)]]
    """Tokens of a generated caption at most: of short ones matching is learned sooner."""
    alone: NotRequired[Annotated[float, Interval(ge=0, le=1)]]
    """Of contrastive pretraining: share of the steps in which enlarged objects are all that is shown."""
    widest: NotRequired[Annotated[int, Interval(ge=30, le=64)]]
    """Of contrastive pretraining: pixels of the largest window that is enlarged at its end."""
    reading: NotRequired[Annotated[float, Interval(ge=0, le=1)]]
    """Of pretraining to paint: share of the steps in which the text encoder reads alone."""
    judges: NotRequired[Annotated[Mapping[str, Mapping[str, Any] | None], NotDecisive()]]
    """Of generated pictures: by name what each judge is read from, or null for one that is not asked; a record says which
    model it was."""
