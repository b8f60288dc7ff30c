"""Emoji as two vendors draw them: from npm's packages to Arrow files.  Drawings of 64 pixels, no photographs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from vltune.data.check.kind import Kind
from vltune.data.fields import field, file_name, words
from vltune.data.karpathy import prepare as karpathy
from vltune.data.labelled.official import Labelled, display
from vltune.data.labelled.shots import in_order
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, either
from vltune.errors import UserError
from vltune.images import opened

_LIST = "emoji.json"
_VENDORS = ("twitter", "google")
_SPLITS = tuple(f"{vendor}_{split}" for vendor in _VENDORS for split in ("train", "val"))
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
    both vendors, is for validation.  What is transparent becomes white.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    return pipeline.prepare(Emoji(Path(raw), "emoji", _SPLITS), out, max_bad, progress, readers)


def prepare_captions(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """The same packages for retrieval: `emoji_caption_karpathy_{vendor}_{train,val}-*.arrow`, in the columns of Karpathy's
    splits.  Every emoji that both vendors draw but flags and people; its captions are its name and its short names."""
    official = EmojiCaptions(Path(raw), "emoji_caption_karpathy", _SPLITS)
    return pipeline.prepare(official, out, max_bad, progress, readers)


CAPTIONS = Kind(karpathy.SCHEMA, ("images", "captions"), "caption", karpathy.problems)


def on_white(content: bytes) -> bytes:
    """A drawing as a PNG without transparency: the colours under it would fill the square around the drawing."""
    with opened(content) as image:
        drawing = image.convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    written = BytesIO()
    Image.alpha_composite(page, drawing).convert("RGB").save(written, "PNG")
    return written.getvalue()


class _Packages(Official):
    """Emoji of both vendors: `splits` are `_SPLITS`, beside which `{vendor}_test` is all of a vendor's."""

    kind = "emoji-datasource"
    stored = staticmethod(on_white)
    unpack = "`make emoji`, or npm pack emoji-datasource-twitter@16.0.0 and -google, each into a folder of its name"

    def files(self) -> list[Path]:
        return [self._package(_VENDORS[0]) / _LIST]

    def folders(self) -> list[Path]:
        return [self._package(vendor) / "img" / vendor / "64" for vendor in _VENDORS]

    def parts(self, rows: Mapping[str, int]) -> dict[str, list[tuple[str, int, int]]]:
        wholes = {
            f"{vendor}_test": [(split, 0, rows[split]) for split in (f"{vendor}_train", f"{vendor}_val")]
            for vendor in _VENDORS
        }
        return super().parts(rows) | wholes

    def groups(self, sources: Sources) -> dict[str, dict[str, list[str]]]:
        """{subcategory: {image: captions}}, of what both vendors draw."""
        groups: dict[str, dict[str, list[str]]] = {}
        for number, entry in enumerate(self._listed(sources), 1):
            with sources.bad.entry(f"{_LIST} entry {number}"):
                image, category, group = (
                    file_name(entry, "image"),
                    words(entry, "category"),
                    words(entry, "subcategory"),
                )
                names = [words(entry, "name").lower(), *field(entry, "short_names", list)]
                if category not in _LEFT_OUT and all(entry.get(f"has_img_{vendor}") is True for vendor in _VENDORS):
                    groups.setdefault(group, {})[image] = [*dict.fromkeys(display(str(name)) for name in names)]
        sources.bad.check()
        return groups

    def spread(self, images: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Split and path below the raw folder of each drawing; a fifth of the emoji in val, the same of both vendors."""
        images = [*images]
        held_out = {*in_order(images, 0)[: round(_VAL * len(images))]}
        for vendor, folder in zip(_VENDORS, self.folders(), strict=True):
            for image in images:
                split = "val" if image in held_out else "train"
                yield f"{vendor}_{split}", (folder / image).relative_to(self.raw).as_posix()

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


class Emoji(_Packages, Labelled):
    def collect(self, sources: Sources, entries: Entries) -> None:
        groups = {name: of for name, of in sorted(self.groups(sources).items()) if len(of) >= _LEAST}
        if not groups:
            raise UserError(f"{self.raw}: no subcategory has {_LEAST} emoji that both vendors draw; fetch 16.0.0 again")
        for label, images in enumerate(groups.values()):
            for split, path in self.spread(images):
                self.add(entries, split, path, label, path)
        self.name_classes({label: display(name.replace("-", " ")) for label, name in enumerate(groups)})


class EmojiCaptions(_Packages):
    schema = karpathy.SCHEMA
    names = "images", "captions"
    text_column = "caption"

    def collect(self, sources: Sources, entries: Entries) -> None:
        for images in self.groups(sources).values():
            for split, path in self.spread(images):
                entries.add(split, path, images[path.rpartition("/")[2]])

    def row(self, split: str, image: str, found: list[Any]) -> Row:
        return {"image": self.raw / image}, {"caption": found[0], "image_id": image, "split": split}
