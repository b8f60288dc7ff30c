"""What a checkpoint is, in words for a person: told from names and shapes alone, no tensor's values are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.weights import foreign, pipelines
from vltune.weights.architecture import ACTIVATIONS, architecture
from vltune.weights.backbones import FAMILIES, MAY_LACK, of_own_names
from vltune.weights.files import form, read
from vltune.weights.finding import EXTRA, PIPELINE, left_aside, parts
from vltune.weights.heads import HEADS
from vltune.weights.keys import Family, Match, holds, is_foreign, match, recognised, shorten, translate, within_names
from vltune.weights.maps import TOWERS, clip
from vltune.weights.sizes import sizes

# The part of a backbone that a file may hold, None for a whole one -> its layouts.
LAYOUTS = {None: FAMILIES, **TOWERS}
HOW = {
    "image size": "positions are interpolated",
    "image window": "relative positions are interpolated",
    "token types": "the last one is repeated",
}


@dataclass(frozen=True)
class Choice:
    """A backbone that a configuration can choose.  overrides: how; rank: 0 as the configuration stands, 1 by another of the
    towers or models that it names, 2 by the file's own sizes; tasks: those for which it is built so; build: makes it;
    takes_towers: whether a tower can be read alone."""

    overrides: str
    rank: int
    tasks: tuple[str, ...]
    build: Callable[[], nn.Module]
    takes_towers: bool


@dataclass(frozen=True)
class Checkpoint:
    """state: on the meta device.  family: None where the layout is not known."""

    path: Path
    state: dict[str, Tensor]
    part: str | None
    family: Family | None


def inspect(path: Path, choices: Sequence[Choice] = ()) -> Checkpoint:
    """choices: backbones by whose names one of our own files is known that no layout knows."""
    state = {name: tensor.to("meta") for name, tensor in read(path).items()}
    known = ((part, recognised(state, families)) for part, families in LAYOUTS.items())
    own = ((None, of_own_names(built(choice), state)) for choice in choices if not foreign.named(state))
    part, family = next(((part, family) for part, family in chain(known, own) if family), (None, None))
    return Checkpoint(path, state, part, family)


def fitting(checkpoint: Checkpoint, choices: Sequence[Choice]) -> list[tuple[Choice, Match]]:
    """Those choices that the checkpoint fits, of the lowest rank at which it fits any; where there is none, the nearest
    alone; none where its layout is not known."""
    tried = []
    if checkpoint.family is None:
        return []
    choices = [choice for choice in choices if choice.takes_towers or not checkpoint.part]
    for rank in sorted({choice.rank for choice in choices}):
        tried += [(choice, try_on(checkpoint, choice)) for choice in choices if choice.rank == rank]
        if found := [(choice, matched) for choice, matched in tried if not matched.problems]:
            return found
    return sorted(tried, key=lambda pair: sum(map(len, pair[1].problems.values())))[:1]


def built(choice: Choice) -> nn.Module:
    with torch.device("meta"):
        return choice.build()


def try_on(checkpoint: Checkpoint, choice: Choice) -> Match:
    model = built(choice)
    if checkpoint.part:
        return match(getattr(model, checkpoint.part), checkpoint.state, checkpoint.family, checkpoint.path)
    return match(model, checkpoint.state, checkpoint.family, checkpoint.path, MAY_LACK)


def describe(checkpoint: Checkpoint, choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """(what, its value) by line.  choices: the backbones to try it on."""
    path, state, family = checkpoint.path, checkpoint.state, checkpoint.family
    lines = [
        ("file", f"{path}, {sum(part.stat().st_size for part in parts(path)) / 1e6:,.1f} MB, {form(path)}"),
        ("tensors", f"{len(state)} with {sum(tensor.numel() for tensor in state.values()):,} values, {types(state)}"),
    ]
    if family is None:
        every = [family for families in LAYOUTS.values() for family in families]
        names, first = ", ".join(dict.fromkeys(family.name for family in every)), ", ".join([*state][:3])
        told = within_names(state, every) or f"none of {names}; the first keys are {first}"
        if other := foreign.named(state):
            told = foreign.told(other)
        return [*lines, ("layout", told)]
    ours = {key: tensor for _, key, tensor in translate(family.prepare(state), family, path)}
    return [
        *lines,
        ("layout", family.name),
        *((name, f"{size:,}") for name, size in sizes(ours).items()),
        *beside(checkpoint),
        *of_pipeline(path),
        ("heads", ", ".join(heads(state)) or "none"),
        *fits(checkpoint, choices),
        *as_tower(checkpoint, choices),
    ]


def beside(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Of a whole CLIP, what its tensors do not tell, or why nothing else does."""
    if checkpoint.family not in clip.FAMILIES:
        return []
    try:
        found = architecture(checkpoint.path)
    except UserError as error:
        return [("own sizes", str(error))]
    known = ACTIVATIONS[found.activation] if found.activation else "not known"
    return [("activation", f"{known} ({found.source})")]


def of_pipeline(path: Path) -> list[tuple[str, str]]:
    """Of a folder in diffusers' layout, what its tensors do not tell, and what of it no run reads."""
    if path.name != PIPELINE:
        return []
    found = pipelines.settings(path)
    lines = [("predicts", found["scheduler"]["prediction_type"]), ("pixels", str(found["image_size"]))]
    lines += [("activation", pipelines.of_model(found["text"], "hidden_act")), ("padding", found["padding"])]
    ignored = ", ".join(left_aside(path))
    return [*lines, ("ignored", f"{ignored}: no run uses it")] if ignored else lines


def as_tower(checkpoint: Checkpoint, choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """What the towers of a whole model fit alone."""
    lines = []
    for part, families in TOWERS.items():
        if checkpoint.part is None and (family := recognised(checkpoint.state, families)):
            tower = replace(checkpoint, part=part, family=family)
            found = fitting(tower, choices)
            if found and not found[0][1].problems:
                lines += fits(tower, choices)
    return lines


def types(state: dict[str, Tensor]) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) if len(counts) > 1 else min(counts)


def heads(state: dict[str, Tensor]) -> list[str]:
    """What each head is for; of ours, its name."""
    theirs = [name for start, name in HEADS.items() if any(key.startswith(start) for key in state)]
    return theirs + list(dict.fromkeys(key.split(".")[1] for key in state if key.startswith("task.")))


def fits(checkpoint: Checkpoint, choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """What a checkpoint fits and what is done to it there, or why it does not fit the nearest."""
    lines = []
    for choice, matched in fitting(checkpoint, choices):
        if matched.problems:
            told = [(kind, shorten(keys)) for kind, keys in matched.problems.items()]
            nearest = ("fits", f"no configuration; nearest is {choice.overrides}")
            return [nearest, ("", matched.mismatch(choice.overrides)), *told]
        if odd := next((key for key, tensor in matched.fitted.items() if is_foreign(tensor.dtype)), None):
            return [("fits", f"no configuration: {holds(matched.sources[odd], matched.fitted[odd].dtype)}")]
        changes = [f"{size} {old:,} -> {new:,}, {HOW[size]}" for size, (old, new) in matched.adapted.items()]
        if checkpoint.part:
            name = f"backbone.tower_weights.{checkpoint.part} of {choice.overrides} weights=null"
        else:
            name = choice.overrides + (f" with task={', '.join(choice.tasks)}" if choice.tasks else "")
            is_kept = (checkpoint.path.parent / EXTRA).is_file()
            told = f"is read from {EXTRA}" if is_kept else "is not in the file and starts as the text's first token"
            changes += [f"{key} {told}" for key in matched.lacks]
        lines.append(("fits", "; ".join([name, *changes])))
    return list(dict.fromkeys(lines)) or [("fits", "not known: there is no conf/backbone here; give --conf FOLDER")]
