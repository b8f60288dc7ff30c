"""Few-shot lists of cross_modal_adaptation (Lin et al. 2023): `indices/{data set}/shot_N-seed_K.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vltune.data.fields import field, words
from vltune.errors import UserError
from vltune.signatures import HEAD, identify, other_than_file
from vltune.streamed import once


class FewShotList:
    """{"train": {"data": [{"impath": ..., "label": ...}, ...]}, "val": ...}; of a path the end counts, which names an image
    below the data set's folder.  UserError where the file is something else.

    digest: SHA-256 of the file, hexadecimal."""

    def __init__(self, file: Path):
        self.file = file
        if (found := other_than_file(file)) is not None:
            raise self._error(f"{found}; name a shot_N-seed_K.json")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})") from None
        self.digest = sha256(content).hexdigest()
        try:
            self._lists = self._read(json.loads(content, object_pairs_hook=once))
        except (ValueError, RecursionError) as error:
            head = identify(content[:HEAD])
            what = str(error) if content.lstrip()[:1] == b"{" else head.name
            raise self._error(f"not a few-shot list ({what}); name a shot_N-seed_K.json, never a pickle") from None

    def places(self, role: str, names: Sequence[str], labels: np.ndarray, wanted: dict[int, int]) -> np.ndarray:
        """Places of the listed images, ascending.

        names, labels: of each image of the split.  wanted: how many of which label; images of others are left out.
        UserError where the list holds other numbers of them, or an image or label that the split has not."""
        known = {name: place for place, name in enumerate(names)}
        found: dict[int, int] = {}
        for path, label in self._lists[role]:
            parts = PurePosixPath(path).parts
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            place = next((known[end] for end in ends if end in known), None)
            if place is None:
                told = f"it is a list of other data, or of another split, which dataset.{role} has to name"
                raise self._error(f"{path} is no image of dataset.{role}; {told}")
            if labels[place] != label:
                raise self._error(f"{path} has label {label} there and {labels[place]} in the data; the classes differ")
            if label in wanted:
                found[place] = label
        counts = Counter(found.values())
        if wrong := [label for label, count in wanted.items() if role == "train" and counts[label] != count]:
            told = f"{counts[wrong[0]]} images of label {wrong[0]} where task.shots={wanted[wrong[0]]}"
            raise self._error(f"holds {told}; take the list of as many shots")
        return np.array(sorted(found), int)

    def _read(self, content: Any) -> dict[str, list[tuple[str, int]]]:
        found = {}
        for role in ("train", "val"):
            part = content.get(role) if isinstance(content, dict) else None
            found[role] = [(words(each, "impath"), field(each, "label", int)) for each in field(part, "data", list)]
        return found

    def _error(self, told: str) -> UserError:
        return UserError(f"dataset.few_shot_list={self.file}: {told}")
