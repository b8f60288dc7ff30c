"""The embedded world: small data sets of coloured shapes, generated on the spot in their official raw layouts."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vltune.data import manifest
from vltune.data.dataset import preparation
from vltune.data.manifest import IMAGE_SIZES, MANIFEST
from vltune.data.shapes.layouts import LAYOUTS, appearing, check_images, check_seed, check_settings
from vltune.errors import UserError

_ARGUMENTS = "shapes.json"
_PATIENCE = 1.0  # seconds before it is said that another process is waited for


def ensure(
    data_dir: Path, layout: str = "vqav2", seed: int = 0, images: Mapping[str, int] | None = None, **more: int
) -> None:
    """Make sure that `data_dir/layout` holds the world as the layout's `prepare` leaves it, and its raw files in `raw/`.

    layout: one of LAYOUTS.  images: how many of some splits; the others have as many as the layout's writer has for
    itself.  more: what else that takes, as vqav2's questions_per_image.

    Generates on first use (seconds) and returns at once after that.  Safe when several processes start together (the
    others wait, and say so) and when killed half-way (the folder appears complete or not at all).  UserError, which names
    the setting, if the folder cannot be made, holds something else, is damaged or was generated with other arguments.
    """
    wanted = _wanted(layout, seed, images, more)
    folder, where = Path(data_dir) / layout, f"dataset.data_dir={data_dir}"
    try:
        if _is_there(folder, wanted):
            return
        real = Path(os.path.realpath(folder))
        real.parent.mkdir(parents=True, exist_ok=True)
        with _locked(real.with_name(f".{layout}.lock"), folder):
            if not _is_there(folder, wanted):
                _generate(layout, real, wanted)
    except OSError as error:
        raise UserError(
            f"{where}: {layout}/ cannot be made there ({error.strerror or error}); name another folder"
        ) from error
    except UserError as error:
        raise UserError(f"{where}: {error}, or name another folder") from error


def _wanted(layout: str, seed: int, images: Mapping[str, int] | None, more: Mapping[str, int]) -> dict[str, Any]:
    """What is to be generated.  UserError where no world has that."""
    if layout not in [*LAYOUTS]:
        raise UserError(f"dataset.generate.layout={layout}: shapes are written as {', '.join(LAYOUTS)}")
    check_seed(seed, "dataset.generate.seed")
    if not isinstance(images or {}, Mapping):
        raise UserError(f"dataset.generate.images={images}: give numbers by split, such as {{train: 30, val: 10}}")
    check_images(layout, images or {}, 1, "dataset.generate.images")
    check_settings(layout, more, "dataset.generate")
    return {"seed": seed, "images": {**LAYOUTS[layout].images, **(images or {})}, **LAYOUTS[layout].other(more)}


def _is_there(folder: Path, wanted: dict[str, Any]) -> bool:
    """UserError where the folder is there and is not what is wanted."""
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link that leads nowhere; mend it")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder; move it")
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if lost := next((name for name in (_ARGUMENTS, MANIFEST) if not (folder / name).exists()), None):
        raise UserError(f"{folder.name}/ has no {lost}: not generated shapes, or a part of them; delete it")
    try:
        found = _told(json.loads((folder / _ARGUMENTS).read_text(encoding="utf-8")))
        made = manifest.read(folder)
        shards = [shard["file"] for of in made["splits"].values() for shard in of]
    except (UserError, ValueError, TypeError, AttributeError, KeyError):
        raise UserError(
            f"{folder.name}/ has a damaged {_ARGUMENTS} or {MANIFEST}; delete it to have it made anew"
        ) from None
    if found != _told(wanted):
        raise UserError(f"{folder.name}/ was generated with {found}, not with {_told(wanted)}; delete it")
    if not (drawn := LAYOUTS[folder.name].drawn(wanted)).items() <= made.items():
        raise UserError(f"{folder.name}/ has a {MANIFEST} of an older version, which lacks {drawn}; delete it")
    if lost := next((name for name in shards if not (folder / name).is_file()), None):
        raise UserError(f"{folder.name}/ has lost {lost}; delete it to have it made anew")
    return True


def _told(wanted: dict[str, Any]) -> str:
    numbers = {key: value for key, value in wanted.items() if key != "images"} | wanted["images"]
    return ", ".join(f"{key} {value}" for key, value in sorted(numbers.items()))


@contextmanager
def _locked(file: Path, folder: Path) -> Iterator[None]:
    """Gives the generation of `folder` to one process at a time."""
    from filelock import FileLock, Timeout

    lock, told = FileLock(file), False
    while not lock.is_locked:
        file.touch()  # raises where no file can be made, which `acquire` would wait for
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            if not told:
                print(f"{folder}: waiting for the process that generates it", file=sys.stderr)
            told = True
    try:
        yield
    finally:
        lock.release()


def _generate(layout: str, folder: Path, wanted: dict[str, Any]) -> None:
    known = LAYOUTS[layout]
    with appearing(folder, folder.with_name(f".{layout}.partial")) as partial:
        known.write(partial / "raw", **wanted)
        preparation(layout)(partial / "raw", partial, **known.options, progress=False, readers=1)
        made = manifest.read(partial)
        made.pop(IMAGE_SIZES)
        (partial / MANIFEST).write_text(json.dumps(made | known.drawn(wanted), indent=1), encoding="utf-8")
        (partial / _ARGUMENTS).write_text(json.dumps(wanted), encoding="utf-8")
