"""The classes of a folder of labelled images: what they are called, what a model is asked, how many images each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vltune.data.check.kind import Kind

_NAMED = 5  # of what a note lists


@dataclass(frozen=True)
class ClassSummary:
    """images: how many, by split."""

    label: int
    name: str
    prompt: str
    images: dict[str, int]


def summaries(kind: Kind, manifest: Mapping[str, Any], counts: Mapping[str, Counter[int]]) -> list[ClassSummary]:
    """counts: images of each label, by split."""
    return [
        ClassSummary(label, name, kind.prompt(manifest, name), {split: of[label] for split, of in counts.items()})
        for label, name in enumerate(manifest.get("classes", ()))
    ]


def notes(classes: list[ClassSummary]) -> Iterator[str]:
    """What is well to know of them."""
    yield from shared_names([each.name for each in classes])
    for split in classes[0].images if classes else ():
        by_count = sorted(classes, key=lambda each: each.images[split])
        least, most = by_count[0], by_count[-1]
        if least.images[split] < most.images[split]:
            told = f"{least.images[split]} ({least.name}) to {most.images[split]} ({most.name})"
            yield f"{split}: {told} images a class"
        else:
            yield f"{split}: {least.images[split]} images a class"
        if none := [each.name for each in by_count if not each.images[split]]:
            yield f"{split}: no image of {_listed(none)}"


def shared_names(names: Sequence[str]) -> Iterator[str]:
    """That some classes have the same name, where that is so."""
    if shared := [name for name, count in Counter(names).items() if count > 1]:
        yield f"classes share a name, so that no text tells them apart: {_listed(shared)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
