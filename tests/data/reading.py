"""Captions and questions read from their words alone, and judged by looking through plain lists of objects."""

import re

from vltune.data.shapes.scenes import COLOURS, POSITIONS, SHAPES, SIZES

NOUN = rf"(?:(?P<size>{'|'.join(SIZES)}) )?(?:(?P<color>{'|'.join(COLOURS)}) )?(?P<shape>{'|'.join(SHAPES)}|object)"
RELATION = r"(?P<relation>left of|right of|above|below)"
FORMS = [
    rf"(?P<count>how many) {NOUN}e?s are there\?",
    rf"where is (?P<where>the) {NOUN}\?",
    rf"is there (?P<existence>a) {NOUN}\?",
    rf"what (?P<asked>color|shape|size) is the {NOUN}\?",
    rf"what (?P<asked>color) is the object {RELATION} the {NOUN}\?",
    rf"what (?P<asked>shape) is {RELATION} the {NOUN}\?",
]
THING = rf"a (?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}|object)"
PLACE = "|".join(sorted(POSITIONS, key=len, reverse=True))
CLAUSE = re.compile(rf"{THING}(?: at the ({PLACE})| (left of|right of|above|below) {THING})?")


def things(drawn, row):
    """A scene as a list of plain objects."""
    return [
        {
            "size": SIZES[drawn.size[row, cell] - 1],
            "color": COLOURS[drawn.colour[row, cell] - 1],
            "shape": SHAPES[drawn.shape[row, cell] - 1],
            "x": cell % 3,
            "y": cell // 3,
        }
        for cell in range(9)
        if drawn.shape[row, cell]
    ]


def related(one, relation, other):
    dx, dy = one["x"] - other["x"], one["y"] - other["y"]
    return {
        "left of": dy == 0 and dx < 0,
        "right of": dy == 0 and dx > 0,
        "above": dx == 0 and dy < 0,
        "below": dx == 0 and dy > 0,
    }[relation]


def solve(question, objects):
    """The answer by reading the question; fails where a referent is ambiguous."""
    said = next(filter(None, (re.fullmatch(form, question) for form in FORMS))).groupdict()
    wanted = {k: said[k] for k in ("size", "color", "shape") if said[k] not in (None, "object")}
    found = [thing for thing in objects if all(thing[k] == v for k, v in wanted.items())]
    if said.get("count"):
        return str(len(found))
    if said.get("existence"):
        return "yes" if found else "no"
    [thing] = found
    if said.get("where"):
        return POSITIONS[3 * thing["y"] + thing["x"]]
    if said.get("relation"):
        [thing] = [other for other in objects if related(other, said["relation"], thing)]
    return thing[said["asked"]]


def described(objects, size, colour, shape):
    alike = [o for o in objects if o["color"] == colour and shape in ("object", o["shape"])]
    return [o for o in alike if size in (None, o["size"])]


def true(caption, objects):
    """Is a caption true?  Read from its words alone."""
    for clause in caption.split(" and "):
        match = CLAUSE.fullmatch(clause)
        size, colour, shape, place, relation, *other = match.groups()
        found = described(objects, size, colour, shape)
        if place:
            found = [o for o in found if POSITIONS[3 * o["y"] + o["x"]] == place]
        if relation:
            found = [o for o in found for p in described(objects, *other) if related(o, relation, p)]
        if not found:
            return False
    return True
