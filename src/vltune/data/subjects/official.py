"""Pictures of subjects as they come: DreamBooth's, a folder each beside a list of what they are; or one's own."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ImageOps

from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, either
from vltune.data.subjects import listing
from vltune.data.subjects.listing import LISTING
from vltune.data.subjects.prompts import published
from vltune.data.subjects.rows import SCHEMA, STEM
from vltune.data.walk import check_name, digest
from vltune.errors import UserError
from vltune.images import SUFFIXES, is_turned, opened
from vltune.settings.kinds import LONGEST

_LIVE = ("cat", "dog")  # classes of the nine live subjects of thirty


def root(raw: Path) -> Path:
    """Where the list lies: in the repository or in its folder of pictures."""
    return either(raw, LISTING, f"dataset/{LISTING}").parent


def upright(content: bytes) -> bytes:
    """A picture's own bytes, or a PNG of it as it is to be seen where a camera stored it turned."""
    with opened(content) as image:
        image.load()
        if not is_turned(image):
            return content
        written = BytesIO()
        ImageOps.exif_transpose(image).convert("RGB").save(written, "PNG")
    return written.getvalue()


class SubjectPictureFiles(Official):
    """A split a subject.  A picture is known by its path below `folder`.  `collect` calls `put` for each subject, and
    fills `subjects`, {name: what the manifest says of it}, and `prompts`."""

    kind = "DreamBooth"
    schema = SCHEMA
    names = ("images",)
    text_column = None
    stored = staticmethod(upright)

    def __init__(self, raw: Path, folder: Path):
        super().__init__(raw, STEM, ())
        self.folder, self._others = folder, {}
        self.subjects: dict[str, dict[str, Any]] = {}
        self.prompts = published()

    def folders(self) -> list[Path]:
        return [self.folder]

    def put(self, entries: Entries, subject: str, folder: Path) -> None:
        """UserError where there is no picture."""
        images, others = pictures_in(folder)
        if not images:
            instead = f", but {others[0].name}" if others else ""
            raise UserError(f"{folder}: holds no picture ({', '.join(SUFFIXES)}){instead}; put some there")
        self.splits.append(subject)
        self._others[subject] = len(others)
        for path in images:
            entries.add(subject, path.relative_to(self.folder).as_posix(), None)

    def row(self, split: str, image: str, found: list[Any]) -> Row:
        return {"image": self.folder / image}, {"image_id": image, "split": split}

    def dropped(self) -> dict[str, dict[str, int]]:
        return {"dropped_other_files": self._others} if any(self._others.values()) else {}

    def arguments(self) -> dict[str, Any]:
        """A hash of all pictures, by their places."""
        return {"data_set": self.stem, "pictures": self._digest}

    def facts(self) -> dict[str, Any]:
        return self.arguments() | {"subjects": self.subjects, "prompts": self.prompts}

    @cached_property
    def _digest(self) -> str:
        return digest(self.folder, self.pictures())

    def there(self) -> set[str]:
        """What is called as a subject, before anything is read."""
        return {*self.subjects} or {folder.name for folder in _folders(self.folder)}

    def pictures(self) -> list[Path]:
        """All of them."""
        return [path for folder in _folders(self.folder) for path in pictures_in(folder)[0]]


class Subjects(SubjectPictureFiles):
    """google/dreambooth's."""

    unpack = "clone https://github.com/google/dreambooth there, or say what your own pictures show with --class NOUN"

    def __init__(self, raw: Path):
        super().__init__(raw, root(raw))

    def files(self) -> list[Path]:
        return [self.folder / LISTING]

    def collect(self, sources: Sources, entries: Entries) -> None:
        [file] = self.files()
        found = listing.read(sources, entries, file)
        for folder in _folders(self.folder):
            if folder.name not in found.classes and pictures_in(folder)[0]:
                raise UserError(f"{folder}: a subject without a class; add the line {folder.name},CLASS to {file}")
        for subject, noun in found.classes.items():
            if not (folder := self.folder / subject).is_dir():
                raise UserError(f"{folder}: no such folder, and {file} has the subject {subject}; fetch it again")
            self.put(entries, subject, folder)
            self.subjects[subject] = {"class": noun, "live": noun in _LIVE}
        found.require(file, {subject: said["live"] for subject, said in self.subjects.items()})
        self.prompts = found.prompts


class OneSubject(SubjectPictureFiles):
    """A folder of one's own pictures."""

    unpack = "name the folder of your pictures"

    def __init__(self, raw: Path, noun: str, live: bool | None):
        super().__init__(raw, raw)
        try:
            told = listing.checked_noun(noun)
        except ValueError as error:
            raise UserError(f"--class {noun}: {error}") from None
        self.subject = _called(raw)
        self.subjects = {self.subject: {"class": told, "live": told in _LIVE if live is None else live}}

    def files(self) -> list[Path]:
        return []

    def collect(self, sources: Sources, entries: Entries) -> None:
        self.put(entries, self.subject, self.folder)

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"subjects": self.subjects}

    def pictures(self) -> list[Path]:
        return pictures_in(self.folder)[0]


def pictures_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder by what they are called, sorted, and its other files; nothing that is hidden."""
    found = [path for path in sorted(folder.iterdir()) if not path.is_dir() and not path.name.startswith(".")]
    images = [path for path in found if path.suffix.lower() in SUFFIXES]
    for path in images:
        check_name(path)
    return images, [path for path in found if path not in images]


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _called(folder: Path) -> str:
    """A folder's name as a setting has it."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:LONGEST] or "subject"
