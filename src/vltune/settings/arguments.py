"""Arguments that constructors of methods, backbones, tasks, transforms, tokenizers and loggers have by these names.

A constructor declares its arguments by plain types.  What is true of an argument wherever it occurs, limits among it, is
declared here once (Any: the constructor's own type is all).  What a constructor says in `Annotated` goes before that, and
so does what its docstring says of an argument, as `name: ...`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Interval
from typing_extensions import TypedDict

from vltune.settings.kinds import (
    AnyOrder,
    Count,
    Layers,
    Nonnegative,
    NotDecisive,
    Number,
    Pixels,
    Positive,
    Seconds,
    Seeds,
    Share,
    Size,
    TextLength,
)


class MethodArguments(TypedDict, total=False):
    roles: Annotated[Any, AnyOrder()]
    """The sites that the method acts at, by their roles."""
    rank: Any
    """The inner width of its low-rank maps."""
    prompts: Any
    """How many prompts a site has."""
    bottleneck: Any
    """The inner width of the adapter."""
    dropout: Share
    """Share of values that training sets to zero."""
    init_std: Nonnegative
    """Standard deviation of its maps at the start."""
    init_bound: Nonnegative | None
    """Prompts start evenly spread up to this bound on either side, or null for Xavier's."""
    prompt_std: Nonnegative
    """Standard deviation of the prompts at the start."""
    d_init: float
    """What the inner one of its two vectors starts at."""
    map_std: Nonnegative
    """Standard deviation of the first half of the prompts' map at the start; the second half starts at 0."""
    search_lr: Positive
    """The learning rate of the search that comes before training."""


class BackboneArguments(TypedDict, total=False):
    width: Size
    """Numbers a token."""
    layers: Layers
    """How many blocks it has; of a two-stream backbone, where its streams meet."""
    heads: Size
    """Of attention; they divide the width."""
    hidden: Size
    """Numbers a token between the two maps of a feed-forward layer."""
    patch_size: Size
    """Pixels of a patch's side."""
    image_size: Size
    """Pixels of an image's side."""
    vocabulary_size: Size
    """Rows of the table of word embeddings."""
    max_text_len: TextLength
    """Tokens of a text at most, the first and the last among them."""
    max_image_len: Literal[-1] | Size
    """Patches of an image at most, or -1 for all."""
    token_types: Size
    """Rows of the table of token types: the text's, and one for each image."""
    activation: Any
    """What lies between the two maps of its feed-forward layers."""
    dropout: Share
    """Share of values that training sets to zero."""
    last_layer: Any
    """What the last layer is computed for: the class token alone, which a head reads, or all tokens."""
    model: Any
    """Which of `models`, or of `pipelines`, is built."""
    coordinates: bool
    """Whether the denoising network reads two channels more, which say where each of the others lies."""
    weight_bound: Positive | None
    """How much a step weighs in the loss at most, where it weighs 1 / (1 - abar), or null where each weighs 1."""
    gradient_checkpointing: Annotated[bool, NotDecisive()]
    """Whether training keeps fewer activations and computes the others again: less memory, more time."""
    text_chunk: Size
    """Texts that are computed at a time; training computes those of more twice, in the memory of so many."""
    image_tower: Any
    """Which of `image_towers` is built."""


class TaskArguments(TypedDict, total=False):
    folds: Count
    """Recall is also the mean over so many parts of the images, each with its own captions."""
    false_captions: Size
    """Captions of other images that an image is told from in training."""
    mask_rate: Annotated[float, Interval(ge=0, le=1)]
    """Share of words that are masked in half of the true pairs."""
    classifier: Any
    """What tells classes apart: texts, a linear layer, one that starts as the texts, or a cache of images beside them."""
    alpha: Nonnegative
    """Of a cache of images: how much it counts beside the texts."""
    beta: Nonnegative
    """Of a cache of images: how near an image must be to count."""
    cache_trained: bool
    """Whether a cache's images are trained from there on."""
    prior_weight: Nonnegative
    """How much the loss of pictures of the class counts, or 0 for none."""
    class_pictures: Number
    """How many pictures of the class the model paints before it is tuned."""
    seeds: Seeds
    """Of each prompt's pictures, one a seed."""
    sampler_steps: Count
    """Of the sampler, for a picture."""
    bag_weight: Nonnegative
    """Of the loss by which the class token tells which words are masked."""


class TokenizerArguments(TypedDict, total=False):
    vocabulary: Any
    """The file of its tokens."""
    merges: Any
    """The file of the pairs that byte-pair encoding merges."""
    padding: Any
    """The token that fills every text up to the longest, or null."""


class TransformArguments(TypedDict, total=False):
    shorter: Pixels
    """Pixels of the shorter side, unless the longer one would exceed its own."""
    longer: Pixels
    """Pixels of the longer side at most."""
    multiple: Pixels
    """Both sides are cut down to a multiple of it."""
    size: Pixels
    """Pixels of the side of the square that an image becomes."""
    mean: tuple[float, float, float]
    """Of each colour, taken off its values from 0 to 1."""
    std: tuple[Positive, Positive, Positive]
    """Of each colour, which what is left is divided by."""


class LoggerArguments(TypedDict, total=False):
    examples: Number
    """Rows of the table of predictions with images, or 0 for none."""
    largest_artifact_mb: Nonnegative
    """Larger files are not uploaded."""
    start_timeout: Seconds
    """Seconds that a run waits for the service before it goes on without."""
    finish_timeout: Seconds
    """Seconds for what is left to upload at its end."""
    project: Any
    """The project that runs are logged to, or null for WANDB_PROJECT, or vltune."""
    mode: Any
    """offline writes files for later, online uploads as the run goes; null for WANDB_MODE, or offline."""
    entity: Any
    """The user or team that the project belongs to, or null for your own."""
    tags: Any
    """Of a run, beside method, backbone, task and data set."""


ARGUMENTS = {
    "method": MethodArguments,
    "backbone": BackboneArguments,
    "task": TaskArguments,
    "backbone.tokenizer": TokenizerArguments,
    "backbone.transform": TransformArguments,
    "logger": LoggerArguments,
}
