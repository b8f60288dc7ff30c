"""Prompts about a subject: `{token}` stands where the word for it goes, `{class}` where that for what it is one of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from vltune.data.fields import shown
from vltune.errors import UserError
from vltune.signatures import HEAD, identify, other_than_file

TOKEN, CLASS = "{token}", "{class}"
OBJECT, LIVE = "object", "live"  # subjects, each with a list of prompts
_FILE = Path(__file__).with_name("prompts.json")


@cache
def published() -> dict[str, list[str]]:
    """DreamBooth's prompts, by what a subject is."""
    return json.loads(_FILE.read_text(encoding="utf-8"))["prompts"]


def prompt(text: str, token: str = TOKEN, noun: str = CLASS) -> str:
    """A prompt that was written with these in the places of the two words.  ValueError where it has no place for the
    token, or another brace."""
    if token not in text:
        raise ValueError(f"{shown(text)} has no {token}, so that nothing in it says which subject is meant")
    if has_other_brace(text, token, noun):
        raise ValueError(f"{shown(text)} has a brace that is of neither {token} nor {noun}")
    return text.replace(token, TOKEN).replace(noun, CLASS)


def has_other_brace(text: str, token: str = TOKEN, noun: str = CLASS) -> bool:
    """Whether a brace in it is of neither: it would be taken as it is written."""
    return bool({*"{}"} & {*text.replace(token, "").replace(noun, "")})


def own(file: Path) -> list[str]:
    """Those of a text, a line each.  UserError where it is something else, or a line is no prompt."""
    setting = f"dataset.prompts={file}"
    try:
        found = [*_prompts(_lines(file))]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{setting}: {why}; write a line such as 'a {TOKEN} {CLASS} on the beach' for each") from None
    if not found:
        raise UserError(f"{setting}: holds no prompt; write a line such as 'a {TOKEN} {CLASS} on the beach' for each")
    return found


def _lines(file: Path) -> Sequence[str]:
    if (found := other_than_file(file)) is not None:
        raise ValueError(f"{found}, where a text of prompts belongs")
    content = file.read_bytes()
    if content and (found := identify(content[:HEAD])).fix:
        raise ValueError(f"{found.name}, not a text of prompts")
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None


def _prompts(lines: Sequence[str]) -> Iterator[str]:
    met: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (text := " ".join(line.split())):
            continue
        try:
            found = prompt(text)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if (first := met.setdefault(found, number)) != number:
            raise ValueError(f"line {number}: {shown(found)} is at line {first} already")
        yield found
