"""Labelled images: from the official files, or a folder of one's own, to Arrow files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vltune.data import manifest
from vltune.data.check.classes import shared_names
from vltune.data.labelled.folders import ImageNet, OwnFolder
from vltune.data.labelled.listed import Aircraft, Listed
from vltune.data.labelled.official import Labelled
from vltune.data.labelled.published import GENERATED, PUBLISHED
from vltune.data.preparation import pipeline
from vltune.errors import UserError

_KINDS = {"variants.txt": Aircraft, "classnames.txt": ImageNet}


def prepare(
    raw: Path, out: Path, name: str, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Turn a data set of labelled images into shards and a manifest; return what there is how much of.

    name: of `published`, or "folder".  raw: the data set's folder, or that in which it lies under a name that
    CoOp or a mirror gives it.  out: receives `{name}_{split}-*.arrow` and `manifest.json`, which holds `classes`, the names
    in the order of labels.  One row an image, its bytes as they were stored, in the order of its listing; an image stands
    once in a split.  Underscores of class names become spaces.

    A single class, names that classes share, numbers other than the published ones, and a list of names that is not read
    are told on standard error.
    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    official = _official(Path(raw), name)
    counts = pipeline.prepare(official, out, max_bad, progress, readers)
    for warning in (*official.unread(), *warnings(manifest.read(out), name)):
        print(f"{out}: {warning}", file=sys.stderr)
    return counts


def _official(raw: Path, name: str) -> Labelled:
    if raw.suffix in (".pkl", ".pickle"):
        raise UserError(f"{raw}: a pickle, which is never read; --raw names the folder of images and their list")
    if name == "folder":
        return OwnFolder(raw)
    published = (PUBLISHED | GENERATED)[name]
    return _KINDS.get(published.listing, Listed)(raw, name, published)


def warnings(found: Mapping[str, Any], name: str) -> Iterator[str]:
    """What of a manifest is well to know before anything is trained on it."""
    yield from shared_names(found["classes"])
    if len(found["classes"]) == 1:
        yield f"all images are of one class, {found['classes'][0]}, so that there is nothing to tell apart"
    if (published := PUBLISHED.get(name)) is None:
        return
    if (classes := len(found["classes"])) != published.classes:
        yield f"{classes} classes, {published.title} has {published.classes}"
    for split, count in published.counts.items():
        if count not in (None, have := found["images"].get(split, 0)):
            yield f"{have:,} {split} images, {published.title} has {count:,}"
