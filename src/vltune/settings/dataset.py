"""`dataset`: which examples a run trains on and is scored by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict

from vltune.settings.kinds import (
    Before,
    ByContent,
    Count,
    FolderPath,
    Name,
    NotDecisive,
    NotItself,
    Number,
    Size,
    Template,
    Words,
)


class SplitSizes(TypedDict):
    train: Size
    """Images to train on."""
    val: Size
    """Images of validation."""
    test: Size
    """Images of the test."""
    restval: NotRequired[Size]
    """In COCO's layout: images that are trained on beside the others."""


class Generation(TypedDict):
    """How the toy world is drawn."""

    layout: NotRequired[Name]
    """The official data set whose raw layout it is written in."""
    seed: NotRequired[Number]
    """Of its scenes and sentences."""
    questions_per_image: NotRequired[Count]
    """In VQAv2's layout: how many questions are asked of an image."""
    shift: NotRequired[Annotated[int, Interval(ge=0, le=1)]]
    """In a layout of classes: 1 shows them in another light than pretraining, brighter, paler and noisy, 0 in the same."""
    halves: NotRequired[Literal["recombined", "words"]]
    """In a layout of classes: the new ones' names are recombined of words of the base, or have words that it lacks, which
    leaves fewer classes."""
    images: NotRequired[SplitSizes | None]
    """How many images each split has (in NLVR2's layout: pairs), or null for the toy world's own numbers."""


class DatasetSettings(TypedDict):
    name: Name
    """What records and tables call it."""
    reader: NotRequired[str]
    """The folder of src/vltune/data that reads it, where that is not the task's own."""
    data_dir: Annotated[FolderPath, NotItself()]
    """The folder that its files lie in."""
    subfolder: Annotated[str, NotItself()]
    """A folder in `data_dir` that they lie in, or an empty text."""
    train: Words
    """Splits to train on."""
    val: Words
    """Splits that validation reads."""
    test: Words
    """Splits that the test reads."""
    images: Literal["true", "shuffled"]
    """Each example's own images, or another's in their place, for a control that cannot see."""
    randaugment: str | None
    """Of training images: released-m9-n2, as of ViLT and METER, a timm configuration such as rand-m9-n2, or null."""
    max_bad_examples: Annotated[Number, NotDecisive()]
    """So many examples that cannot be read are left out, or count as missed in retrieval; one more ends the run."""
    train_fraction: NotRequired[Annotated[float, Interval(gt=0, le=1), Before(1.0)]]
    """Share of the training images that is trained on, with all their texts."""
    train_fraction_seed: NotRequired[Annotated[Number, Before(0)]]
    """Which images that share holds; those of a smaller share are among those of a larger one."""
    decode: NotRequired[Annotated[Literal["exact", "fast"], Before("exact")]]
    """How JPEG files are read: as Pillow does, as released, or about twice as fast with nearly the same pixels."""
    answers: NotRequired[Size]
    """How many answers the vocabulary has, for mode=cost, which reads no data."""
    classes: NotRequired[Annotated[Size, Before(30)]]
    """How many classes there are, for mode=cost, which reads no data."""
    template: NotRequired[Annotated[Template, Before("a {}")]]
    """What a model is asked for a class, with {} in the place of its name; of task.template=own, and of data that
    has no usual one."""
    few_shot_list: NotRequired[Annotated[Path | None, Before(None), ByContent()]]
    """A list of the images of few-shot training, a shot_N-seed_K.json of cross_modal_adaptation, or null to draw them."""
    subject: NotRequired[Name]
    """Of subject-driven generation: whose pictures are learned from."""
    prompts: NotRequired[Annotated[Path | None, ByContent()]]
    """Of the same: a text of the prompts that are painted, with {token} and {class}, a line each, or null for the data
    set's."""
    augment: NotRequired[Annotated[Literal["crop_flip"] | None, Before(None)]]
    """A random part of each training image as the whole of it, mirrored half of the time, or null for none."""
    folds: NotRequired[Count]
    """Retrieval's recall is also the mean over so many parts of the test images."""
    make: NotRequired[Annotated[str, NotDecisive()]]
    """The command that makes its files, shown where they are missing."""
    generate: NotRequired[Annotated[Generation, NotItself()]]
    """How its files are generated on first use; of the toy world alone."""
