"""Labelled images: from Arrow files to examples, of all of them or of a few of each class."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from vltune.data.labelled import shots as few
from vltune.data.labelled.lists import FewShotList
from vltune.data.labelled.rows import SCHEMA
from vltune.data.labelled.templates import templates
from vltune.data.manifest import MANIFEST
from vltune.data.reader import Reader
from vltune.data.tokenizer import BytePairTokenizer, ClipTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import UserError
from vltune.settings.kinds import Count

_MOST_VAL = 4  # images of a class, of a validation split that goes with few shots


class LabelledImages(Reader):
    """Images of classes, from the Arrow files of `prepare`.

    splits: for example ["oxford_pets_train"].  Arguments: `Reader`'s, and
    role: what the splits are for.
    protocol: what is trained on: "few_shot", `shots` images of each class; "base_to_new", the same of the base classes, the
    first half of the labels; "full", everything.
    shots: Images of each class to train on.
    draw: seed of which images these are; those of fewer shots are among those of more.
    template: "first", the data set's usual prompt; "ensemble", its published list; "name", the name alone; "own", what
        `own_template` says.
    few_shot_list: a `shot_N-seed_K.json` of cross_modal_adaptation, the images of which are read, none drawn.

    Of a validation split with few shots, `min(shots, 4)` images of each class are read (of the base classes alone with
    base_to_new), all of a class that has fewer; a test split is read whole.

    An example, one an image: `id`, `image` or `image_features`, and `label` (int).  UserError where a class has fewer
    images than `shots`, or where the manifest has no classes.
    """

    schema = SCHEMA
    pattern = "*_*.arrow"
    text_column = None
    name_column = "image_id"
    other_columns = ("label",)
    gives = ("classes", "templates", "tokenizer")

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
        protocol: Literal["few_shot", "base_to_new", "full"] = "full",
        shots: Count = 16,
        draw: int = 0,
        template: Literal["first", "ensemble", "name", "own"] = "first",
        own_template: str | None = None,
        few_shot_list: Path | None = None,
    ):
        self.role, self.protocol, self.shots, self.draw = role, protocol, shots, draw
        self.template, self.own_template = template, own_template
        self.few_shot_list = None if few_shot_list is None else FewShotList(Path(few_shot_list))
        if self.few_shot_list and not self.may_be_few:
            named = f"dataset.few_shot_list={few_shot_list}"
            raise UserError(f"{named}: task.protocol={protocol} reads all images; take {' or '.join(few.OF_FEW)}")
        more = images, seed, image_cache_bytes, fraction, fraction_seed
        super().__init__(data_dir, splits, tokenizer, transform, *more)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        return {"label": np.concatenate([table["label"].to_numpy() for table in tables])}

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        return {"label": int(self._index["label"][text])}

    def chosen(self, texts: Sequence[int], rows: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        self._refuse_unknown()
        if self.role == "test" or not self.may_be_few:
            return texts, rows
        places, names = np.asarray(texts), self.names()
        names, labels = [names[place] for place in places], self._index["label"][places]
        classes = range(len(self.classes)) if self.protocol == "few_shot" else few.base_classes(len(self.classes))
        count = self.shots if self.role == "train" else min(self.shots, _MOST_VAL)
        if self.few_shot_list:
            found = self.few_shot_list.places(self.role, names, labels, dict.fromkeys(classes, count))
        else:
            if self.role == "train":
                few.require(labels, classes, self.shots, self.classes)
            found = few.drawn(names, labels, dict.fromkeys(classes, count), self.draw)
        return places[found], places[found]

    def spread(self, count: int) -> list[int]:
        """Numbers of so many examples, ascending, of all classes as many as can be."""
        places, names = np.asarray(self._texts), self.names()
        return few.spread([names[place] for place in places], self._index["label"][places], count).tolist()

    @property
    def may_be_few(self) -> bool:
        return self.protocol in few.OF_FEW

    def names(self) -> list[str]:
        """Of all images of the files."""
        return [name for table in self._tables() for name in table[self.name_column].to_pylist()]

    @property
    def classes(self) -> list[str]:
        """Their names, by label."""
        return (self._manifest or {}).get("classes", [])

    @property
    def facts(self) -> dict[str, Any]:
        data_set = (self._manifest or {}).get("data_set")
        prompts = templates(data_set, self.template, self.own_template)
        return {"classes": self.classes, "templates": prompts, "tokenizer": self.tokenizer}

    @property
    def selection(self) -> dict[str, Any] | None:
        """Which images a few-shot run trains on: their ids, and a hash of their names; None where it is all of them.

        seed: None where a list says which."""
        if not self.may_be_few:
            return None
        names = self.names()
        return {
            "protocol": self.protocol,
            "shots": self.shots,
            "seed": None if self.few_shot_list else self.draw,
            "sha256": few.digest(names[text] for text in self._texts),
            "ids": [int(text) for text in self._texts],
        }

    @property
    def fingerprint(self) -> str:
        """With what the list of few shots holds, where there is one."""
        if not self.few_shot_list:
            return super().fingerprint
        return sha256(f"{super().fingerprint} {self.few_shot_list.digest}".encode()).hexdigest()

    def _refuse_unknown(self) -> None:
        """UserError where a label has no name."""
        if not self.classes:
            raise UserError(f"{self.data_dir}: {MANIFEST} names no classes; make the folder with `vltune prepare`")
        labels = self._index["label"]
        if len(wrong := labels[(labels < 0) | (labels >= len(self.classes))]):
            told = f"label {wrong[0]} where {MANIFEST} names {len(self.classes)} classes"
            raise UserError(f"{self.data_dir}: {told}; run `vltune prepare` again")
