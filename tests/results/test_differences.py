"""Whether two folders' scores differ by more than chance."""

import math
import re
from itertools import product

import numpy as np
import pytest
from fabricated import Root
from predicted import predicted

from vltune.engine.artifacts import write_predictions
from vltune.records import record as records
from vltune.results.compare.match import compare
from vltune.results.compare.text import markdown
from vltune.stats import significance
from vltune.tasks.retrieval import Retrieval


@pytest.fixture
def roots(tmp_path):
    return Root(tmp_path / "a"), Root(tmp_path / "b")


def chances(roots):
    return [row.chance for row in compare(*(root.folder for root in roots)).rows]


def shown(roots):
    return markdown(compare(*(root.folder for root in roots)))


def right(root, marks, task="nlvr2", dataset="own", **fields):
    """A run with these examples right (1) or wrong (0), by their ids."""
    scores = dict(enumerate(marks)) if not isinstance(marks, dict) else marks
    metrics = {"val": None, "test": {"accuracy": 100 * sum(scores.values()) / len(scores)}}
    file = root.add(task=task, dataset=dataset, metrics=metrics, **fields)
    rows = [{"id": id, "prediction": "x", "score": float(score)} for id, score in scores.items()]
    write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file))
    return file


def test_one_seed_is_mcnemar(roots):
    right(roots[0], [0] * 10 + [1] * 5)
    right(roots[1], [1] * 10 + [1] * 5)
    (chance,) = chances(roots)
    assert chance.examples == pytest.approx(2 * 0.5**10)
    assert chance.seeds is None
    assert "| 0.002 | — |" in shown(roots)
    right(roots[1], [1] * 15 + [0] * 5)
    right(roots[0], [0] * 20)
    assert "| <0.001 | — |" in shown(roots)


def test_an_accuracy_of_parts_of_examples_is_tested_by_the_bootstrap(roots):
    right(roots[0], [0.0] * 20)
    right(roots[1], [0.4] * 20)
    (chance,) = chances(roots)
    assert chance.examples == pytest.approx(1 / 10_001)


@pytest.mark.parametrize(("units", "p"), [(9, None), (10, pytest.approx(1 / 10_001))])
def test_few_units_are_not_tested_but_by_an_exact_test(roots, units, p):
    right(roots[0], [0.0] * units)
    right(roots[1], [0.4] * units)
    assert chances(roots)[0].examples == p
    right(roots[1], [1.0] * units)
    assert chances(roots)[0].examples == pytest.approx(2 * 0.5**units)


def test_examples_of_other_splits_are_not_compared(roots):
    """As in a table: they are told apart by their place in all splits that were read, one after the other."""
    read = {"lora": [["one", "two"]] * 2, "apt": [["one", "two"], ["two", "one"]], "adapter": [["one"], ["two"]]}
    for (side, root), (method, splits) in product(enumerate(roots), read.items()):
        for seed in range(2):
            config = {"dataset": {"test": splits[side]}}
            right(root, [side * (id > seed) for id in range(30)], method=method, seed=seed, config=config)
    found = {row.method: row for row in compare(*(root.folder for root in roots)).rows}
    assert (found["lora"].chance.examples, found["lora"].predictions.common) == (pytest.approx(4 * 0.5**30), 60)
    for method in ("apt", "adapter"):
        assert (found[method].chance, found[method].predictions) == (None, None)
        assert re.search(rf"\| {method} \| accuracy \|.*\| 2 \| — \| — \| — \|", shown(roots))


def test_it_is_corrected_for_the_rows_that_differ(roots):
    for method in ("lora", "apt"):
        right(roots[0], [0] * 10 + [1] * 5, method=method)
        right(roots[1], [1] * 10 + [1] * 5, method=method)
    for root in roots:
        right(root, [1, 0], method="adapter")
    corrected = [chance and chance.examples for chance in chances(roots)]
    assert corrected == [None, pytest.approx(4 * 0.5**10), pytest.approx(4 * 0.5**10)]


def test_rows_that_differ_by_the_rounding_of_a_sum_are_equal_and_correct_nothing(roots):
    for seed, score in enumerate((60.4, 60.5, 60.6)):
        roots[0].add(score, seed=seed)
        roots[1].add(score + 2 + seed / 100, seed=seed)
    alone = chances(roots)
    for method in ("apt", "adapter"):
        for root, off in zip(roots, (0.0, 7e-15), strict=True):
            root.add(60.0 + off, method=method)
    several = compare(*(root.folder for root in roots)).rows
    assert [row.chance for row in several if row.chance] == alone
    assert len(several) == 3


def test_examples_of_one_image_are_one_unit(roots):
    # The toy NLVR2 asks eight statements of the same texts: their ids // 8 are equal.
    right(roots[0], [0] * 8 + [1] * 8, dataset="shapes")
    right(roots[1], [1] * 8 + [1] * 8, dataset="shapes")
    assert chances(roots)[0].examples == 1.0


def test_without_examples_the_seeds_are_compared_by_a_paired_t_test(roots):
    for seed, (one, other) in enumerate([(50.0, 51.0), (60.0, 62.0), (40.0, 43.0)]):
        roots[0].add(one, seed=seed)
        roots[1].add(other, seed=seed)
    (chance,) = chances(roots)
    t = 2 / (1 / math.sqrt(3))  # of the differences 1, 2 and 3
    assert chance.seeds == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # Student's t with two degrees of freedom
    assert chance.examples is None


def test_examples_widen_what_the_seeds_say(roots):
    for seed in range(3):
        right(roots[0], [0] * 3 + [1] * 5 + [0] * 5, seed=seed)
        right(roots[1], [1] * (2 + seed) + [1] * 5 + [0] * (6 - seed), seed=seed)
    with_examples = chances(roots)[0].seeds
    for root in roots:
        for file in root.folder.rglob("*.parquet"):
            file.unlink()
    assert 0 < chances(roots)[0].seeds < with_examples < 1


def found(root, images, captions, seed=0):
    """A run of retrieval that places these images (1: or not, 0) and these captions first."""
    scores = {"ir_r1": images, "tr_r1": captions}
    metrics = {name: 100 * sum(marks) / len(marks) for name, marks in scores.items()}
    metrics["r1"] = sum(metrics.values()) / 2
    file = root.add(task="retrieval", dataset="own", metrics={"val": None, "test": metrics}, seed=seed)
    rows = [
        {"id": id, "prediction": f"{what} 0", "target": what, "fold": None, "score": 1.0 if mark else 0.5}
        for what, marks in (("image", images), ("caption", captions))
        for id, mark in enumerate(marks)
    ]
    write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), Retrieval.columns)


@pytest.mark.parametrize(("images", "captions"), [(4, 4), (10, 10), (10, 12)], ids=["few", "one set", "two sets"])
def test_the_mean_of_both_ways_by_its_seeds(roots, images, captions):
    # All examples of a seed agree, so the seeds alone decide: differences of 0.5 and 1, t = 3 with one degree of freedom.
    for seed in (0, 1):
        found(roots[0], [0] * images, [0] * captions, seed)
        found(roots[1], [1] * images, [seed] * captions, seed)
    assert chances(roots)[0].seeds == pytest.approx(1 - 2 / math.pi * math.atan(3))


def test_both_ways_of_retrieval_are_tested_together(roots):
    found(roots[0], [0] * 40, [0] * 40)
    found(roots[1], [1] * 20 + [0] * 20, [1] * 20 + [0] * 20)
    assert chances(roots)[0].examples < 0.001
    # One image of 40 gains; of the others one way gains what the other loses.  A resample is as far off as the difference
    # is, unless it holds the one image once.
    found(roots[0], [0] * 20 + [1] * 20, [1] * 19 + [0] * 21)
    found(roots[1], [1] * 20 + [1] * 20, [0] * 19 + [0] * 21)
    assert chances(roots)[0].examples == pytest.approx(1 - (39 / 40) ** 39, abs=0.02)


@pytest.mark.parametrize("spoilt", ["other examples", "an example twice", "a score that is no number", "no file"])
def test_no_test_by_predictions_that_do_not_belong_together(roots, spoilt):
    right(roots[0], [0] * 10)
    file = right(roots[1], [1] * 10).with_suffix(".parquet")
    if spoilt == "no file":
        file.unlink()
    elif spoilt == "other examples":
        right(roots[1], dict.fromkeys(range(1, 11), 1))
    else:
        scores = [1.0] * 9 + ([math.nan] if spoilt == "a score that is no number" else [1.0])
        predicted(file, [("test", min(id, 8), "x", score) for id, score in enumerate(scores)])
    assert (chances(roots)[0].examples, chances(roots)[0].seeds) == (None, None)


def test_seeds_and_examples_are_tested_in_one_unit(roots):
    """Both from 0 to 1, by what the seeds of the row say alone."""
    draw = np.random.default_rng(0)
    marks = [(draw.random((3, 40)) < share).astype(float) for share in (0.5, 0.7)]
    for root, of_seeds in zip(roots, marks, strict=True):
        for seed, own in enumerate(of_seeds):
            right(root, own.tolist(), seed=seed)
    among = significance.spread([dict(enumerate(own.mean(1).tolist())) for own in marks])
    (chance,) = chances(roots)
    assert chance.seeds == pytest.approx(significance.over_seeds([marks[1] - marks[0]], among))
