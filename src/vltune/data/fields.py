"""What an entry of a raw file says under a key, or a ValueError that tells in JSON's words what stands there instead."""

import json
import unicodedata
from pathlib import PurePosixPath
from typing import Any

_LARGEST = 2**63 - 1  # what Arrow and SQLite hold
_SHOWN = 40  # characters of a value
_EXPECTED = {str: "text", list: "a list", int: "a whole number from 0 to 2^63 - 1"}


def field(entry: Any, key: str, kind: type) -> Any:
    """`entry[key]`, a `kind`: str that is text to its last character, a whole number that is no truth value, or a list."""
    if not isinstance(entry, dict):
        raise ValueError(f"it is {shown(entry)}, expected an object")
    if key not in entry:
        raise ValueError(f"it lacks {key!r}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value <= _LARGEST):
        raise ValueError(f"its {key} is {shown(value)}, expected {_EXPECTED[kind]}")
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"its {key} is {shown(value)}, with half of a surrogate pair") from None
    return value


def says(text: str) -> bool:
    """Whether a text holds more than spaces and format characters, such as U+200B, of which nothing is seen."""
    return any(not each.isspace() and unicodedata.category(each) != "Cf" for each in text)


def words(entry: Any, key: str) -> str:
    """A text that says something: a model that was shown nothing would still be scored."""
    text = field(entry, key, str)
    if not says(text):
        raise ValueError(f"its {key} is empty")
    return text


def choice(entry: Any, key: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    found = field(entry, key, str)
    if found not in choices:
        raise ValueError(f"its {key} is {shown(found)}, none of {', '.join(choices)}")
    return found


def place(entry: Any, key: str) -> str:
    """Where a file or folder lies in another folder, which it does not leave; in one way for each place."""
    text = field(entry, key, str)
    found = PurePosixPath(text)
    if not found.parts or found.is_absolute() or ".." in found.parts or "\0" in text:
        raise ValueError(f"its {key} is {shown(text)}, expected a place inside its folder")
    return str(found)


def file_name(entry: Any, key: str, number: bool = False) -> str:
    """What files are named after.  number: a whole number does too."""
    if number and isinstance(entry, dict) and isinstance(entry.get(key), int):
        return str(field(entry, key, int))
    text = field(entry, key, str)
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise ValueError(f"its {key} is {shown(text)}, expected a name without /")
    return text


def shown(value: Any) -> str:
    """A value as JSON has it, cut short, of characters that every terminal shows."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=not str(value).isprintable())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
