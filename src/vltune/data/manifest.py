"""`manifest.json`: what a prepared folder says of itself."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.errors import UserError

MANIFEST = "manifest.json"
_NOT_CONTENT = ("version", "splits", "source_bytes")


def read(folder: Path) -> dict[str, Any] | None:
    """None where the folder has none.  UserError where it is broken."""
    path = Path(folder) / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); run `vltune prepare` again") from None


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 of what the folder was made of, hexadecimal; the same on every machine."""
    content = {key: value for key, value in manifest.items() if key not in _NOT_CONTENT}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
