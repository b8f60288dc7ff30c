"""VQAv2: from the official raw files to ViLT's Arrow files, and from those to examples."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from tqdm import tqdm

from vltune import __version__
from vltune.data.arrow import open_table, write_table
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import MinMaxResize
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
_READ = ("image", "questions", "answer_labels", "answer_scores", "image_id", "question_id")
_SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
_FOLDERS = _SUBTYPES | {"test-dev": "test2015"}
_OPTIONAL = "v2_mscoco_test2015_annotations.json"  # official tests have no published answers; `shapes` has
_REST = 1000  # val images that ViLT keeps out of training
_IMAGES_PER_BATCH = 64  # about 10 MB of COCO images in memory
_MANIFEST = "manifest.json"
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass
class _Split:
    """One split's questions by image, and what was left out of it."""

    name: str
    questions: dict[int, list[dict]]
    answers: Mapping[int, list[str]]  # by question_id; empty where none are published
    images: int = 0
    dropped_questions: int = 0
    dropped_images: int = 0
    bad_images: list[str] = field(default_factory=list)

    def path(self, raw: Path, image_id: int) -> Path:
        folder = _FOLDERS[self.name]
        return raw / folder / f"COCO_{folder}_{image_id:012d}.jpg"

    @property
    def counts(self) -> dict[str, Any]:
        questions = sum(map(len, self.questions.values()))
        kept = ("images", "dropped_questions", "dropped_images", "bad_images")
        return {"questions": questions} | {name: getattr(self, name) for name in kept}


def prepare(raw: Path, out: Path, min_answer_count: int = 9, max_bad: int = 0, progress: bool = True) -> dict:
    """Turn VQAv2's official raw layout into ViLT's Arrow files and a manifest, which is returned.

    raw: holds `v2_OpenEnded_mscoco_*_questions.json`, `v2_mscoco_*_annotations.json` and the image folders `train2014`,
    `val2014`, `test2015`.  out: receives `vqav2_{train,val,test,test-dev}.arrow`, where val has more than 1000 images
    also `vqav2_trainable_val.arrow` and `vqav2_rest_val.arrow` (the last 1000), and `manifest.json`; rows go by image id.

    The answer vocabulary holds the normalised `multiple_choice_answer`s that occur `min_answer_count` times or more in
    train and val, in order of first occurrence (3,129 on the real data).  As in ViLT's `write_vqa.py`, the ten human
    answers are matched to it as they stand, train and val questions without a match are dropped, and so are images left
    without questions.

    Images are streamed.  UserError, and nothing in `out`, where raw files are missing (all are named) or more than
    `max_bad` images are missing or have no readable header.
    """
    raw, out = Path(raw), Path(out)
    sources = _sources(raw)
    splits, answers = _load(raw, sources, min_answer_count)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".partial-{os.getpid()}"
    partial.mkdir()
    try:
        _drop_missing(raw, splits, max_bad)
        for split in splits:
            split.images = write_table(partial / f"vqav2_{split.name}.arrow", SCHEMA, _rows(raw, split, max_bad, answers, progress))
            ...
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {}
