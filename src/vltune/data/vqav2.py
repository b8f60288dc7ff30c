"""VQAv2: from the official raw files to ViLT's Arrow files, and from those to examples."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data.arrow import open_table, write_table
from vltune.data.preparing import BadImages, Row, read_list, require, staging, texts_in, write_manifest, write_rows
from vltune.data.reading import Reader, list_items, list_lengths
from vltune.errors import UserError
from vltune.metrics.vqa import normalise, soft_score

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.list_(pa.string())),
        "answer_labels": pa.list_(pa.list_(pa.int64())),
        "answer_scores": pa.list_(pa.list_(pa.float64())),
        "image_id": pa.int64(),
        "question_id": pa.list_(pa.int64()),
        "split": pa.string(),
    }
)

# split -> what its question file, its annotation file and its image folder are named after
_SPLITS = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "test": ("test2015", "test2015"),
    "test-dev": ("test-dev2015", "test2015"),
}
_TRAINING = ("train", "val")
_HELD_OUT = 1000  # val images that ViLT keeps out of training
_KIND = "VQAv2"


def prepare(raw: Path, out: Path, min_answer_count: int = 9, max_bad: int = 0, progress: bool = True) -> dict[str, int]:
    """Turn VQAv2's official raw layout into ViLT's Arrow files and a manifest; return what there is how much of.

    raw: holds `v2_OpenEnded_mscoco_*_questions.json`, `v2_mscoco_*_annotations.json` and the image folders `train2014`,
    `val2014`, `test2015`.  out: receives `vqav2_{train,val,test,test-dev}.arrow`, where val has more than 1000 images
    also `vqav2_trainable_val.arrow` and `vqav2_rest_val.arrow` (the last 1000), and `manifest.json`.  One row an image,
    in the order of image ids; the images' bytes as they were stored.

    The answer vocabulary holds the normalised `multiple_choice_answer`s that occur `min_answer_count` times or more in
    train and val, in the order of their first occurrence (3,129 on the real data).  As in ViLT's `write_vqa.py`, the
    ten human answers are matched to it as they stand, train and val questions without a match are dropped, and so are
    images left without questions.

    Images are streamed.  Raises, leaving `out` as it was: UserError where raw files are missing (all are named),
    BadExampleError where more than `max_bad` images are missing or have no readable header.
    """
    raw, out = Path(raw), Path(out)
    files = _raw_files(raw)
    sources: dict[str, str] = {}
    humans, common = _read_annotations(files, sources)
    answers = [answer for answer, count in common.items() if count >= min_answer_count]
    labels = {answer: label for label, answer in enumerate(answers)}
    rows = {
        split: _Rows(raw, split, read_list(files[split], "questions", _KIND, sources), humans, labels)
        for split in _SPLITS
    }

    bad = BadImages(raw, max_bad)
    bad.add_missing(path for split in rows.values() for path in split.paths())
    with staging(out, stale=(_file("trainable_val"), _file("rest_val"))) as partial:
        images = {
            split: write_rows(partial / _file(split), SCHEMA, found.rows(), len(found.by_image), bad, progress)
            for split, found in rows.items()
        }
        questions = {split: texts_in(partial / _file(split), "questions") for split in rows}
        if images["val"] > _HELD_OUT:
            val = open_table(partial / _file("val"), SCHEMA.names)
            for split, part in (("trainable_val", val[:-_HELD_OUT]), ("rest_val", val[-_HELD_OUT:])):
                images[split] = write_table(partial / _file(split), SCHEMA, part.to_batches())
        counts = {
            "images": images,
            "questions": questions,
            "dropped_questions": {split: found.dropped_questions for split, found in rows.items()},
            "dropped_images": {split: found.dropped_images for split, found in rows.items()},
        }
        named = write_manifest(
            partial, SCHEMA, counts, bad, sources, min_answer_count=min_answer_count, answers=answers
        )
    return named | {"answers": len(answers)}


def _file(split: str) -> str:
    return f"vqav2_{split}.arrow"


def _raw_files(raw: Path) -> dict[str, Path]:
    """Question files by split, annotation files by subtype.  UserError names all that is missing."""
    files = {split: raw / f"v2_OpenEnded_mscoco_{subtype}_questions.json" for split, (subtype, _) in _SPLITS.items()}
    files |= {subtype: raw / f"v2_mscoco_{subtype}_annotations.json" for _, subtype in _SPLITS.values()}
    if not files["test2015"].exists():  # the official test has no published answers; `shapes` has
        del files["test2015"]
    folders = sorted({raw / folder for _, folder in _SPLITS.values()})
    require(raw, files.values(), folders, "unpack them there from https://visualqa.org/download.html")
    return files


def _read_annotations(files: dict[str, Path], sources: dict[str, str]) -> tuple[dict[int, list[str]], Counter[str]]:
    """The human answers by question id, and how often each normalised answer is the common one in train and val."""
    humans: dict[int, list[str]] = {}
    common: Counter[str] = Counter()
    normal = cache(normalise)
    shared = cache(str)  # one object for equal strings: the real data holds 6.6 million answers
    for split in ("train", "val", "test"):
        _, subtype = _SPLITS[split]
        annotations = read_list(files[subtype], "annotations", _KIND, sources) if subtype in files else []
        for annotation in annotations:
            humans[annotation["question_id"]] = [shared(human["answer"]) for human in annotation["answers"]]
        if split in _TRAINING:
            common.update(normal(annotation["multiple_choice_answer"]) for annotation in annotations)
    return humans, common


class _Rows:
    """The rows of one split.

    listed: the question file's entries.  humans: answers by question id.  labels: the vocabulary.
    """

    def __init__(self, raw: Path, split: str, listed: list[dict], humans: dict[int, list[str]], labels: dict[str, int]):
        self.split, self.labels = split, labels
        self.folder = raw / _SPLITS[split][1]
        self.dropped_questions = 0
        by_image: dict[int, list[tuple]] = defaultdict(list)
        for question in listed:
            question_id = question["question_id"]
            if question_id not in humans and split in _TRAINING:
                raise UserError(
                    f"{raw}: {split} question {question_id} has no annotation; fetch both {split} files again"
                )
            scores = self._scores(humans.get(question_id, []))
            if scores or split not in _TRAINING:
                by_image[question["image_id"]].append((question_id, question["question"], scores))
            else:
                self.dropped_questions += 1
        self.dropped_images = len({question["image_id"] for question in listed}) - len(by_image)
        self.annotated = any(question["question_id"] in humans for question in listed)
        self.by_image = dict(sorted(by_image.items()))

    def _scores(self, humans: list[str]) -> dict[str, float]:
        return {answer: soft_score(count) for answer, count in Counter(humans).items() if answer in self.labels}

    def paths(self) -> Iterator[Path]:
        return (self.folder / f"COCO_{self.folder.name}_{image_id:012d}.jpg" for image_id in self.by_image)

    def rows(self) -> Iterator[Row]:
        for image_id, path in zip(self.by_image, self.paths(), strict=True):
            ids, texts, scores = zip(*self.by_image[image_id], strict=True)
            given = scores if self.annotated else ()
            yield (
                {"image": path},
                {
                    "questions": texts,
                    "answers": [list(found) for found in given],
                    "answer_labels": [[self.labels[answer] for answer in found] for found in given],
                    "answer_scores": [list(found.values()) for found in given],
                    "image_id": image_id,
                    "question_id": ids,
                    "split": self.split,
                },
            )


class VQAv2(Reader):
    """Questions about images, from `vqav2_*.arrow` files of `prepare` or of ViLT's own `write_vqa.py`.

    splits: for example ["vqav2_train", "vqav2_trainable_val"].  Arguments and examples: `Reader`'s; an example also has
    `answer_labels` and `answer_scores` (lists; empty where no answer is in the vocabulary or none is published),
    `labelled` (whether the split's answers are published), and `id` is the question's.
    """

    pattern = "vqav2_*.arrow"
    text_column = "questions"
    name_column = "image_id"
    other_columns = ("answer_labels", "answer_scores", "question_id")

    def index(self, tables: list[pa.Table]) -> None:
        self._id = np.concatenate([list_items(table["question_id"]) for table in tables])
        answers = [_answers(table) for table in tables]
        lengths, self._labels, self._scores = map(np.concatenate, zip(*answers, strict=True))
        self._answers_end = np.cumsum(lengths)
        if not len(self) == len(self._id) == len(lengths) or len(self._labels) != len(self._scores):
            raise UserError(f"{self.data_dir}: questions, ids, labels and scores of {self.splits} differ in number")
        self._labelled = np.repeat([len(labels) > 0 for _, labels, _ in answers], [len(each) for each, _, _ in answers])

    def about(self, index: int, seed: int | None) -> dict[str, Any]:
        end = self._answers_end[index]
        start = self._answers_end[index - 1] if index else 0
        return {
            "id": int(self._id[index]),
            "answer_labels": self._labels[start:end].tolist(),
            "answer_scores": self._scores[start:end].tolist(),
            "labelled": bool(self._labelled[index]),
        }

    @property
    def answers(self) -> list[str] | None:
        """The answer vocabulary, by label; None where the folder has no manifest."""
        return self._manifest and self._manifest.get("answers")

    @property
    def facts(self) -> dict[str, Any]:
        return {"answers": self.answers} if self.answers else {}


def _answers(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many answers each question has, and all labels and scores in a row."""
    labels, scores = (pc.list_flatten(table[name]) for name in ("answer_labels", "answer_scores"))
    if not len(labels):  # a test split: one empty list an image
        questions = int(list_lengths(table["questions"]).sum())
        return np.zeros(questions, int), np.zeros(0, int), np.zeros(0)
    return list_lengths(labels), list_items(labels), list_items(scores)
