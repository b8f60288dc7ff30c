"""What is committed under `results/` is what this code and these records give."""

import csv
import re
import shutil
from collections import defaultdict
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml
from composed import each_settled, settled
from presented import ALL, CONTROLS, METHODS, PAPER, report

from vltune.assemble.data import make_data, open_data
from vltune.assemble.weights import fingerprints
from vltune.records import packed
from vltune.records import record as records
from vltune.results import findings
from vltune.results.tables import published
from vltune.runs.identity import identity, of_cost
from vltune.settings.config import RunConfig
from vltune.sweep import launch, plan

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
SWEEP = yaml.safe_load((ROOT / "sweeps" / "mini.yaml").read_text())["hydra"]["sweeper"]["params"]
GRID = list(product(*(SWEEP[key].split(",") for key in ("backbone", "task")), PAPER))
CONTROL = [(backbone, "vqa", control) for backbone in SWEEP["backbone"].split(",") for control in CONTROLS]
# Of CLIP's sweep what one folder of data has.
CASES = "objects_1,objects_2,objects_4,objects_8,objects_16,places_16,textures_16,objects_new"
FIGURES = {"vqa": "vqa_score", "nlvr2": "accuracy", "retrieval": "r1", "snli_ve": "accuracy"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world") / "shapes"


@cache
def made_fingerprints(world, backbone, task):
    config = settled(f"backbone={backbone}", f"task={task}", f"dataset.data_dir={world}")
    make_data(config["dataset"], config["task"])
    return fingerprints(config["weights"], config["backbone"], open_data(RunConfig.of(config)).fingerprint)


@pytest.mark.parametrize(("backbone", "task", "method"), GRID + CONTROL)
def test_every_run_of_the_sweep_has_a_record_of_this_very_configuration(backbone, task, method, world):
    """The hash holds the decisive configuration, the weights and the data: whoever changes one must run the sweep again."""
    of = made_fingerprints(world, backbone, task)
    chosen = [f"backbone={backbone}", f"task={task}", f"method={method}", f"dataset.data_dir={world}"]
    for config in each_settled([*chosen, f"seed={seed}"] for seed in str(SWEEP["seed"]).split(",")):
        record = records.read(records.path(RESULTS, identity(config, of)))
        assert record["status"] == "finished"
        assert record["metrics"]["test"][FIGURES[task]] > 0


def test_the_hash_of_every_record_follows_from_the_record_alone():
    trained, counted = (sorted(RESULTS.rglob(f"{kind}/*/*/*.json")) for kind in ("records", "costs"))
    assert (len(trained), len(counted)) == (1723, 27)
    for file in trained + counted:
        record = records.read(file)
        config = record["config"]
        found = of_cost(config) if file in counted else identity(config, record["fingerprints"])
        assert (found, record["id"]) == (record["identity"], file.stem), file


@pytest.mark.parametrize(
    ("sweep", "folder", "runs"),
    [
        (["+sweep=ablation_apt"], "ablation_apt", 45),
        (["+sweep=low_data"], "low_data", 96),
        (["+sweep=all"], "", 12 * len(ALL)),
        (["+sweep=matched_params"], "matched_params", 102),
        (["+sweep=matched_macs"], "matched_macs", 72),
        (["+sweep=clip_rates", "seed=0"], "learning_rates", 48),
        (["+sweep=clip_mini", f"case={CASES}"], "clip_mini", 384),
        (["+sweep=clip_retrieval"], "clip_retrieval", 33),
        (["+sweep=subject_rates", "seed=0"], "learning_rates", 30),
        (["+sweep=subject_mini"], "subject_mini", 180),
    ],
)
def test_every_run_of_the_other_sweeps_has_one_too(sweep, folder, runs, world):
    seeds = [] if "seed=0" in sweep else ["seed=0,1,2"]
    data = world.with_name("larger") if folder == "clip_retrieval" else world  # of 1,000 test images
    arguments = [*sweep, *seeds, f"dataset.data_dir={data}", f"results_dir={RESULTS / folder}"]
    found = launch.standings(plan.plan(ROOT, arguments))
    assert len(found) == runs
    assert [each.run.label for each in found if each.state != "finished"] == []


@pytest.mark.parametrize(
    "table",
    [
        *("vilt_mini", "meter_mini", "vilt", "meter", "ablation_apt_vilt_mini", "low_data_vilt_mini"),
        *("clip_mini_few_shot", "clip_mini_base_to_new", "clip_few_shot", "clip_base_to_new", "clip_retrieval"),
        *("stable_diffusion", "subject_mini", "learnable_vilt_mini", "learnable_meter_mini"),
        *("matched_params_vilt_mini", "matched_params_meter_mini", "matched_macs_vilt_mini", "matched_macs_meter_mini"),
    ],
)
def test_the_committed_tables_are_made_of_the_committed_records(table, tmp_path):
    report(table, RESULTS, out=tmp_path, formats=("md", "tex", "csv"))
    for form in ("md", "tex", "csv"):
        made, committed = (folder / "tables" / f"{table}.{form}" for folder in (tmp_path, RESULTS))
        assert made.read_text() == committed.read_text()


def test_the_docs_of_diffusion_show_the_committed_table():
    """Its scores and their marks; what pictures alone tell was read beside them."""
    made = {row["method"]: row for row in csv.DictReader((RESULTS / "tables" / "subject_mini.csv").open())}
    text = (ROOT / "docs" / "diffusion.md").read_text().partition("| method | likeness |")[2]
    shown = re.findall(r"^\| `(\w+)`[^|]*\|([^|]+)\|([^|]+)\|([^|]+)\|", text, re.MULTILINE)
    assert {method for method, *_ in shown} == made.keys() - {"copied"}
    for method, *cells in shown:
        for key, cell in zip(("likeness", "faithful", "drift"), cells, strict=True):
            number = re.search(r"[\d.]+", cell.partition(";")[0])
            if mean := made[method][f"{key}_mean"]:
                assert number.group() == f"{float(mean):.3f}".replace("0.000", "0"), (method, key)
                assert ("**" in cell, "=" in cell) == (
                    made[method][f"{key}_best"] == "True" and key != "drift",
                    made[method][f"{key}_mark"] == "=" and key != "drift",
                ), (method, key)


def test_the_committed_findings_are_those_of_the_committed_records():
    assert (ROOT / "docs" / "findings.md").read_text() == findings.written(RESULTS, METHODS)


def test_what_is_published_has_its_source_and_is_of_methods():
    for file in RESULTS.glob("paper/*.json"):
        published.check(file, paper := records.read_json(file))
        assert paper["rows"].keys() <= METHODS.keys()
        assert {key for row in paper["rows"].values() for key in row} == paper["units"].keys()


def test_the_committed_page_shows_the_committed_records():
    """Its pictures come from data that a run generates, so that it is not made anew here."""
    page = (RESULTS / "html" / "mini.html").read_text()
    hashes = {file.stem.split("-")[1] for file in RESULTS.glob("records/*_mini/*-shapes/*-seed0.json")}
    for task in ("pretraining", "contrastive", "painting"):
        hashes -= {file.stem.split("-")[1] for file in RESULTS.glob(f"records/*/{task}-shapes/*.json")}
    assert len(hashes) > 60
    assert not [each for each in hashes if each not in page]


def test_the_readme_shows_what_make_demo_prints(tmp_path):
    """Of the committed runs with its seed."""
    folder = tmp_path / "records" / "vilt_mini" / "vqa-shapes"
    folder.mkdir(parents=True)
    committed = RESULTS / "records" / "vilt_mini" / "vqa-shapes"
    for file in (*committed.glob("*-seed0.*"), *committed.glob(packed.PACK)):
        if file.name.split("-")[0] in (*PAPER, *CONTROLS, packed.PACK):
            shutil.copy(file, folder)
    report("demo", tmp_path, formats=("md",))
    text = (ROOT / "README.md").read_text()
    shown = text.partition("<!-- make demo -->\n")[2].partition("<!-- end of make demo -->")[0].splitlines()
    made = [line for line in (tmp_path / "tables" / "demo.md").read_text().splitlines() if line.startswith("|")]
    assert len(made) == 11
    assert shown == made


@pytest.mark.parametrize(
    ("backbone", "score"),
    [("vilt_mini", "vqa_score"), ("meter_mini", "vqa_score"), ("clip_mini", "accuracy"), ("sd_mini", "balance")],
)
def test_learning_rates_were_chosen_on_validation_with_as_many_trials_for_every_method(backbone, score):
    tried = defaultdict(dict)
    for file in (RESULTS / "learning_rates" / "records" / backbone).rglob("*.json"):
        record = records.read(file)
        assert record["status"] == "finished"
        assert record["metrics"]["test"] is None, "the test split was read while rates were chosen"
        tried[record["identity"]["method"]][record["config"]["engine"]["lr"]] = record["metrics"]["val"][score]
    chosen = yaml.safe_load((ROOT / "conf" / "rates" / f"{backbone}.yaml").read_text())
    assert tried.keys() == chosen.keys()
    for method, scores in tried.items():
        assert len(scores) == 3
        assert scores[float(chosen[method])] == max(scores.values()), method
