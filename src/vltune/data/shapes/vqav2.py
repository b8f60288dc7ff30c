"""Writes the embedded world as VQAv2 in its official raw layout."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vltune.data.shapes import questions
from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import draw

IMAGES: Mapping[str, int] = {"train": 2000, "val": 500, "test": 1000}
_SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015"}
_CHUNK = 1000  # scenes drawn and asked about at once: bounds memory
_INFO = {"description": "vltune shapes: an embedded world in the layout of VQA v2.0", "version": "1.0"}
_LICENSE = {"name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES, questions_per_image: int = 4) -> None:
    """Write images, questions and annotations to the folder `out`; the same arguments give the same bytes.

    The layout is VQAv2's, with one difference: the test split has annotations, so that a score can be computed here.
    test-dev holds the questions of every second test image, from the first on.  No two splits share a layout of objects.
    """
    first_id = 1
    for number, (split, subtype) in enumerate(_SUBTYPES.items()):
        folder = out / subtype
        folder.mkdir(parents=True)
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence((seed, number)).spawn(3)]
        asked, annotations = [], []
        for start in range(0, images[split], _CHUNK):
            ids = range(first_id + start, first_id + min(start + _CHUNK, images[split]))
            scenes = draw(streams[0], len(ids), split)
            for image_id, pixels in zip(ids, render(scenes), strict=True):
                write_image(folder / f"COCO_{subtype}_{image_id:012d}.jpg", pixels)
            _annotate(streams[1], streams[2], scenes, ids, questions_per_image, asked, annotations)

        _write_json(out / f"v2_mscoco_{subtype}_annotations.json", subtype, annotations=annotations)
        _write_questions(out, subtype, asked)
        if split == "test":
            some = [question for question in asked if (question["image_id"] - first_id) % 2 == 0]
            _write_questions(out, "test-dev2015", some)
        first_id += images[split]


def _annotate(ask_rng, answer_rng, scenes, ids: range, per_image: int, asked: list, annotations: list) -> None:
    """Append questions and annotations about the images `ids`, as the official files hold them."""
    batch = questions.ask(ask_rng, scenes, per_image)
    human = iter(questions.human_answers(answer_rng, [question.answer for row in batch for question in row]))
    for image_id, row in zip(ids, batch, strict=True):
        for number, question in enumerate(row):
            key = {"image_id": image_id, "question_id": 1000 * image_id + number}
            answers = [
                {"answer": answer, "answer_confidence": "yes" if answer == question.answer else "maybe", "answer_id": k}
                for k, answer in enumerate(next(human), start=1)
            ]
            asked.append({"question": question.text} | key)
            annotations.append(
                {
                    "question_type": question.question_type,
                    "multiple_choice_answer": question.answer,
                    "answers": answers,
                    "answer_type": question.answer_type,
                }
                | key
            )


def _write_questions(out: Path, subtype: str, asked: list) -> None:
    _write_json(out / f"v2_OpenEnded_mscoco_{subtype}_questions.json", subtype, task_type="Open-Ended", questions=asked)


def _write_json(path: Path, subtype: str, **content) -> None:
    head = {"info": _INFO, "data_type": "mscoco", "data_subtype": subtype, "license": _LICENSE}
    path.write_text(json.dumps(head | content), encoding="utf-8")
