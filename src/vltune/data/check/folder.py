"""Is a folder of Arrow files what it says it is?  Everything is looked at, counted, and held against the manifest."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vltune.data import pool
from vltune.data.arrow import check_whole
from vltune.data.check.classes import ClassSummary, summaries
from vltune.data.check.classes import notes as class_notes
from vltune.data.check.rows import DIGEST, Found, Problems, Span, look, open_rows
from vltune.data.dataset import kind_of_name, kinds
from vltune.data.manifest import MANIFEST
from vltune.data.manifest import read as read_manifest
from vltune.errors import UserError

_ROWS = 500  # that a process takes at a time
_RELEASED_ANSWERS = 3129  # ViLT's vocabulary, where there is no manifest
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.arrow")
# The last word of a split's name -> what it is for.  No image may serve two purposes.
_ROLES = {"train": "train", "restval": "train", "val": "val", "dev": "val"}
_ROLES |= dict.fromkeys(("test", "test1", "test2", "test-dev"), "test")


class File:
    """An Arrow file and what was found in it.  listed: what the manifest says of it: rows and texts."""

    def __init__(self, path: Path, listed: Mapping[str, int] | None = None):
        self.path, self.listed = path, listed or {}
        shard = _SHARD.fullmatch(path.name)
        self.stem = shard[1] if shard else path.stem
        self.kind = kind_of_name(path.name)
        self.split = self.stem.removeprefix(f"{self.kind}_")
        self.size = path.stat().st_size if path.is_file() else 0
        self.rows = self.texts = 0
        self.problems = Problems()
        self.notes: Counter[str] = Counter()
        self.parts: dict[int, Found] = {}

    def jobs(self, answers: Sequence[str | None]) -> list[Span]:
        """Opens the file."""
        try:
            check_whole(self.path, rows := open_rows(self.path, kinds()[self.kind]))
            self.rows = rows.num_rows
        except UserError as error:
            self.problems.add(str(error))
        starts = range(0, self.rows, _ROWS)
        return [Span(self.path, self.kind, first, min(first + _ROWS, self.rows), answers) for first in starts]

    def gather(self) -> None:
        """Puts together what was found in parts."""
        found = [self.parts[first] for first in sorted(self.parts)]
        self.texts = sum(part.texts for part in found)
        self.ids = np.concatenate([np.zeros(0, np.int64), *(np.array(part.ids) for part in found)])
        self.digests = np.frombuffer(b"".join(part.digests for part in found), f"V{DIGEST}")
        self.names = Counter(name for part in found for name in part.names)
        self.labels = sum((part.labels for part in found), Counter())
        for part in found:
            self.problems.extend(part.problems)
            self.notes += part.notes
        for what in ("rows", "texts"):
            if (have := getattr(self, what)) != (said := self.listed.get(what, have)):
                self.problems.add(f"{self.path.name}: {have} {what}, {MANIFEST} says {said}")


@dataclass(frozen=True)
class SplitSummary:
    """Of a split: what the table tells."""

    split: str
    rows: int
    texts: int
    bytes: int
    problems: int


@dataclass(frozen=True)
class Report:
    """problems: the first of each file and of the whole folder; there are `count` in all.  notes: what was not checked, and
    what is well to know.  classes: of labelled images."""

    lines: list[SplitSummary]
    problems: list[str]
    count: int
    notes: list[str]
    classes: list[ClassSummary]


def check(path: Path, progress: bool = True, readers: int | None = None) -> Report:
    """Looks at everything in a folder of `vltune prepare`, in one of ViLT's or METER's own files, or in one such file.

    readers: processes; None: as many as there are cores.  UserError where there is nothing of the kind."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; make it with `vltune prepare` (`vltune prepare --help`)")
    folder = path if path.is_dir() else path.parent
    manifest = read_manifest(folder) or {}
    splits, unknown = _splits(path, manifest)
    files = {file.path: file for of in splits.values() for file in of}
    answers = manifest.get("answers", manifest.get("classes", [None] * _RELEASED_ANSWERS))
    jobs = [job for file in files.values() for job in file.jobs(answers)]
    _look_at(jobs, files, progress, readers)
    whole = Problems()
    for file in files.values():
        file.gather()
    for problem in _of_the_whole(splits, list(files.values()), manifest if path.is_dir() else {}):
        whole.add(problem)
    for name in unknown if manifest and path.is_dir() else ():
        whole.add(f"{name}: {MANIFEST} does not list it")
    lines = [
        SplitSummary(stem, *(sum(getattr(file, key) for file in of) for key in ("rows", "texts", "size")), _count(of))
        for stem, of in splits.items()
    ]
    notes = (
        []
        if manifest
        else [f"no {MANIFEST}: labels are held against {_RELEASED_ANSWERS:,} answers, counts against none"]
    )
    notes += [f"not looked at, of no data set known here: {', '.join(unknown)}"] if unknown and not manifest else []
    notes += [f"{stem}: {_images(n)} {what}" for stem, of in splits.items() for what, n in _noted(of).items()]
    classes = _classes(splits, manifest)
    notes += [*class_notes(classes), *_known(splits, manifest)]
    named = [problem for file in files.values() for problem in _told(file.problems, file.path.name)]
    return Report(lines, named + _told(whole, "the whole"), _count(files.values()) + whole.count, notes, classes)


def _classes(splits: Mapping[str, list[File]], manifest: Mapping[str, Any]) -> list[ClassSummary]:
    labelled = {stem: of for stem, of in splits.items() if kinds()[of[0].kind].label}
    if not labelled:
        return []
    kind = next(iter(labelled.values()))[0].kind
    counts = {
        stem.removeprefix(f"{kind}_"): sum((file.labels for file in of), Counter()) for stem, of in labelled.items()
    }
    return summaries(kinds()[kind], manifest, counts)


def _known(splits: Mapping[str, list[File]], manifest: Mapping[str, Any]) -> Iterator[str]:
    """What the kinds of files have to say of the whole."""
    for name in dict.fromkeys(of[0].kind for of in splits.values()):
        if (notes := kinds()[name].notes) is not None:
            rows = {of[0].split: sum(file.rows for file in of) for of in splits.values() if of[0].kind == name}
            yield from notes(manifest, rows)


def _count(files: Iterable[File]) -> int:
    return sum(file.problems.count for file in files)


def _noted(files: Iterable[File]) -> Counter[str]:
    return sum((file.notes for file in files), Counter())


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"


def _told(problems: Problems, where: str) -> list[str]:
    more = problems.count - len(problems.named)
    return [*problems.named, f"{where}: and {more} more"] if more else problems.named


def _splits(path: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, list[File]], list[str]]:
    """The files of each split, one object for a file that several have; names of files that belong to none."""
    paths = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    listed = manifest.get("splits", {}) if path.is_dir() else {}
    files = {shard["file"]: File(path / shard["file"], shard) for of in listed.values() for shard in of}
    splits = {stem: [files[shard["file"]] for shard in of] for stem, of in listed.items()}
    if foreign := [name for name, file in files.items() if not file.kind]:
        raise UserError(f"{path}: {MANIFEST} lists {foreign[0]}, of no data set that is known here")
    others = [] if listed else [File(each) for each in paths]
    splits |= {file.stem: [file] for file in others if file.kind}
    if not splits:
        known = ", ".join(f"{name}_*.arrow" for name in kinds())
        raise UserError(f"{path}: nothing to check; expected a folder of `vltune prepare`, or one of {known}")
    found = {file.path for of in splits.values() for file in of}
    return splits, [each.name for each in paths if each not in found]


def _look_at(jobs: list[Span], files: Mapping[Path, File], progress: bool, readers: int | None) -> None:
    rows = sum(job.end - job.first for job in jobs)
    processes = max(1, min(readers or pool.cores(), rows // _ROWS))
    with (
        tqdm(desc="decoding", total=rows, unit="row", disable=not progress) as bar,
        closing(pool.run(look, jobs, processes)) as results,
    ):
        for job, found in results:
            files[job.file].parts[job.first] = found
            bar.update(job.end - job.first)


def _of_the_whole(splits: Mapping[str, list[File]], files: list[File], manifest: Mapping[str, Any]) -> Iterator[str]:
    for stem, of in splits.items():
        ids, counts = np.unique(np.concatenate([file.ids for file in of]), return_counts=True)
        yield from (f"{stem}: question id {id_} stands {n} times" for id_, n in zip(ids, counts, strict=True) if n > 1)
        names = sum((file.names for file in of), Counter())
        yield from (f"{stem}: {kinds()[of[0].kind].name} {name} stands {n} times" for name, n in names.items() if n > 1)
        yield from _miscounted(stem, of, manifest)
        empty = not any(file.rows or file.problems.count for file in of)
        if empty and of[0].split not in kinds()[of[0].kind].may_be_empty:
            yield f"{stem}: is empty, no run can use it"
    if manifest.get("answers") == []:
        yield f"{MANIFEST}: its answer vocabulary is empty, no run can use it"
    for stem, subset in manifest.get("subsets", {}).items():
        texts = sum(file.texts for file in splits.get(subset["of"], ()))
        if wrong := [number for number in subset["texts"] if not 0 <= number < texts]:
            yield f"{stem}: text {wrong[0]} where {subset['of']} has {texts}"
    yield from _shared(files)


def _miscounted(stem: str, of: list[File], manifest: Mapping[str, Any]) -> Iterator[str]:
    split = stem.removeprefix(f"{of[0].kind}_")
    for what, found in zip(kinds()[of[0].kind].counted, ("rows", "texts"), strict=False):
        said, have = manifest.get(what, {}).get(split), sum(getattr(file, found) for file in of)
        if said not in (None, have):
            yield f"{stem}: {have} {what}, {MANIFEST} says {said}"


def _shared(files: list[File]) -> Iterator[str]:
    """Images that serve two purposes, each named once."""
    stems = {file.stem for file in files}
    by_role: dict[str, list[File]] = {"train": [], "val": [], "test": []}
    for file in files:
        if file.split == "val" and f"{file.kind}_trainable_val" in stems:
            continue  # ViLT's file of both parts
        role = "train" if file.split == "trainable_val" else _ROLES.get(file.split.rpartition("_")[2])
        if role and len(file.digests):
            by_role[role].append(file)
    for role, other in combinations(by_role, 2):
        if by_role[role] and by_role[other]:
            parts = (np.concatenate([file.digests for file in by_role[each]]) for each in (role, other))
            _, first, second = np.intersect1d(*parts, return_indices=True)
            for one, two in zip(first, second, strict=True):
                where = _place(by_role[role], one)
                yield f"{_place(by_role[other], two)}: its image is in {role} too, {where}"


def _place(files: list[File], image: int) -> str:
    """file and row of the image of this number in all of them."""
    for file in files:
        if image < len(file.digests):
            return f"{file.path.name} row {image // len(kinds()[file.kind].images)}"
        image -= len(file.digests)
    raise IndexError(image)
