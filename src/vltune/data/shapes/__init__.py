"""The embedded world: small data sets of coloured shapes, generated on the spot in their official raw layouts."""

import json
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from vltune.errors import UserError

_ARGUMENTS = "shapes.json"
# layout -> the module, here and in data.prepare, that writes and prepares it, its `prepare`, and what else that is given
_LAYOUTS = {
    "vqav2": ("vqav2", "prepare", {"min_answer_count": 1}),
    "nlvr2": ("nlvr2", "prepare", {}),
    "f30k": ("karpathy", "prepare_f30k", {}),
    "snli_ve": ("snli_ve", "prepare", {}),
}


def ensure(
    data_dir: Path, layout: str = "vqav2", seed: int = 0, images: Mapping[str, int] | None = None, **more: int
) -> None:
    """Make sure that `data_dir/layout` holds the world as the layout's `prepare` leaves it, and its raw files in `raw/`.

    layout: vqav2, nlvr2, f30k or snli_ve.  images: how many of train, val and test; None: as many as the layout's
    `write_raw` has for itself.  more: what else that takes, as vqav2's questions_per_image.

    Generates on first use (seconds) and returns at once after that.  Safe when several processes start together (the
    others wait) and when killed half-way (the folder appears complete or not at all).  UserError if the folder holds
    something else or was generated with other arguments.
    """
    from filelock import FileLock

    if layout not in _LAYOUTS:
        raise UserError(f"layout={layout!r}: shapes are written as {', '.join(_LAYOUTS)}")
    writer = import_module(f"vltune.data.shapes.{_LAYOUTS[layout][0]}")
    wanted = {"seed": seed, "images": dict(images or writer.IMAGES), **more}
    folder = Path(data_dir) / layout
    if _is_there(folder, wanted):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{layout}.lock")):
        if not _is_there(folder, wanted):
            _generate(folder, writer, wanted)


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


def _generate(folder: Path, writer: ModuleType, wanted: dict) -> None:
    module, name, more = _LAYOUTS[folder.name]
    prepare = getattr(import_module(f"vltune.data.prepare.{module}"), name)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    writer.write_raw(partial / "raw", **wanted)
    prepare(partial / "raw", partial, **more, progress=False, readers=1)
    (partial / _ARGUMENTS).write_text(json.dumps(wanted), encoding="utf-8")
    partial.replace(folder)
