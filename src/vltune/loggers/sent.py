"""What of a run is with W&B already: a small file in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from vltune.atomic import replacing

NAME = "wandb-sent.json"


@dataclass(frozen=True)
class Sent:
    """server: an address, or `offline`.  run: W&B's id.  record: hash of the record's file as it was sent."""

    server: str
    entity: str
    project: str
    run: str
    record: str


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def find(folder: Path, server: str, entity: str | None, project: str) -> Sent | None:
    """What was sent to a project; entity None: whoever's it is."""
    for sent in _read(folder):
        if (sent.server, sent.project) == (server, project) and entity in (None, sent.entity):
            return sent
    return None


def note(folder: Path, sent: Sent) -> None:
    """Takes the place of what was noted for the same project."""
    others = [old for old in _read(folder) if (old.server, old.entity, old.project) != _place(sent)]
    text = json.dumps([asdict(each) for each in [*others, sent]], indent=1)
    with replacing(folder / NAME) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _place(sent: Sent) -> tuple[str, str, str]:
    return sent.server, sent.entity, sent.project


def _read(folder: Path) -> list[Sent]:
    """Nothing where there is no such file, or one that cannot be read: a run is then sent again, under the same id."""
    try:
        return [Sent(**entry) for entry in json.loads((folder / NAME).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
