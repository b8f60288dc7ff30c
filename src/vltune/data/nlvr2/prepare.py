"""NLVR2: from the official raw files to ViLT's columns."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vltune.data.check.kind import Kind
from vltune.data.fields import choice, file_name, shown, words
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, either, stands

SCHEMA = pa.schema(
    {
        "image_0": pa.binary(),
        "image_1": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.string()),
        "identifier": pa.string(),
    }
)
ANSWERS = ("False", "True")  # in the order of the labels
_SPLITS = ("train", "dev", "test1")
_SUBSETS = {f"{which}_{split}": split for split in ("dev", "test1") for which in ("balanced", "unbalanced")}
_SUBSETS_COLUMN = "subsets"  # of the rows that are gathered; it is none of the files' columns


def prepare(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Turn NLVR2's official raw layout into shards and a manifest; return what there is how much of.

    raw: holds `data/{train,dev,test1}.json` (or `nlvr2/data/`, as in a clone), one statement a line with `identifier`
    (split-set-pair-sentence), `sentence`, `label` ("True" or "False") and, in train, `directory`; and the images as the
    authors pack them, `images/train/DIRECTORY/PAIR-img{0,1}.png`, `dev/PAIR-img{0,1}.png`, `test1/...` (or `images/dev/`,
    `images/test1/`).  out: receives `nlvr2_{train,dev,test1}-*.arrow` and `manifest.json`.  One row a pair of images with
    all its statements, in the order of their first occurrence; the images' bytes as they were stored.

    Where there are `balanced/` and `unbalanced/` beside those files, whose `balanced_dev.json` and so on repeat some of
    the statements, the manifest's `subsets` say which: {"nlvr2_balanced_dev": {"of": "nlvr2_dev", "texts": [numbers]}}, a
    statement's number being its place among all of that split.

    An `identifier` stands once in a split, and in a subset, of which what else it says is the same, and the statements of a
    pair name one `directory`.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    return pipeline.prepare(_NLVR2(Path(raw), "nlvr2", _SPLITS), out, max_bad, progress, readers)


def problems(row: Mapping[str, Any], answers: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns."""
    if len(row["answers"]) != len(row["questions"]):
        yield f"{len(row['questions'])} statements and {len(row['answers'])} answers"
    yield from (
        f"answer {answer!r} is neither 'True' nor 'False'" for answer in row["answers"] if answer not in ANSWERS
    )


KIND = Kind(SCHEMA, ("pairs", "statements"), "questions", problems, "identifier")


class _NLVR2(Official):
    kind = "NLVR2"
    schema = SCHEMA
    names = "pairs", "statements"
    text_column = "questions"
    unpack = "see https://github.com/lil-lab/nlvr/tree/master/nlvr2 for the files and how to ask for the images"

    def files(self) -> list[Path]:
        data = either(self.raw, "data", "nlvr2/data")
        self._files = {split: data / f"{split}.json" for split in self.splits}
        self._folders = {split: either(self.raw, split, f"images/{split}") for split in ("dev", "test1")}
        self._folders["train"] = either(self.raw, "images/train", "train")
        subsets = {name: data / name.partition("_")[0] / f"{name}.json" for name in _SUBSETS}
        self._subset_files = {name: path for name, path in subsets.items() if stands(path)}
        return [*self._files.values(), *self._subset_files.values()]

    def folders(self) -> list[Path]:
        return [*self._folders.values()]

    def collect(self, sources: Sources, entries: Entries) -> None:
        self._subsets_of: dict[tuple[str, str], list[str]] = {}  # by the splits and identifiers of dev and test1
        stated: dict[tuple[str, str], dict[str, str]] = {}  # what is said there, and whether it is true
        for split, path in self._files.items():
            for where, entry in sources.lines(path):
                with sources.bad.entry(where):
                    identifier = _identifier(entry)
                    entries.once(f"{split} identifier", identifier, where)
                    said = {"sentence": words(entry, "sentence"), "label": choice(entry, "label", ANSWERS)}
                    pair = identifier.rpartition("-")[0]
                    entries.add(split, pair, [self._directory(split, pair, entry, entries), *said.values(), identifier])
                    if split != "train":
                        self._subsets_of[split, identifier], stated[split, identifier] = [], said
        for subset, path in self._subset_files.items():
            for where, entry in sources.lines(path):
                with sources.bad.entry(where):
                    identifier, split = _identifier(entry), _SUBSETS[subset]
                    entries.once(f"{subset} identifier", identifier, where)
                    if (split, identifier) not in self._subsets_of:
                        raise ValueError(f"{self._files[split].name} has no {shown(identifier)}")
                    for key, there in stated[split, identifier].items():
                        if (here := entry.get(key, there)) != there:
                            name = self._files[split].name
                            raise ValueError(f"its {key} is {shown(here)}, that of {name} {shown(there)}")
                    self._subsets_of[split, identifier].append(subset)

    def _directory(self, split: str, pair: str, entry: Any, entries: Entries) -> str:
        """Where in the folder of its split a pair's images are; ValueError where its statements differ on that."""
        if split != "train":
            return "."
        directory = file_name(entry, "directory", number=True)
        try:
            other = entries.kept("directory", pair)
        except KeyError:
            entries.keep("directory", pair, directory)
        else:
            if other != directory:
                raise ValueError(f"its directory is {shown(directory)}, that of others of its pair {shown(other)}")
        return directory

    def row(self, split: str, image: str, found: list[list[str]]) -> Row:
        directories, sentences, labels, identifiers = zip(*found, strict=True)
        folder = self._folders[split] / directories[0]
        subsets = [self._subsets_of.get((split, identifier), []) for identifier in identifiers]
        others = {"questions": sentences, "answers": labels, "identifier": image, _SUBSETS_COLUMN: subsets}
        return {f"image_{i}": folder / f"{image}-img{i}.png" for i in range(2)}, others

    def last_facts(self, rows: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        subsets = {name: {"of": f"nlvr2_{_SUBSETS[name]}", "texts": []} for name in self._subset_files}
        seen: Counter[str] = Counter()
        for split, row in rows:
            for number, names in enumerate(row[_SUBSETS_COLUMN], seen[split]):
                for name in names:
                    subsets[name]["texts"].append(number)
            seen[split] += len(row["questions"])
        return {"subsets": {f"nlvr2_{name}": subset for name, subset in subsets.items()}} if subsets else {}


def _identifier(entry: Any) -> str:
    """split-set-pair-sentence, of which the images' names hold all but the last."""
    identifier = file_name(entry, "identifier")
    parts = identifier.rsplit("-", 2)
    if len(parts) < 3 or not all(parts):
        raise ValueError(f"its identifier is {shown(identifier)}, expected split-set-pair-sentence")
    return identifier
