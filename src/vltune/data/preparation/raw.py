"""A data set's files as its authors publish them: found, streamed, hashed; what cannot be used is named and counted."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
from tqdm import tqdm

from vltune import streamed
from vltune.data.preparation.entries import Entries
from vltune.errors import BadExampleError, UserError
from vltune.signatures import HEAD, identify, other_than_file
from vltune.streamed import BrokenJSONError
from vltune.values import printable

Row = tuple[dict[str, Path], dict[str, Any]]  # image files by column, and the other columns
_NAMED = 5  # bad examples that a message names
_HOPELESS = 1000  # more bad examples than are allowed, after which reading on tells nothing new
_CHUNK = 2**20  # bytes of a file that is only hashed
_MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8


class Official(ABC):
    """What a preparation asks of a data set.  A split is called as in its files' names, without the `stem`."""

    kind: ClassVar[str]  # its name in messages
    schema: ClassVar[pa.Schema]
    names: ClassVar[
        tuple[str, ...]
    ]  # what rows and texts are called in the counts; rows alone where there are no texts
    text_column: ClassVar[str | None]  # a list of texts in every row; None: a row has none, and counts as one
    by_image: ClassVar[bool] = False  # rows in the order of their images' names; else of their first entries
    stored: ClassVar[Callable[[bytes], bytes] | None] = None  # what is stored of an image file's bytes; None: these
    unpack: ClassVar[str]  # what to do where raw files are missing
    may_be_empty: tuple[str, ...] = ()  # splits that a data set is whole without

    def __init__(self, raw: Path, stem: str, splits: Iterable[str]):
        self.raw, self.stem, self.splits = Path(raw), stem, list(splits)

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that `collect` reads."""

    @abstractmethod
    def folders(self) -> list[Path]:
        """The folders of images; asked for after `files`."""

    @abstractmethod
    def collect(self, sources: "Sources", entries: Entries) -> None:
        """Reads the files into `entries`: what is to be known of each image, under its split and image, in order."""

    @abstractmethod
    def row(self, split: str, image: Any, found: list[Any]) -> Row | None:
        """The row of an image, of which columns that are none of the schema's are not written.  None leaves it out.

        found: all that `collect` put down for it."""

    def arguments(self) -> dict[str, Any]:
        """What else decides the result."""
        return {}

    def listed_now(self, sources: "Sources") -> dict[str, Any]:
        """What of `facts` tells images apart that no file lists, told without reading them."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What the manifest says beside counts; asked for when all rows are made."""
        return {}

    def dropped(self) -> dict[str, dict[str, int]]:
        """What was left out as the data set has it, not because it is bad: what -> split -> number."""
        return {}

    def parts(self, rows: Mapping[str, int]) -> dict[str, list[tuple[str, int, int]]]:
        """The splits to write, and which rows of which split each is: (split, first, end).

        rows: how many there are of each split."""
        return {split: [(split, 0, count)] for split, count in rows.items()}

    def last_facts(self, rows: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """What the manifest says and only the rows that were written tell: split and columns of each, but for images."""
        return {}

    @property
    def images_per_row(self) -> int:
        return self.schema.types.count(pa.binary())


def either(raw: Path, *names: str) -> Path:
    """The first of several places in the raw folder that is there, else the first: downloads are unpacked variously."""
    return next((raw / name for name in names if stands(raw / name)), raw / names[0])


def stands(path: Path) -> bool:
    """Whether anything is there, a link to nothing too: a file that may be missing is not, where something hides it."""
    return os.path.lexists(path)


def require(official: Official) -> list[Path]:
    """The files that `collect` reads.  UserError that names all that is missing, folders of images too."""
    raw, files = official.raw, official.files()
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; --raw names the one that holds the files as downloaded (docs/data.md)")
    missing = [str(path.relative_to(raw)) for path in files if not stands(path)]
    missing += [f"{path.relative_to(raw)}/" for path in official.folders() if not path.is_dir()]
    if missing:
        raise UserError(f"{raw}: lacks {', '.join(missing)}; {official.unpack}")
    for path in files:
        if (found := other_than_file(path)) is not None:
            raise UserError(f"{path}: {found}, where a file belongs; {official.unpack}")
    return files


def called(raw: Path, files: Iterable[Path]) -> dict[Path, str]:
    """What the manifest calls raw files: their names, or where two have the same their places in the raw folder."""
    files = list(files)
    alone = len({path.name for path in files}) == len(files)
    return {path: path.name if alone else path.relative_to(raw).as_posix() for path in files}


class Bad:
    """Images and entries of raw files that cannot be used, and how many are allowed.

    raw: their folder.  kind: what an entry ought to be of."""

    def __init__(self, raw: Path, kind: str, limit: int):
        self.raw, self.kind, self.limit = raw, kind, limit
        self.images: dict[str, str] = {}
        self.entries: dict[str, str] = {}

    @contextmanager
    def entry(self, where: str) -> Iterator[None]:
        """Notes that an entry is not what the official files have there, in the place of raising it as ValueError."""
        try:
            yield
        except ValueError as error:
            self.note(where, str(error))

    def note(self, where: str, why: str) -> None:
        self.entries[where] = f"not an official {self.kind} entry: {why}"
        if len(self.entries) > self.limit + _HOPELESS:
            self.check()

    def check(self) -> None:
        """BadExampleError that names the first where there are more than allowed."""
        reasons = [f"{printable(where)} ({why})" for where, why in (self.entries | self.images).items()]
        if len(reasons) > self.limit:
            more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
            what = "bad image or entry" if len(reasons) == 1 else "bad images or entries"
            raise BadExampleError(
                f"{self.raw}: {len(reasons)} {what} where --max-bad is {self.limit}: "
                f"{', '.join(reasons[:_NAMED])}{more}; fetch those files again or allow more"
            )


class Sources:
    """Reads official files entry by entry, and keeps the size and SHA-256 of each, by what the manifest calls it."""

    def __init__(self, bad: Bad, files: Iterable[Path], progress: bool):
        self.bad, self.progress = bad, progress
        self.called = called(bad.raw, files)
        self.hashes: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def entries(self, path: Path, key: str) -> Iterator[tuple[str, Any]]:
        """The entries of the list under `key`, and where each stands.  UserError where the file has none."""
        name, number = path.relative_to(self.bad.raw), 0
        with self._open(path) as file:
            try:
                for number, entry in enumerate(streamed.items(file, key), 1):
                    yield f"{name} entry {number}", entry
            except BrokenJSONError as error:
                why = f"{error}, after {number} of them" if number else str(error)
                raise self._other(path, f"with a list of {key!r}", why) from None

    def lines(self, path: Path) -> Iterator[tuple[str, Any]]:
        """The entries of a file of JSON lines, and where each stands; a line that is not JSON is noted as bad.

        UserError where the file begins as something else."""
        name = path.relative_to(self.bad.raw)
        with self._open(path) as file:
            if not _is_json(_head(path)):
                raise self._other(path, "of JSON lines")
            for number, line in enumerate(file, 1):
                where = f"{name} line {number}"
                try:
                    if line.strip():
                        yield where, streamed.value(line.removeprefix(_MARK).decode().strip())
                except UnicodeDecodeError:
                    self.bad.note(where, "it is not in UTF-8")
                except BrokenJSONError as error:
                    self.bad.note(where, str(error))

    def text_lines(self, path: Path) -> Iterator[tuple[str, str]]:
        """The lines of a text that are not blank, and where each stands; one that is not in UTF-8 is noted as bad.

        UserError where the file begins as something else."""
        name = path.relative_to(self.bad.raw)
        with self._open(path) as file:
            if (found := identify(_head(path))).fix:
                raise UserError(f"{path}: {found.name}, not a text of lines; {found.fix}")
            for number, line in enumerate(file, 1):
                where = f"{name} line {number}"
                try:
                    if text := line.removeprefix(_MARK).decode().strip():
                        yield where, text
                except UnicodeDecodeError:
                    self.bad.note(where, "it is not in UTF-8")

    def _other(self, path: Path, wanted: str, why: str = "") -> UserError:
        """What to say of a file that is something else.  why: what is wrong with its JSON, where it begins as such."""
        wrong, head = f"not an official {self.bad.kind} file {wanted}", _head(path)
        if _is_json(head):
            return UserError(f"{path}: {wrong} ({why}); unpack it again")
        found = identify(head if head.strip() else b"")
        return UserError(f"{path}: {found.name}, {wrong}; {found.fix or 'unpack it again'}")

    def hashed(self) -> dict[str, str]:
        """Reads the files for their SHA-256 alone."""
        for path in self.called:
            with self._open(path) as file:
                while file.read(_CHUNK):
                    pass
        return self.hashes

    @contextmanager
    def _open(self, path: Path) -> Iterator["_Hashed"]:
        try:
            size = path.stat().st_size
            bar = tqdm(desc=path.name, total=size, unit="B", unit_scale=True, disable=not self.progress, leave=False)
            with path.open("rb") as file, bar:
                hashed = _Hashed(file, bar)
                yield hashed
                while hashed.read(_CHUNK):  # the hash is of all its bytes, whoever stopped reading
                    pass
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); mend that") from None
        self.hashes[self.called[path]], self.sizes[self.called[path]] = hashed.digest.hexdigest(), size


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _is_json(head: bytes) -> bool:
    return head.removeprefix(_MARK).lstrip().startswith(b"{") and b"\0" not in head


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO, bar: tqdm):
        self.file, self.bar = file, bar
        self.digest = sha256()

    def read(self, size: int = -1) -> bytes:
        return self._seen(self.file.read(size))

    def __iter__(self) -> Iterator[bytes]:
        return map(self._seen, self.file)

    def _seen(self, content: bytes) -> bytes:
        self.digest.update(content)
        self.bar.update(len(content))
        return content
