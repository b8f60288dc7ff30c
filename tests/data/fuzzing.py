"""What raw files may hold: things of every kind in the place of others, and files that are cut off or something else."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from hypothesis import strategies as st

NUMBERS = st.sampled_from(
    [0, 1, -1, 3.0, 2**31, 2**63 - 1, 2**63, 10**400, 0.5, float("nan"), float("inf"), True, False]
)
ODD = [
    "",
    " ",
    "\u2003\n",
    "red\x00circle",
    "\ud83d",
    "a \udc00 b",
    "\U0001f642 漢字 é",
    "x" * 400,
    "two\nlines",
    "\u2028",
    "\u200b",
]
TEXTS = st.sampled_from(ODD) | st.text(max_size=6)
JUNK = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def mostly(right, wrong=JUNK, share=14):
    """So many of `right` to one of `wrong`."""
    return st.integers(0, share).flatmap(lambda drawn: wrong if drawn == share else right)


def entry(**keys):
    """An object of these keys, some of which are lost; with more keys now and then; or no object at all."""
    whole = st.fixed_dictionaries(keys)
    lossy = st.fixed_dictionaries({}, optional=keys)
    more = st.tuples(whole, st.dictionaries(st.text(max_size=3), JUNK, max_size=2)).map(lambda pair: pair[1] | pair[0])
    return mostly(whole, lossy | more | JUNK)


def asciied(content):
    return json.dumps(content)


def plain(content):
    try:
        (text := json.dumps(content, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return json.dumps(content)
    return text


WRITERS = st.sampled_from([asciied, plain, lambda content: json.dumps(content, indent=1)])


@st.composite
def spoilt(draw, text):
    """The bytes of a file: with a mark, cut off, with something behind, or as they are."""
    how = draw(mostly(st.just("whole"), st.sampled_from(["mark", "cut", "more", "utf-16", "mark"]), 20))
    if how == "cut":
        text = text[: draw(st.integers(0, len(text)))]
    if how == "more":
        text += draw(st.sampled_from([" ", "\n", "x", "{}", "]"]))
    return text.encode("utf-16" if how == "utf-16" else "utf-8-sig" if how == "mark" else "utf-8")


@st.composite
def json_file(draw, key, entries):
    """{"info": ..., key: [...]}"""
    listed = {key: draw(mostly(st.just(entries), JUNK, 40))}
    around = draw(st.dictionaries(st.sampled_from(["info", "license", "type"]), JUNK, max_size=2))
    whole = around | listed if draw(st.booleans()) else listed | around
    return draw(spoilt(draw(WRITERS)(draw(mostly(st.just(whole), JUNK, 40)))))


@st.composite
def json_lines(draw, entries):
    dump = draw(st.sampled_from([asciied, plain]))
    broken = st.sampled_from(["", "{", "[" * 20, "nul", '{"a": 1} {}'])
    lines = [draw(mostly(st.just(dump(each)), broken, 40)) for each in entries]
    return draw(spoilt(draw(st.sampled_from(["\n", "\r\n"])).join(lines)))


def read_json(content, key):
    """The list; None where the file must be refused."""
    try:
        whole = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        return None
    return whole[key] if isinstance(whole, dict) and isinstance(whole.get(key), list) else None


def read_lines(content):
    """(number, entry or None where it is no JSON) of the lines; None where the file must be refused."""
    if not content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return None
    found = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                found.append((number, json.loads(line.decode("utf-8-sig"))))
            except ValueError:
                found.append((number, ValueError))
    return found


@dataclass
class Expected:
    """What must come of raw files.  refused: none of it is used.  bad: entries by name.  images: missing ones by name.
    rows: of each split.  dropped: what -> split -> number."""

    refused: bool = False
    bad: set = field(default_factory=set)
    missing: set = field(default_factory=set)
    rows: dict = field(default_factory=lambda: defaultdict(list))
    dropped: dict = field(default_factory=lambda: defaultdict(Counter))


def is_id(value):
    return type(value) is int and 0 <= value < 2**63


def is_text(value):
    return isinstance(value, str) and not any(0xD800 <= ord(character) < 0xE000 for character in value)


def says(value):
    return is_text(value) and value.strip().strip("\u200b") != ""


def is_name(value):
    return is_text(value) and value not in ("", ".", "..") and not {"/", "\0"} & set(value)


def of(entry, key):
    return entry.get(key) if isinstance(entry, dict) else None
