"""NLVR2: from the official raw files to ViLT's Arrow files, and from those to examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data.preparing import Row, either, read_lines, require, write_folder
from vltune.data.reading import Reader, list_items
from vltune.errors import UserError

SCHEMA = pa.schema(
    {
        "image_0": pa.binary(),
        "image_1": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.string()),
        "identifier": pa.string(),
    }
)
_SPLITS = ("train", "dev", "test1")
_ANSWERS = ("False", "True")  # in the order of the labels
_UNPACK = "see https://github.com/lil-lab/nlvr/tree/master/nlvr2 for the files and how to ask for the images"


def prepare(raw: Path, out: Path, max_bad: int = 0, progress: bool = True) -> dict[str, int]:
    """Turn NLVR2's official raw layout into ViLT's Arrow files and a manifest; return what there is how much of.

    raw: holds `data/{train,dev,test1}.json` (or `nlvr2/data/`, as in a clone), one statement a line with `identifier`
    (split-set-pair-sentence), `sentence`, `label` ("True" or "False") and, in train, `directory`; and the images as the
    authors pack them, `images/train/DIRECTORY/PAIR-img{0,1}.png`, `dev/PAIR-img{0,1}.png`, `test1/...` (or `images/dev/`,
    `images/test1/`).  out: receives `nlvr2_{train,dev,test1}.arrow` and `manifest.json`.  One row a pair of images with
    all its statements, in the order of their first occurrence; the images' bytes as they were stored.

    Raises, leaving `out` as it was: UserError where raw files are missing (all are named) or malformed, BadExampleError
    where more than `max_bad` images are missing or have no readable header.
    """
    raw, out = Path(raw), Path(out)
    data = either(raw, "data", "nlvr2/data")
    files = {split: data / f"{split}.json" for split in _SPLITS}
    folders = {split: either(raw, split, f"images/{split}") for split in ("dev", "test1")}
    folders["train"] = either(raw, "images/train", "train")
    require(raw, files.values(), folders.values(), _UNPACK)
    sources: dict[str, str] = {}
    splits = {split: _rows(files[split], split, folders[split], sources) for split in _SPLITS}
    return write_folder(
        raw, out, SCHEMA, "nlvr2", splits, ("pairs", "statements"), "questions", sources, max_bad, progress
    )


def _rows(path: Path, split: str, folder: Path, sources: dict[str, str]) -> list[Row]:
    def take(entry: dict) -> tuple[str, Path, str, str]:
        pair = entry["identifier"].rpartition("-")[0]
        if entry["label"] not in _ANSWERS:
            raise ValueError(f"label {entry['label']!r} is neither 'True' nor 'False'")
        return pair, folder / str(entry["directory"]) if split == "train" else folder, entry["sentence"], entry["label"]

    pairs: dict[str, Row] = {}
    for pair, of_pair, sentence, label in read_lines(path, "NLVR2", take, sources):
        files = {f"image_{i}": of_pair / f"{pair}-img{i}.png" for i in range(2)}
        _, row = pairs.setdefault(pair, (files, {"questions": [], "answers": [], "identifier": pair}))
        row["questions"].append(sentence)
        row["answers"].append(label)
    return list(pairs.values())


class NLVR2(Reader):
    """Statements about pairs of images, from `nlvr2_*.arrow` files of `prepare` or of ViLT's own `write_nlvr2.py`.

    splits: for example ["nlvr2_train"].  Arguments and examples: `Reader`'s; images="shuffled" gives another pair's
    two images.  An example has `image_0` and `image_1` (left and right), `label` (0 False, 1 True), `pair` (str: the
    pair's identifier) and `sentence` (int: equal for the examples of one written sentence).  A sentence was written for
    a set of pairs; the official consistency (`nlvr2/eval/metrics.py`) counts sentences right for all of their pairs.
    """

    pattern = "nlvr2_*.arrow"
    text_column = "questions"
    image_columns = ("image_0", "image_1")
    name_column = "identifier"
    other_columns = ("answers",)

    def index(self, tables: list[pa.Table]) -> None:
        answers = np.concatenate([list_items(table["answers"]) for table in tables])
        if len(answers) != len(self) or not np.isin(answers, _ANSWERS).all():
            raise UserError(f"{self.data_dir}: {self.splits} lack an answer True or False for every statement")
        self._label = (answers == _ANSWERS[1]).astype(int)
        self._pair = [pair for table in tables for pair in table["identifier"].to_pylist()]
        known: dict[tuple[str, str], int] = {}
        statements = (text for table in tables for text in pc.list_flatten(table["questions"]).to_pylist())
        sets = (self._pair[row].rpartition("-")[0] for row in self._row)
        self._sentence = [known.setdefault(key, len(known)) for key in zip(sets, statements, strict=True)]

    def about(self, index: int, seed: int | None) -> dict[str, Any]:
        return {
            "label": int(self._label[index]),
            "pair": self._pair[self._row[index]],
            "sentence": self._sentence[index],
        }
