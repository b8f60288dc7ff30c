"""VQAv2: from the official raw files to ViLT's columns."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from vltune.data import manifest
from vltune.data.check.kind import Kind
from vltune.data.fields import field, words
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, stands
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
_TRAINING_SUBTYPES = {_SPLITS[split][1] for split in _TRAINING}
_ANNOTATED = ("train", "val", "test")  # by files of their own, where there are any
_HELD_OUT = 1000  # val images that ViLT keeps out of training


def prepare(
    raw: Path,
    out: Path,
    min_answer_count: int = 9,
    max_bad: int = 0,
    progress: bool = True,
    readers: int | None = None,
) -> dict[str, int]:
    """Turn VQAv2's official raw layout into shards and a manifest; return what there is how much of.

    raw: holds `v2_OpenEnded_mscoco_*_questions.json`, `v2_mscoco_*_annotations.json` and the image folders `train2014`,
    `val2014`, `test2015`.  out: receives `vqav2_{train,val,test,test-dev}-*.arrow` and `manifest.json`.  Where there are
    more than 1000 val images, the last 1000 are `vqav2_rest_val`, those before `vqav2_trainable_val`, and the manifest
    lists the shards of both as `vqav2_val`.  One row an image, in the order of image ids; the images' bytes as they were
    stored.

    The answer vocabulary holds the normalised `multiple_choice_answer`s that occur `min_answer_count` times or more in
    train and val, in the order of their first occurrence (3,129 on the real data).  As in ViLT's `write_vqa.py`, the
    ten human answers are matched to it as they stand, train and val questions without a match are dropped, and so are
    images left without questions.  An annotation is that of its split's question alone, and of its image; a question and
    an annotation stand once in a split.  Annotations without a question are counted.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    counts = pipeline.prepare(_VQAv2(Path(raw), min_answer_count), out, max_bad, progress, readers)
    answers = manifest.read(out)["answers"]
    return counts | {"answers (3,129 on the real data, of those given 9 times or more)": len(answers)}


def problems(row: Mapping[str, Any], answers: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns.  answers: the vocabulary; None for one that is not known."""
    asked, scored = len(row["questions"]), len(row["answer_labels"])
    if len(row["question_id"]) != asked:
        yield f"{asked} questions and {len(row['question_id'])} question ids"
    if scored not in (0, asked):  # a test split has no answers
        yield f"{asked} questions and answers to {scored}"
    for given in zip(*(row[name] for name in ("answers", "answer_labels", "answer_scores")), strict=False):
        if len(set(map(len, given))) > 1:
            yield "answers, labels and scores of a question differ in number"
        for answer, label, score in zip(*given, strict=False):
            if not 0 <= label < len(answers):
                yield f"label {label} where the vocabulary has {len(answers)} answers"
            elif answers[label] not in (None, answer):
                yield f"label {label} for {answer!r}, in the vocabulary it is {answers[label]!r}"
            if not 0 < score <= 1:
                yield f"score {score} of {answer!r}"


KIND = Kind(SCHEMA, ("images", "questions"), "questions", problems)


class _VQAv2(Official):
    kind = "VQAv2"
    schema = SCHEMA
    names = "images", "questions"
    text_column = "questions"
    by_image = True
    unpack = "unpack them there from https://visualqa.org/download.html"

    def __init__(self, raw: Path, min_answer_count: int):
        super().__init__(raw, "vqav2", _SPLITS)
        self.min_answer_count = min_answer_count
        self._dropped = {f"dropped_{what}": dict.fromkeys(_SPLITS, 0) for what in ("questions", "images")}

    def arguments(self) -> dict[str, Any]:
        return {"min_answer_count": self.min_answer_count}

    def files(self) -> list[Path]:
        named = {subtype: self.raw / f"v2_mscoco_{subtype}_annotations.json" for _, subtype in _SPLITS.values()}
        if not stands(named["test2015"]):  # the official test has no published answers; `shapes` has
            del named["test2015"]
        self._annotations = named
        self._questions = {
            split: self.raw / f"v2_OpenEnded_mscoco_{subtype}_questions.json" for split, (subtype, _) in _SPLITS.items()
        }
        return [*self._questions.values(), *named.values()]

    def folders(self) -> list[Path]:
        return sorted({self.raw / folder for _, folder in _SPLITS.values()})

    def collect(self, sources: Sources, entries: Entries) -> None:
        common: Counter[str] = Counter()
        annotations = {
            subtype: self._collect_answers(subtype, path, sources, entries, common)
            for subtype, path in self._annotations.items()
        }
        self.answers = [answer for answer, count in common.items() if count >= self.min_answer_count]
        self._labels = {answer: label for label, answer in enumerate(self.answers)}
        if not self.answers:
            sources.bad.check()
            raise UserError(
                f"{self.raw}: no answer is given {self.min_answer_count} times or more in train and val, so that there is "
                "nothing to learn; give a smaller --min-answer-count"
            )
        self._annotated = {split for split, (_, subtype) in _SPLITS.items() if annotations.get(subtype)}
        self._unasked = {split: annotations[_SPLITS[split][1]] for split in _ANNOTATED if split in self._annotated}
        for split, path in self._questions.items():
            self._collect_questions(split, path, sources, entries)

    def _collect_answers(
        self, subtype: str, path: Path, sources: Sources, entries: Entries, common: Counter[str]
    ) -> int:
        """Keeps the human answers under their question, and counts the common one, normalised, in train and val; how many
        questions are annotated."""
        normal, count = cache(normalise), 0
        for where, annotation in sources.entries(path, "annotations"):
            with sources.bad.entry(where):
                question_id = field(annotation, "question_id", int)
                entries.once(f"{subtype} annotation", question_id, where)
                count += 1
                entries.keep(subtype, question_id, None)  # stays where the rest is bad, and the question is bad no more
                image = field(annotation, "image_id", int) if "image_id" in annotation else None
                humans = [field(human, "answer", str) for human in field(annotation, "answers", list)]
                if not humans:
                    raise ValueError("its answers are none")
                if subtype in _TRAINING_SUBTYPES:
                    common[normal(field(annotation, "multiple_choice_answer", str))] += 1
                entries.keep(subtype, question_id, [image, humans])
        return count

    def _collect_questions(self, split: str, path: Path, sources: Sources, entries: Entries) -> None:
        """Adds the questions to their images, None for one that is dropped."""
        for where, question in sources.entries(path, "questions"):
            with sources.bad.entry(where):
                question_id, image_id = (field(question, key, int) for key in ("question_id", "image_id"))
                entries.once(f"{split} question", question_id, where)
                humans, text = self._humans(split, question_id, image_id, entries), words(question, "question")
                if humans is None:
                    continue
                counts = Counter(humans)
                scores = {answer: soft_score(count) for answer, count in counts.items() if answer in self._labels}
                dropped = not scores and split in _TRAINING
                self._dropped["dropped_questions"][split] += dropped
                entries.add(split, image_id, None if dropped else [question_id, text, scores])

    def _humans(self, split: str, question_id: int, image_id: int, entries: Entries) -> list[str] | None:
        """The answers to a question, of its own split's annotations; [] where there are none published, None where its
        annotation is bad and named already."""
        try:
            kept = entries.kept(_SPLITS[split][1], question_id)
        except KeyError:
            if split in _TRAINING or split in self._annotated:
                raise ValueError(f"question {question_id} has no annotation") from None
            return []
        if split in self._unasked:
            self._unasked[split] -= 1
        if kept is None:
            return None
        image, humans = kept
        if image not in (None, image_id):
            raise ValueError(f"its image_id is {image_id}, that of its annotation {image}")
        return humans

    def row(self, split: str, image: int, found: list[Any]) -> Row | None:
        if not (kept := [question for question in found if question is not None]):
            self._dropped["dropped_images"][split] += 1
            return None
        ids, texts, scores = zip(*kept, strict=True)
        given = scores if split in self._annotated else ()
        folder = _SPLITS[split][1]
        return {"image": self.raw / folder / f"COCO_{folder}_{image:012d}.jpg"}, {
            "questions": texts,
            "answers": [list(answers) for answers in given],
            "answer_labels": [[self._labels[answer] for answer in answers] for answers in given],
            "answer_scores": [list(answers.values()) for answers in given],
            "image_id": image,
            "question_id": ids,
            "split": split,
        }

    def dropped(self) -> dict[str, dict[str, int]]:
        """Of annotations nothing where none was: a folder's fingerprint is then what it was before they were counted."""
        return self._dropped | ({"dropped_annotations": self._unasked} if any(self._unasked.values()) else {})

    def facts(self) -> dict[str, Any]:
        return {"min_answer_count": self.min_answer_count, "answers": self.answers}

    def parts(self, rows: Mapping[str, int]) -> dict[str, list[tuple[str, int, int]]]:
        parts = super().parts(rows)
        if (count := rows["val"]) > _HELD_OUT:
            train, rest = ("val", 0, count - _HELD_OUT), ("val", count - _HELD_OUT, count)
            parts |= {"val": [train, rest], "trainable_val": [train], "rest_val": [rest]}
        return parts
