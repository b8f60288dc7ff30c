"""Subjects: from DreamBooth's folders, or one of one's own pictures, to Arrow files."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from vltune.data import manifest
from vltune.data.preparation import pipeline
from vltune.data.preparation.raw import require
from vltune.data.subjects.listing import LISTING
from vltune.data.subjects.official import OneSubject, Subjects, root
from vltune.data.subjects.rows import FEW, described
from vltune.errors import UserError


def prepare(
    raw: Path,
    out: Path,
    noun: str | None = None,
    live: bool | None = None,
    max_bad: int = 0,
    progress: bool = True,
    readers: int | None = None,
) -> dict[str, int]:
    """Turn pictures of subjects into shards and a manifest; return how many there are of each.

    raw: google/dreambooth's repository, or its `dataset/`: a folder of pictures for each subject, and
    `prompts_and_classes.txt`.  With a noun: a folder of pictures of one subject of that class, which is called as the
    folder is; it has DreamBooth's prompts for what is `live` or for objects (None: live are dogs and cats).
    out: receives `dreambooth_{subject}-*.arrow`, a split a subject, and `manifest.json`, which holds `subjects` and
    `prompts`.  One row a picture, in the order of names, its bytes as they were stored; of one that a camera stored turned,
    a PNG of it upright, as diffusers' recipe sees it.  Every picture is decoded.

    A subject of one picture is told on standard error.  UserError where `out` holds subjects of other raw files, which
    would be lost.  Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    raw = Path(raw)
    if noun is None and live is not None:
        raise UserError(f"--{'' if live else 'no-'}live: is of --class; add that, or leave it out")
    if noun is not None and (root(raw) / LISTING).is_file():
        raise UserError(f"--class {noun}: {root(raw) / LISTING} says what its subjects are; leave the option out")
    official = Subjects(raw) if noun is None else OneSubject(raw, noun, live)
    require(official)
    _refuse_others(out, official)
    counts = pipeline.prepare(official, out, max_bad, progress, readers)
    for subject, count in manifest.read(out)["images"].items():
        if count == 1:
            print(f"{out}: {subject}: {FEW}", file=sys.stderr)
    return counts


def _refuse_others(out: Path, official: Subjects | OneSubject) -> None:
    earlier = {}
    with suppress(UserError):  # a broken manifest is made anew
        earlier = manifest.read(out) or {}
    held, there = {*described(earlier)}, official.there()
    is_ours = held <= there if official.subjects else earlier.get("sources") and held & there  # a tree may lose some
    if held and not is_ours:
        raise UserError(f"{out}: holds {', '.join(described(earlier))}, which would be lost; name another folder")
