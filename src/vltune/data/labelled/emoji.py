"""Emoji as two vendors draw them: from npm's packages to Arrow files.  Drawings of 64 pixels, no photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltune.data.fields import file_name, words
from vltune.data.labelled.official import Labelled, display
from vltune.data.labelled.shots import in_order
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Sources, either
from vltune.errors import UserError

_LIST = "emoji.json"
_VENDORS = ("twitter", "google")
_LEFT_OUT = ("Flags", "People & Body", "Component")  # categories: one drawing in many colours
_LEAST = 20  # emoji of a class
_VAL = 0.2  # of a class's emoji


def prepare(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Turn the emoji of two vendors into shards and a manifest; return what there is how much of.

    raw: holds npm's `emoji-datasource-twitter` and `emoji-datasource-google` 16.0.0, unpacked: each is a folder (that of
    `node_modules`, or with npm pack's `package/` in it) with `emoji.json` and `img/{vendor}/64/`.  out: receives
    `emoji_{vendor}_{train,val}-*.arrow` and `manifest.json`; `emoji_{vendor}_test` is both.  A class is a subcategory with
    20 emoji or more that both vendors draw; flags and people are left out.  A fifth of each class's emoji, the same ones of
    both vendors, is for validation.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    return pipeline.prepare(Emoji(Path(raw)), out, max_bad, progress, readers)


class Emoji(Labelled):
    kind = "emoji-datasource"
    unpack = "npm pack emoji-datasource-twitter@16.0.0 and -google, and unpack each into a folder of its name"

    def __init__(self, raw: Path):
        super().__init__(raw, "emoji", tuple(f"{vendor}_{split}" for vendor in _VENDORS for split in ("train", "val")))

    def files(self) -> list[Path]:
        return [self._package(_VENDORS[0]) / _LIST]

    def folders(self) -> list[Path]:
        return [self._package(vendor) / "img" / vendor / "64" for vendor in _VENDORS]

    def collect(self, sources: Sources, entries: Entries) -> None:
        groups: dict[str, list[str]] = {}
        for number, entry in enumerate(self._listed(sources), 1):
            with sources.bad.entry(f"{_LIST} entry {number}"):
                image, category, group = (
                    file_name(entry, "image"),
                    words(entry, "category"),
                    words(entry, "subcategory"),
                )
                if category not in _LEFT_OUT and all(entry.get(f"has_img_{vendor}") is True for vendor in _VENDORS):
                    groups.setdefault(group, []).append(image)
        sources.bad.check()
        chosen = sorted(name for name, images in groups.items() if len(images) >= _LEAST)
        for vendor, folder in zip(_VENDORS, self.folders(), strict=True):
            for label, name in enumerate(chosen):
                held_out = {*in_order(groups[name], 0)[: round(_VAL * len(groups[name]))]}
                for image in groups[name]:
                    split = "val" if image in held_out else "train"
                    path = (folder / image).relative_to(self.raw).as_posix()
                    self.add(entries, f"{vendor}_{split}", path, label, image)
        if not chosen:
            raise UserError(f"{self.raw}: no subcategory has {_LEAST} emoji that both vendors draw; fetch 16.0.0 again")
        self.name_classes({label: display(name.replace("-", " ")) for label, name in enumerate(chosen)})

    def parts(self, rows: Mapping[str, int]) -> dict[str, list[tuple[str, int, int]]]:
        wholes = {
            f"{vendor}_test": [(split, 0, rows[split]) for split in (f"{vendor}_train", f"{vendor}_val")]
            for vendor in _VENDORS
        }
        return super().parts(rows) | wholes

    def _package(self, vendor: str) -> Path:
        name = f"emoji-datasource-{vendor}"
        places = name, f"node_modules/{name}", f"{name}/package"
        return either(self.raw, *(f"{place}/{_LIST}" for place in places)).parent

    def _listed(self, sources: Sources) -> list[Any]:
        [file] = self.files()
        try:
            listed = json.loads("".join(line for _, line in sources.text_lines(file)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: not valid JSON ({error}); {self.unpack}") from None
        if not isinstance(listed, list):
            raise UserError(f"{file}: not a list of emoji; {self.unpack}")
        return listed
