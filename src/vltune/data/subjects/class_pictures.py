"""Pictures of a subject's class that a model made before it was tuned, for prior preservation: made once, kept on disk for
every run, and trusted only where a file says what it follows from and can be decoded whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from vltune.atomic import replacing
from vltune.canonical import text
from vltune.errors import UserError
from vltune.pictures import as_bytes, is_of, read_pictures, write_picture
from vltune.runs.turn import turn

ABOUT = "about.json"
_FIX = "name another engine.features_dir"


def class_pictures(
    root: Path,
    about: Mapping[str, Any],
    seeds: Sequence[int],
    make: Callable[[list[int]], Tensor],
    batch: int = 8,
    step: Callable[[int], object] = lambda made: None,
) -> Tensor:
    """(N, 3, H, W) uint8, the picture of each seed: those that are on the disk, the others made and put there.

    root: folder of a folder for each `about`, which is plain data: all that decides a picture but its seed, such as a hash
    of the weights, the prompt and the sampler.
    make: seeds -> (B, 3, H, W) in [-1, 1].  batch: so many at a time at most; seeds that are asked for together, stopped or
    not, are made in the same company.  step: called with how many have been made since, with 0 before the first and, of who
    waits, every second; what it raises ends this, and finished pictures stay.

    Of processes that start together one makes them and the others wait.  A picture is written whole or not at all.
    UserError where the folder cannot be written, or where a picture is of no numbers."""
    said = text(about)
    of = sha256(said.encode()).hexdigest()
    folder = Path(root) / of[:16]
    files = {seed: folder / f"{seed}.png" for seed in seeds}
    if not all(is_of(file, of) for file in files.values()):
        with turn(folder, lambda: step(0), "pictures", _FIX):
            for left in folder.glob(".*.tmp"):
                left.unlink()
            with replacing(folder / ABOUT) as temporary:
                temporary.write_text(said, encoding="utf-8")
            step(0)
            _complete(files, of, make, batch, step)
    return read_pictures([files[seed] for seed in seeds])


def _complete(
    files: Mapping[int, Path],
    of: str,
    make: Callable[[list[int]], Tensor],
    batch: int,
    step: Callable[[int], object],
) -> None:
    """Makes those that are not there."""
    seeds = list(files)
    for start in range(0, len(seeds), batch):
        missing = [seed for seed in seeds[start : start + batch] if not is_of(files[seed], of)]
        if not missing:
            continue
        for file in (files[seed] for seed in missing if files[seed].exists()):
            print(f"{file}: damaged, or of something else: made anew", file=sys.stderr)
        pictures = make(missing)
        if not (finite := pictures.flatten(1).isfinite().all(1)).all():
            seed = missing[int(finite.int().argmin())]
            raise UserError(
                f"{files[seed]}: is not written, the model gives no numbers for it; try engine.precision=32-true"
            )
        for seed, picture in zip(missing, as_bytes(pictures), strict=True):
            write_picture(files[seed], picture, of)
        step(len(missing))
