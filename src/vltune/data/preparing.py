"""From a data set's raw files to a folder of Arrow files and a manifest: what every `prepare` shares."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from tqdm import tqdm

from vltune import __version__
from vltune.data.arrow import open_table, write_table
from vltune.errors import BadExampleError, UserError

MANIFEST = "manifest.json"
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_ROWS_PER_BATCH = 64  # about 10 MB of COCO images in memory

Row = tuple[dict[str, Path], dict[str, Any]]  # image files by column, and the other columns


def either(raw: Path, *names: str) -> Path:
    """The first of several places in the raw folder that is there, else the first: downloads are unpacked variously."""
    return next((raw / name for name in names if (raw / name).exists()), raw / names[0])


def require(raw: Path, files: Iterable[Path], folders: Iterable[Path], unpack: str) -> None:
    """UserError that names all that is missing.  unpack: what to do about it."""
    missing = [str(path.relative_to(raw)) for path in files if not path.is_file()]
    missing += [f"{path.relative_to(raw)}/" for path in folders if not path.is_dir()]
    if missing:
        raise UserError(f"{raw}: lacks {', '.join(missing)}; {unpack}")


def read_list(path: Path, key: str, kind: str, sources: dict[str, str]) -> list[dict]:
    """The list under `key` of an official file of `kind`, whose hash goes to `sources`."""
    content = path.read_bytes()
    sources[path.name] = sha256(content).hexdigest()
    try:
        return json.loads(content)[key]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an official {kind} file with {key!r} ({error}); unpack it again") from None


def read_lines(path: Path, kind: str, take: Callable[[dict], Any], sources: dict[str, str]) -> list:
    """What `take` makes of each line of an official file of JSON lines, whose hash goes to `sources`.

    UserError that names the line which is not JSON or of which `take` raises KeyError, TypeError or ValueError."""
    digest, taken = sha256(), []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            digest.update(line)
            if not line.strip():
                continue
            with official(f"{path} line {number}", kind):
                taken.append(take(json.loads(line)))
    sources[path.name] = digest.hexdigest()
    return taken


@contextmanager
def official(where: str, kind: str) -> Iterator[None]:
    """Tells in one line that an entry of a raw file is not what `kind` has there."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: not an official {kind} entry, it lacks {error}; unpack the file again") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not an official {kind} entry ({error}); unpack the file again") from None


class BadImages:
    """Images that cannot be used, and how many are allowed."""

    def __init__(self, raw: Path, limit: int):
        self.raw, self.limit = raw, limit
        self.reasons: dict[Path, str] = {}

    def add(self, reasons: Mapping[Path, str]) -> None:
        self.reasons |= reasons
        if (count := len(self.reasons)) > self.limit:
            named = ", ".join(f"{path.relative_to(self.raw)} ({why})" for path, why in [*self.reasons.items()][:5])
            more = f" and {count - 5} more" if count > 5 else ""
            raise BadExampleError(
                f"{self.raw}: {count} unreadable images where max_bad={self.limit}: {named}{more}; "
                "fetch them again or raise max_bad"
            )

    def add_missing(self, paths: Iterable[Path]) -> None:
        self.add({path: "missing" for path in paths if not path.is_file()})

    def read(self, path: Path) -> bytes | None:
        """The file as it is stored; None where it cannot be used, which is noted."""
        if path in self.reasons:
            return None
        content = path.read_bytes()
        try:
            Image.open(BytesIO(content)).close()
        except UNREADABLE as error:
            self.add({path: type(error).__name__ if content else "empty"})
            return None
        return content


def write_rows(
    path: Path, schema: pa.Schema, rows: Iterable[Row], total: int, bad: BadImages, progress: bool = True
) -> int:
    """Write rows with the bytes of their images, as they come; return how many.

    A row with an image that cannot be used is left out.  total: of `rows`, for the progress bar."""

    def complete() -> Iterator[dict[str, Any]]:
        for files, others in tqdm(rows, path.name, total, unit="row", disable=not progress):
            images = {column: bad.read(file) for column, file in files.items()}
            if None not in images.values():
                yield images | others

    def batches() -> Iterator[pa.RecordBatch]:
        left = complete()
        while some := list(islice(left, _ROWS_PER_BATCH)):
            yield pa.RecordBatch.from_pylist(some, schema)

    return write_table(path, schema, batches())


def texts_in(path: Path, column: str) -> int:
    """How many texts an Arrow file holds in a column of lists."""
    return pc.sum(pc.list_value_length(open_table(path, [column])[column])).as_py() or 0


@contextmanager
def staging(out: Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """Gives an empty folder; what was written there replaces the files of `out` at the end, the manifest last.

    stale: names of files that an earlier preparation may have left in `out` and this one may not write.  `out` stays as
    it was if anything is raised."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{os.getpid()}.tmp"
    partial.mkdir()
    try:
        yield partial
        for name in (MANIFEST, *stale):
            (out / name).unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_manifest(
    folder: Path,
    schema: pa.Schema,
    counts: Mapping[str, Mapping[str, int]],
    bad: BadImages,
    sources: Mapping[str, str],
    **more: Any,
) -> dict[str, int]:
    """Write what the data were made of; return the counts under names such as "train images".

    counts: what -> split -> number.  sources: SHA-256 of the raw files by name."""
    manifest = {
        "version": __version__,
        "columns": schema.names,
        **counts,
        "bad_images": {path.name: reason for path, reason in bad.reasons.items()},
        "sources": sources,
        **more,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    named = {f"{split} {what.replace('_', ' ')}": n for what, splits in counts.items() for split, n in splits.items()}
    return named | {"unreadable images": len(bad.reasons)}


def write_folder(
    raw: Path,
    out: Path,
    schema: pa.Schema,
    stem: str,
    splits: Mapping[str, Sequence[Row]],
    names: tuple[str, str],
    text_column: str,
    sources: Mapping[str, str],
    max_bad: int,
    progress: bool,
    **dropped: Mapping[str, int],
) -> dict[str, int]:
    """Write `{stem}_{split}.arrow` for every split, and the manifest; return the counts.

    names: what a row and a text are called in the counts.  dropped: further counts, what -> split -> number.
    Raises BadExampleError, leaving `out` as it was, where more than `max_bad` images are missing or unreadable."""
    bad = BadImages(raw, max_bad)
    bad.add_missing(file for rows in splits.values() for files, _ in rows for file in files.values())
    with staging(out) as partial:
        paths = {split: partial / f"{stem}_{split}.arrow" for split in splits}
        written = {
            split: write_rows(paths[split], schema, rows, len(rows), bad, progress) for split, rows in splits.items()
        }
        texts = {split: texts_in(path, text_column) for split, path in paths.items()}
        return write_manifest(partial, schema, dict(zip(names, (written, texts), strict=True)) | dropped, bad, sources)
