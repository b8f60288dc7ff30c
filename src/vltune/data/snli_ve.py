"""SNLI-VE: from the official raw files to METER's Arrow files, and from those to examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vltune.data.preparing import Row, either, read_lines, require, write_folder
from vltune.data.reading import Reader, list_items
from vltune.errors import UserError

LABELS = ("contradiction", "neutral", "entailment")
SCHEMA = pa.schema({"image": pa.binary(), "sentences": pa.list_(pa.list_(pa.string())), "labels": pa.list_(pa.int64())})
_SPLITS = ("train", "dev", "test")
_UNDECIDED = "-"  # the annotators found no majority
_UNPACK = "unpack the sentences from https://github.com/necla-ml/SNLI-VE and Flickr30K's images into flickr30k-images/"


def prepare(raw: Path, out: Path, max_bad: int = 0, progress: bool = True) -> dict[str, int]:
    """Turn SNLI-VE's official raw layout into METER's Arrow files and a manifest; return what there is how much of.

    raw: holds `snli_ve_{train,dev,test}.jsonl`, one sentence a line with `Flickr30K_ID`, `sentence1` (the caption that
    stood for the image in SNLI), `sentence2` (the hypothesis) and `gold_label`; and Flickr30K's images as `ID.jpg` in
    `flickr30k-images/`, `flickr30k_images/` or `Flickr30K/images/`.  out: receives `snli_{train,dev,test}.arrow` and
    `manifest.json`.  One row an image with all its sentences, in the order of their first occurrence; the images' bytes
    as they were stored.

    Sentences whose `gold_label` is "-" are dropped and counted.  Raises, leaving `out` as it was: UserError where raw
    files are missing (all are named) or malformed, BadExampleError where more than `max_bad` images are missing or have
    no readable header.
    """
    raw, out = Path(raw), Path(out)
    files = {split: raw / f"snli_ve_{split}.jsonl" for split in _SPLITS}
    folder = either(raw, "flickr30k-images", "flickr30k_images", "Flickr30K/images")
    require(raw, files.values(), [folder], _UNPACK)
    sources: dict[str, str] = {}
    splits, dropped = {}, {}
    for split, path in files.items():
        splits[split], dropped[split] = _rows(path, folder, sources)
    names = ("images", "sentences")
    return write_folder(
        raw, out, SCHEMA, "snli", splits, names, "sentences", sources, max_bad, progress, dropped_sentences=dropped
    )


def _rows(path: Path, folder: Path, sources: dict[str, str]) -> tuple[list[Row], int]:
    """The rows of a split, and how many of its sentences are undecided."""

    def take(entry: dict) -> tuple[str, list[str], int] | None:
        label = entry["gold_label"]
        if label not in (*LABELS, _UNDECIDED):
            raise ValueError(f"gold_label {label!r} is none of {', '.join(LABELS)}, {_UNDECIDED}")
        said = str(entry["Flickr30K_ID"]), [entry["sentence1"], entry["sentence2"]]
        return None if label == _UNDECIDED else (*said, LABELS.index(label))

    taken = read_lines(path, "SNLI-VE", take, sources)
    by_image: dict[str, Row] = {}
    for image, sentences, label in filter(None, taken):
        _, row = by_image.setdefault(image, ({"image": folder / f"{image}.jpg"}, {"sentences": [], "labels": []}))
        row["sentences"].append(sentences)
        row["labels"].append(label)
    return list(by_image.values()), taken.count(None)


class SNLIVE(Reader):
    """Hypotheses about images, from `snli_*.arrow` files of `prepare` or of METER's own `write_snli.py`.

    splits: for example ["snli_train"].  Arguments and examples: `Reader`'s; the text is the hypothesis.  An example also
    has `label`, the place in `LABELS`, METER's order: 0 contradiction, 1 neutral, 2 entailment.
    """

    pattern = "snli_*.arrow"
    text_column = "sentences"
    other_columns = ("labels",)

    def index(self, tables: list[pa.Table]) -> None:
        self._label = np.concatenate([list_items(table["labels"]) for table in tables])
        if len(self._label) != len(self) or not np.isin(self._label, range(len(LABELS))).all():
            raise UserError(f"{self.data_dir}: {self.splits} lack a label 0, 1 or 2 for every sentence")

    def about(self, index: int, seed: int | None) -> dict[str, Any]:
        return {"label": int(self._label[index])}

    def _wording(self, stored: pa.Scalar) -> str:
        return stored[1].as_py().strip()
