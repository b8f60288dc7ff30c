"""`manifest.json`: what a prepared folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.signatures import identify_file
from vltune.streamed import once

MANIFEST = "manifest.json"
_ANEW = "delete it and run `vltune prepare` again"
_KINDS = {"splits": dict, "subsets": dict, "answers": list, "classes": list, "sources": dict}
_KINDS |= {"subjects": dict, "prompts": dict}
_COUNTS = ("images", "questions", "pairs", "statements", "captions", "sentences")
IMAGE_SIZES = "image_sizes"
"""A hash of the names and sizes of all images, in the order of the rows."""
_NOT_CONTENT = ("version", "splits", "source_bytes")


def read(folder: Path) -> dict[str, Any] | None:
    """None where the folder has none.  UserError where it is broken or cannot be read."""
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        found = identify_file(path)
        what = f"{found.name}, not JSON" if found.fix else f"not valid JSON ({error})"
        raise UserError(f"{path}: {what}; {_ANEW}") from None
    if (wrong := _malformed(content)) is not None:
        raise UserError(f"{path}: not as `vltune prepare` writes it, {wrong}; {_ANEW}")
    return content


def _malformed(content: Any) -> str | None:
    """What of a manifest is not of the kind that all readers count on."""
    if not isinstance(content, dict):
        return "it is no object"
    for key, kind in _KINDS.items():
        if not isinstance(content.get(key, kind()), kind):
            return f"its {key} is no {'object' if kind is dict else 'list'}"
    for key, of in content.items():
        if (key in _COUNTS or key.startswith("dropped_")) and not _is_counts(of):
            return f"its {key} is no object of whole numbers"
    if "min_answer_count" in content and "answers" not in content:
        return "its answers are missing"
    for key, one in (("answers", "an answer"), ("classes", "a class")):
        if not all(isinstance(each, str) for each in content.get(key, ())):
            return f"{one} is no text"
    for kind, texts in content.get("prompts", {}).items():
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            return f"its prompts of {kind} are no list of texts"
    for name, said in content.get("subjects", {}).items():
        if not _is_subject(said) or not content.get("prompts", {}).get("live" if said["live"] else "object"):
            return f"its subject {name} does not tell its class, whether it is live, and prompts"
    for name, shards in content.get("splits", {}).items():
        if not isinstance(shards, list) or not shards or not all(map(_is_shard, shards)):
            return f"its split {name} is no list of files with their rows and texts"
    for name, subset in content.get("subsets", {}).items():
        if not _is_subset(subset) or subset["of"] not in content.get("splits", {}):
            return f"its subset {name} does not tell its numbers and the split that it is of"
    return None


def _is_subject(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("class"), str) and isinstance(found.get("live"), bool)


def _is_counts(found: Any) -> bool:
    return isinstance(found, dict) and all(type(count) is int for count in found.values())


def _is_shard(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(file := found.get("file"), str)
        and Path(file).name == file != ""
        and all(type(found.get(what)) is int for what in ("rows", "texts"))
    )


def _is_subset(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("of"), str)
        and isinstance(found.get("texts"), list)
        and all(type(number) is int for number in found["texts"])
    )


def unusable(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Which of the files that a manifest lists is not there as it lists it, and why; None where all are."""
    from vltune.data.arrow import open_table

    for shard in (shard for of in manifest.get("splits", {}).values() for shard in of):
        try:
            rows = open_table(folder / shard["file"], []).num_rows
        except UserError as error:
            return str(error).partition("; ")[0]
        if rows != shard["rows"]:
            return f"{folder / shard['file']}: {rows} rows, {MANIFEST} says {shard['rows']}"
    return None


@dataclass(frozen=True)
class Split:
    """Where a split lies.  rows: of each file, as the manifest says, else None.  texts: the numbers, among all texts of the
    files, of those that belong to it, ascending; None: all."""

    files: list[Path]
    rows: list[int | None]
    texts: list[int] | None = None

    def shares(self, other: Split) -> bool:
        """Whether a text belongs to both.  Two subsets are of one whole, or of two that share no file."""
        if not {*self.files} & {*other.files}:
            return False
        return self.texts is None or other.texts is None or bool({*self.texts} & {*other.texts})


def find(folder: Path, manifest: dict[str, Any] | None, name: str) -> Split:
    """A split by its name: the shards that the manifest lists, those of a subset's whole, or `{name}.arrow`.

    UserError, with the names that there are, where the manifest has no such name and the folder no such file."""
    listed, subsets = ((manifest or {}).get(key, {}) for key in ("splits", "subsets"))
    if name in subsets:
        whole = find(folder, manifest, subsets[name]["of"])
        return Split(whole.files, whole.rows, sorted(subsets[name]["texts"]))
    if name in listed:
        return Split([folder / shard["file"] for shard in listed[name]], [shard["rows"] for shard in listed[name]])
    file = folder / f"{name}.arrow"
    if manifest and not file.exists():
        raise UserError(
            f"{folder}: has no split {name}; {MANIFEST} lists {', '.join([*listed, *subsets]) or 'none'}: choose of these "
            "with dataset.train, dataset.val and dataset.test"
        )
    return Split([file], [None])


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 of what the folder was made of, hexadecimal; the same on every machine.  Of images, their names and sizes,
    and of one's own classes and subjects what they hold, but for generated ones, which follow from the rest and which
    another version of Pillow may store in other bytes."""
    return _digest({key: value for key, value in manifest.items() if key not in _NOT_CONTENT})


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """Where there is no manifest: of names and sizes."""
    return _digest({path.name: path.stat().st_size for path in paths})


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
