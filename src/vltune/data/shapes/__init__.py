"""The embedded world: small data sets of coloured shapes, generated on the spot in their official raw layouts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vltune.data import manifest
from vltune.errors import UserError
from vltune.signatures import other_than_file

_ARGUMENTS = "shapes.json"


class _Layout(NamedTuple):
    """writer: a module and function in here.  prepare: the same in data.prepare, which is given `more`."""

    writer: tuple[str, str]
    prepare: tuple[str, str]
    more: Mapping[str, Any] = {}

    @property
    def module(self) -> ModuleType:
        return import_module(f"vltune.data.shapes.{self.writer[0]}")

    def write(self, out: Path, **arguments: Any) -> None:
        getattr(self.module, self.writer[1])(out, **arguments)


LAYOUTS = {
    "vqav2": _Layout(("vqav2", "write_raw"), ("vqav2", "prepare"), {"min_answer_count": 1}),
    "nlvr2": _Layout(("nlvr2", "write_raw"), ("nlvr2", "prepare")),
    "f30k": _Layout(("karpathy", "write_raw"), ("karpathy", "prepare_f30k")),
    "coco": _Layout(("karpathy", "write_coco"), ("karpathy", "prepare_coco")),
    "snli_ve": _Layout(("snli_ve", "write_raw"), ("snli_ve", "prepare")),
}


def ensure(
    data_dir: Path, layout: str = "vqav2", seed: int = 0, images: Mapping[str, int] | None = None, **more: int
) -> None:
    """Make sure that `data_dir/layout` holds the world as the layout's `prepare` leaves it, and its raw files in `raw/`.

    layout: vqav2, nlvr2, f30k, coco or snli_ve.  images: how many of train, val and test, of which those that are not
    given, as all for None, are as many as the layout has for itself.  more: what else its `write_raw` takes, as vqav2's
    questions_per_image.

    Generates on first use (seconds) and returns at once after that.  Safe when several processes start together (the
    others wait) and when killed half-way (the folder appears complete or not at all).  UserError if the folder holds
    something else, was generated with other arguments, is not whole any more or cannot be made.
    """
    from filelock import FileLock

    if not isinstance(data_dir, str | Path) or not str(data_dir):
        raise UserError(f"dataset.data_dir={data_dir}: must name a folder, for generated shapes too")
    wanted = {"seed": _seed(seed), "images": _counts(images, of(layout).module.IMAGES), **more}
    folder = Path(data_dir) / layout
    try:
        if _is_there(folder, wanted):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{layout}.lock")):
            if not _is_there(folder, wanted):
                _generate(folder, of(layout), wanted)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        reason = f"no shapes can be made there ({cause.strerror or cause})"
        raise UserError(f"dataset.data_dir={data_dir}: {reason}; name another folder") from error


def of(layout: str) -> _Layout:
    if layout not in LAYOUTS:
        raise UserError(f"layout={layout!r}: shapes are written as {', '.join(LAYOUTS)}")
    return LAYOUTS[layout]


def write(layout: str, out: Path, images: Mapping[str, int], seed: int = 0) -> dict[str, int]:
    """Write the world's raw files in a layout to the folder `out`; how many images of each split that is, pairs in NLVR2.

    images: of which those that are not given are 30 of train, 10 of val and 10 of test, or a little more where they belong
    together.  `out` appears complete or not at all; UserError where it holds something or cannot be made."""
    few = {split: -count % of(layout).module.SET + count for split, count in (("train", 30), ("val", 10), ("test", 10))}
    arguments = {"seed": _seed(seed), "images": _counts(images, few)}
    try:
        if (found := other_than_file(out)) not in ("a folder", "no such file"):
            raise UserError(f"{out}: {found or 'a file'}, where a folder is to be made; name another")
        if found == "a folder" and any(out.iterdir()):
            raise UserError(f"{out}: holds something already; name a folder that is empty or not there yet")
        place = Path(os.path.realpath(out))
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", suffix=".partial", dir=place.parent) as partial:
            of(layout).write(Path(partial) / "raw", **arguments)
            (Path(partial) / "raw").replace(place)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
    return arguments["images"]


def _seed(seed: Any) -> int:
    if type(seed) is not int or seed < 0:
        raise UserError(f"seed={seed}: must be a whole number, 0 or more")
    return seed


def _counts(images: Mapping[str, int] | None, otherwise: Mapping[str, int]) -> dict[str, int]:
    if images is not None and not isinstance(images, Mapping):
        raise UserError(f"images={images}: must say how many, as in {{train: 30, val: 10, test: 10}}")
    for split, count in (images or {}).items():
        if split not in otherwise:
            raise UserError(f"images: {split}={count}: there is no such split; there are {', '.join(otherwise)}")
        if type(count) is not int or count < 1:
            raise UserError(f"images: {split}={count}: must be a whole number, 1 or more")
    return {**otherwise, **(images or {})}


def _is_there(folder: Path, wanted: dict) -> bool:
    file = folder / _ARGUMENTS
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder}: holds files that are not generated shapes; choose an empty folder with dataset.data_dir"
            ) from None
        return False
    except (ValueError, RecursionError):
        raise UserError(f"{file}: is damaged; delete {folder}, and the same command makes it anew") from None
    if found != wanted:
        raise UserError(
            f"{folder}: was generated with {found}, not {wanted}; choose another folder with dataset.data_dir, or delete it"
        )
    if lost := _lost(folder):
        raise UserError(f"{folder}: is not whole any more ({lost}); delete it, and the same command makes it anew")
    return True


def _lost(folder: Path) -> str | None:
    try:
        listed = manifest.read(folder)
    except UserError as error:
        return str(error).partition("; ")[0]
    return f"no {manifest.MANIFEST}" if listed is None else manifest.unusable(folder, listed)


def _generate(folder: Path, layout: _Layout, wanted: dict) -> None:
    module, name = layout.prepare
    prepare = getattr(import_module(f"vltune.data.prepare.{module}"), name)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    layout.write(partial / "raw", **wanted)
    prepare(partial / "raw", partial, **layout.more, progress=False, readers=1)
    (partial / _ARGUMENTS).write_text(json.dumps(wanted), encoding="utf-8")
    partial.replace(folder)
