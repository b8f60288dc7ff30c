"""What a metric makes of rows."""

import numpy as np
import pytest

from vltune.metrics.metric import Metric, calibration_error, declared, figures, of_examples, primary, rank_correlation
from vltune.records import record as records

ROWS = [
    {"id": 0, "prediction": "a", "score": 1.0, "kind": "x", "fold": None},
    {"id": 1, "prediction": "b", "score": 0.5, "kind": "x", "fold": None},
    {"id": 2, "prediction": "c", "score": None, "kind": "x", "fold": None},
    {"id": 3, "prediction": "d", "score": 0.2, "kind": "y", "fold": None},
    {"id": 0, "prediction": "a", "score": 1.0, "kind": "x", "fold": 1},
    {"id": 1, "prediction": "b", "score": 1.0, "kind": "x", "fold": 1},
    {"id": 3, "prediction": "d", "score": 0.5, "kind": "x", "fold": 2},
]
WHOLE = {"fold": None}


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        (Metric("m", rows=WHOLE | {"kind": "x"}), 75.0),
        (Metric("m", unit="s", rows=WHOLE | {"kind": "y"}), 0.2),
        (Metric("m", rows=WHOLE, within=2), 200 / 3),
        (Metric("m", rows=WHOLE, within=5), 100.0),
        (Metric("m", within=1, parts="fold"), 50.0),
        (Metric("m", parts="fold"), 75.0),
        (Metric("m", unit="s", every="kind", rows={"fold": 1}), 1.0),
        (Metric("m", rows={"kind": "z"}), None),
    ],
)
def test_a_figure_follows_from_its_rows(metric, figure):
    assert figures([metric], ROWS).get("m") == (None if figure is None else pytest.approx(figure))


RATED = [
    {"id": i, "prediction": f"{said}", "score": said, "truth": truth}
    for i, (said, truth) in enumerate([(1.0, 2.5), (2.0, 3.0), (2.0, 3.0), (7.0, 9.5), (0.5, None), (None, 1.0)])
]


@pytest.mark.parametrize(
    ("said", "truth", "figure"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 3], [1, 3, 2, 4], 9 / 90**0.5),
        ([5, 5, 5], [1, 2, 3], 0.0),
        ([5], [1], 0.0),
    ],
)
def test_a_rank_correlation_by_hand(said, truth, figure):
    """Of ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: 4.5 / sqrt(4.5 x 5)."""
    assert rank_correlation(said, truth) == pytest.approx(figure)
    assert rank_correlation(truth, said) == pytest.approx(figure)


def test_a_correlation_is_of_rows_with_both_numbers_and_no_mean_of_examples():
    metric = Metric("spearman", unit="rho", primary=True, correlation="truth")
    assert figures([metric], RATED) == {"spearman": pytest.approx(1.0)}
    assert figures([metric], RATED[4:]) == {}
    assert not metric.by_example
    assert declared({"scores": [metric.declaration()]}) == {"spearman": metric}
    assert metric.declaration().keys() <= records.SCHEMA["$defs"]["score"]["properties"].keys()


def test_a_mean_stands_where_all_its_parts_do():
    parts = Metric("x", rows=WHOLE | {"kind": "x"}), Metric("y", rows=WHOLE | {"kind": "y"})
    assert figures([*parts, Metric("both", mean_of=("x", "y"))], ROWS)["both"] == pytest.approx(47.5)
    assert "both" not in figures([parts[0], Metric("both", mean_of=("x", "y"))], ROWS)


def test_rows_that_repeat_others_within_a_part_are_no_examples():
    metrics = Metric("m", rows=WHOLE), Metric("parts", parts="fold")
    assert of_examples(metrics, ROWS) == ROWS[:4]


def test_a_declaration_holds_what_is_not_the_default():
    metric = Metric("m", primary=True, rows=WHOLE, mean_of=("x",))
    assert metric.declaration() == {"name": "m", "primary": True, "rows": {"fold": None}, "mean_of": ["x"]}
    found = declared({"scores": [metric.declaration(), Metric("x").declaration()]})
    assert found == {"m": metric, "x": Metric("x")}
    assert primary(found.values()) == metric
    assert declared({}) == {}


def test_a_group_counts_where_every_one_of_it_is_right():
    rows = [
        {"id": i, "score": score, "kind": kind} for i, (kind, score) in enumerate([("x", 1.0), ("x", 0.0), ("y", 1.0)])
    ]
    assert figures([Metric("m", every="kind")], rows)["m"] == 50.0


def test_a_bin_of_confidences_holds_its_upper_end():
    """As Guo et al.'s program has it: 0.2 is the end of the third of fifteen."""
    assert calibration_error([0.2, 0.15], np.array([1.0, 0.0])) == pytest.approx((0.8 - 0.15) / 2)
    assert calibration_error([0.0, 1.0], np.array([0.0, 1.0])) == 0.0


def test_a_harmonic_mean_with_nothing_right_is_nothing():
    metric = Metric("h", harmonic_of=("x", "y"))
    assert metric.of_others({"x": 0.0, "y": 50.0}) == metric.of_others({"x": 50.0, "y": 0.0}) == 0.0
    assert metric.of_others({"x": 50.0, "y": 100.0}) == pytest.approx(200 / 3)
