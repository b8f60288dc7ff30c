import pytest
import yaml

from vltune.records.strict_yaml import load


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # YAML 1.1, and PyYAML with it, reads each of these otherwise.
        ("070", 70),
        ("-08", -8),
        ("0o17", 15),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("7e1", 70.0),
        ("1e-3", 0.001),
        ("2026-11-20", "2026-11-20"),
        ("2026-11-20 10:00:00", "2026-11-20 10:00:00"),
        # These are the same in both.
        ("70", 70),
        ("0x1F", 31),
        ("+12.5", 12.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("~", None),
        ("Null", None),
        ("", None),
        ("text", "text"),
        ("'070'", "070"),
        ('"yes"', "yes"),
        ("|\n  070", "070"),
        ("[1, {a: no}]", [1, {"a": "no"}]),
    ],
)
def test_the_core_schema_of_1_2(written, meant):
    found = load(f"key: {written}")["key"]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice"),
        ("- {a: {b: 1, b: 1}}", "'b' stands twice"),
        ("1: a\n01: b", "1 stands twice"),
        ("? [1]\n: 2", "a key must be a single value"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("&a [*a]", "an alias"),
        ("a: !!int '070'", "the tag tag:yaml.org,2002:int is not read"),
        ("a: !!str 070", "the tag tag:yaml.org,2002:str is not read"),
        (
            "a: !!python/object/apply:os.system [x]",
            "the tag tag:yaml.org,2002:python/object/apply:os.system is not read",
        ),
        ("a: " + "1" * 5000, "integer string conversion"),
        ("[" * 5000, "nested too deeply"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a: [", "did not find expected node content|expected the node content"),
        ("a\0b", "not allowed"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(yaml.YAMLError, match=said):
        load(text)


def test_nothing_is_none():
    assert load("") is None
    assert load("# only a comment\n") is None
