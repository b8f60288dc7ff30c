"""Lists in JSON files of any size, item by item, as Python's own decoder reads them: whole numbers of any length, and half
a surrogate pair as what it is."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, BinaryIO

_CHUNK = 2**18  # bytes that are read at a time; as many more each time as an item does not fit
_NEAR_THE_END = 16  # characters: where text was cut off, so close to the end the decoder stumbles
_KEYS = 5  # that are told of an object, at most
_SPACE = re.compile(r"[ \t\n\r]*")
_ENDS = tuple(" \t\n\r,:]}")


class BrokenJSONError(Exception):
    """Where a text is not the JSON that it ought to be, in words."""


class NoListError(BrokenJSONError):
    """What an object holds in the place of the list that it ought to hold."""


class Ambiguous(dict):
    """An object with a key twice.  ValueError where anything of it is asked for: which is meant cannot be told."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self._twice = _twice(pairs)

    def __getitem__(self, key: str) -> Any:
        raise ValueError(f"it holds {_shown(self._twice)} twice")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` of `json.loads`.  ValueError where an object has a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"{_twice(pairs)!r} stands twice")
    return found


def _twice(pairs: list[tuple[str, Any]]) -> str:
    return Counter(key for key, _ in pairs).most_common(1)[0][0]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Ambiguous(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def value(text: str) -> Any:
    """What a text of JSON says.  BrokenJSONError where it is none."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BrokenJSONError(_told(error)) from None


def items(file: BinaryIO, key: str) -> Iterator[Any]:
    """The items of the list under `key` of the object that a JSON file in UTF-8 holds, with a byte order mark or without.

    They come as they are read: at the end, BrokenJSONError may still tell that the file breaks off."""
    text, keys = _Text(file), []
    text.expect("{")
    while text.next() != "}":
        if keys:
            text.expect(",")
        name = text.value()
        if not isinstance(name, str):
            raise BrokenJSONError("a key is no text")
        if name == key and key in keys:
            raise BrokenJSONError(f"it holds {key} twice")
        keys.append(name)
        text.expect(":")
        if (begins := text.next()) != "[":
            if begins and name == key:
                raise NoListError(f"its {key} is no list")
            text.value()
        elif name == key:
            yield from text.list()
        else:
            for _ in text.list():
                pass
    text.expect("}")
    if text.next():
        raise BrokenJSONError("there is more behind its end")
    if key not in keys:
        raise NoListError(f"it holds {', '.join(map(_shown, keys[:_KEYS])) or 'nothing'}")


class _Text:
    """A file's text, of which the part before `at` is done with."""

    def __init__(self, file: BinaryIO):
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_CHUNK):
                return ""

    def expect(self, character: str) -> None:
        if (found := self.next()) != character:
            raise BrokenJSONError(f"{_shown(found)} where {_shown(character)} belongs" if found else "it breaks off")
        self._at += 1

    def value(self) -> Any:
        self.next()
        size = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                if not (_may_go_on(error) and self._more(size)):
                    raise BrokenJSONError(_told(error)) from None
            except (ValueError, RecursionError) as error:
                raise BrokenJSONError(_told(error)) from None
            else:
                # A number may go on in what is not read yet.
                if self._text[end : end + 1] in _ENDS or not self._more(size):
                    if end == len(self._text):
                        raise BrokenJSONError("it breaks off")
                    self._at = end
                    return value
            size *= 2

    def list(self) -> Iterator[Any]:
        self.expect("[")
        if self.next() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.next() == "]":
                self._at += 1
                return
            self.expect(",")

    def _more(self, size: int) -> bool:
        """Reads on, and forgets what is done with.  False, and nothing moves, at the end."""
        content = self._file.read(size)
        try:
            more = self._decoder.decode(content, final=not content)
        except UnicodeDecodeError:
            raise BrokenJSONError("it is not in UTF-8") from None
        if content:
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(content)


def _may_go_on(error: JSONDecodeError) -> bool:
    return _is_open(error) or error.pos >= len(error.doc) - _NEAR_THE_END


def _is_open(error: JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string")


def _told(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, JSONDecodeError):
        return "a number of too many digits"
    if _is_open(error) or error.pos >= len(error.doc):
        return "it breaks off"
    return f"{error.msg.removesuffix(' at')} at {_shown(error.doc[error.pos :])}"


def _shown(text: str) -> str:
    return json.dumps(text[:_NEAR_THE_END])
