"""The official layouts that the world is written in: by what, with how many images, and what is refused."""

from __future__ import annotations

import inspect
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from vltune.data.shapes.looks import PICTURES
from vltune.errors import UserError

MOST_IMAGES = 100_000  # of a split
_MOST_RANKED = 1000  # every caption of a ranked split is checked against every image: the work grows with the square
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Layout:
    """How the world is written in the raw files of a data set: by a module here and its function.

    options: what else its preparation takes for so small a world.  few: images enough to try it.  ranked: the splits whose
    captions tell all their images apart.  settings: what else `write` takes, whole numbers from the least to the most, or
    one of some words.  untold: of all settings those that no raw file but the pictures tells, as most worlds have them.
    unit: what is counted."""

    module: str
    writer: str = "write_raw"
    options: Mapping[str, int] = field(default_factory=dict)
    few: Mapping[str, int] = field(default_factory=lambda: {"train": 30, "val": 10, "test": 10})
    ranked: tuple[str, ...] = ()
    settings: Mapping[str, tuple[int, int] | tuple[str, ...]] = field(default_factory=dict)
    untold: Mapping[str, int] = field(default_factory=dict)
    unit: str = "images"

    @property
    def write(self) -> Callable[..., None]:
        return getattr(import_module(f"vltune.data.shapes.{self.module}"), self.writer)

    @property
    def images(self) -> Mapping[str, int]:
        """As many as runs on the world have."""
        return inspect.signature(self.write).parameters["images"].default

    def drawn(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a manifest says beside the raw files: the untold settings of a world that is not as most are."""
        found = {name: settings[name] for name, usual in self.untold.items() if settings.get(name, usual) != usual}
        return {"drawn": found} if found else {}

    def other(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those settings that are not what the writer has for itself."""
        own = inspect.signature(self.write).parameters
        return {name: value for name, value in settings.items() if value != own[name].default}


def classes(world: str, few: int) -> Layout:
    """few: images of each split enough to try it, one a class at least."""
    return Layout(
        "classes",
        f"write_{world}",
        few={"train": 2 * few, "val": few, "test": few},
        settings={"shift": (0, 1), "halves": ("recombined", "words")},
        untold={"seed": 0, "shift": 1},
    )


LAYOUTS = {
    "vqav2": Layout("vqav2", options={"min_answer_count": 1}, settings={"questions_per_image": (1, 4)}),
    "nlvr2": Layout("nlvr2", unit="pairs of images"),
    "f30k": Layout("karpathy", ranked=("val", "test")),
    "coco": Layout(
        "karpathy",
        "write_coco",
        few={"train": 30, "restval": 10, "val": 10, "test": 10},
        ranked=("val", "test"),
    ),
    "snli_ve": Layout("snli_ve"),
    "objects": classes("objects", few=30),
    "places": classes("places", few=54),
    "textures": classes("textures", few=20),
    "dreambooth": Layout("subjects", few=PICTURES),
}


def check_images(layout: str, images: Mapping[str, Any], least: int, named: str) -> None:
    """UserError, which calls the numbers `named`, where a split has another name, or a number that it cannot have.

    least: images that a split must have."""
    known = LAYOUTS[layout]
    for split, count in images.items():
        if split not in known.few:
            raise UserError(f"{named}: {layout} has no split {split}; it has {', '.join(known.few)}")
        if not _is_whole(count, least, MOST_IMAGES):
            raise UserError(f"{named}: {split}={count!s:.20}: must be a whole number from {least} to {MOST_IMAGES:,}")
        if split in known.ranked and count > _MOST_RANKED:
            raise UserError(f"{named}: {split}={count}: captions tell at most {_MOST_RANKED} images apart; give fewer")


def check_seed(seed: Any, named: str) -> None:
    if not _is_whole(seed, 0, _LARGEST_SEED):
        raise UserError(f"{named}={seed!s:.20}: must be a whole number from 0 to {_LARGEST_SEED}")


def check_settings(layout: str, settings: Mapping[str, Any], named: str) -> None:
    known = LAYOUTS[layout].settings
    for name, value in settings.items():
        if name not in known:
            raise UserError(
                f"{named}.{name}: no such setting; there are {', '.join(('layout', 'seed', 'images', *known))}"
            )
        least, *_, most = takes = known[name]
        if isinstance(least, str) and value not in takes:
            raise UserError(f"{named}.{name}={value!s:.20}: must be one of {', '.join(takes)}")
        if isinstance(least, int) and not _is_whole(value, least, most):
            raise UserError(f"{named}.{name}={value!s:.20}: must be a whole number from {least} to {most}")


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def write(layout: str, out: Path, images: Mapping[str, int], seed: int = 0) -> dict[str, int]:
    """Write the world's raw files in a layout to the folder `out`, which appears complete or not at all.

    images: how many of some splits; the others have `few`.  Returns how many there are of each.
    Raises UserError where `out` holds something or cannot be written."""
    images = {**LAYOUTS[layout].few, **images}
    try:
        folder = _empty(out)
        with appearing(folder, folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")) as partial:
            LAYOUTS[layout].write(partial, seed=seed, images=images)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
    return images


def _empty(out: Path) -> Path:
    """The folder that `out` means, which is not there or holds nothing."""
    if out.is_symlink() and not out.exists():
        raise UserError(f"{out}: a link that leads nowhere; name another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; name a folder")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds something already; name a folder that is new or empty")
    return out.resolve()


@contextmanager
def appearing(folder: Path, partial: Path) -> Iterator[Path]:
    """Gives the folder `partial`, which takes the name `folder` at the end: that is not there, or empty.

    What was in `partial` before is deleted.  Nothing stays of it, nor of parents, where that fails."""
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise
