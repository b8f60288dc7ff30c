"""Pictures of a subject's class that a model made before it was tuned: made once, kept on disk for every run, and trusted
only where a file says what it follows from and can be decoded whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from vltune.atomic import replacing
from vltune.canonical import text
from vltune.errors import UserError
from vltune.pictures import as_bytes, is_of, read_pictures, write_picture
from vltune.runs.turn import turn

ABOUT = "about.json"
_FIX = "name another engine.features_dir"

Wish = TypeVar("Wish")


def class_pictures(
    root: Path,
    about: Mapping[str, Any],
    wanted: Mapping[str, Wish],
    make: Callable[[Sequence[Wish]], Tensor],
    batch: int = 8,
    step: Callable[[int], object] = lambda there: None,
) -> Tensor:
    """(N, 3, H, W) uint8, each picture that is wanted: those that are on the disk, the others made and put there.

    root: folder of a folder for each `about`, which is plain data: all that decides a picture but its name in `wanted` and
    what stands for it there, such as a hash of the weights and the sampler.
    wanted: by names that say what each follows from beside that, such as its seed, what `make` is asked for.
    make: some of these -> (B, 3, H, W) in [-1, 1].  batch: so many at a time at most; what is asked for together is made in
    the same company, stopped in between or not.
    step: called with how many are there, before the first is made and after each batch, and of who waits every second with
    0; what it raises ends this, and finished pictures stay.

    Of processes that start together one makes them and the others wait.  A picture is written whole or not at all.
    UserError where the folder cannot be written, or where a picture is of no numbers."""
    said = text(about)
    whole = sha256(said.encode()).hexdigest()
    folder = Path(root) / whole[:16]
    marks = {name: f"{whole} {name}" for name in wanted}
    files = {name: folder / f"{name}.png" for name in wanted}
    if not all(is_of(files[name], marks[name]) for name in wanted):
        with turn(folder, lambda: step(0), "pictures", _FIX):
            for left in folder.glob(".*.tmp"):
                left.unlink()
            with replacing(folder / ABOUT) as temporary:
                temporary.write_text(said, encoding="utf-8")
            missing = {name for name in wanted if not is_of(files[name], marks[name])}
            step(len(wanted) - len(missing))
            names = list(wanted)
            for start in range(0, len(names), batch):
                if some := [name for name in names[start : start + batch] if name in missing]:
                    _write({files[name]: marks[name] for name in some}, make([wanted[name] for name in some]))
                    missing -= {*some}
                    step(len(wanted) - len(missing))
    return read_pictures([*files.values()])


def _write(files: Mapping[Path, str], pictures: Tensor) -> None:
    """files: with what each follows from.  pictures: in [-1, 1]."""
    for file, of_numbers in zip(files, pictures.flatten(1).isfinite().all(1).tolist(), strict=True):
        if not of_numbers:
            raise UserError(f"{file}: not written, the model gives no numbers for it; try engine.precision=32-true")
    for (file, mark), picture in zip(files.items(), as_bytes(pictures), strict=True):
        if file.exists():
            print(f"{file}: damaged, or of something else: made anew", file=sys.stderr)
        write_picture(file, picture, mark)
