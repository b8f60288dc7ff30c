"""What the Arrow files of subjects hold, a split each, and what the manifest says of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vltune.data.check.kind import Kind
from vltune.data.subjects.prompts import CLASS, LIVE, OBJECT

STEM = "dreambooth"
SCHEMA = pa.schema({"image": pa.binary(), "image_id": pa.string(), "split": pa.string()})
FEW = "one picture only: it trains, but nothing tells the subject from what is behind it; three to five are usual"


@dataclass(frozen=True)
class OfSubject:
    """noun: what the subject is one of.  prompts: those that are judged."""

    name: str
    noun: str
    live: bool
    prompts: Sequence[str]


def described(manifest: Mapping[str, Any]) -> dict[str, OfSubject]:
    """The subjects of a prepared folder, by name."""
    lists = manifest.get("prompts", {})
    return {
        name: OfSubject(name, said["class"], said["live"], lists[LIVE if said["live"] else OBJECT])
        for name, said in manifest.get("subjects", {}).items()
    }


def problems(row: Mapping[str, Any], _: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns."""
    if not row["image_id"]:
        yield "a picture without a name"


def notes(manifest: Mapping[str, Any], rows: Mapping[str, int]) -> Iterator[str]:
    """Each subject in a line.  rows: by split."""
    for each in described(manifest).values():
        count = rows.get(each.name, 0)
        kind, pictures = "live" if each.live else "an object", "1 picture" if count == 1 else f"{count} pictures"
        first = each.prompts[0].replace(CLASS, each.noun)
        yield f"subject {each.name}, {each.noun} ({kind}): {pictures}, {len(each.prompts)} prompts such as {first!r}"
        if count == 1:
            yield f"subject {each.name}: {FEW}"


KIND = Kind(SCHEMA, ("images",), None, problems, name="image_id", notes=notes)
