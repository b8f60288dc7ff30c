"""Raw folders of subjects as google/dreambooth has them, small."""

import numpy as np
from PIL import Image

from vltune.data.subjects.prompts import published

CLASSES = {"backpack_dog": "backpack", "bear_plushie": "stuffed animal", "dog": "dog", "dog6": "dog"}
COUNTS = {"backpack_dog": 3, "bear_plushie": 2, "dog": 2, "dog6": 4}
HEADINGS = {"object": "Object Prompts", "live": "Live Subject Prompts"}


def paint(path, number, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    return path


def listing(classes=CLASSES, prompts=None):
    """The text of `prompts_and_classes.txt`.  prompts: by what a subject is; None: the published ones."""
    lines = ["Classes", "", "subject_name,class", *(f"{name},{noun}" for name, noun in classes.items()), "", "Prompts"]
    for kind, texts in (published() if prompts is None else prompts).items():
        found = [text.replace("{token}", "{0}").replace("{class}", "{1}") for text in texts]
        told = [f"{text!r}.format(unique_token, class_token)" for text in found]
        lines += ["", HEADINGS[kind], "", "prompt_list = [", *(f"{each}," for each in told[:-1]), told[-1], "]"]
    return "\n".join(lines) + "\n"


def tree(folder, text=None, counts=COUNTS):
    """The repository: `dataset/`, with its other files."""
    for subject, count in counts.items():
        for number in range(count):
            paint(folder / "dataset" / subject / f"{number:02}.jpg", sum(map(ord, subject)) + number)
    (folder / "README.md").write_text("# DreamBooth\n")
    (folder / "dataset" / "references_and_licenses.txt").write_text("licences\n")
    (folder / "dataset" / "prompts_and_classes.txt").write_text(listing() if text is None else text)
    return folder
