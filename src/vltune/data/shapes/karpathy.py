"""Writes the embedded world as Flickr30K and as COCO in the layout of Karpathy's splits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vltune.data.shapes.language import draw_captions, hold, to_text, to_words
from vltune.data.shapes.render import pictures, write_image
from vltune.data.shapes.scenes import Scenes, draw

IMAGES: Mapping[str, int] = {"train": 2000, "val": 50, "test": 250}
COCO_IMAGES: Mapping[str, int] = {"train": 1500, "restval": 500, "val": 50, "test": 250}
PER_IMAGE = 5
_MAX_WORDS = 30
_RANKED = ("val", "test")
_FIRST_NAME = 10**9  # Flickr's numbers have ten digits


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write `flickr30k-images/*.jpg` and `dataset_flickr30k.json` to the folder `out`; same arguments, same bytes.

    Every image has five different captions, all true.  In val and test (of 1000 images at most) each is false of all
    other images of its split, so that a perfect recall is possible.  A training caption may hold of other training
    images, as in the real data: of about one in 2,000.  No two splits share a layout of objects.
    """
    shares = {"train": "train", "val": "val", "test": "test"}

    def named(number: int, split: str) -> tuple[str, str]:
        return "flickr30k-images", f"{_FIRST_NAME + number}.jpg"

    _write(out, "flickr30k", seed, images, shares, named)


def write_coco(out: Path, seed: int = 0, images: Mapping[str, int] = COCO_IMAGES) -> None:
    """The same as COCO: `train2014/*.jpg`, `val2014/*.jpg` and `dataset_coco.json`, whose `filepath` names the folder.

    Images of train are in the first, of restval, val and test in the second; restval draws from train's layouts."""
    shares = {"train": "train", "restval": "train", "val": "val", "test": "test"}

    def named(number: int, split: str) -> tuple[str, str]:
        folder = "train2014" if split == "train" else "val2014"
        return folder, f"COCO_{folder}_{number + 1:012d}.jpg"

    _write(out, "coco", seed, images, shares, named, lambda number, folder: {"filepath": folder, "cocoid": number + 1})


def _write(
    out: Path,
    dataset: str,
    seed: int,
    images: Mapping[str, int],
    shares: Mapping[str, str],
    named: Callable[[int, str], tuple[str, str]],
    more: Callable[[int, str], dict] = lambda number, folder: {},
) -> None:
    """shares: the splits, and of which each has its layouts.  named: folder and name of an image.  more: of its entry."""
    described: list[dict] = []
    for place, (split, share) in enumerate(shares.items()):
        (out / named(0, split)[0]).mkdir(parents=True, exist_ok=True)
        scene_rng, caption_rng = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, place)).spawn(2))
        distinct = split in _RANKED
        scenes = (_apart if distinct else draw)(scene_rng, images[split], share)
        captions = _captions(caption_rng, scenes, distinct)
        for pixels, texts in zip(pictures(scenes), captions, strict=True):
            number = len(described)
            folder, name = named(number, split)
            described.append(_image(number, name, split, texts) | more(number, folder))
            write_image(out / folder / name, pixels)
    content = {"images": described, "dataset": dataset}
    (out / f"dataset_{dataset}.json").write_text(json.dumps(content), encoding="utf-8")


def _apart(rng: np.random.Generator, count: int, share: str) -> Scenes:
    """Scenes of which none holds all of another, whatever the sizes: few captions or none would be that one's."""
    scenes = draw(rng, count, share)
    while len(held := np.flatnonzero(_is_held(scenes.kinds))):
        scenes = Scenes.concatenate((scenes[np.delete(np.arange(count), held)], draw(rng, len(held), share)))
    return scenes


def _is_held(objects: np.ndarray) -> np.ndarray:
    """(B, 9) -> (B,), whether all of a scene's objects lie in another as well."""
    held = ((objects[:, None] == objects) | (objects[:, None] == 0)).all(2)
    return held.sum(1) > 1


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


def _image(number: int, filename: str, split: str, texts: list[str]) -> dict:
    ids = [PER_IMAGE * number + k for k in range(PER_IMAGE)]
    sentences = [
        {"raw": text, "tokens": text.split(), "imgid": number, "sentid": sentid}
        for sentid, text in zip(ids, texts, strict=True)
    ]
    return {"filename": filename, "imgid": number, "split": split, "sentids": ids, "sentences": sentences}
