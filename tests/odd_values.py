"""Values that nobody expects, for files that are generated.

FUZZ_EXAMPLES=2000 tries so many of each kind, other ones each time; without it a few, always the same."""

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

MANY = os.environ.get("FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(MANY or 40),
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate] if MANY else [Phase.generate, Phase.shrink],
)

ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 1.0, 0.5, -0.0, 101.5, 1e-300, 1e308, 10**400, 2**31, 2**53 + 1, 2**63, -(2**63)),
    *(
        "",
        " ",
        "NaN",
        "nan",
        "1e-3",
        "0",
        "null",
        "\ud800",
        "\U0001f600",
        "\u2028",
        "\x00",
        "a\nb",
        "../../x",
        "x" * 9000,
    ),
    *(
        "2025-01-01",
        "9999-12-31T23:59:59-23:59",
        "2025-01-01T00:00:00",
        "finished",
        "running",
        "</script>",
        "{0}",
        "%s",
    ),
    *([], {}, [None], [[]], {"a": None}, ["a", 1], {"": ""}, [[[[[]]]]], {"median": None, "p95": "x"}, [{"step": -1}]),
)
hostile = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=4
    ),
)
ways = st.sampled_from(["replace", "replace", "replace", "drop", "add"])


def leaves(tree, path=()):
    """The places of everything in a tree, its folders too."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += leaves(value, (*path, key))
    return found


def mutated(tree, path, way, value):
    """The tree with the value at a place replaced, dropped, or added beside."""
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if way == "drop":
        del parent[path[-1]]
    elif way == "add" and isinstance(parent, dict):
        parent["odd"] = value
    else:
        parent[path[-1]] = value
    return tree
