"""Writes the embedded world as NLVR2 in its official raw layout."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import draw
from vltune.data.shapes.statements import PER_PAIR, state

IMAGES: Mapping[str, int] = {"train": 2000, "val": 500, "test": 1000}  # pairs of them
_NAMES = {"train": "train", "val": "dev", "test": "test1"}
_CHUNK = 500  # pairs drawn at once: bounds memory
_DIRECTORIES = 100  # that the training images are spread over


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write image pairs and statements to the folder `out`; the same arguments give the same bytes.

    images: how many pairs of each split.  As in the official data, the pairs of a set share their statements, and each is
    true of one half of them and false of the other: here two pairs and four statements, so that neither the statement alone
    nor the images alone tell the label; of an odd number the last pair stands alone.  No two splits share a layout of
    objects.  Of the official fields, those about writers, validation and web addresses are left out.
    """
    (out / "data").mkdir(parents=True)
    for number, (split, name) in enumerate(_NAMES.items()):
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence((seed, number)).spawn(3)]
        examples = []
        for start in range(0, images[split], _CHUNK):
            count = min(_CHUNK, images[split] - start)
            left, right = (draw(stream, count + count % 2, split) for stream in streams[:2])
            for pair, both in enumerate(islice(zip(render(left), render(right), strict=True), count), start):
                path = out / _folder(name, pair // 2)
                path.mkdir(parents=True, exist_ok=True)
                for side, pixels in enumerate(both):
                    write_image(path / f"{name}-{pair // 2}-{pair % 2}-img{side}.png", pixels)
            examples += islice(_examples(name, start // 2, state(streams[2], left, right)), count * PER_PAIR)
        lines = "".join(json.dumps(example) + "\n" for example in examples)
        (out / "data" / f"{name}.json").write_text(lines, encoding="utf-8")


def _folder(name: str, number: int) -> str:
    return f"images/train/{number % _DIRECTORIES}" if name == "train" else name


def _examples(name: str, first_set: int, statements: list[list[str]]) -> Iterator[dict]:
    for number, sentences in enumerate(statements, first_set):
        for pair in range(2):
            for index, sentence in enumerate(sentences):
                example = {
                    "identifier": f"{name}-{number}-{pair}-{index}",
                    "sentence": sentence,
                    "label": str(index * 2 // PER_PAIR == pair),
                }
                yield example | ({"directory": number % _DIRECTORIES} if name == "train" else {})
