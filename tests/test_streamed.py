"""JSON read piece by piece is what it is read whole."""

import json
from codecs import BOM_UTF8
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vltune import streamed

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
FORMS = st.fixed_dictionaries({"ensure_ascii": st.booleans(), "indent": st.none() | st.integers(0, 2)})


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, max_size=6), st.dictionaries(TEXTS, VALUES, max_size=3), FORMS, st.integers(1, 40))
def test_the_items_are_those_that_json_reads(monkeypatch, listed, others, form, size):
    content = json.dumps({**others, "listed": listed}, **form).encode()
    monkeypatch.setattr(streamed, "_CHUNK", size)
    assert list(streamed.items(BytesIO(content), "listed")) == listed
    assert list(streamed.items(BytesIO(BOM_UTF8 + content + b"\n"), "listed")) == listed


@settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_a_file_that_breaks_off_is_told_and_gives_no_other_items(monkeypatch, listed, data):
    content = json.dumps({"listed": listed}).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    monkeypatch.setattr(streamed, "_CHUNK", 7)
    found = []
    with pytest.raises(streamed.BrokenJSONError):
        found.extend(streamed.items(BytesIO(content[:cut]), "listed"))
    assert found == listed[: len(found)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it breaks off"),
        (b"[1]", '"\\[" where "{" belongs'),
        (b'{"listed": 3}', "its listed is no list"),
        (b'{"other": [1]}', 'it holds "other"'),
        (b'{"listed": [1], "listed": [2]}', "it holds listed twice"),
        (b'{"listed": [1 2]}', '"2" where "," belongs'),
        (b'{"listed": [1]} {}', "there is more behind its end"),
        (b'{"listed": ["\xe9"]}', "it is not in UTF-8"),
        (b'{"listed": [' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"listed": [' + b"9" * 5000 + b"]}", "a number of too many digits"),
    ],
)
def test_what_is_no_such_file_is_told(content, told):
    with pytest.raises(streamed.BrokenJSONError, match=told):
        list(streamed.items(BytesIO(content), "listed"))


def test_an_object_with_a_key_twice_gives_nothing_of_it():
    [good, bad] = streamed.items(BytesIO(b'{"listed": [{"id": 1}, {"id": 1, "id": 2}]}'), "listed")
    assert good == {"id": 1}
    for ask in (lambda: bad["id"], lambda: bad.get("id")):
        with pytest.raises(ValueError, match='it holds "id" twice'):
            ask()
    with pytest.raises(ValueError, match="'id' stands twice"):
        json.loads('{"id": 1, "id": 1}', object_pairs_hook=streamed.once)
