"""Writes the embedded world as Flickr30K in the layout of Karpathy's splits."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vltune.data.shapes.language import draw_captions, hold, to_text, to_words
from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import Scenes, draw
from vltune.errors import UserError

IMAGES: Mapping[str, int] = {"train": 2000, "val": 50, "test": 100}
PER_IMAGE = 5
_MAX_WORDS = 30
_RANKED = ("val", "test")
_MOST_RANKED = 1000  # every caption of a ranked split is checked against every image: the work grows with the square
_FIRST_NAME = 10**9  # Flickr's numbers have ten digits


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write `flickr30k-images/*.jpg` and `dataset_flickr30k.json` to the folder `out`; same arguments, same bytes.

    Every image has five different captions, all true.  In val and test each is false of all other images of its split,
    so that a perfect recall is possible; UserError for more than 1000 images there.  A training caption may hold of
    other training images, as in the real data: of about one in 2,000.  No two splits share a layout of objects.
    """
    if large := [f"{split}={images[split]}" for split in _RANKED if images[split] > _MOST_RANKED]:
        raise UserError(f"images: {', '.join(large)}: captions tell at most {_MOST_RANKED} images apart; give fewer")
    folder = out / "flickr30k-images"
    folder.mkdir(parents=True)
    described: list[dict] = []
    for number, split in enumerate(("train", *_RANKED)):
        scene_rng, caption_rng = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, number)).spawn(2))
        scenes = draw(scene_rng, images[split], split)
        captions = _captions(caption_rng, scenes, distinct=split in _RANKED)
        for pixels, texts in zip(render(scenes), captions, strict=True):
            image = _image(len(described), split, texts)
            write_image(folder / image["filename"], pixels)
            described.append(image)
    content = {"images": described, "dataset": "flickr30k"}
    (out / "dataset_flickr30k.json").write_text(json.dumps(content), encoding="utf-8")


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


def _image(number: int, split: str, texts: list[str]) -> dict:
    ids = [PER_IMAGE * number + k for k in range(PER_IMAGE)]
    sentences = [
        {"raw": text, "tokens": text.split(), "imgid": number, "sentid": sentid}
        for sentid, text in zip(ids, texts, strict=True)
    ]
    filename = f"{_FIRST_NAME + number}.jpg"
    return {"filename": filename, "imgid": number, "split": split, "sentids": ids, "sentences": sentences}
