"""Pictures of a subject: from Arrow files to examples, and what is painted of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from vltune.data import manifest
from vltune.data.manifest import MANIFEST
from vltune.data.reader import Reader
from vltune.data.subjects import prompts
from vltune.data.subjects.rows import FEW, SCHEMA, STEM, OfSubject, described
from vltune.data.tokenizer import BytePairTokenizer, ClipTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import UserError
from vltune.values import instead


class SubjectPictures(Reader):
    """Pictures of one subject, from the Arrow files of `prepare`.

    splits: for example ["dreambooth_dog6"].  Arguments: `Reader`'s, and
    role: what the splits are for; a single picture to train on is told on standard error.
    own_prompts: a text of prompts, a line each, that are painted in the place of the data set's.

    An example, one a picture: `id`, and `image` or `image_features`.  UserError where the folder has no such subject, or
    the splits are of several.
    """

    schema = SCHEMA
    pattern = f"{STEM}_*.arrow"
    text_column = None
    name_column = "image_id"
    gives = ("noun", "prompts", "tokenizer")
    whole_folder = False
    may_be_few = True

    def __init__(
        self,
        data_dir: Path,
        splits: Sequence[str],
        tokenizer: Tokenizer | BytePairTokenizer | ClipTokenizer,
        transform: Transform,
        images: Literal["true", "shuffled"] = "true",
        seed: int = 0,
        image_cache_bytes: int = 2**27,
        fraction: float = 1.0,
        fraction_seed: int = 0,
        role: Literal["train", "val", "test"] = "test",
        own_prompts: Path | None = None,
    ):
        own = None if own_prompts is None else prompts.own(Path(own_prompts))
        subject = _subject(Path(data_dir), splits)
        more = images, seed, image_cache_bytes, fraction, fraction_seed
        super().__init__(data_dir, splits, tokenizer, transform, *more)
        if subject is None:
            raise UserError(f"{data_dir}: has no {MANIFEST} that says what is shown; make it with `vltune prepare`")
        self.subject, self.prompts = subject, list(own or subject.prompts)
        if role == "train" and len(self) == 1:
            print(f"dataset.subject={subject.name}: {FEW}", file=sys.stderr)

    @property
    def facts(self) -> dict[str, Any]:
        return {"noun": self.subject.noun, "prompts": self.prompts, "tokenizer": self.tokenizer}

    @property
    def fingerprint(self) -> str:
        """A hash of the subject's own pictures, its class and what is painted of it, whichever others are in the folder."""
        pictures = [sha256(self.content(number)).hexdigest() for number in range(self.pictures())]
        about = {"subject": self.subject.name, "class": self.subject.noun, "prompts": self.prompts}
        return sha256(json.dumps(about | {"pictures": pictures}, sort_keys=True).encode()).hexdigest()


def _subject(folder: Path, splits: Sequence[str]) -> OfSubject | None:
    """Whose the splits are; None where the folder has no manifest, or no such splits of any kind."""
    known = described(manifest.read(folder) or {})
    named = {split.removeprefix(f"{STEM}_") for split in splits}
    if not known:
        return None
    if unknown := sorted(named - known.keys()):
        raise UserError(f"dataset.subject={unknown[0]}: {folder} has no such subject; {instead(unknown[0], known)}")
    if len(named) > 1:
        raise UserError(f"{folder}: {', '.join(splits)} are of several subjects; name the split of one")
    return known[named.pop()]
