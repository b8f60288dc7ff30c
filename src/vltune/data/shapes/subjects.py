"""Writes eight subjects of the embedded world as google/dreambooth's raw tree: objects of colours and textures that no
caption names."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vltune.data.shapes.looks import PICTURES, PROMPTS, SUBJECTS, Look
from vltune.data.shapes.quarters import PAINTS, QUARTERS, TEXTURES, Quarters, draw, render
from vltune.data.shapes.render import write_image
from vltune.data.shapes.scenes import SHAPES, SIZES


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = PICTURES) -> None:
    """Write `dataset/SUBJECT/*.png` and `dataset/prompts_and_classes.txt` to the folder `out`; the same arguments give the
    same bytes.

    images: how many of each subject, alone in a quarter of its own; one of which there are none is left out."""
    folder = out / "dataset"
    folder.mkdir(parents=True)
    shown = {subject: look for subject, look in SUBJECTS.items() if images[subject]}
    for number, (subject, look) in enumerate(shown.items()):
        (folder / subject).mkdir()
        rng = np.random.default_rng((seed, number))
        for each, pixels in enumerate(render(pictured(rng, images[subject], look))):
            write_image(folder / subject / f"{each:02d}.png", pixels)
    (folder / "prompts_and_classes.txt").write_text("\n".join(_listing(shown)) + "\n", encoding="utf-8")


def pictured(rng: np.random.Generator, count: int, look: Look) -> Quarters:
    """Pictures of a subject alone and large, in every quarter in turn."""
    drawn = draw(rng, count, None)
    there = np.eye(QUARTERS, dtype=int)[rng.permutation(QUARTERS)[np.arange(count) % QUARTERS]]
    return Quarters(
        shape=there * (SHAPES.index(look.noun) + 1),
        colour=there * (PAINTS.index(look.colour) + 1),
        size=there * len(SIZES),
        texture=there * TEXTURES.index(look.texture),
        second=there * (PAINTS.index(look.second) + 1),
        jitter=drawn.jitter,
        shade=drawn.shade,
        tint=drawn.tint,
    )


def _listing(shown: Mapping[str, Look]) -> Iterator[str]:
    yield from ("Classes", "", "subject_name,class", *(f"{subject},{look.noun}" for subject, look in shown.items()))
    yield from ("", "Prompts", "", "Object Prompts", "", "prompt_list = [")
    yield from (f"'{prompt}'.format(unique_token, class_token)," for prompt in PROMPTS)
    yield "]"
