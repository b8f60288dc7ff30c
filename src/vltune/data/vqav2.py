"""VQAv2: from the official raw files to ViLT's Arrow files, and from those to examples."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

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
from vltune.errors import BadExampleError, UserError
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

# split -> what its question file, its annotation file and its image folder are named after
_SPLITS = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "test": ("test2015", "test2015"),
    "test-dev": ("test-dev2015", "test2015"),
}
_TRAINING = ("train", "val")
_HELD_OUT = 1000  # val images that ViLT keeps out of training
_IMAGES_PER_BATCH = 64  # about 10 MB of COCO images in memory
_MANIFEST = "manifest.json"
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


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
    rows = {split: _Rows(raw, split, _read(files[split], "questions", sources), humans, labels) for split in _SPLITS}

    bad = _BadImages(raw, max_bad)
    bad.add({path: "missing" for split in rows.values() for path in split.paths() if not path.is_file()})
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{os.getpid()}.tmp"
    partial.mkdir()
    try:
        images = {split: found.write(partial / _file(split), bad, progress) for split, found in rows.items()}
        if images["val"] > _HELD_OUT:
            val = open_table(partial / _file("val"), SCHEMA.names)
            for split, part in (("trainable_val", val[:-_HELD_OUT]), ("rest_val", val[-_HELD_OUT:])):
                images[split] = write_table(partial / _file(split), SCHEMA, part.to_batches())
        manifest = {
            "version": __version__,
            "columns": SCHEMA.names,
            "images": images,
            "questions": {split: found.questions for split, found in rows.items()},
            "dropped_questions": {split: found.dropped_questions for split, found in rows.items()},
            "dropped_images": {split: found.dropped_images for split, found in rows.items()},
            "bad_images": {path.name: reason for path, reason in bad.reasons.items()},
            "sources": sources,
            "min_answer_count": min_answer_count,
            "answers": answers,
        }
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for stale in (_MANIFEST, _file("trainable_val"), _file("rest_val")):
            (out / stale).unlink(missing_ok=True)
        for name in (*map(_file, images), _MANIFEST):
            (partial / name).replace(out / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

    counted = ("images", "questions", "dropped_questions", "dropped_images")
    counts = {f"{split} {what.replace('_', ' ')}": n for what in counted for split, n in manifest[what].items()}
    return counts | {"unreadable images": len(bad.reasons), "answers": len(answers)}


def _file(split: str) -> str:
    return f"vqav2_{split}.arrow"


def _raw_files(raw: Path) -> dict[str, Path]:
    """Question files by split, annotation files by subtype.  UserError names all that is missing."""
    files = {split: raw / f"v2_OpenEnded_mscoco_{subtype}_questions.json" for split, (subtype, _) in _SPLITS.items()}
    files |= {subtype: raw / f"v2_mscoco_{subtype}_annotations.json" for _, subtype in _SPLITS.values()}
    if not files["test2015"].exists():  # the official test has no published answers; `shapes` has
        del files["test2015"]
    folders = {raw / folder for _, folder in _SPLITS.values()}
    missing = [path.name for path in files.values() if not path.is_file()]
    missing += sorted(f"{folder.name}/" for folder in folders if not folder.is_dir())
    if missing:
        raise UserError(f"{raw}: lacks {', '.join(missing)}; unpack them there from https://visualqa.org/download.html")
    return files


def _read(path: Path, key: str, sources: dict[str, str]) -> list[dict]:
    """The list under `key` of a raw file, whose hash goes to `sources`."""
    content = path.read_bytes()
    sources[path.name] = sha256(content).hexdigest()
    try:
        return json.loads(content)[key]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an official VQAv2 file with {key!r} ({error}); unpack it again") from None


def _read_annotations(files: dict[str, Path], sources: dict[str, str]) -> tuple[dict[int, list[str]], Counter[str]]:
    """The human answers by question id, and how often each normalised answer is the common one in train and val."""
    humans: dict[int, list[str]] = {}
    common: Counter[str] = Counter()
    normal = cache(normalise)
    shared = cache(str)  # one object for equal strings: the real data holds 6.6 million answers
    for split in ("train", "val", "test"):
        _, subtype = _SPLITS[split]
        annotations = _read(files[subtype], "annotations", sources) if subtype in files else []
        for annotation in annotations:
            humans[annotation["question_id"]] = [shared(human["answer"]) for human in annotation["answers"]]
        if split in _TRAINING:
            common.update(normal(annotation["multiple_choice_answer"]) for annotation in annotations)
    return humans, common


class _BadImages:
    """Images that cannot be used, and how many are allowed."""

    def __init__(self, raw: Path, limit: int):
        self.raw, self.limit = raw, limit
        self.reasons: dict[Path, str] = {}

    def add(self, reasons: dict[Path, str]) -> None:
        self.reasons |= reasons
        if (count := len(self.reasons)) > self.limit:
            named = ", ".join(f"{path.relative_to(self.raw)} ({why})" for path, why in [*self.reasons.items()][:5])
            more = f" and {count - 5} more" if count > 5 else ""
            raise BadExampleError(
                f"{self.raw}: {count} unreadable images where max_bad={self.limit}: {named}{more}; "
                "fetch them again or raise max_bad"
            )


class _Rows:
    """The rows of one split.

    listed: the question file's entries.  humans: answers by question id.  labels: the vocabulary.
    """

    def __init__(self, raw: Path, split: str, listed: list[dict], humans: dict[int, list[str]], labels: dict[str, int]):
        self.split, self.labels = split, labels
        self.folder = raw / _SPLITS[split][1]
        self.dropped_questions = self.questions = 0
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

    def write(self, path: Path, bad: _BadImages, progress: bool) -> int:
        """Write the split's Arrow file; return its number of images."""

        def batches() -> Iterator[pa.RecordBatch]:
            images = tqdm(self._images(bad), path.name, len(self.by_image), unit="image", disable=not progress)
            images = iter(images)
            while some := list(islice(images, _IMAGES_PER_BATCH)):
                yield pa.RecordBatch.from_pylist([self._row(*image) for image in some], SCHEMA)

        return write_table(path, SCHEMA, batches())

    def _images(self, bad: _BadImages) -> Iterator[tuple[int, bytes]]:
        for image_id, path in zip(self.by_image, self.paths(), strict=True):
            if path in bad.reasons:
                continue
            content = path.read_bytes()
            try:
                Image.open(BytesIO(content)).close()
            except _UNREADABLE as error:
                bad.add({path: type(error).__name__ if content else "empty"})
            else:
                yield image_id, content

    def _row(self, image_id: int, content: bytes) -> dict[str, Any]:
        ids, texts, scores = zip(*self.by_image[image_id], strict=True)
        self.questions += len(ids)
        given = scores if self.annotated else ()
        return {
            "image": content,
            "questions": texts,
            "answers": [list(found) for found in given],
            "answer_labels": [[self.labels[answer] for answer in found] for found in given],
            "answer_scores": [list(found.values()) for found in given],
            "image_id": image_id,
            "question_id": ids,
            "split": self.split,
        }


class VQAv2(torch.utils.data.Dataset):
    """Questions about images, from `vqav2_SPLIT.arrow` files of `prepare` or of ViLT's own `write_vqa.py`.

    data_dir: their folder.  splits: read one after the other, for example ["train", "trainable_val"].
    images: "shuffled" gives every image's questions another image, by a fixed derangement that follows from `seed`: a
    control that can only use the question.
    image_cache_bytes: transformed images kept in memory, in each process that reads.

    `dataset[i]`, or `dataset[i, seed]` with the seed of the augmentation, is a dict: `id` (question id), `text_ids`
    (list), `image` (uint8 (3, h, w)), `answer_labels` and `answer_scores` (lists; empty where no answer is in the
    vocabulary or none is published), `labelled` (whether the split's answers are published).
    Where the image cannot be decoded it is `{"bad": message}`.

    Files are memory-mapped and opened anew in each process.  UserError where one is missing or something else.
    """

    def __init__(
        self,
        data_dir: Path,
        splits: Sequence[str],
        tokenizer: Tokenizer,
        transform: MinMaxResize,
        images: Literal["true", "shuffled"] = "true",
        seed: int = 0,
        image_cache_bytes: int = 2**30,
    ):
        if images not in ("true", "shuffled"):
            raise UserError(f"images={images!r}: use true or shuffled")
        self.data_dir = Path(data_dir)
        self.tokenizer, self.transform = tokenizer, transform
        self.image_cache_bytes = image_cache_bytes
        self._paths = [self.data_dir / _file(split) for split in splits]
        self._reset()

        tables = self._tables()
        rows = [table.num_rows for table in tables]
        self._first_row = np.cumsum([0, *rows])
        per_row = np.concatenate([_lengths(table["questions"]) for table in tables])
        self._row = np.repeat(np.arange(len(per_row)), per_row)
        self._first_question = np.cumsum(per_row) - per_row
        self._id = np.concatenate([_flat(table["question_id"]) for table in tables])
        self._image_id = np.concatenate([table["image_id"].to_numpy() for table in tables])
        answers = [_answers(table) for table in tables]
        lengths, self._labels, self._scores = map(np.concatenate, zip(*answers, strict=True))
        self._answers_end = np.cumsum(lengths)
        if not len(self._row) == len(self._id) == len(lengths) or len(self._labels) != len(self._scores):
            raise UserError(f"{self.data_dir}: questions, ids, labels and scores of {list(splits)} differ in number")
        self._labelled = np.repeat([len(labels) > 0 for _, labels, _ in answers], [len(each) for each, _, _ in answers])
        self._picture = _derangement(len(per_row), seed) if images == "shuffled" else np.arange(len(per_row))
        self._text = np.zeros((len(self), tokenizer.max_length), np.int32)
        self._text_length = np.zeros(len(self), np.int16)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        picture = int(self._picture[self._row[index]])
        try:
            image = self._image(picture, seed)
        except _UNREADABLE as error:
            file, row = self._locate(picture)
            where = f"{self._paths[file]} row {row} image_id {self._image_id[picture]}"
            return {"bad": f"{where}: {str(error) or type(error).__name__}"}
        end = self._answers_end[index]
        start = self._answers_end[index - 1] if index else 0
        return {
            "id": int(self._id[index]),
            "text_ids": self._text_ids(index),
            "image": image,
            "answer_labels": self._labels[start:end].tolist(),
            "answer_scores": self._scores[start:end].tolist(),
            "labelled": bool(self._labelled[index]),
        }

    @cached_property
    def _manifest(self) -> dict | None:
        path = self.data_dir / _MANIFEST
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); run `vltune prepare vqav2` again") from None

    @property
    def answers(self) -> list[str] | None:
        """The answer vocabulary, by label; None where the folder has no manifest."""
        return self._manifest and self._manifest.get("answers")

    @property
    def fingerprint(self) -> str:
        """A hash of what the folder was made of, the same on every machine; of names and sizes without a manifest."""
        if self._manifest:
            content = {key: value for key, value in self._manifest.items() if key != "version"}
        else:
            content = {path.name: path.stat().st_size for path in self.data_dir.glob(_file("*"))}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _locate(self, row: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._first_row, row, "right")) - 1
        return file, row - int(self._first_row[file])

    def _text_ids(self, index: int) -> list[int]:
        if not (length := self._text_length[index]):
            global_row = self._row[index]
            file, row = self._locate(global_row)
            question = self._tables()[file]["questions"][row][int(index - self._first_question[global_row])]
            ids = self.tokenizer(question.as_py())
            length = self._text_length[index] = len(ids)
            self._text[index, :length] = ids
        return self._text[index, :length].tolist()

    def _image(self, picture: int, seed: int | None) -> torch.Tensor:
        if self.transform.randaugment is None:
            seed = None
        if seed is None and picture in self._cached:
            return self._cached[picture]
        file, row = self._locate(picture)
        content = self._tables()[file]["image"][row].as_buffer()
        image = self.transform(Image.open(BytesIO(content)).convert("RGB"), seed)
        if seed is None and self._cached_bytes + image.nbytes <= self.image_cache_bytes:
            self._cached[picture] = image
            self._cached_bytes += image.nbytes
        return image

    def _tables(self) -> list[pa.Table]:
        if self._process != os.getpid():
            self._process, self._opened = os.getpid(), [open_table(path, _READ) for path in self._paths]
        return self._opened

    def _reset(self) -> None:
        self._process, self._opened = None, []
        self._cached: dict[int, torch.Tensor] = {}
        self._cached_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None, "_opened": [], "_cached": {}, "_cached_bytes": 0}


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(column).to_numpy()


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_value_length(column).to_numpy()


def _answers(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many answers each question has, and all labels and scores in a row."""
    labels, scores = (pc.list_flatten(table[name]) for name in ("answer_labels", "answer_scores"))
    if not len(labels):  # a test split: one empty list an image
        questions = int(_lengths(table["questions"]).sum())
        return np.zeros(questions, int), np.zeros(0, int), np.zeros(0)
    return _lengths(labels), _flat(labels), _flat(scores)


def _derangement(count: int, seed: int) -> np.ndarray:
    """(count,) a permutation that leaves nothing in its place: one cycle through all, in random order."""
    if count < 2:
        raise UserError(f"images=shuffled needs two images or more; there are {count}")
    cycle = np.random.default_rng(seed).permutation(count)
    derangement = np.empty(count, int)
    derangement[cycle] = np.roll(cycle, 1)
    return derangement
