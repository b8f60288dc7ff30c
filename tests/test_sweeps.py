"""Every sweep composes for its first and last run, says how many runs it has, and varies what it says."""

import re
from pathlib import Path

import pytest
from composed import each_settled, settled
from presented import METHODS

from vltune.assemble.factory import build_method
from vltune.assemble.model import build_shapes
from vltune.runs.identity import identity, settings
from vltune.settings.engine import Settings
from vltune.sweep.grid import expand

ROOT = Path(__file__).parents[1]
SWEEPS = sorted(ROOT.glob("sweeps/*.yaml"))
SWEEP_OF_RATES = ROOT / "sweeps" / "learning_rates.yaml"


def shapes(config):
    return build_shapes(config["backbone"], config["task"], config["dataset"])


def grid(file, *overrides):
    """The overrides of each run."""
    return expand(ROOT, [f"+sweep={file.stem}", *overrides]).jobs


def differing(config, other):
    """The decisive settings, dotted, in which two runs differ."""
    one, two = settings(config), settings(other)
    return {f"{group}.{key}" for group in one for key in one[group] if one[group][key] != two[group][key]}


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_header_says_command_and_runs_and_the_ends_of_the_grid_build(file):
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"python run.py -m +sweep={file.stem}" in header
    runs = grid(file)
    count, of_each = re.search(r"([\d,]+) runs( a method)?", header).groups()
    methods = {override for run in runs for override in run if override.startswith("method=")}
    assert int(count.replace(",", "")) * (len(methods) if of_each else 1) == len(runs)
    for config in each_settled([runs[0], runs[-1]]):
        assert config["sweep"] == file.stem
        assert Settings.of(config["engine"])
        assert build_method(config["method"]).attach(shapes(config).backbone) is not None


@pytest.mark.parametrize("name", ["learning_rates", "ablation_apt"])
def test_what_chooses_does_not_read_the_test_split(name):
    assert settled(f"+sweep={name}")["engine"]["evaluate"] == ["val"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_as_many_rates(method):
    runs = each_settled(grid(SWEEP_OF_RATES, f"method={method}", "backbone=vilt_mini"))
    rates = runs[0]["method"]["rates"]
    assert [run["engine"]["lr"] for run in runs] == [rates[trial] for trial in ("low", "middle", "high")]
    assert rates["low"] < rates["middle"] < rates["high"]


@pytest.mark.parametrize("backbone", ["vilt_mini", "meter_mini"])
def test_a_method_that_no_sweep_chose_a_rate_for_has_its_usual_one(backbone):
    chosen = settled(f"backbone={backbone}", "method=apt")
    assert chosen["engine"]["lr"] == chosen["rates"]["apt"]
    other = settled(f"backbone={backbone}", "method=apt", "~rates.apt", "method.rates.middle=0.007")
    assert other["engine"]["lr"] == 0.007


@pytest.mark.parametrize(
    ("backbone", "prompts"),
    [(["backbone=meter_mini"], {4, 8, 12, 16}), (["backbone=vilt", "task=vqa"], {50, 100, 150, 200})],
)
def test_the_ablation_changes_one_setting_at_a_time(backbone, prompts):
    published, *variants = each_settled([*run, *backbone] for run in grid(ROOT / "sweeps" / "ablation_apt.yaml"))
    assert settings(published) == settings(settled(*backbone, "engine.evaluate=[val]"))
    changed = [differing(published, variant) for variant in variants]
    assert all(len(keys) == 1 for keys in changed)
    assert set().union(*changed) == {
        f"method.{key}" for key in ("activation", "map", "scale", "prompts", "rank", "roles")
    }
    assert {variant["method"]["prompts"] for variant in (published, *variants)} == prompts
    assert len({identity(config, {})["hash"] for config in (published, *variants)}) == 15


@pytest.mark.parametrize(
    ("variant", "places"), [("in_towers", {"text", "image"}), ("everywhere", {"fusion", "text", "image"})]
)
def test_the_ablation_reaches_the_towers_of_a_backbone_that_has_some(variant, places):
    config = settled("+sweep=ablation_apt", "backbone=meter_mini", f"variant={variant}")
    backbone = shapes(config).backbone
    tuning = build_method(config["method"]).attach(backbone)
    assert {site.place for site in tuning.sites} == places
    assert differing(settled("+sweep=ablation_apt", "backbone=meter_mini"), config) == {"method.sites_in"}


SHARES = {"one_percent": 0.01, "five_percent": 0.05, "ten_percent": 0.1, "all": 1.0}


@pytest.mark.parametrize("share", SHARES)
def test_low_data_compares_shares_at_the_same_number_of_steps(share):
    mini = settled("+sweep=low_data", f"share={share}")
    assert mini["dataset"]["train_fraction"] == SHARES[share]
    assert mini["engine"]["max_steps"] == 1000
    real = settled("+sweep=low_data", f"share={share}", "backbone=vilt", "task=vqa")
    assert real["engine"]["epochs"] * real["dataset"]["train_fraction"] == pytest.approx(10)
    assert real["engine"]["max_steps"] is None


@pytest.mark.parametrize("method", ["full", "apt"])
def test_the_runs_of_low_data_on_all_images_are_those_of_mini_vqa(method):
    of_all, of_table = (
        identity(settled(f"+sweep={sweep}", f"method={method}", *more), {})
        for sweep, more in (("low_data", ["share=all"]), ("mini_vqa", []))
    )
    assert of_all == of_table


@pytest.mark.parametrize("other", ["dataset.train_fraction=0.5", "dataset.train_fraction_seed=1"])
def test_which_images_are_trained_on_is_in_the_hash(other):
    assert identity(settled(other), {}) != identity(settled(), {})
