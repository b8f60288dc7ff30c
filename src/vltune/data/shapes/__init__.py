"""The embedded world: small data sets of coloured shapes, generated on the spot in their official raw layouts."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from vltune.data.shapes.layouts import LAYOUTS
from vltune.errors import UserError

_ARGUMENTS = "shapes.json"


def ensure(
    data_dir: Path, layout: str = "vqav2", seed: int = 0, images: Mapping[str, int] | None = None, **more: int
) -> None:
    """Make sure that `data_dir/layout` holds the world as the layout's `prepare` leaves it, and its raw files in `raw/`.

    layout: one of LAYOUTS.  images: how many of each split; None: as many as the layout's writer has for itself.
    more: what else that takes, as vqav2's questions_per_image.

    Generates on first use (seconds) and returns at once after that.  Safe when several processes start together (the
    others wait) and when killed half-way (the folder appears complete or not at all).  UserError if the folder holds
    something else or was generated with other arguments.
    """
    from filelock import FileLock

    if layout not in LAYOUTS:
        raise UserError(f"layout={layout!r}: shapes are written as {', '.join(LAYOUTS)}")
    wanted = {"seed": seed, "images": dict(images or LAYOUTS[layout].images), **more}
    folder = Path(data_dir) / layout
    if _is_there(folder, wanted):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{layout}.lock")):
        if not _is_there(folder, wanted):
            _generate(folder, wanted)


def _is_there(folder: Path, wanted: dict) -> bool:
    try:
        found = json.loads((folder / _ARGUMENTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder}: holds files that are not generated shapes; choose an empty folder") from None
        return False
    if found != wanted:
        raise UserError(f"{folder}: was generated with {found}, not {wanted}; choose another folder or delete it")
    return True


def _generate(folder: Path, wanted: dict) -> None:
    layout = LAYOUTS[folder.name]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    layout.write(partial / "raw", **wanted)
    layout.prepare(partial / "raw", partial, **layout.options, progress=False, readers=1)
    (partial / _ARGUMENTS).write_text(json.dumps(wanted), encoding="utf-8")
    partial.replace(folder)
