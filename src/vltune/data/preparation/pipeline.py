"""From a data set's raw files to a folder of Arrow shards and a manifest: what every `prepare` shares.

What raw files say is read entry by entry into a database on disk, grouped there by image, and written shard by shard by
a few processes.  All of it happens in a hidden folder of the output folder, where an interrupted run finds what it had.
"""

import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from vltune import __version__
from vltune.atomic import replacing
from vltune.data import pool
from vltune.data.dataset import is_of
from vltune.data.manifest import IMAGE_SIZES, MANIFEST, unusable
from vltune.data.manifest import read as read_manifest
from vltune.data.preparation import shards
from vltune.data.preparation.entries import Entries, RowDatabase
from vltune.data.preparation.raw import Bad, Official, Sources, called, require
from vltune.data.preparation.shards import Shard, Written, binary_sizes
from vltune.data.walk import is_time_of, last_change, sizes_below
from vltune.errors import BadExampleError, UserError
from vltune.signatures import kind_of_place
from vltune.values import printable

STAGING = ".preparing"
MOST_READERS = 4  # of them, unless told otherwise: a disk is busy with as many, and each takes 100 MB
_ROWS_PER_READER = 2000  # to start a process for fewer takes longer than it saves
_LOCK, _PLAN, _DATABASE = "lock", "plan.json", "rows.sqlite"


def prepare(
    official: Official, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Write the shards of a data set and its manifest to `out`; return how much there is of what.

    readers: processes; None: as many as suit the machine.

    What an earlier run with the same files and arguments finished, kept in `out/.preparing`, is not made again; nor is
    anything where all is in `out` and no raw file or image changed since, which is said then.  All appears in `out` at the
    end, the manifest last, in the place of an earlier preparation; until then `out` is as it was.
    Raises UserError where raw files are missing (all are named) or something else, where one of them is a copy of another,
    where a split comes out empty, where space is short or another run writes to `out`; BadExampleError where more than
    `max_bad` images and entries cannot be used.  Where it is the raw files, nothing is left.
    """
    files, out = require(official), Path(out)
    _refuse_foreign(out, official.stem)
    if (earlier := _earlier(official, out, files, progress)) is not None:
        return earlier
    with _staging(out) as folder:
        changed = _begin(folder, official, files)
        bad = Bad(official.raw, official.kind, max_bad)
        facts = _gather(folder, official, files, bad, progress)
        splits = shards.plan(official.stem, official.parts(facts["rows"]))
        written = _write(folder, official, splits, bad, progress, readers)
        _require_some(official, splits, written)
        counts = _counts(official, facts, splits, written)
        manifest = {
            "version": __version__,
            "columns": official.schema.names,
            **counts,
            "bad_images": bad.images,
            **({"bad_entries": bad.entries} if bad.entries else {}),
            "sources": facts["hashes"],
            IMAGE_SIZES: facts["images"],
            **facts["more"],
            **official.last_facts(_kept_rows(folder, written)),
            "splits": {
                stem: [{"file": s.file, "rows": written[s].rows, "texts": written[s].texts} for s in of]
                for stem, of in splits.items()
            },
            "source_bytes": facts["sizes"],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        os.utime(folder / MANIFEST, ns=(changed, changed))
        _publish(folder, out, official.stem)
    return _named(counts, bad)


def _named(counts: Mapping[str, Mapping[str, int]], bad: Bad) -> dict[str, int]:
    named = {f"{split} {what.replace('_', ' ')}": n for what, of in counts.items() for split, n in of.items()}
    return named | {"unreadable images": len(bad.images)} | ({"bad entries": len(bad.entries)} if bad.entries else {})


def _earlier(official: Official, out: Path, files: list[Path], progress: bool) -> dict[str, int] | None:
    """What there is of what in `out`, where this very preparation made it, else None.

    None too where a shard is not whole, where a raw file has other contents, where an image changed since or is
    another folder's, and where anything bad was left out, which may be mended by now.
    """
    try:
        found = read_manifest(out) or {}
    except UserError:
        return None
    same = {"version": __version__, "columns": official.schema.names, "bad_images": {}, **official.arguments()}
    same |= {"source_bytes": {name: file.stat().st_size for file, name in called(official.raw, files).items()}}
    if "bad_entries" in found or any(found.get(key) != value for key, value in same.items()):
        return None
    if any(what not in found for what in official.names) or unusable(out, found):
        return None
    if not is_time_of(out / MANIFEST, last_change(official.folders(), out)) or not _may_be_of(official, out, found):
        return None
    nothing_bad = Bad(official.raw, official.kind, 0)
    if Sources(nothing_bad, files, progress).hashed() != found.get("sources"):
        return None
    try:
        images = official.listed_now(Sources(nothing_bad, files, False))
    except UserError:
        return None
    if any(found.get(key) != value for key, value in images.items()):
        return None
    if progress:
        anew = f"delete {out / MANIFEST} to have it made anew"
        tqdm.write(f"{out}: prepared before, and no raw file changed since; {anew}", sys.stderr)
    dropped = [what for what in found if what.startswith("dropped_")]
    return _named({what: found[what] for what in (*official.names, *dropped)}, nothing_bad)


def _may_be_of(official: Official, out: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether each image in `out` is as large as one in the folders of images: those of another raw folder are not."""
    if official.stored:
        return True
    there = {size for folder in official.folders() for size in sizes_below(folder)}
    files = {shard["file"] for of in manifest["splits"].values() for shard in of}
    return all(sizes <= there for file in files for sizes in binary_sizes(out / file, official.schema))


def _refuse_foreign(out: Path, stem: str) -> None:
    """UserError where `out` holds Arrow files that no preparation of this data set made: they would be lost, or mixed."""
    ours = re.compile(rf"{stem}_.+-\d{{5}}-of-\d{{5}}\.arrow")
    prepared = (out / MANIFEST).exists()
    for file in sorted(path.name for path in out.glob("*.arrow")):
        if not (is_of(file, stem) and (prepared or ours.fullmatch(file))):
            raise UserError(f"{out}: holds {file}, which is not of an earlier run of this command; name another folder")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Gives the hidden folder of `out` to this process alone.  It stays where a later run can go on from it."""
    folder, made = out / STAGING, not out.exists()
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{out}: another `vltune prepare` writes here; wait for it, or name another folder") from None
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
    try:
        yield folder
        shutil.rmtree(folder)
    except BaseException as error:
        damaged = type(error) is sqlite3.DatabaseError  # its subclasses tell of the disk, say
        if damaged or isinstance(error, BadExampleError) or not (folder / _DATABASE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            if made:
                with suppress(OSError):
                    out.rmdir()
        _clear_half_written(folder)
        if isinstance(error, KeyboardInterrupt):
            done = len([*folder.glob(shards.SIDECARS)])
            kept = f"{done} {'shard is' if done == 1 else 'shards are'} finished; the same command goes on from there"
            said = kept if folder.exists() else "nothing is kept; the same command begins anew"
            raise KeyboardInterrupt(f"{out}: stopped, {said}") from None
        if damaged:
            raise UserError(
                f"{out}: {STAGING} was damaged ({error}) and is removed; give the same command again"
            ) from None
        if isinstance(error, (OSError, sqlite3.Error)):
            raise UserError(f"{out}: not prepared ({error}); mend that and give the same command again") from error
        raise
    finally:
        lock.release()


def _begin(folder: Path, official: Official, files: list[Path]) -> int:
    """Clears the folder of what another plan left there, or this one with other images, and of what was half-written.

    Returns when the images were last changed, before any is read, so that what changes meanwhile is seen the next time."""
    changed = last_change(official.folders(), folder.parent)
    plan = {
        "version": __version__,
        "data": official.stem,
        "arguments": official.arguments(),
        "raw": str(official.raw.resolve()),
        "sources": {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files},
        "images": changed,
    }
    with suppress(OSError, ValueError):
        if json.loads((folder / _PLAN).read_text(encoding="utf-8")) == plan:
            _clear_half_written(folder)
            return changed
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()
    with replacing(folder / _PLAN) as file:
        file.write_text(json.dumps(plan), encoding="utf-8")
    return changed


def _clear_half_written(folder: Path) -> None:
    """A killed process leaves the files that it was writing, under their temporary names."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _gather(folder: Path, official: Official, files: list[Path], bad: Bad, progress: bool) -> dict[str, Any]:
    """Makes the database of rows, unless it is there; what else the raw files say.  Images that are missing are bad."""
    database = folder / _DATABASE
    if not database.exists():
        partial = database.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        entries, sources = Entries(partial), Sources(bad, files, progress)
        official.collect(sources, entries)
        _refuse_copies(official.raw, sources.hashes)
        with tqdm(desc="looking for the images", unit="image", disable=not progress, leave=False) as bar:
            images = _Images(official, bad, bar)
            rows = {
                split: entries.write_rows(split, images.rows(split, entries.groups(split, official.by_image)))
                for split in official.splits
            }
        bad.check()
        _refuse_empty(official, rows, bad)
        images.check_space(folder)
        facts = {"rows": rows, "missing": bad.images, "bad_entries": bad.entries, "dropped": official.dropped()}
        facts |= {"hashes": sources.hashes, "sizes": sources.sizes, "images": images.listed.hexdigest()}
        facts |= {"more": official.facts()}
        entries.finish(facts)
        partial.replace(database)
    facts = RowDatabase(database).facts()
    bad.images, bad.entries = facts["missing"], facts["bad_entries"]
    bad.check()
    return facts


def _refuse_copies(raw: Path, hashes: Mapping[str, str]) -> None:
    """UserError where one raw file has the content of another: a split would be read under two names."""
    first: dict[str, str] = {}
    for name, digest in hashes.items():
        if (other := first.setdefault(digest, name)) != name:
            raise UserError(f"{raw}: {name} is a copy of {other}, to the byte; unpack both again")


def _refuse_empty(official: Official, rows: Mapping[str, int], bad: Bad) -> None:
    """UserError where a split has no row."""
    if empty := [split for split, count in rows.items() if not count and split not in official.may_be_empty]:
        left_out = {what.replace("_", " "): of.get(empty[0], 0) for what, of in official.dropped().items()}
        left_out |= {"bad images": len(bad.images), "bad entries": len(bad.entries)}
        told = ", ".join(f"{what}: {count}" for what, count in left_out.items() if count)
        why = f" ({told})" if told else ""
        raise UserError(f"{official.raw}: nothing is left of {', '.join(empty)}{why}; no run could use it")


def _require_some(official: Official, splits: Mapping[str, list[Shard]], written: Mapping[Shard, Written]) -> None:
    """BadExampleError where every row of a split has an image that cannot be read."""
    for stem, of in splits.items():
        if any(shard.end > shard.first for shard in of) and not any(written[shard].rows for shard in of):
            [file, why], *more = [each for shard in of for each in written[shard].bad.items()]
            others = f" and {len(more)} more" if more else ""
            raise BadExampleError(
                f"{official.raw}: nothing is left of {stem}: {printable(file)} ({why}){others}; fetch those files again"
            )


class _Images:
    """Looks for the images of rows; those that are missing are bad."""

    def __init__(self, official: Official, bad: Bad, bar: tqdm):
        self.official, self.bad, self.bar = official, bad, bar
        self.bytes, self.listed = 0, sha256()

    def rows(self, split: str, groups: Iterator[tuple[int | str, list]]) -> Iterator[list]:
        """The rows whose images are there: files by column, relative to the raw folder, and the other columns."""
        for image, found in groups:
            row = self.official.row(split, image, found)
            if row is not None:
                files = {column: str(path.relative_to(self.official.raw)) for column, path in row[0].items()}
                there = [self._is_there(file) for file in files.values()]
                if all(there):
                    yield [files, row[1]]

    def _is_there(self, file: str) -> bool:
        self.bar.update()
        path = self.official.raw / file
        try:
            about = path.stat()
            found = kind_of_place(about.st_mode)
        except FileNotFoundError:
            found = "a link to nothing" if path.is_symlink() else "missing"
        except OSError as error:
            found = error.strerror
        if found is None:
            self.bytes += about.st_size
            self.listed.update(f"{path.name} {about.st_size}\n".encode())
        else:
            self.bad.images[file] = found
        return file not in self.bad.images

    def check_space(self, folder: Path) -> None:
        if (free := shutil.disk_usage(folder).free) < self.bytes:
            raise UserError(
                f"{folder.parent}: {self.bytes / 1e9:,.1f} GB of images go there, {free / 1e9:,.1f} GB are free; "
                "free space, or name another folder"
            )


def _write(
    folder: Path,
    official: Official,
    splits: Mapping[str, list[Shard]],
    bad: Bad,
    progress: bool,
    readers: int | None,
) -> dict[Shard, Written]:
    """Writes the shards that are not there yet; what each holds."""
    wanted = list(dict.fromkeys(shard for of in splits.values() for shard in of))
    written = {shard: done for shard in wanted if (done := shards.finished(folder, shard))}
    missing = bad.images
    bad.images = missing | _unreadable(written, wanted)
    bad.check()
    todo = [shard for shard in wanted if shard not in written]
    rows = sum(shard.end - shard.first for shard in todo)
    processes = max(1, min(readers or min(pool.cores(), MOST_READERS), rows // _ROWS_PER_READER))
    about = folder, folder / _DATABASE, official.raw, official.schema, official.text_column, official.stored
    jobs = (shards.ShardSpec(shard, *about) for shard in todo)
    with (
        _images_bar(official, wanted, written, progress) as bar,
        closing(pool.run(shards.write, jobs, processes)) as results,
    ):
        for shard, done in results:
            written[shard] = done
            bad.images |= done.bad
            bad.check()
            bar.update((shard.end - shard.first) * official.images_per_row)
    bad.images = missing | _unreadable(written, wanted)  # in the order of the rows, whichever was read first
    return {shard: written[shard] for shard in wanted}


def _unreadable(written: Mapping[Shard, Written], wanted: list[Shard]) -> dict[str, str]:
    return {file: why for shard in wanted if shard in written for file, why in written[shard].bad.items()}


def _images_bar(official: Official, wanted: list[Shard], written: Mapping[Shard, Written], progress: bool) -> tqdm:
    total, initial = (
        official.images_per_row * sum(shard.end - shard.first for shard in of) for of in (wanted, written)
    )
    return tqdm(desc=official.stem, total=total, initial=initial, unit="image", disable=not progress)


def _counts(
    official: Official, facts: dict[str, Any], splits: Mapping[str, list[Shard]], written: Mapping[Shard, Written]
) -> dict[str, dict[str, int]]:
    """What -> split -> number."""
    rows = {
        stem.removeprefix(f"{official.stem}_"): sum(written[shard].rows for shard in of) for stem, of in splits.items()
    }
    texts = {
        split: sum(written[shard].texts for shard in splits[f"{official.stem}_{split}"]) for split in official.splits
    }
    return dict(zip(official.names, (rows, texts), strict=False)) | facts["dropped"]


def _kept_rows(folder: Path, written: Mapping[Shard, Written]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The split and the columns, but for images, of every row that was written, split by split in order."""
    rows = RowDatabase(folder / _DATABASE)
    for shard, done in written.items():
        dropped = set(done.dropped)
        for number, (_, others) in rows(shard.split, shard.first, shard.end):
            if number not in dropped:
                yield shard.split, others


def _publish(folder: Path, out: Path, stem: str) -> None:
    """Puts what was made in the place of what an earlier preparation left."""
    made = sorted(folder.glob("*.arrow"))
    (out / MANIFEST).unlink(missing_ok=True)
    for path in out.glob("*.arrow"):
        if is_of(path.name, stem):
            path.unlink()
    for path in [*made, folder / MANIFEST]:
        path.replace(out / path.name)
