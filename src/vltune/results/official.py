"""The official files of a data set, read as a stream: in bounded memory, whatever their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vltune.errors import UserError


def entries(file: Path, key: str, take: Callable[[Any], Any]) -> Iterator[Any]:
    """What `take` makes of each item of the list under `key`.

    Raises UserError that names the file where it is not JSON or has no such list, and the item of which `take` raises
    KeyError, TypeError or ValueError."""
    import ijson

    number = 0
    try:
        with Path(file).open("rb") as opened:
            for entry in ijson.items(opened, f"{key}.item", use_float=True):
                number += 1
                yield take(entry)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except ijson.JSONError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: broken JSON after {number} of its {key} ({reason}): fetch it again") from None
    except (KeyError, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: number {number} of its {key} is not as published ({lacks}): fetch it again") from None
    if not number:
        raise UserError(f"{file}: holds no {key}: give the official file of them")
