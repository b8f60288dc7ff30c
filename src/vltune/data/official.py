"""A data set's files as its authors publish them: found, streamed, hashed; what cannot be used is named and counted."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import ijson
import pyarrow as pa
from tqdm import tqdm

from vltune.data.entries import Entries
from vltune.errors import BadExampleError, UserError

Row = tuple[dict[str, Path], dict[str, Any]]  # image files by column, and the other columns
_NAMED = 5  # bad examples that a message names
_HOPELESS = 1000  # more bad examples than are allowed, after which reading on tells nothing new
_CHUNK = 2**20  # bytes of a file that is only hashed
_KINDS = {str: "text", int: "a whole number", list: "a list"}


class Official(ABC):
    """What a preparation asks of a data set.  A split is called as in its files' names, without the `stem`."""

    kind: ClassVar[str]  # its name in messages
    schema: ClassVar[pa.Schema]
    names: ClassVar[tuple[str, str]]  # what rows and texts are called in the counts
    text_column: ClassVar[str]  # a list of texts in every row
    by_image: ClassVar[bool] = False  # rows in the order of their images' names; else of their first entries
    unpack: ClassVar[str]  # what to do where raw files are missing

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
    return next((raw / name for name in names if (raw / name).exists()), raw / names[0])


def require(official: Official) -> list[Path]:
    """The files that `collect` reads.  UserError that names all that is missing, folders of images too."""
    raw, files = official.raw, official.files()
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; --raw names the one that holds the files as downloaded (docs/data.md)")
    missing = [str(path.relative_to(raw)) for path in files if not path.is_file()]
    missing += [f"{path.relative_to(raw)}/" for path in official.folders() if not path.is_dir()]
    if missing:
        raise UserError(f"{raw}: lacks {', '.join(missing)}; {official.unpack}")
    return files


def field(entry: dict, key: str, kind: type) -> Any:
    """`entry[key]`; ValueError where that is not a `kind`."""
    value = entry[key]
    if not isinstance(value, kind):
        raise ValueError(f"its {key} is {value!r:.40}, expected {_KINDS[kind]}")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is no text: UnicodeEncodeError
    return value


class Bad:
    """Images and entries of raw files that cannot be used, and how many are allowed.

    raw: their folder.  kind: what an entry ought to be of."""

    def __init__(self, raw: Path, kind: str, limit: int):
        self.raw, self.kind, self.limit = raw, kind, limit
        self.images: dict[str, str] = {}
        self.entries: dict[str, str] = {}

    @contextmanager
    def entry(self, where: str) -> Iterator[None]:
        """Notes that an entry is not what the official files have there, in the place of raising it."""
        try:
            yield
        except KeyError as error:
            self.note(where, f"it lacks {error}")
        except (ValueError, TypeError, AttributeError) as error:
            self.note(where, str(error).partition("\n")[0])

    def note(self, where: str, why: str) -> None:
        self.entries[where] = f"not an official {self.kind} entry: {why}"
        if len(self.entries) > self.limit + _HOPELESS:
            self.check()

    def check(self) -> None:
        """BadExampleError that names the first where there are more than allowed."""
        reasons = [f"{where} ({why})" for where, why in (self.entries | self.images).items()]
        if len(reasons) > self.limit:
            more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
            what = "bad image or entry" if len(reasons) == 1 else "bad images or entries"
            raise BadExampleError(
                f"{self.raw}: {len(reasons)} {what} where --max-bad is {self.limit}: "
                f"{', '.join(reasons[:_NAMED])}{more}; fetch those files again or allow more"
            )


class Sources:
    """Reads official files entry by entry, and keeps the size and SHA-256 of each."""

    def __init__(self, bad: Bad, progress: bool):
        self.bad, self.progress = bad, progress
        self.hashes: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def entries(self, path: Path, key: str) -> Iterator[tuple[str, Any]]:
        """The entries of the list under `key`, and where each stands.  UserError where the file has none."""
        wrong = f"{path}: not an official {self.bad.kind} file with a list of {key!r}"
        name, number = path.relative_to(self.bad.raw), 0
        try:
            with self._open(path) as file:
                for number, entry in enumerate(ijson.items(file, f"{key}.item", use_float=True), 1):
                    yield f"{name} entry {number}", entry
        except ijson.JSONError as error:
            raise UserError(f"{wrong} ({str(error).partition(chr(10))[0]}); unpack it again") from None
        if not number and not _has_list(path, key):
            raise UserError(f"{wrong}; unpack it again")

    def lines(self, path: Path) -> Iterator[tuple[str, Any]]:
        """The entries of a file of JSON lines, and where each stands; a line that is not JSON is noted as bad."""
        name = path.relative_to(self.bad.raw)
        with self._open(path) as file:
            for number, line in enumerate(file, 1):
                where = f"{name} line {number}"
                try:
                    entry = json.loads(line)
                except ValueError as error:
                    if line.strip():
                        self.bad.note(where, str(error))
                else:
                    yield where, entry

    def hashed(self, paths: Iterable[Path]) -> dict[str, str]:
        """Reads files for their SHA-256 alone; each by its name."""
        for path in paths:
            with self._open(path) as file:
                while file.read(_CHUNK):
                    pass
        return self.hashes

    @contextmanager
    def _open(self, path: Path) -> Iterator["_Hashed"]:
        size = path.stat().st_size
        bar = tqdm(desc=path.name, total=size, unit="B", unit_scale=True, disable=not self.progress, leave=False)
        with path.open("rb") as file, bar:
            hashed = _Hashed(file, bar)
            yield hashed
        self.hashes[path.name], self.sizes[path.name] = hashed.digest.hexdigest(), size


def _has_list(path: Path, key: str) -> bool:
    with path.open("rb") as file:
        return (key, "start_array") in ((prefix, event) for prefix, event, _ in ijson.parse(file))


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
