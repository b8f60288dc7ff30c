"""`prompts_and_classes.txt`, DreamBooth's list of what its subjects are and what they are painted by: read, never run.

Under `Classes` stand lines `subject_name,class`; under `Object Prompts` and `Live Subject Prompts` a list in Python's
words, of lines such as `'a {0} {1} in the snow'.format(unique_token, class_token),`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vltune.data.fields import shown
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Sources
from vltune.data.subjects.prompts import LIVE, OBJECT, prompt
from vltune.errors import UserError
from vltune.settings.kinds import is_name

LISTING = "prompts_and_classes.txt"
_CLASSES, _HEAD = "Classes", "subject_name,class"
_LISTS = {"Object Prompts": OBJECT, "Live Subject Prompts": LIVE}
_HEADINGS = (_CLASSES, "Prompts", *_LISTS)
_AROUND = re.compile(r"prompt_list\s*=\s*\[|\]")
_PROMPT = re.compile(r"""(['"])((?:(?!\1)[^\\]|\\.)*)\1\s*\.format\(\s*unique_token\s*,\s*class_token\s*\)\s*,?""")


@dataclass
class Listing:
    """classes: of each subject.  prompts: by what a subject is."""

    classes: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, list[str]] = field(default_factory=lambda: {OBJECT: [], LIVE: []})

    def require(self, file: Path, live: Mapping[str, bool]) -> None:
        """UserError where a subject has no list of prompts.  live: by subject."""
        for subject, lives in live.items():
            if not self.prompts[LIVE if lives else OBJECT]:
                heading = next(name for name, of in _LISTS.items() if of == (LIVE if lives else OBJECT))
                raise UserError(f"{file}: has no {heading}, which {subject} needs; add the list")


def read(sources: Sources, entries: Entries, file: Path) -> Listing:
    """Lines that are wrong are bad entries.  UserError where there is no table of classes."""
    found, heading = Listing(), ""
    for where, line in sources.text_lines(file):
        if line in _HEADINGS:
            heading = line
            continue
        with sources.bad.entry(where):
            if heading == _CLASSES and line != _HEAD:
                subject, noun = _class(line)
                entries.once("subject", subject, where)
                found.classes[subject] = noun
            elif heading in _LISTS and not _AROUND.fullmatch(line):
                text = _prompt(line)
                entries.once(heading, text, where)
                found.prompts[_LISTS[heading]].append(text)
            elif heading not in (_CLASSES, *_LISTS):
                raise ValueError(f"it is {shown(line)}, under none of the headings {_CLASSES}, {', '.join(_LISTS)}")
    sources.bad.check()
    if not found.classes:
        raise UserError(f"{file}: has no line under {_CLASSES}; add one for each subject, as {_HEAD}")
    return found


def _class(line: str) -> tuple[str, str]:
    subject, comma, noun = (each.strip() for each in line.partition(","))
    if not comma or "," in noun:
        raise ValueError(f"it is {shown(line)}, expected {_HEAD}")
    if not is_name(subject):
        raise ValueError(f"its subject is {shown(subject)}, expected a name of letters, digits, '.', '_' and '-'")
    return subject, checked_noun(noun)


def checked_noun(noun: str) -> str:
    """A class as prompts have it.  ValueError where it says nothing, or more than a word can."""
    told = " ".join(noun.replace("_", " ").split())
    if not told or {*"{},"} & {*told} or not told.isprintable():
        raise ValueError(f"its class is {shown(noun)}, expected a word such as dog")
    return told


def _prompt(line: str) -> str:
    if not (found := _PROMPT.fullmatch(line)):
        raise ValueError(f"it is {shown(line)}, expected '...{{0}} {{1}}...'.format(unique_token, class_token)")
    return prompt(re.sub(r"\\(.)", r"\1", found[2]), "{0}", "{1}")
