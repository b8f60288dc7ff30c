"""Writes the embedded world as Flickr30K and as COCO, in the layout of Karpathy's splits."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vltune.data.shapes.language import draw_captions, hold, to_text, to_words
from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import Scenes, draw
from vltune.errors import UserError

IMAGES: Mapping[str, int] = {"train": 2000, "val": 50, "test": 100}
SET = 1  # images that belong together
PER_IMAGE = 5
_MAX_WORDS = 30
_RANKED = ("val", "test")
_MOST_RANKED = 1000  # every caption of a ranked split is checked against every image: the work grows with the square
_FIRST_NAME = 10**9  # Flickr's numbers have ten digits
_RESTVAL = 4  # of so many training images of COCO one is of restval


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write `flickr30k-images/*.jpg` and `dataset_flickr30k.json` to the folder `out`; same arguments, same bytes.

    Every image has five different captions, all true.  In val and test each is false of all other images of its split,
    so that a perfect recall is possible; UserError for more than 1000 images there.  A training caption may hold of
    other training images, as in the real data: of about one in 2,000.  No two splits share a layout of objects.
    """
    described = []
    for number, (split, pixels, texts) in enumerate(_pictures(seed, images)):
        image = {"filename": f"{_FIRST_NAME + number}.jpg", **_about(number, split, texts)}
        _write_image(out / "flickr30k-images" / image["filename"], pixels)
        described.append(image)
    content = {"images": described, "dataset": "flickr30k"}
    (out / "dataset_flickr30k.json").write_text(json.dumps(content), encoding="utf-8")


def write_coco(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write the same world as COCO: `train2014/`, `val2014/` and `dataset_coco.json`.

    The last quarter of the training images is restval, which like val and test lies in `val2014/`."""
    described = []
    last = images["train"] - images["train"] // _RESTVAL
    for number, (split, pixels, texts) in enumerate(_pictures(seed, images)):
        split = "restval" if split == "train" and number >= last else split
        place = "train2014" if split == "train" else "val2014"
        name = f"COCO_{place}_{number + 1:012d}.jpg"
        described.append({"filepath": place, "filename": name, **_about(number, split, texts), "cocoid": number + 1})
        _write_image(out / place / name, pixels)
    (out / "dataset_coco.json").write_text(json.dumps({"images": described, "dataset": "coco"}), encoding="utf-8")


def _pictures(seed: int, images: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Split, pixels and captions of each image."""
    if large := [f"{split}={images[split]}" for split in _RANKED if images[split] > _MOST_RANKED]:
        raise UserError(f"images: {', '.join(large)}: captions tell at most {_MOST_RANKED} images apart; give fewer")
    for number, split in enumerate(("train", *_RANKED)):
        scene_rng, caption_rng = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, number)).spawn(2))
        scenes = draw(scene_rng, images[split], split)
        captions = _captions(caption_rng, scenes, distinct=split in _RANKED)
        for pixels, texts in zip(render(scenes), captions, strict=True):
            yield split, pixels, texts


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)


def _captions(rng: np.random.Generator, scenes: Scenes, distinct: bool) -> list[list[str]]:
    """Five captions of each scene; where `distinct`, each is false of all the other scenes."""
    captions: list[list[str]] = [[] for _ in range(len(scenes))]
    while len(todo := np.flatnonzero([len(texts) < PER_IMAGE for texts in captions])):
        clauses = draw_captions(rng, scenes[todo], _MAX_WORDS)
        for row, text, caption in zip(todo.tolist(), to_text(to_words(clauses)), clauses, strict=True):
            repeated = np.broadcast_to(caption, (len(scenes), *caption.shape))
            if text not in captions[row] and not (distinct and hold(scenes, repeated).sum() > 1):
                captions[row].append(text)
    return captions


def _about(number: int, split: str, texts: list[str]) -> dict:
    ids = [PER_IMAGE * number + k for k in range(PER_IMAGE)]
    sentences = [
        {"raw": text, "tokens": text.split(), "imgid": number, "sentid": sentid}
        for sentid, text in zip(ids, texts, strict=True)
    ]
    return {"imgid": number, "split": split, "sentids": ids, "sentences": sentences}
