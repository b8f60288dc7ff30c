"""The official files of a data set, read as a stream: in bounded memory, whatever their size."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vltune import signatures, streamed
from vltune.errors import UserError


def entries(file: Path, key: str, take: Callable[[Any], Any], id_of: Callable[[Any], Any]) -> Iterator[Any]:
    """What `take` makes of each item of the list under `key`.  id_of: of what it makes, what no two may share.

    Raises UserError that names the file, and what it is instead, where it is not JSON or has no such list; and the item of
    which `take` raises KeyError, TypeError or ValueError, or whose id another had before."""
    number, seen, head = 0, set(), b""
    try:
        with Path(file).open("rb") as opened:
            head = opened.peek(signatures.HEAD)[: signatures.HEAD]
            for entry in streamed.items(opened, key):
                number += 1
                taken = take(entry)
                if (id := id_of(taken)) in seen:
                    raise ValueError(f"{id} stands there twice")
                seen.add(id)
                yield taken
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except streamed.NoListError as error:
        raise UserError(f"{file}: holds no {key} ({error}): give the official file of them") from None
    except streamed.BrokenJSONError as error:
        if not head.removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
            found = signatures.identify(head)
            raise UserError(f"{file}: {found.name}, no JSON of {key}: {found.fix or 'fetch it again'}") from None
        raise UserError(f"{file}: broken JSON after {number} of its {key} ({error}): fetch it again") from None
    except (KeyError, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: number {number} of its {key} is not as published ({lacks}): fetch it again") from None
    if not number:
        raise UserError(f"{file}: holds no {key}: give the official file of them")
