"""Data sets whose folders say which image is of which class: ImageNet's, and one's own; or a table of one's own."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.data.fields import choice, place, words
from vltune.data.labelled.official import SPLITS, Labelled, display
from vltune.data.labelled.published import Published
from vltune.data.labelled.shots import in_order
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Sources, stands
from vltune.data.walk import check_name, digest, folders_below
from vltune.errors import UserError
from vltune.images import SUFFIXES

CLASS_NAMES = "classnames.txt"
_CALLED = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_NO_IMAGES = ("@eaDir", "__MACOSX")  # folders that others put beside images
_HEADS = (["class", "path"], ["class", "path", "split"])  # of a table, sorted
_LIKE_SPLITS = ("train", "val", "dev", "test")
_VAL, _TEST = 0.2, 0.3  # of a class's images, where nothing says which


class ClassFolders(Labelled):
    """One folder a class.  `classnames.txt`, where there is one, says what a class is called: folder and name."""

    def __init__(self, raw: Path, name: str, splits: tuple[str, ...], published: Published | None = None):
        super().__init__(raw, name, splits, published)
        self._names_and_sizes, self._others = sha256(), dict.fromkeys(splits, 0)

    def called(self, sources: Sources, known: Iterable[str] | None = None) -> dict[str, str]:
        """{folder of a class: its name}, as `classnames.txt` says.  known: the folders that there are, whose names may hold
        spaces; None: any, of one word."""
        found, folders = {}, None if known is None else sorted(known, key=len, reverse=True)
        for where, line in sources.text_lines(self.raw / CLASS_NAMES):
            with sources.bad.entry(where):
                if folders is None:
                    folder = line.partition(" ")[0]
                elif (folder := next((each for each in folders if line.startswith(f"{each} ")), None)) is None:
                    raise ValueError(f"{line!r} begins with no folder of a class that is there")
                if folder in found:
                    raise ValueError(f"{folder} is listed twice")
                found[folder] = display(line[len(folder) + 1 :])
        sources.bad.check()
        return found

    def images(self, split: str, folder: Path) -> Iterator[tuple[str, str]]:
        """The class folder and the path below `self.folder` of each image of a folder of classes, sorted."""
        if not (classes := classes_in(folder)):
            raise UserError(f"{folder}: holds no folder of a class; put the images of each class into one of its name")
        self._others[split] += len(_loose(folder))
        for each in classes:
            found = sorted(top / name for top, names in folders_below(each) for name in names)
            images = [path for path in found if _is_image(path, each)]
            self._others[split] += len(found) - len(images)
            if not images:
                raise UserError(f"{each}: a class without an image ({', '.join(SUFFIXES)}); put some there, or move it")
            for path in images:
                check_name(path)
                yield each.name, path.relative_to(self.folder).as_posix()

    def put(self, entries: Entries, split: str, images: Iterable[tuple[str, int]]) -> None:
        """images: path and label of each."""
        for image, label in images:
            path = self.folder / image
            size = path.stat().st_size if path.is_file() else None
            self._names_and_sizes.update(f"{split} {image} {size} {label}\n".encode())
            self.add(entries, split, image, label, split)

    def listed_now(self, sources: Sources) -> dict[str, Any]:
        other = copy(self)
        other._names_and_sizes, other._others = sha256(), dict.fromkeys(self.splits, 0)
        other.collect(sources, Entries(Path(":memory:")))
        return {"listing": other._names_and_sizes.hexdigest()}

    def dropped(self) -> dict[str, dict[str, int]]:
        return {"dropped_other_files": self._others} if any(self._others.values()) else {}

    def facts(self) -> dict[str, Any]:
        """With a hash of all images' names, sizes and labels, which no other raw file tells."""
        return super().facts() | {"listing": self._names_and_sizes.hexdigest()}


class ImageNet(ClassFolders):
    """`images/{train,val}/n*/`, of which val is the test, and `classnames.txt`."""

    def __init__(self, raw: Path, name: str, published: Published):
        super().__init__(raw, name, ("train", "test"), published)

    def files(self) -> list[Path]:
        return [self.raw / CLASS_NAMES]

    def folders(self) -> list[Path]:
        return [self.folder / "train", self.folder / "val"]

    def collect(self, sources: Sources, entries: Entries) -> None:
        called = self.called(sources)
        labels = {folder: label for label, folder in enumerate(sorted(called))}
        for split, folder in zip(self.splits, self.folders(), strict=True):
            if unknown := [each.name for each in classes_in(folder) if each.name not in labels]:
                raise UserError(f"{folder / unknown[0]}: a class that {CLASS_NAMES} lacks; fetch the list again")
            self.put(entries, split, ((image, labels[name]) for name, image in self.images(split, folder)))
        self.name_classes({label: called[folder] for folder, label in labels.items()})


class OwnFolder(ClassFolders):
    """One's own: one folder a class, below `train/`, `val/` and `test/` or all in one; or a table of `path,class[,split]`.

    Where nothing says which image is of which split, a fifth of each class is for validation and three tenths are for the
    test; where only the validation is left out, a fifth of train is for it; where only the test is, it is what is called
    val, and the validation a fifth of train.  The same names give the same splits."""

    unpack = "put one folder a class there, or train/ and test/ with these, or a table path,class[,split]"

    def __init__(self, raw: Path):
        self._table = raw if _is_table(raw) else None
        super().__init__(raw.parent if self._table else raw, "folder", SPLITS)
        self._divided: dict[str, list[tuple[str, str]]] = {}  # class and image by split

    def files(self) -> list[Path]:
        tables = sorted(path for path in self.raw.glob("*") if _is_table(path) and not _is_hidden(path, self.raw))
        if self._table is None and tables:
            if len(tables) > 1:
                raise UserError(f"{self.raw}: holds {tables[0].name} and {tables[1].name}; name one of them with --raw")
            [self._table] = tables
        if self._table is not None:
            return [self._table]
        return [self.raw / CLASS_NAMES] if stands(self.raw / CLASS_NAMES) else []

    def collect(self, sources: Sources, entries: Entries) -> None:
        found = self._of_table(sources) if self._table else self._of_folders()
        sources.bad.check()
        labels = {name: label for label, name in enumerate(sorted({name for of in found.values() for name, _ in of}))}
        if not labels:
            raise UserError(f"{self.raw}: holds no image of any class; {self.unpack}")
        self._divided = complete(found, self.raw)
        for split, of in self._divided.items():
            self.put(entries, split, ((image, labels[name]) for name, image in of))
        called = self.called(sources, labels) if not self._table and self.files() else {}
        names = {}
        for name, label in labels.items():
            with sources.bad.entry(str(self.raw / name)):
                names[label] = called[name] if name in called else display(name)
        sources.bad.check()
        self.name_classes(names)

    def facts(self) -> dict[str, Any]:
        """With a hash of the images too: unlike those of a published list, they may be replaced by others of their size."""
        images = (self.folder / image for of in self._divided.values() for _, image in of)
        return super().facts() | {"contents": digest(self.folder, images)}

    def unread(self) -> Iterator[str]:
        if self._table and stands(self.raw / CLASS_NAMES):
            yield f"{CLASS_NAMES} is not read: {self._table.name} names the classes"

    def _of_folders(self) -> dict[str | None, list[tuple[str, str]]]:
        """Class and image by split; None: nothing says which."""
        train = _first(self.raw, "train")
        named = {name for names in _CALLED.values() for name in names}
        beside = [each for each in classes_in(self.raw) if each.name.lower() not in named and _holds_images(each)]
        if train is None:
            self._refuse_splits_for_classes()
        if train is None or (beside and not classes_in(train)):  # else a class of that name, as of vehicles
            return {None: [*self.images("train", self.raw)]}
        if beside:
            raise UserError(
                f"{beside[0]}: a class beside {train.name}/, which holds classes; move it into a split, or away"
            )
        folders = {split: folder for split in SPLITS if (folder := _first(self.raw, split)) is not None}
        if len(folders) == 1:
            raise UserError(f"{self.raw}: holds {train.name}/ alone; add val/ or test/, or give --raw {train}")
        found = {split: [*self.images(split, folder)] for split, folder in folders.items()}
        self._others["train"] += len(_loose(self.raw))
        if unknown := _unknown(found):
            split, name = unknown
            raise UserError(f"{folders[split] / name}: a class that {train.name}/ lacks; call it as there")
        return found

    def _refuse_splits_for_classes(self) -> None:
        """UserError where the folders are called as splits, or are one, and no image lies in any of them itself."""
        folders = classes_in(self.raw)
        like_splits = len(folders) == 1 or any(each.name.lower().startswith(_LIKE_SPLITS) for each in folders)
        if like_splits and any(map(_holds_images, folders)) and not any(map(_loose, folders)):
            told = " or ".join(f"{each.name}/" for each in folders[:3])
            raise UserError(
                f"{self.raw}: no image lies in {told} itself, as those of a class do; call splits train/, val/ and test/, "
                "and name the folder that they are in with --raw"
            )

    def _of_table(self, sources: Sources) -> dict[str | None, list[tuple[str, str]]]:
        found, lines, listed = defaultdict(list), sources.text_lines(self._table), set()
        try:
            head = _cells(next(lines, ("", ""))[1])
        except ValueError as error:
            raise UserError(f"{self._table}: not a table ({error}); save it as CSV, in UTF-8") from None
        if sorted(head) not in _HEADS:
            told = f"its first line is {','.join(head)!r}, expected path,class[,split] and nothing else"
            raise UserError(f"{self._table}: {told}; name its columns so")
        for where, line in lines:
            with sources.bad.entry(where):
                if len(cells := _cells(line)) != len(head):
                    raise ValueError(f"it has {len(cells)} values, expected {len(head)}")
                entry = dict(zip(head, cells, strict=True))
                split = choice(entry, "split", SPLITS) if "split" in entry else None
                name, path = words(entry, "class"), place(entry, "path")
                if path in listed:
                    raise ValueError(f"{path} is listed twice")
                listed.add(path)
                found[split].append((name, path))
        return found


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _cells(line: str) -> list[str]:
    """Of a line of a table, without spaces around.  ValueError where it is none."""
    if "\r" in line:
        raise ValueError("its lines end as those of old Macs")
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True), [])]
    except csv.Error as error:
        raise ValueError(str(error)) from None


def complete(found: dict[str | None, list[tuple[str, str]]], raw: Path) -> dict[str, list[tuple[str, str]]]:
    """Class and image by split, of all three splits."""
    if None in found:
        return _divided(found[None], raw)
    if "train" not in found or len(found) == 1:
        raise UserError(f"{raw}: has images of {', '.join(found)} alone; name some of train, and of val or test")
    if unknown := _unknown(found):
        split, name = unknown
        raise UserError(f"{raw}: {split} has images of {name}, a class that train lacks; call it as there")
    if "test" not in found:
        found = {"train": found["train"], "test": found["val"]}
    if "val" not in found:
        train, val = [], []
        for name, images in _by_class(found["train"]).items():
            held_out = min(max(1, round(_VAL * len(images))), len(images) - 1)
            val += [(name, image) for image in images[:held_out]]
            train += [(name, image) for image in images[held_out:]]
        found = {"train": train, "val": val, "test": found["test"]}
    return found


def _unknown(found: dict[str | None, list[tuple[str, str]]]) -> tuple[str, str] | None:
    """A split and a class of it that train lacks."""
    known = {name for name, _ in found["train"]}
    return next(((split, name) for split, of in found.items() for name, _ in of if name not in known), None)


def _divided(images: list[tuple[str, str]], raw: Path) -> dict[str, list[tuple[str, str]]]:
    divided = {split: [] for split in SPLITS}
    for name, of in _by_class(images).items():
        if len(of) < len(SPLITS):
            fix = "add some, or say which with train/, val/ and test/"
            raise UserError(f"{raw}: {len(of)} images of {name}, which three splits cannot share; {fix}")
        val, test = (max(1, round(share * len(of))) for share in (_VAL, _TEST))
        ends = {"val": of[:val], "test": of[val : val + test], "train": of[val + test :]}
        for split in SPLITS:
            divided[split] += [(name, image) for image in ends[split]]
    return divided


def _by_class(images: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The images of each class, in an order that follows from their names alone."""
    found = defaultdict(list)
    for name, image in images:
        found[name].append(image)
    return {name: in_order(of, 0) for name, of in found.items()}


def _first(raw: Path, split: str) -> Path | None:
    """The folder of a split, however its name is capitalised.  UserError where there are two."""
    there = [path for path in classes_in(raw) if path.name.lower() in _CALLED[split]]
    if len(there) > 1:
        raise UserError(f"{raw}: holds {there[0].name}/ and {there[1].name}/, both of {split}; leave one of them there")
    return there[0] if there else None


def _holds_images(folder: Path) -> bool:
    """Whether any lies in it or below."""
    return any(_is_image(top / name, folder) for top, names in folders_below(folder) for name in names)


def _loose(folder: Path) -> list[Path]:
    """The images in a folder itself."""
    return [path for path in folder.iterdir() if _is_image(path, folder) and not path.is_dir()]


def _is_image(path: Path, below: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path, below)


def _is_hidden(path: Path, below: Path) -> bool:
    """Whether it is a file system's or a program's own, such as a thumbnail."""
    return any(part.startswith(".") or part in _NO_IMAGES for part in path.relative_to(below).parts)


def classes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path, folder))
