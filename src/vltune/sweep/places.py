"""Where the record of a configuration lies: its name holds fingerprints of weights, vocabulary and data, taken once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, wraps
from glob import escape
from pathlib import Path

from vltune.assemble.data import data_folder, generated, make_data, open_data, tokenizer_files
from vltune.assemble.weights import fingerprints_of, of_tokenizer, weight_files
from vltune.configuration import find
from vltune.data import manifest
from vltune.data.dataset import reader_of
from vltune.errors import UserError
from vltune.records import record as records
from vltune.runs import identity as identities
from vltune.settings.config import RunConfig
from vltune.sweep.compose import parts_of
from vltune.weights.finding import EXTRA, locate, parts

# What `engine.precision=auto` may become on the machine that runs it: a login node cannot know.
PRECISIONS = ("32-true", "bf16-mixed")
OWN_FILES = ("few_shot_list", "prompts")  # of `dataset`, which say what of the folder is read, or what is asked of it


def once(function: Callable) -> Callable:
    """Cached, its UserError too: what is not there is looked for once, on a network perhaps."""

    @cache
    def asked(*arguments: object) -> tuple[object, UserError | None]:
        try:
            return function(*arguments), None
        except UserError as error:
            return None, error

    @wraps(function)
    def answered(*arguments: object) -> object:
        found, error = asked(*arguments)
        if error is not None:
            raise error
        return found

    return answered


class Places:
    """root: the folder of results.  read: what was looked at, and what would change with it."""

    def __init__(self, root: Path):
        self.root, self.read = root, set[Path]()
        self.of_weights, self.of_tokenizer = once(self._of_weights), once(self._of_tokenizer)
        self.of_data, self.made = once(self._of_data), once(self._made)
        self.of_part: dict[str, str] = {}
        # With a configuration of those parts, which keeps them alive.
        self.digests: dict[tuple, tuple[dict, list[str]]] = {}

    def __call__(self, config: dict) -> list[str]:
        """Where the record may lie, below the root; nowhere where none is made.  Generated data is generated first.

        UserError where weights, vocabulary or data are not there."""
        if config["mode"] == "eval":
            return []
        if config["mode"] == "cost":
            return [records.path(Path(), identities.of_cost(config), "costs").as_posix()]
        if (parts := parts_of(config)) not in self.digests:
            fingerprints = {name: ask(config) for name, ask in self.parts.items()}
            digests = [identities.identity(each, fingerprints)["hash"] for each in settled(config)]
            self.digests[parts] = config, digests
        found = (identities.named(config, digits) for digits in self.digests[parts][1])
        return [records.path(Path(), each).as_posix() for each in found]

    def recorded(self, config: dict) -> list[str]:
        """Where records lie that a machine with all files would find: by the settings, and by the fingerprints of what is
        here; of what is not, a record tells its own."""
        known = {}
        for name, ask in self.parts.items():
            with suppress(UserError):
                known[name] = ask(config)
        return [
            file.relative_to(self.root).as_posix()
            for file, record in self._of_name(config)
            if isinstance(theirs := record.get("fingerprints"), dict)
            and any(identities.identity(each, theirs | known) == record["identity"] for each in settled(config))
        ]

    def _of_name(self, config: dict) -> Iterator[tuple[Path, dict]]:
        """Records of its backbone, task, data set, method and seed."""
        named = records.path(self.root, identities.identity(config, {}))
        for file in sorted(named.parent.glob(f"{escape(config['method']['name'])}-*-seed{config['seed']}.json")):
            with suppress(UserError):
                yield file, records.read(file)

    @property
    def parts(self) -> dict[str, Callable[[dict], object]]:
        return {"weights": self.weights, "tokenizer": self.tokenizer, "data": self.data}

    def weights(self, config: dict) -> dict[str, str]:
        backbone = {key: config["backbone"].get(key) for key in ("tower_weights", "weights_from")}
        return self.of_weights(json.dumps([config["weights"], backbone]))

    def tokenizer(self, config: dict) -> dict[str, str]:
        return self.of_tokenizer(json.dumps({"tokenizer": config["backbone"]["tokenizer"]}))

    def data(self, config: dict) -> str:
        dataset, task = config["dataset"], config["task"]
        if not task.get("reader"):
            return open_data(RunConfig.of(config)).fingerprint
        if generated(dataset, task):
            self.made(json.dumps([dataset, task], sort_keys=True))
        of_folder = self.of_data(data_folder(dataset), task["reader"], dataset.get("make"))
        files = [Path(dataset[name]) for name in OWN_FILES if dataset.get(name)]
        if find(reader_of(task["reader"])).whole_folder and not files:
            return of_folder
        self.read.update(files)
        if (asked := json.dumps([dataset, task], sort_keys=True)) not in self.of_part:
            self.of_part[asked] = open_data(RunConfig.of(config)).fingerprint
        return self.of_part[asked]

    def _made(self, groups: str) -> None:
        dataset, task = json.loads(groups)
        if not (folder := data_folder(dataset)).exists():
            print(f"{folder}: generated first, which takes seconds", file=sys.stderr)
        make_data(dataset, task)

    def _of_weights(self, named: str) -> dict[str, str]:
        weights, backbone = json.loads(named)
        files = weight_files(weights, backbone)
        self.read.update(part for file in files.values() for part in {file, *parts(file), file.parent / EXTRA})
        names = [weights, *(backbone["tower_weights"] or {}).values()]
        self.read.update(locate(name) for name in names if name is not None)  # a folder, of which a file was chosen
        return fingerprints_of(files)

    def _of_tokenizer(self, named: str) -> dict[str, str]:
        backbone = json.loads(named)
        self.read.update(tokenizer_files(backbone).values())
        return of_tokenizer(backbone)

    def _of_data(self, folder: Path, reader: str, make: str | None) -> str:
        if content := manifest.read(folder):
            self.read.add(folder / manifest.MANIFEST)
            return manifest.fingerprint(content)
        pattern = find(reader_of(reader)).pattern if folder.is_dir() else None
        if not (files := sorted(folder.glob(pattern)) if pattern else []):
            hint = f"; make it with {make}" if make else ""
            raise UserError(f"{folder}: {f'no {pattern}' if pattern else 'no such folder'}{hint}")
        self.read.update([folder, *files])
        return manifest.fingerprint_of_files(files)


def settled(config: dict) -> Iterator[dict]:
    """The configuration in each precision that it may be run in."""
    precision = config["engine"]["precision"]
    for name in PRECISIONS if precision == "auto" else (precision,):
        yield config | {"engine": config["engine"] | {"precision": name}}
