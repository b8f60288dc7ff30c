import csv
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fabricated import fabricate
from predicted import predicted

from vltune.errors import UserError
from vltune.metrics.metric import Metric
from vltune.records import record as records
from vltune.records import store
from vltune.records.verified import outcomes
from vltune.stats import paired, significance
from vltune.stats.outcomes import Outcomes
from vltune.stats.significance import Spread

RESULTS = Path(__file__).parents[2] / "results"


def both(*names):
    return {split: dict.fromkeys(names, 50.0) for split in ("val", "test")}


def binomial(successes, count):
    """Two-sided p of a fair coin."""
    few = min(successes, count - successes)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(few + 1)) / 2**count)


def test_examples_of_an_accuracy_in_the_order_of_their_ids(tmp_path):
    rows = [("val", 0, "True", 0.0), ("test", 7, "True", 1.0), ("test", 2, "False", 0.0)]
    found = outcomes(predicted(tmp_path / "a.parquet", rows), "test.accuracy", fabricate(metrics=both("accuracy")))
    assert found.ids.tolist() == [2, 7]
    assert found.scores.tolist() == [0.0, 1.0]
    assert found.figure == 50.0


def test_recall_is_of_one_way_and_of_the_whole_split(tmp_path):
    rows = [("test", id, "image 3", 1 / place) for id, place in enumerate((1, 5, 6, 10, 11))]
    rows += [("test", id, "caption 3", 1 / place) for id, place in enumerate((1, 2))]
    rows += [("test", 0, "image 3, fold 1", 1.0), ("test", 0, "caption 3, fold 1", 1.0)]
    file, record = predicted(tmp_path / "a.parquet", rows), fabricate(metrics=both("ir_r1"))
    found = {name: outcomes(file, f"test.{name}", record).figure for name in ("ir_r1", "ir_r5", "ir_r10", "tr_r1")}
    assert found == {"ir_r1": 20.0, "ir_r5": 40.0, "ir_r10": 80.0, "tr_r1": 50.0}


@pytest.mark.parametrize("backbone", ["vilt_mini", "meter_mini"])
def test_committed_predictions_give_the_scores_of_their_records(backbone):
    checked = set()
    for record in store.load(RESULTS):
        identity = record["identity"]
        of_one_run = identity["backbone"] == backbone and identity["method"] == "apt" and identity["seed"] == 1
        for name, score in ((record["metrics"]["test"] or {}) if of_one_run else {}).items():
            try:
                found = outcomes((RESULTS / record["path"]).with_suffix(".parquet"), f"test.{name}", record)
            except UserError:
                continue
            assert found.figure == pytest.approx(score, abs=1e-4), (record["path"], name)
            checked.add((identity["task"], name))
    recalls = {("retrieval", f"{way}_r{k}") for way in ("ir", "tr") for k in (1, 5, 10)}
    assert checked == {("vqa", "vqa_score"), ("nlvr2", "accuracy"), ("snli_ve", "accuracy")} | recalls


def test_what_has_no_examples_says_so(tmp_path):
    record = fabricate(metrics=both("vqa_score", "consistency"))
    with pytest.raises(UserError, match=r"none.parquet: no predictions there"):
        outcomes(tmp_path / "none.parquet", "test.accuracy", record)
    file = predicted(
        tmp_path / "a.parquet", [("test", 0, "two", None), ("test", 1, "two", 1.0), ("own", 1, "two", None)]
    )
    with pytest.raises(UserError, match=r"a.parquet: 1 of 2 examples of test have no score"):
        outcomes(file, "test.vqa_score", record)
    with pytest.raises(UserError, match=r"a.parquet: no scored example of own"):
        outcomes(file, "own.vqa_score", record)
    with pytest.raises(UserError, match=r"a.parquet: no scored example of val"):
        outcomes(file, "val.vqa_score", record)
    with pytest.raises(UserError, match=r"a.parquet: consistency is no mean over examples"):
        outcomes(file, "test.consistency", record)


@pytest.mark.parametrize(("more", "less"), [(0, 0), (1, 0), (5, 0), (10, 3), (4, 4), (86, 150), (600, 520)])
def test_one_seed_is_mcnemars_exact_test(more, less):
    differences = np.array([1] * more + [-1] * less + [0] * 50)
    assert significance.mcnemar(differences) == pytest.approx(binomial(more, more + less), rel=1e-9)


def test_several_seeds_flip_an_examples_sign_as_a_whole():
    draw = np.random.default_rng(0)
    for differences in draw.integers(-3, 4, (5, 10)):
        flipped = [abs(differences @ np.array(signs)) for signs in product((-1, 1), repeat=10)]
        exact = np.mean(np.array(flipped) >= abs(differences.sum()))
        assert significance.mcnemar(differences) == pytest.approx(exact, rel=1e-9)


def test_many_examples_come_to_durkalskis_statistic():
    values, chances = [-3, -2, -1, 0, 1, 2, 3], [0.02, 0.06, 0.1, 0.63, 0.1, 0.06, 0.03]
    differences = np.random.default_rng(1).choice(values, 20_000, p=chances)
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert significance.mcnemar(differences) == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=0.05)


def test_seeds_are_not_counted_as_examples():
    one = np.array([1] * 12 + [-1] * 6 + [0] * 80)
    assert significance.mcnemar(3 * one) == pytest.approx(significance.mcnemar(one)), (
        "the same answers, three times over"
    )
    assert significance.mcnemar(np.tile(one, 3)) < significance.mcnemar(one) / 3, "what pooling would say"


def test_bootstrap_is_that_of_all_resamples():
    differences = np.array([0.4, -0.1, 0.9, 0.0, 0.3])
    means = np.array([differences[list(places)].mean() for places in product(range(5), repeat=5)])
    exact = np.mean(np.abs(means - differences.mean()) >= differences.mean() - 1e-12)
    found = significance.bootstrap([np.stack([differences, -differences])])
    assert found[0] == found[1] == pytest.approx(exact, abs=0.02)
    assert significance.bootstrap([np.stack([differences, -differences])]).tolist() == found.tolist(), (
        "every time the same"
    )


def test_bootstrap_of_strata_resamples_each_by_itself():
    draw = np.random.default_rng(2)
    one, other = draw.normal(0.06, 1, (1, 300)), draw.normal(0.06, 1, (1, 1000))
    z = (one.mean() + other.mean()) / math.sqrt(one.var() / 300 + other.var() / 1000)
    assert significance.bootstrap([one, other])[0] == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)


def test_no_difference_is_no_evidence():
    nothing = np.zeros((1, 20))
    assert significance.mcnemar(np.zeros(20, np.int64)) == 1.0
    assert significance.bootstrap([nothing])[0] == 1.0
    assert significance.over_seeds([nothing], Spread(0.0, 2)) == 1.0


def test_effects_of_units_of_unequal_size_have_the_mean_over_examples():
    differences, sizes = np.array([[2.0, 0.0, 1.0], [-1.0, 1.0, 3.0]]), np.array([2.0, 1.0, 5.0])
    assert significance.effects(differences, sizes).mean(1).tolist() == pytest.approx([3 / 8, 3 / 8])
    equal = significance.effects(differences, np.full(3, 4.0))
    assert equal == pytest.approx(differences / 4)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (30, 2.04227), (100, 1.98397), (1e6, 1.95996)],
)
def test_students_t_by_the_printed_table(freedom, t):
    assert significance.t_chance(t, freedom) == pytest.approx(0.05, abs=1e-6)


def test_students_t_between_whole_degrees_of_freedom():
    x = np.linspace(1.5, 2000, 4_000_001)
    density = (1 + x**2 / 2.5) ** -1.75 * math.gamma(1.75) / math.gamma(1.25) / math.sqrt(2.5 * math.pi)
    assert significance.t_chance(1.5, 2.5) == pytest.approx(2 * np.trapezoid(density, x), abs=1e-6)


def test_interval_by_hand():
    low, high = significance.interval([60.0, 62.0, 64.0])
    assert (low, high) == pytest.approx((62 - 4.30265 * 2 / math.sqrt(3), 62 + 4.30265 * 2 / math.sqrt(3)), abs=1e-4)
    assert significance.interval([60.0]) is None


def test_spread_leaves_out_what_a_seed_does_to_all():
    lifted = {0: 0.0, 1: 5.0, 2: -2.0}
    rows = [{seed: 10 * row + lift for seed, lift in lifted.items()} for row in range(4)]
    found = significance.spread(rows)
    assert (found.variance, found.freedom) == (pytest.approx(0.0, abs=1e-20), 6)


def test_spread_of_two_methods_is_that_of_their_differences():
    one, other = {0: 1.0, 1: 4.0, 2: 2.0}, {0: 0.5, 1: 1.0, 2: 1.5}
    found = significance.spread([one, other])
    assert 2 * found.variance == pytest.approx(np.var([0.5, 3.0, 0.5], ddof=1))
    assert found.freedom == 2


def test_spread_of_incomplete_rows():
    full = [{0: 1.0, 1: 2.0}, {0: 2.0, 1: 2.5}]
    found = significance.spread([*full, {1: 9.0}])
    assert (found.variance, found.freedom) == (pytest.approx(0.0625), 1), "one seed tells of no spread"
    assert significance.spread([{0: 1.0}, {0: 2.0}]) is None


def test_spread_beside_a_row_that_no_seed_moves_by_hand():
    one, other = {0: 1.0, 1: 4.0, 2: 2.0}, {0: 0.5, 1: 1.0, 2: 1.5}
    alone = significance.spread_beside_still([one])
    assert (2 * alone.variance, alone.freedom) == pytest.approx((np.var([1.0, 4.0, 2.0], ddof=1), 2))
    both = significance.spread_beside_still([one, other])
    assert 2 * both.variance == pytest.approx(np.mean([np.var([*each.values()], ddof=1) for each in (one, other)]))
    assert 2 < both.freedom < 4
    assert significance.spread_beside_still([one, {0: 1.0}]) is None
    assert significance.spread_beside_still([]) is None
    lifted = significance.spread_beside_still([one, {seed: 9 + score for seed, score in one.items()}])
    assert (2 * lifted.variance, lifted.freedom) == pytest.approx((np.var([1.0, 4.0, 2.0], ddof=1), 2))


@pytest.mark.parametrize("together", [0.0, 1.0, 3.0])
def test_beside_a_row_that_no_seed_moves_the_test_keeps_its_level(together):
    """docs/statistics.md: 32 % where the others move together three times as far as by themselves and that is taken off."""
    draw, told = np.random.default_rng(0), np.zeros(2)
    for _ in range(2000):
        scores = draw.normal(0, 1, (5, 3)) + draw.normal(0, together, 3)
        rows = [dict(enumerate(row)) for row in scores]
        spreads = significance.spread(rows), significance.spread_beside_still(rows)
        told += [significance.seeds_alone(scores[0].mean(), 3, each) < significance.LEVEL for each in spreads]
    without, within = told / 2000
    assert 0.03 < within < 0.08
    assert together < 3 or 0.29 < without < 0.35


def test_over_seeds_without_examples_is_the_paired_t_test():
    among = significance.spread([{0: 1.0, 1: 2.0, 2: 3.0}, dict.fromkeys(range(3), 0.0)])
    effects = np.repeat([[1.0], [2.0], [3.0]], 50, axis=1)
    assert significance.over_seeds([effects], among) == pytest.approx(significance.t_chance(2 * math.sqrt(3), 2))
    assert significance.seeds_alone(2.0, 3, among) == pytest.approx(0.0742, abs=1e-4)


def test_over_seeds_without_a_spread_over_seeds_is_a_test_of_the_examples():
    effects = np.tile(np.random.default_rng(3).normal(0.1, 1, 400), (3, 1))
    z = effects.mean() / (effects[0].std(ddof=1) / 20)
    assert significance.over_seeds([effects], Spread(0.0, 14)) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-6)


def test_holm_by_hand():
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def wrongly_told(draws, methods, over_seeds, over_examples, examples=1000, seeds=3):
    """How often tests tell some of these methods, all equally good, from the best: (answers of all seeds in one heap,
    answers example by example, that and seeds: the rule of the tables).

    over_seeds, over_examples: standard deviations of the probability of a right answer, from seed to seed of a method, and
    of a method from example to example."""
    draw = np.random.default_rng(0)
    told = np.zeros(3)
    for _ in range(draws):
        right = draw.beta(1.0, 0.7, examples) * 0.8 + 0.1
        right = right + draw.normal(0, over_examples, (methods, 1, examples))
        right = right + draw.normal(0, over_seeds, (methods, seeds, 1))
        answers = (draw.random((methods, seeds, examples)) < right).astype(np.int64)
        scores = answers.mean(2)
        best = scores.mean(1).argmax()
        differences = [answers[best] - answers[method] for method in range(methods) if method != best]
        among = significance.spread([dict(enumerate(row)) for row in scores])
        heap = significance.holm([significance.mcnemar(each.ravel()) for each in differences])
        by_examples = significance.holm([significance.mcnemar(each.sum(0)) for each in differences])
        by_seeds = significance.holm([significance.over_seeds([each.astype(float)], among) for each in differences])
        rule = np.maximum(by_examples, by_seeds)
        told += [np.min(p) < significance.LEVEL for p in (heap, by_examples, rule)]
    return (told / draws).tolist()


def test_the_rule_keeps_its_level_where_a_heap_of_answers_does_not():
    heap, _, rule = wrongly_told(150, 2, over_seeds=0.02, over_examples=0.3)
    assert heap > 0.12
    assert rule < 0.12, "5 %, by 150 draws"
    heap, by_examples, rule = wrongly_told(60, 8, over_seeds=0.02, over_examples=0.0)
    assert min(heap, by_examples) > 0.5, "eight methods to choose a best from, and seeds that count for nothing"
    assert rule < 0.25, "docs/statistics.md: 12 %"


@pytest.mark.parametrize("comparisons", [1, 325, 528, 5000])
def test_the_least_p_of_a_bootstrap_passes_however_many_are_compared(comparisons):
    draws = significance.resamples(comparisons)
    assert significance.holm([1 / (draws + 1)] * comparisons)[0] < significance.LEVEL
    assert draws >= significance.RESAMPLES


def told_by_bootstrap(units, draws=400):
    """How often it tells two equal methods of three seeds apart."""
    draw, told = np.random.default_rng(0), 0
    for _ in range(draws):
        shared = 0.5 + draw.normal(0, 0.3, units)
        scores = np.clip(shared + draw.normal(0, 0.3, (2, 1, units)) + draw.normal(0, 0.1, (2, 3, units)), 0, 1)
        told += significance.bootstrap([(scores[0] - scores[1]).mean(0)[None]], 1000)[0] < significance.LEVEL
    return told / draws


def test_of_few_units_a_bootstrap_is_too_easy():
    """docs/statistics.md: from 45 % with 2 units to 6 % with 20."""
    assert told_by_bootstrap(3) > 0.2
    assert told_by_bootstrap(paired.FEWEST) < 0.15
    assert told_by_bootstrap(50) < 0.08


def test_what_the_documents_say_of_the_committed_records():
    """Deviations between seeds, and how much a unit's examples agree."""
    text = " ".join((RESULTS.parent / "docs" / "statistics.md").read_text().split())
    with (RESULTS / "tables" / "meter_mini.csv").open() as file:
        deviations = [float(row["tr_r1_std"]) for row in csv.DictReader(file) if row["tr_r1_std"]]
    assert f"TR R@1 has deviations from {min(deviations):.2f} to {max(deviations):.2f}" in text
    folder = {"vqa": (1000, "vqa_score"), "snli_ve": (12, "accuracy"), "nlvr2": (8, "accuracy")}
    vqa, snli_ve, nlvr2 = (f"{agreement(task, *of):.2f}" for task, of in folder.items())
    assert f"LoRA is {vqa} (VQA), {snli_ve} (SNLI-VE) and {nlvr2} (NLVR2" in text


def agreement(task, unit, metric):
    """The variance of the difference between full tuning and LoRA on the small ViLT over that of independent examples."""
    found = {"full": {}, "lora": {}}
    for method, of in found.items():
        for file in (RESULTS / "records" / "vilt_mini" / f"{task}-shapes").glob(f"{method}-*.json"):
            record = records.read(file)
            of[record["identity"]["seed"]] = outcomes(file.with_suffix(".parquet"), f"test.{metric}", record)
    full, lora = found.values()
    differences = np.mean([full[seed].scores - lora[seed].scores for seed in full.keys() & lora.keys()], axis=0)
    sums = np.bincount(np.unique(full[0].ids // unit, return_inverse=True)[1], differences)
    return sums.var(ddof=1) * len(sums) / (differences.var(ddof=1) * len(differences))


def test_by_examples_draws_so_many():
    draw = np.random.default_rng(0)
    apart = paired.Paired("test", np.arange(50), np.ones(50), draw.normal(1.0, 0.1, (1, 50)))
    found = paired.by_examples({number: [apart] for number in range(600)}, signs=False)
    assert set(found.values()) == {1 / 12_001}


def test_what_turns_from_seed_to_seed_is_no_part_of_what_other_examples_would_change():
    """Effects of units with a variance of 1, and beside them of 9 that each seed draws anew."""
    draw, seeds, units = np.random.default_rng(0), 4, 20_000
    found = draw.normal(size=units) + 3 * draw.normal(size=(seeds, units))
    assert units * significance.between_units(found) == pytest.approx(1, abs=0.15)
    assert units * significance.by_single_units(found) == pytest.approx(9, abs=0.3)


def test_degrees_of_freedom_grow_with_the_share_of_the_examples():
    """Hillis (2007): those of the seeds, times the square of the whole variance over the seeds' part."""
    effects = np.tile(np.random.default_rng(3).normal(0.1, 1, 400), (3, 1))
    of_units, of_seeds = effects[0].var(ddof=1) / 400, 2 * 0.001 / 3
    t = effects.mean() / math.sqrt(of_units + of_seeds)
    expected = significance.t_chance(t, 2 * ((of_units + of_seeds) / of_seeds) ** 2)
    assert significance.over_seeds([effects], Spread(0.001, 2)) == pytest.approx(expected, rel=1e-9)


def of(ids, scores):
    return {0: Outcomes(Metric("m"), np.array(ids), np.array(scores))}


def test_examples_of_one_image_are_one_unit_of_the_first_less_the_second():
    ids = [1000, 1001, 2000, 3999]
    found = paired.pair("vqa", 1000, of(ids, [1.0, 1.0, 0.0, 0.5]), of(ids, [0.0, 0.5, 1.0, 0.5]), [0], "a row")
    assert found.labels.tolist() == [1, 2, 3]
    assert found.sizes.tolist() == [2, 1, 1]
    assert found.differences.tolist() == [[1.5, -1.0, 0.0]]


@pytest.mark.parametrize(("ids", "count"), [([0, 1, 2], 1), ([3, 4, 5], 2)])
def test_what_is_tested_of_several_parts_is_their_mean(ids, count):
    """Whether they are of the same examples, or of others."""
    parts = [
        paired.pair("retrieval", 1, of(own, scores), of(own, [0.0, 0.0, 0.0]), [0], "a row")
        for own, scores in (([0, 1, 2], [1.0, 1.0, 0.0]), (ids, [0.0, 1.0, 0.0]))
    ]
    strata = paired.strata(parts)
    assert len(strata) == count
    assert sum(stratum.mean() for stratum in strata) == pytest.approx((2 / 3 + 1 / 3) / 2)
