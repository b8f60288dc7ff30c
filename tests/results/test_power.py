"""What a comparison can tell: planned as its own test finds it."""

import math
from itertools import combinations

import numpy as np
import presented
import pytest
from fabricated import Root
from predicted import row_of
from test_findings import fill
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.records import record as records
from vltune.results import power as of_tables
from vltune.stats import power, significance
from vltune.stats.power import Noise, detectable, least_seeds, seeds_needed, times_needed
from vltune.stats.significance import LEVEL, Spread
from vltune.tasks.vqa import VQA


def noise(seed_points=1.0, unit_points=40.0, units=400, seeds=3, methods=8, by_single_units=0.0):
    """Deviations in points: of a method's score over seeds, and of a unit's difference."""
    among = Spread((seed_points / 100) ** 2, (methods - 1) * (seeds - 1))
    return Noise((unit_points / 100) ** 2 / units, units, among, by_single_units * among.variance, seeds, methods)


@pytest.mark.parametrize(("seed_points", "seeds"), [(1.0, 3), (0.1, 3), (3.0, 2)])
def test_what_is_detectable_is_found_four_times_in_five_by_the_test_itself(seed_points, seeds):
    planned, draw, found = noise(seed_points, seeds=seeds), np.random.default_rng(0), []
    among, difference = planned.among, detectable(planned, seeds)
    for _ in range(1500):
        of_seeds = draw.normal(0, (2 * among.variance) ** 0.5, (seeds, 1))
        of_units = draw.normal(0, (planned.between_units * planned.units) ** 0.5, (1, planned.units))
        seen = Spread(among.variance * draw.chisquare(among.freedom) / among.freedom, among.freedom)
        found.append(significance.over_seeds([difference + of_seeds + of_units], seen) < LEVEL)
    assert np.mean(found) == pytest.approx(power.POWER, abs=0.04)


def test_without_noise_of_seeds_it_is_the_textbooks():
    still = noise(seed_points=0.0)
    assert detectable(still, 3) == pytest.approx((1.95996 + 0.84162) * 0.4 / 20, rel=1e-4)
    assert times_needed(still, detectable(still, 3) / 2, 3) == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("comparisons", [1, 7])
def test_what_is_planned_is_detectable_and_less_is_not(comparisons):
    planned, difference = noise(), 0.03
    times = times_needed(planned, difference, 5, comparisons)
    assert detectable(planned, 5, times, comparisons) == pytest.approx(difference, rel=1e-4)
    seeds = seeds_needed(planned, 0.08, comparisons=comparisons)
    assert detectable(planned, seeds, comparisons=comparisons) <= 0.08
    assert detectable(planned, seeds - 1, comparisons=comparisons) > 0.08 or seeds == 2


def test_what_no_number_tells_is_said():
    assert times_needed(noise(seed_points=3.0), 0.01, 3) is None
    assert times_needed(noise(seed_points=3.0), 0.01, 300) is not None
    assert seeds_needed(noise(unit_points=40.0), 0.01) is None


@pytest.mark.parametrize(
    ("planned", "points"),
    [(Noise(1e-4, 1000, Spread(2e-5, 2), 0.0, 3, 2), 2.0), (Noise(2e-4, 1000, Spread(3e-5, 1), 1e-5, 2, 2), 4.5)],
)
def test_of_few_runs_the_fewest_examples_that_do_are_named_though_more_tell_less(planned, points):
    """Degrees of freedom fall as examples grow (Satterthwaite)."""
    times = times_needed(planned, points / 100, planned.seeds)
    assert detectable(planned, planned.seeds, math.inf) > min(
        detectable(planned, planned.seeds, 2**n) for n in range(6)
    )
    assert detectable(planned, planned.seeds, times) == pytest.approx(points / 100, rel=1e-4) or times < 1
    assert detectable(planned, planned.seeds, 0.99 * times) > points / 100 or times < 1
    assert least_seeds(planned, points / 100) <= planned.seeds
    assert times_needed(planned, 0.001, planned.seeds) is None


def test_more_comparisons_seeds_noise_or_units_move_it_as_they_should():
    assert detectable(noise(), 3, comparisons=7) > detectable(noise(), 3)
    assert detectable(noise(), 5) < detectable(noise(), 3)
    assert detectable(noise(), 3, times=4) < detectable(noise(), 3)
    assert detectable(noise(seed_points=2.0), 3) > detectable(noise(), 3)


def test_what_single_units_move_from_seed_to_seed_goes_with_their_number():
    """Drawn: each method's answer to each unit turns from seed to seed, and the methods' own scores do so as well."""
    draw, of_seeds, of_answers = np.random.default_rng(0), 0.01, 0.4

    def drawn(units, methods=300, seeds=8):
        own = draw.normal(0, of_seeds, (methods, seeds, 1))
        return own + draw.normal(0, of_answers, (methods, seeds, units))

    def measured(found):
        among = significance.spread([dict(enumerate(each.mean(1))) for each in found])
        single = np.median([significance.by_single_units(a - b) for a, b in zip(found[::2], found[1::2], strict=True)])
        return Noise(0.0, found.shape[2], among, single / 2, found.shape[1], len(found))

    few, many = measured(drawn(400)), measured(drawn(1600))
    assert few.by_single_units == pytest.approx(of_answers**2 / 400, rel=0.05)
    assert detectable(few, 8, times=4) == pytest.approx(detectable(many, 8), rel=0.1)
    assert detectable(few, 8, times=4) < 0.75 * detectable(few, 8)


def test_all_that_moves_between_seeds_may_be_single_units():
    """Then enough of them tell anything with two seeds."""
    assert times_needed(noise(by_single_units=0.9), 0.001, 3) is None
    assert times_needed(noise(by_single_units=1.5), 0.001, 3) is not None


def test_a_table_says_what_its_columns_can_tell(tmp_path):
    fill(Root(tmp_path))
    [(title, found)] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).items()
    assert "ViLT" in title
    vqa, *others = found
    assert (vqa.noise.units, vqa.noise.seeds, vqa.noise.methods) == (400, 3, 3)
    assert 0 < vqa.pair < vqa.table
    assert vqa.units[0] > 400
    assert others and all(each.noise is None for each in others)
    heads, first, *_ = of_tables.lines(found)
    assert len(heads) == len(first)
    assert first[1] == "400 x 3"


def test_of_rows_with_more_and_fewer_seeds_it_is_planned_with_the_fewest(tmp_path):
    fill(Root(tmp_path), full=5, lora=5)
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    assert (vqa.noise.seeds, vqa.noise.among.freedom) == (3, (3 - 1) * (3 - 1))


def test_rows_of_fewer_units_change_nothing(tmp_path):
    """They were scored on the first examples of a split: what they say of noise is of these."""
    fill(root := Root(tmp_path))
    [[alone, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    for method in ("adapter", "lst"):
        for seed in range(3):
            right = np.random.default_rng(seed).permutation(40) < 20 + 3 * seed
            file = root.add(
                100 * float(right.mean()), method=method, seed=seed, config={"engine": {"eval_examples": 40}}
            )
            rows = [row_of("test", id * 1000, "no", float(each)) for id, each in enumerate(right)]
            write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), VQA.columns)
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    assert vqa.noise == alone.noise


@pytest.mark.parametrize(("seed", "with_predictions"), [(7, True), (0, False)])
def test_a_row_that_cannot_be_paired_hides_no_other(tmp_path, seed, with_predictions):
    fill(root := Root(tmp_path), apt=0)
    (file,) = (tmp_path / "records").rglob("lora-*-seed0.json")
    alone = root.add(50.0, method="apt", seed=seed)
    if with_predictions:
        predictions = [row_of("test", id * 1000, "no", float(id % 2)) for id in range(400)]
        write_predictions(alone.with_suffix(".parquet"), {"test": predictions}, records.read(alone), VQA.columns)
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    assert (vqa.noise.units, vqa.noise.seeds, vqa.noise.methods) == (400, 3, 2)
    file.with_suffix(".parquet").unlink()
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    assert vqa.noise is None
    assert "seed0" in vqa.reason


def test_the_command_prints_it_and_refuses_what_it_does_not_know(tmp_path):
    fill(Root(tmp_path))
    shown = CliRunner().invoke(app, ["power", "vilt_mini", "--results-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "not known: " in shown.output and "needs two methods with two seeds each" in shown.output
    refused = CliRunner().invoke(app, ["power", "maxi", "--results-dir", str(tmp_path)])
    assert refused.exit_code == 2
    assert "table 'maxi' is not known" in refused.output


def test_degrees_of_freedom_are_those_of_as_many_methods_with_other_numbers_of_seeds():
    assert [noise(seeds=3, methods=8).freedom(seeds) for seeds in (2, 3, 5)] == [7, 14, 28]


def test_the_marks_of_a_table_are_corrected_for_its_other_rows_and_whole_units_tell_them(tmp_path):
    fill(Root(tmp_path))
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    found, others = vqa.noise, 3 - 1
    assert vqa.table == pytest.approx(100 * detectable(found, 3, comparisons=others))
    told = [(seeds, units) for seeds, units in zip(of_tables.SEEDS, vqa.units, strict=True) if units is not None]
    assert told
    for seeds, units in told:
        assert (
            detectable(found, seeds, units / 400, others) <= 0.01 < detectable(found, seeds, (units - 1) / 400, others)
        )


def test_noise_is_that_of_the_middle_pair_and_what_single_units_move_is_of_one_method(tmp_path):
    root, draw, right = Root(tmp_path), np.random.default_rng(0), {}
    for method, share in (("full", 0.9), ("lora", 0.8), ("apt", 0.3)):
        right[method] = (draw.random((3, 100)) < share).astype(float)
        for seed, scores in enumerate(right[method]):
            file = root.add(100 * float(scores.mean()), method=method, seed=seed)
            rows = [row_of("test", id * 1000, "no", float(score)) for id, score in enumerate(scores)]
            write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), VQA.columns)
    [[vqa, *_]] = of_tables.told("vilt_mini", 1.0, tmp_path, presented.METHODS).values()
    pairs = [right[one] - right[other] for one, other in combinations(right, 2)]
    assert vqa.noise.between_units == pytest.approx(np.median([*map(significance.between_units, pairs)]))
    assert vqa.noise.by_single_units == pytest.approx(np.median([*map(significance.by_single_units, pairs)]) / 2)
