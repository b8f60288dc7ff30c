"""Raw files of labelled images in their official layouts, small."""

import json

import numpy as np
from PIL import Image

from vltune.data.labelled.published import PUBLISHED

CLASSES = ("tabby_cat", "Basset Hound", "red_fox")
COUNTS = {"train": 6, "val": 2, "test": 3}  # images of each class


def paint(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def split_json(folder, listing, images, name="{split}/{label}_{number}.jpg"):
    """CoOp's `split_zhou_*.json` and its images, which lie in `images`."""
    found = {
        split: [
            [name.format(split=split, label=label, number=number), label, CLASSES[label]]
            for label in range(len(CLASSES))
            for number in range(count)
        ]
        for split, count in COUNTS.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / listing).write_text(json.dumps(found))
    for number, (path, *_) in enumerate(entry for of in found.values() for entry in of):
        paint(folder / images / path, number)
    return found


def tree(folder, splits=("train", "val", "test"), classes=CLASSES, counts=None):
    """One folder a class, below one for each split, or, without these, all in one."""
    number = 0
    for split in splits or (None,):
        for name in classes:
            for _ in range((counts or COUNTS).get(split, 10)):
                paint((folder / split if split else folder) / name / f"{number}.png", number)
                number += 1
    return folder


def aircraft(folder):
    """FGVC's own text files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "variants.txt").write_text("707-320\n727-200\nA300B4\n")
    number = 0
    for split, count in COUNTS.items():
        lines = []
        for name in ("727-200", "A300B4", "707-320"):
            for _ in range(count):
                lines.append(f"{number:07d} {name}")
                paint(folder / "images" / f"{number:07d}.jpg", number)
                number += 1
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")


def imagenet(folder):
    """`images/{train,val}/n*/` and `classnames.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("n02 red_fox\nn01 great white shark\n")
    for place, (split, name) in enumerate((s, n) for s in ("train", "val") for n in ("n01", "n02")):
        for number in range(4):
            paint(folder / "images" / split / name / f"{name}_{number}.JPEG", 4 * place + number)


def official(name, raw):
    """The raw files of a data set in `raw`, as its authors and CoOp lay them out."""
    published = PUBLISHED[name]
    folder = raw / published.root[0]
    special = {"fgvc_aircraft": aircraft, "imagenet": imagenet}
    if name in special:
        special[name](folder)
    elif name == "stanford_cars":
        split_json(folder, published.listing, ".", "cars_{split}/{label}{number}.jpg")
    else:
        split_json(folder, published.listing, published.images[0])
    return raw
