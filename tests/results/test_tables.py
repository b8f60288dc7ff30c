import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import presented as build
import pytest
from fabricated import Root
from predicted import predicted
from presented import report
from rich.console import Console

from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.records import record as records
from vltune.results import FORMATS
from vltune.results.render import text as render
from vltune.results.tables import cautions, cells
from vltune.results.tables.build import ALIKE, MIXED, SAME, UNTESTED, columns
from vltune.stats import significance

PAPER = Path(__file__).parents[2] / "results" / "paper"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def rows(table, method):
    return [row for row in table.rows if row.method == method]


def test_every_number_of_a_table_is_a_number_in_the_schema():
    """So that a file in which it is none is named when it is read, and no report ends in a traceback."""
    for column in columns():
        for field in (column.value, *(column.value_for or {}).values()):
            found = records.SCHEMA
            for key in filter(None, field.split(".")):
                found = found.get("properties", {}).get(key) or found["additionalProperties"]
                found = records.SCHEMA["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
            kinds = [found["type"]] if isinstance(found.get("type"), str) else found["type"]
            assert not field or {"number", "integer"} & {*kinds}, field


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        ("cost.parts.image.additional_macs", True),
        ("cost.method_params", True),
        ("config.engine.max_steps", True),
        ("cost.latency_ms.median", False),
        ("cost.peak_memory_bytes", False),
        ("metrics.test.vqa_score", False),
    ],
)
def test_what_a_configuration_decides_has_no_mean_and_no_machine(value, counted):
    column = replace(columns()[0], value=value)
    assert column.is_counted == counted
    cell = cells._cell(replace(column, published=None), [2e6, 6e6, 6e6], None, 0)
    assert (cell.reason == cells.DIFFERENT) == counted


def test_a_column_of_cases_is_one_for_each_and_their_mean():
    by_key = {column.key: column for column in columns() if column.experiment.startswith("subject-dreambooth_")}
    [dog6, dino] = by_key["dog6_dino"], by_key["dino"]
    assert (dog6.title, dog6.experiment, dog6.value) == ("dog6, DINO", "subject-dreambooth_dog6", "metrics.test.dino")
    assert (dog6.published, dog6.essential) == (None, False)
    assert (dino.title, dino.published, dino.value) == ("mean, DINO", "dino", "")
    assert len(dino.mean_of) == 30
    assert all(by_key[key].experiment == f"subject-dreambooth_{key.removesuffix('_dino')}" for key in dino.mean_of)


def shown(table, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render.terminal(table))
    return console.file.getvalue()


def publish(root, name="vilt"):
    (root.folder / "paper").mkdir()
    (root.folder / "paper" / f"{name}.json").write_text((PAPER / f"{name}.json").read_text())


def scored(**scores):
    return {"val": None, "test": scores}


def cost(root, method, as_published, measured, hash="cccccccc", config=None, **fields):
    """A `mode=cost` record of METER, MACs in G."""
    root.add(
        kind="costs",
        method=method,
        hash=hash,
        config=config or {"method": {"name": method}},
        metrics={"val": None, "test": None},
        additional_macs_as_published=int(as_published * 1e9),
        additional_macs=int(measured * 1e9),
        **{"backbone": "meter", "dataset": "vqav2"} | fields,
    )


def answer(root, method, right, seed=0, task="nlvr2", **fields):
    """A run whose answers are right (1) or wrong (0) as told, and its predictions."""
    file = root.add(task=task, method=method, seed=seed, metrics=scored(accuracy=100 * float(np.mean(right))), **fields)
    return predicted(file.with_suffix(".parquet"), [("test", i, "True", float(r)) for i, r in enumerate(right)])


def marks(table, column="nlvr2"):
    return {row.label: row.cells[column].mark for row in table.rows if row.cells[column].mean is not None}


def answers(share, examples=800, seed=0):
    """So many right ones, at random."""
    right = np.zeros(examples)
    right[np.random.default_rng(seed).permutation(examples)[: round(share * examples)]] = 1
    return right


@pytest.mark.parametrize("name", build.names())
def test_every_definition_builds_without_records(root, name):
    table = build.build(name, root.folder)
    assert [row.label for row in table.rows] == list(build.listed(name).values), "controls appear where they were run"
    assert all(cell.mean is None for row in table.rows for cell in row.cells.values())
    assert {table.figure["score"], *table.figure["against"]} <= {column.key for column in table.columns}


def test_mean_sample_deviation_and_seeds(root):
    for seed, score in enumerate((60.0, 62.0, 64.0)):
        root.add(score, seed=seed)
    root.add(50.0, method="apt")
    table = build.build("vilt_mini", root.folder)
    cell = rows(table, "lora")[0].cells["vqa"]
    assert (cell.mean, cell.std, cell.n) == (62.0, 2.0, 3)
    cell = rows(table, "apt")[0].cells["vqa"]
    assert (cell.mean, cell.std, cell.n) == (50.0, None, 1)
    markdown = render.markdown(table)
    nothing = "not run | not run | not run | not run"
    assert f"| lora | 62.00 ± 2.00 (3) | {nothing} | — | 4.10 |" in markdown
    assert f"| apt | 50.00 (1) | {nothing} | — | 4.10 |" in markdown, "no mean of four where one is missing"
    assert f"| adapter | not run | {nothing} | — | — |" in markdown


def test_other_backbones_and_experiments_stay_out(root):
    root.add(60.0)
    root.add(10.0, backbone="vilt", seed=1)
    root.add(10.0, task="pretraining", seed=1)
    (row,) = rows(build.build("vilt_mini", root.folder), "lora")
    assert row.cells["vqa"].n == 1


def test_configurations_are_not_mixed(root):
    root.add(60.0)
    root.add(61.0, seed=1)
    other = {"method": {"rank": 4}, "engine": {"lr": 1e-2}, "sweep": "rates", "results_dir": "elsewhere"}
    root.add(40.0, hash="ffffffff", config=other)
    first, second = rows(build.build("vilt_mini", root.folder), "lora")
    assert (first.label, first.hashes, first.cells["vqa"].n) == ("lora (engine.lr=0.001)", ("0a1b2c3d",), 2)
    assert (second.label, second.hashes, second.cells["vqa"].n) == ("lora (engine.lr=0.01)", ("ffffffff",), 1)


def test_many_differences_are_named_by_hash(root):
    root.add(60.0, config={"method": {"a": 1, "b": 1, "c": 1, "d": 1}})
    root.add(50.0, hash="ffffffff", config={"method": {"a": 2, "b": 2, "c": 2, "d": 2}})
    root.add(40.0, hash="eeeeeeee", config={"method": {"a": 1, "b": 1, "c": 1, "d": 3}})
    labels = [row.label for row in rows(build.build("vilt_mini", root.folder), "lora")]
    assert labels == ["lora (0a1b2c3d)", "lora (method.d=3)", "lora (ffffffff)"]


def test_order_of_rows(root):
    for method in ("question_only", "zeta", "full"):
        root.add(method=method)
    assert [row.method for row in build.build("vilt_mini", root.folder).rows] == [
        *build.PAPER,
        "zeta",
        "question_only",
    ]


def test_tasks_of_one_method_share_a_row_and_a_mean(root):
    publish(root)
    vilt = {"backbone": "vilt"}
    root.add(71.0, dataset="vqav2", hash="00000001", **vilt)
    root.add(task="nlvr2", dataset="nlvr2", hash="00000002", metrics=scored(accuracy=76.0), **vilt)
    recalls = scored(ir_r1=64.0, tr_r1=83.0)
    root.add(task="retrieval", dataset="f30k", hash="00000003", metrics=recalls, **vilt)
    (row,) = rows(build.build("vilt", root.folder), "lora")
    assert row.hashes == ("00000001", "00000002", "00000003")
    cell = row.cells["avg"]
    assert (cell.mean, cell.std, cell.n, cell.published) == (73.5, None, 1, 69.09)

    # A second configuration of one task leaves open which belongs with the others: every hash is a row.
    root.add(70.0, dataset="vqav2", hash="00000004", **vilt)
    split = rows(build.build("vilt", root.folder), "lora")
    assert [row.hashes for row in split] == [("00000001",), ("00000002",), ("00000003",), ("00000004",)]
    assert all(row.cells["avg"].mean is None for row in split)


def test_the_mean_is_of_seeds_that_have_all_four(root):
    for seed, score in enumerate((60.0, 62.0, 90.0)):
        root.add(score, backbone="meter_mini", seed=seed)
        tasks = {
            "nlvr2": {"accuracy": score},
            "retrieval": {"ir_r1": 40.0, "tr_r1": 50.0},
            "snli_ve": {"accuracy": 1.0},
        }
        for task, scores in tasks.items():
            if (task, seed) != ("nlvr2", 2):
                root.add(task=task, seed=seed, metrics=scored(**scores), backbone="meter_mini")
    cells = rows(build.build("meter_mini", root.folder), "lora")[0].cells
    assert (cells["vqa"].n, cells["nlvr2"].n, cells["snli_ve"].mean) == (3, 2, 1.0)
    assert (cells["avg"].mean, cells["avg"].n) == (53.0, 2)
    assert cells["avg"].std == pytest.approx(0.5**0.5), "of the seeds' means 52.5 and 53.5"
    (row,) = rows(build.build("vilt_mini", root.folder), "lora")
    assert row.hashes == (), "each backbone has a table of its own"


def test_costs_come_from_the_run_and_else_from_mode_cost(root):
    nothing = {"val": None, "test": None}
    config = {"method": {"rank": 4}, "backbone": {"layers": 4}}
    for method, own in (("lora", 1000), ("apt", None)):
        root.add(60.0, method=method, method_params=own, config=config)
        root.add(kind="costs", method=method, hash="cccccccc", method_params=2000, config=config, metrics=nothing)
    root.add(kind="costs", method="adapter", hash="cccccccc", method_params=3000, metrics=nothing)
    table = build.build("vilt_mini", root.folder)
    found = {row.label: row.cells["method_params_k"].mean for row in table.rows}
    assert (found["lora"], found["apt"], found["adapter"]) == (1.0, 2.0, 3.0)
    assert rows(table, "lora")[0].hashes == ("0a1b2c3d",)
    assert rows(table, "adapter")[0].cells["vqa"].mean is None


def test_a_cost_of_another_backbone_configuration_is_a_row_of_its_own(root):
    root.add(60.0, method_params=None, config={"method": {"rank": 4}, "backbone": {"layers": 4}})
    config = {"method": {"rank": 4}, "backbone": {"layers": 8}}
    root.add(kind="costs", hash="cccccccc", config=config, metrics={"val": None, "test": None})
    labels = [row.label for row in rows(build.build("vilt_mini", root.folder), "lora")]
    assert labels == ["lora (backbone.layers=4)", "lora (backbone.layers=8)"]


def test_costs_on_several_protocols_are_never_averaged(root):
    """Runs, costs alone, and one configuration that other code counted otherwise."""
    longer, shorter = ({"method": {"rank": 4}, "backbone": {"protocol": {"text_len": size}}} for size in (16, 1))
    root.add(60.0, config=longer, additional_macs=270_336)
    root.add(60.0, seed=1, hash="bbbbbbbb", config=shorter, additional_macs=147_456)
    table = build.build("vilt_mini", root.folder)
    found = {row.label: (row.cells["additional_mmacs"].mean, row.cells["vqa"].n) for row in rows(table, "lora")}
    assert found == {
        "lora (backbone.protocol.text_len=16)": (0.270336, 1),
        "lora (backbone.protocol.text_len=1)": (0.147456, 1),
    }
    for hash, answers, count in (("cccccccc", 30, 1000), ("dddddddd", 10, 900)):
        config = {"method": {"prompts": 4}, "dataset": {"answers": answers}}
        costs = {
            "kind": "costs",
            "method": "apt",
            "hash": hash,
            "config": config,
            "metrics": {"val": None, "test": None},
        }
        root.add(task_params=count, **costs)
    root.add(60.0, method="apt", config={"method": {"prompts": 4}}, task_params=None)
    found = [row.cells["task_params_k"].mean for row in rows(build.build("vilt_mini", root.folder), "apt")]
    assert sorted(found, key=str) == [0.9, 1.0, None], "which of them the run has is not known"
    root.add(60.0, method="full", total_params=1000)
    root.add(60.0, method="full", total_params=1001, seed=1)
    table = build.build("vilt_mini", root.folder)
    (row,) = rows(table, "full")
    assert (row.cells["method_params_k"].mean, row.cells["method_params_k"].reason) == (None, "differs")
    assert "| differs |" in render.markdown(table)
    assert any(
        "updated parameters, k of full is 1, 1.001 in records of one configuration" in note for note in table.notes
    )


def test_the_same_settings_written_otherwise_are_one_row(root):
    for seed, rank in enumerate((4, 4.0)):
        root.add(60.0, seed=seed, config={"method": {"rank": rank, "scale": 1 + 0 * rank}})
    root.add(60.0, seed=2, config={"method": {"rank": 4, "roles": ["value", "query"]}})  # the hash tells
    (row,) = rows(build.build("vilt_mini", root.folder), "lora")
    assert row.cells["vqa"].n == 3


def test_settings_that_change_times_are_told(root):
    for seed, threads in enumerate((1, 1, 4)):
        root.add(60.0, seed=seed, config={"method": {"rank": 4}, "engine": {"lr": 1e-3, "threads": threads}})
    root.add(60.0, seed=3, config={"method": {"rank": 4}, "engine": {"lr": 1e-3}})
    notes = build.build("vilt_mini", root.folder).notes
    told = "Compare with care: runs with engine.threads of 1 (2), 4 (1); times and memory depend on it."
    assert told in notes


def test_costs_join_runs_on_several_tasks_whose_backbones_differ(root):
    backbone = {"backbone": {"image_size": 384}}
    pairs = {"backbone": {"image_size": 288}}
    method = {"method": {"rank": 4}}
    run = {"backbone": "meter", "method": "apt"}
    root.add(75.0, dataset="vqav2", config=method | backbone, method_params=None, **run)
    root.add(task="nlvr2", dataset="nlvr2", config=method | pairs, metrics=scored(accuracy=80.0), **run)
    cost(root, "apt", 2.3, 2.27, config=method | backbone, method_params=3_830_000)
    cost(root, "apt", 9.9, 9.9, config=method | pairs, hash="dddddddd", task="nlvr2", dataset="nlvr2")
    (row,) = rows(build.build("meter", root.folder), "apt")
    assert (row.cells["method_params_M"].mean, row.cells["nlvr2_test_p"].mean) == (3.83, 80.0)
    assert row.cells["additional_gmacs_as_published"].mean == 2.3


def test_meter_has_the_default_deep_prompt_in_its_row_and_the_other_in_a_note(root):
    publish(root, "meter")
    cost(root, "apt", 2.3, 2.25)
    for hash_, roles, size in (("bbbbbbbb", ["cross_memory"], 1), ("cccccccc", ["memory", "cross_memory"], 2)):
        config = {"method": {"roles": roles}}
        cost(root, "deep_prompt", 5.0 * size, 4.0 * size, hash_, config, method_params=1_843_200 * size)
    table = build.build("meter", root.folder)
    (row,) = rows(table, "deep_prompt")
    assert (row.label, row.hashes) == ("deep_prompt", ("cccccccc",))
    cell = row.cells["additional_gmacs_as_published"]
    assert (cell.published, cell.mean) == (13.05, 10.0)
    assert "| 13.05 / 10.00 / -23.4 % | 8.00 |" in render.markdown(table)
    assert "-23.4 %" in shown(table, 120)
    notes = "\n".join(table.notes)
    assert "13.05G follows from nothing found" in notes
    assert "(24 sites, 3.69M, the row above): 10.00G by the paper's way of counting, 8.00G computed" in notes
    assert "(12 sites, 1.84M, no row above): 5.00G by the paper's way of counting, 4.00G computed" in notes
    assert "82.30 % below deep_prompt's by the published numbers" in notes
    assert "77.00 % below by the paper's way of counting" in notes
    assert "71.88 % below a deep prompt that computes only what it uses" in notes

    # Runs of that variant have scores, so they have a row.
    run = {"backbone": "meter", "dataset": "vqav2", "method": "deep_prompt", "method_params": None}
    root.add(67.0, config={"method": {"roles": ["cross_memory"]}}, additional_macs=None, **run)
    more = build.build("meter", root.folder)
    assert len(rows(more, "deep_prompt")) == 2
    assert more.notes[: len(table.notes)] == table.notes


def test_notes_need_every_number_that_they_name(root):
    publish(root, "meter")
    wide, narrow = ({"method": {"name": "scaled_pa", "bottleneck": size}} for size in (102, 96))
    cost(root, "scaled_pa", 1.12, 1.12, config=wide, method_params=3_817_872)
    cost(root, "scaled_pa", 1.12, 1.12, "dddddddd", narrow, method_params=3_599_616)
    table = build.build("meter", root.folder)
    assert not any("Bottleneck" in note for note in table.notes), "no difference, nothing to explain"
    assert not any("sites" in note or "In our records" in note for note in table.notes)
    assert any("82.30 %" in note for note in table.notes), "the published numbers alone say that"
    cost(root, "scaled_pa", 1.19, 1.19, config=wide, method_params=3_817_872)
    (note,) = (note for note in build.build("meter", root.folder).notes if "Bottleneck" in note)
    assert "the published 3.82M and 1.12G do not go together" in note
    assert "the row above, gives 3.82M and 1.19G; bottleneck 96 gives 3.60M and 1.12G" in note


def test_published_ours_and_difference(root):
    publish(root)
    for seed, score in enumerate((70.0, 71.0)):
        root.add(score, backbone="vilt", dataset="vqav2", seed=seed, method="apt", method_params=1_917_000)
    table = build.build("vilt", root.folder)
    cell = rows(table, "apt")[0].cells["vqa_test_dev"]
    assert cell.published == 70.94
    assert cell.difference == pytest.approx(-0.44)
    markdown = render.markdown(table)
    assert "| 70.94 / 70.50 ± 0.71 (2) / -0.44 within |" in markdown
    assert "| 1.92 / 1.92 / +0.00 |" in markdown
    assert "| 71.26 / not run / — |" in markdown, "full tuning is published and was not run here"
    assert "README of DoubtedSteam/APT" in markdown
    for width in (80, 120):
        assert max(map(len, shown(table, width).splitlines())) <= width
        assert all(number in shown(table, width) for number in ("70.94", "-0.44", "72.93", "difference"))


def test_without_the_published_table_it_is_said(root):
    table = build.build("vilt", root.folder)
    assert "Published numbers are left out: there is no paper/vilt.json." in table.notes
    assert all(cell.published is None for row in table.rows for cell in row.cells.values())


@pytest.mark.parametrize(("total", "said"), [(117_590_000, True), (115_431_000, False)])
def test_full_tuning_counts_every_parameter_and_says_where_that_differs(root, total, said):
    publish(root)
    full = {"backbone": "vilt", "dataset": "vqav2", "method": "full"}
    root.add(71.0, total_params=total, task_params=5_990_000, method_params=None, **full)
    table = build.build("vilt", root.folder)
    assert rows(table, "full")[0].cells["method_params_M"].mean == total / 1e6
    note = "full: 115.43M parameters published, 117.59M in our records, 5.99M of them the task's own."
    assert (note in table.notes) is said
    assert said or not any("115.43M" in note for note in table.notes)


def test_runs_without_a_number_are_named_below(root):
    root.add(60.0)
    root.fail(seed=1)
    root.fail(seed=2, status="interrupted", error=None)
    root.fail(seed=3, status="running", error=None)
    (root.folder / "records" / "vilt_mini" / "half.json").write_text("{")
    table = build.build("vilt_mini", root.folder)
    assert rows(table, "lora")[0].cells["vqa"].n == 1
    folder = "records/vilt_mini/vqa-shapes/lora-0a1b2c3d"
    run = "lora 0a1b2c3d on vqa-shapes, seed"
    assert table.unfinished == (
        f"failed: {run} 1: RuntimeError: boom ({folder}-seed1.json)",
        f"interrupted: {run} 2: no reason recorded ({folder}-seed2.json)",
        f"running: {run} 3: no reason recorded ({folder}-seed3.json)",
    )
    assert len(table.broken) == 1
    assert table.broken[0].startswith("records/vilt_mini/half.json: broken JSON")
    for text in (render.markdown(table), shown(table, 200)):
        below = text.split("Runs that did not finish")[1]
        assert all(line in below for line in (*table.unfinished, *table.broken))
    assert r"lora-0a1b2c3d-seed1.json" in render.latex(table)


def test_an_error_s_escape_sequences_reach_no_terminal(root):
    root.fail(error="RuntimeError: \x1b[31mred")
    table = build.build("vilt_mini", root.folder)
    for text in (render.markdown(table), render.latex(table), shown(table, 200)):
        assert "\x1b" not in text
        assert "31mred" in text


def test_a_method_that_only_failed_has_a_dash(root):
    root.fail(method="apt")
    (row,) = rows(build.build("vilt_mini", root.folder), "apt")
    assert row.cells["vqa"].mean is None
    assert row.hashes == ()


def test_latex_escapes(root):
    root.add(60.0, config={"engine": {"lr": 1e-3, "name": "a"}})
    root.add(61.5, hash="ffffffff", config={"engine": {"lr": 1e-3, "name": r"a_b&50%$#{x}~^\|<>"}})
    root.fail(seed=1, error=r"KeyError: 'a_b' & 100% \n")
    publish(root)
    text = render.latex(build.build("vilt_mini", root.folder))
    escaped = (
        r"a\_b\&50\%\$\#\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}\textless{}\textgreater{}"
    )
    assert rf"lora (engine.name={escaped}) & 61.50 (1)" in text
    assert r"KeyError: 'a\_b' \& 100\% \textbackslash{}n" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert all(len(line.replace(r"\&", "").split(" & ")) == len(columns) for line in body)

    root.add(70.0, backbone="vilt", dataset="vqav2", method="apt")
    assert r"70.94 / 70.00 (1) / $-$0.94" in render.latex(build.build("vilt", root.folder))


def test_markdown_escapes(root):
    root.add(60.0, config={"engine": {"name": "a"}})
    root.add(60.0, hash="ffffffff", config={"engine": {"name": "a|b"}})
    assert r"| lora (engine.name=a\|b) | 60.00 (1) |" in render.markdown(build.build("vilt_mini", root.folder))


def test_csv_holds_whole_counts_and_six_digits(root):
    publish(root)
    apt = {"backbone": "vilt", "dataset": "vqav2", "method": "apt"}
    root.add(70.125, method_params=1_917_123, **apt)
    root.add(70.375, method_params=1_917_123, seed=1, **apt)
    lines = list(csv.DictReader(io.StringIO(render.comma_separated(build.build("vilt", root.folder)))))
    assert [line["method"] for line in lines] == list(build.PAPER)
    line = lines[-1]
    assert line["hash"] == "0a1b2c3d"
    assert float(line["vqa_test_dev_mean"]) == 70.25
    assert line["vqa_test_dev_std"] == "0.176777"
    assert (line["vqa_test_dev_n"], line["vqa_test_dev_published"]) == ("2", "70.94")
    assert line["method_params_M_mean"] == "1.917123"
    assert line["nlvr2_test_p_mean"] == ""


def test_report_writes_what_is_asked_for(root, tmp_path):
    root.add(60.0)
    (table,) = report("vilt_mini", root.folder)
    assert table.name == "vilt_mini"
    written = [root.folder / "tables" / f"vilt_mini.{format}" for format in ("md", "tex", "csv")]
    written += [root.folder / "figures" / f"vilt_mini.{format}" for format in ("png", "svg")]
    assert len(FORMATS) == len(written)
    assert all(file.stat().st_size for file in written)
    out = tmp_path / "out"
    assert [table.name for table in report("mini", root.folder, out, ("csv",))] == ["vilt_mini", "meter_mini"]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert files == ["tables/meter_mini.csv", "tables/vilt_mini.csv"]


def test_report_refuses_what_it_does_not_know(root):
    with pytest.raises(
        UserError,
        match=r"table 'maxi' is not known: use one of .*meter_mini, mini, paper, stable_diffusion, subject_mini, vilt",
    ):
        report("maxi", root.folder)
    with pytest.raises(UserError, match="format 'doc' is not known: use any of md, tex"):
        report("mini", root.folder, formats=("md", "doc"))
    assert not list(root.folder.iterdir())


def test_the_published_tables_are_whole():
    for name in ("vilt", "meter"):
        paper = json.loads((PAPER / f"{name}.json").read_text())
        assert "2306.15706" in paper["source"]
        assert set(paper["rows"]) == set(build.PAPER) - {"shallow_prompt"}
        assert all(row.keys() == paper["units"].keys() for row in paper["rows"].values())
        scores = ("vqa_test_dev", "nlvr2_test_p", "f30k_ir_r1", "f30k_tr_r1")
        for row in paper["rows"].values():
            assert sum(row[score] for score in scores) / 4 == pytest.approx(row["avg"], abs=0.011)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "an empty file, no JSON: "),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the data itself, no JSON: run `git lfs pull`",
        ),
        ("{", "broken JSON ("),
        ('{"rows": {}, "rows": {}, "source": "a"}', "broken JSON ('rows' stands twice)"),
        ("[]", "must hold a text `source` and `rows`"),
        ('{"rows": {}}', "must hold a text `source` and `rows`"),
        ('{"rows": [], "source": "a"}', "must hold a text `source` and `rows`"),
        ('{"rows": {"apt": 7}, "source": "a"}', "field 'rows.apt' is 7: write its numbers by name"),
        ('{"rows": {"apt": {"avg": "7"}}, "source": "a"}', "field 'rows.apt.avg' is '7': write a number, or null"),
        ('{"rows": {"apt": {"avg": true}}, "source": "a"}', "field 'rows.apt.avg' is True: write a number, or null"),
    ],
)
def test_a_published_table_that_is_none_is_named(root, content, said):
    publish(root)
    file = root.folder / "paper" / "vilt.json"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        build.build("vilt", root.folder)
    assert str(error.value).startswith(f"{file}: {said}")


def test_a_byte_order_mark_is_no_part_of_a_record_or_a_published_table(root):
    publish(root)
    root.add(70.0, backbone="vilt", dataset="vqav2")
    before = render.markdown(build.build("vilt", root.folder))
    for file in (*root.folder.rglob("*.json"),):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert render.markdown(build.build("vilt", root.folder)) == before


def test_a_record_with_an_odd_value_is_named_and_the_others_are_shown(root):
    """Any type anywhere: what code reads has its type in the schema."""
    root.add(60.0, method="lora")
    shown = render.comma_separated(build.build("vilt_mini", root.folder))
    odd = {
        "config.dataset": {"config": {"dataset": "x"}},
        "config.engine": {"config": {"engine": []}},
        "config.dataset.train_fraction": {"config": {"dataset": {"train_fraction": "all"}}},
        "config.engine.lr": {"config": {"engine": {"lr": "1e-3"}}},
        "provenance.hardware.cpu": {"provenance": {"hardware": {"cpu": 3}}},
        "provenance.hardware.gpus": {"provenance": {"hardware": {"gpus": 2}}},
        "provenance.started": {"provenance": {"started": "yesterday"}},
        "history.0.train/loss": {"history": [{"step": 1, "train/loss": "low"}]},
        "history.0.step": {"history": [{"step": 1.0}]},
        "metrics.test.vqa_score": {"metrics": {"test": {"vqa_score": 101.5}}},
        "metrics.val.vqa_score": {"metrics": {"val": {"vqa_score": -3}}},
        "identity.seed": {"identity": {"seed": 1.0}},
        "schema": {"schema": "1"},
        "bad_examples.0": {"bad_examples": [3]},
        "cost.macs": {"cost": {"macs": 10**19}},
    }
    for number, (field, change) in enumerate(odd.items()):
        file = root.add(60.0, method="apt", hash=f"{number:08x}")
        record = json.loads(file.read_text())
        for key, value in change.items():
            record[key] = record[key] | value if isinstance(value, dict) and key in record else value
        file.write_text(json.dumps(record))
        report("vilt_mini", root.folder, root.folder / "out", ("md", "tex", "csv", "html"))
        table = build.build("vilt_mini", root.folder)
        assert len(table.broken) == 1
        assert f"{file.relative_to(root.folder)}: field '{field}'" in table.broken[0]
        assert render.comma_separated(table) == shown
        file.unlink()


def test_a_row_is_named_by_a_text(root):
    """Of a table whose rows are a setting's values."""
    root.add(60.0, backbone="vilt_mini", config={"variant": ["a"]})
    (root.folder / "ablation_apt").mkdir()
    (root.folder / "records").rename(root.folder / "ablation_apt" / "records")
    table = build.build("ablation_apt_vilt_mini", root.folder)
    assert table.broken[0].endswith("""field 'config.variant' is ["a"], no name of a row: correct it""")


def test_what_mode_cost_measured_gives_no_score(root):
    root.add(99.0, kind="costs", method="apt", additional_macs=1_000_000)
    cell = rows(build.build("vilt_mini", root.folder), "apt")[0].cells
    assert (cell["vqa"].mean, cell["additional_mmacs"].mean) == (None, 1.0)


def test_searches_of_learning_rates_that_cannot_be_used_are_named(root):
    root.add(60.0)
    search = Root(root.folder / "learning_rates")
    search.add(50.0, metrics={"val": {"vqa_score": 50.0}, "test": None})
    assert build.build("vilt_mini", root.folder).broken == ()
    file = search.add(50.0, hash="00000000")
    file.write_text("{")
    table = build.build("vilt_mini", root.folder)
    assert [line.partition(": ")[0] for line in table.broken] == [file.relative_to(root.folder).as_posix()]
    assert rows(table, "lora")[0].trials == 1


def test_marks_of_scores_that_cannot_be_told_from_the_best(root):
    easy = answers(0.8)
    for seed in range(3):
        own = np.random.default_rng(seed)
        for method, lost, gained in (
            ("full", 0, 0),
            ("lora", 8, 4),
            ("apt", 160, 0),
            ("adapter", (0, 60, 140)[seed], 0),
        ):
            right = easy.copy()
            right[own.choice(np.flatnonzero(easy), lost, replace=False)] = 0
            right[own.choice(np.flatnonzero(easy == 0), gained, replace=False)] = 1
            answer(root, method, right, seed)
        answer(root, "question_only", np.ones(800), seed)
    table = build.build("vilt_mini", root.folder)
    assert marks(table) == {"full": "", "lora": SAME, "apt": "", "adapter": ALIKE, "question_only": ""}
    best = [row.label for row in table.rows if row.cells["nlvr2"].best]
    assert best == ["full"], "a control is no method"
    found = {row.label: row.cells["nlvr2"] for row in table.rows}
    assert found["lora"].p_examples > 0.05
    assert max(found["apt"].p_examples, found["apt"].p_seeds) < 0.05
    assert found["adapter"].p_examples < 0.05 < found["adapter"].p_seeds
    assert found["question_only"].p_examples is None

    markdown = render.markdown(table)
    assert "| full | not run | **80.00 ± 0.00 (3)** |" in markdown
    assert f"| lora | not run | 79.50 ± 0.00 (3) {SAME} |" in markdown
    assert f"{SAME}: not distinguishable" in markdown
    assert f"{ALIKE}: told from it by these examples" in markdown
    assert UNTESTED + ":" not in markdown
    latex = render.latex(table)
    assert r"\textbf{80.00 $\pm$ 0.00 (3)}" in latex
    assert r"(3) $\approx$" in latex
    assert f"{SAME}" in shown(table)
    line = next(iter(csv.DictReader(io.StringIO(render.comma_separated(table)))))
    assert (line["method"], line["nlvr2_best"], line["nlvr2_mark"], line["nlvr2_low"]) == ("full", "True", "", "80.0")


def test_a_row_that_draws_nothing_says_nothing_of_the_spread_over_seeds(root, monkeypatch):
    """It would lend others its degrees of freedom, and no variance."""
    for seed in range(3):
        answer(root, "full", answers(0.8, seed=seed), seed)
        answer(root, "lora", answers(0.7 + 0.05 * seed, seed=seed), seed)
        answer(root, "apt", answers(0.72 + 0.02 * seed, seed=seed), seed)
    spread, given = significance.spread, []
    monkeypatch.setattr(significance, "spread", lambda scores: given.append(len(scores)) or spread(scores))
    build.build("vilt_mini", root.folder)
    assert set(given) == {2}


@pytest.mark.parametrize("still", [1, 2, 4])
def test_rows_that_draw_nothing_lend_one_that_moves_alone_nothing(root, still):
    """It is a paired t test of three seeds beside each, however many there are; of each other they differ by examples."""
    base = answers(0.6, 4000)
    gained = (30, 150, 90)
    for seed, more in enumerate(gained):
        right = base.copy()
        right[np.flatnonzero(base == 0)[:more]] = 1
        answer(root, "lora", right, seed)
        for method in ("apt", "adapter", "bitfit", "full")[:still]:
            answer(root, method, base, seed)
    table = build.build("vilt_mini", root.folder)
    paired = significance.t_chance(np.mean(gained) / np.std(gained, ddof=1) * 3**0.5, 2)
    for row in table.rows:
        if row.method != "lora" and (cell := row.cells["nlvr2"]).mean is not None:
            assert cell.p_seeds == pytest.approx(still * paired, rel=0.2), "but for what the examples add"
            assert cell.mark == ALIKE
    for seed in range(3):
        answer(root, "convpass", answers(0.9, 4000, seed=1), seed)
    assert marks(build.build("vilt_mini", root.folder))["apt"] == "", "nothing but examples can turn it round"


def test_beside_a_row_that_draws_nothing_what_a_seed_does_to_all_others_counts(root):
    base = answers(0.6, 4000)
    for seed, more in enumerate((10, 200, 60)):
        for method, own in (("lora", 0), ("apt", 2), ("adapter", 4)):
            right = base.copy()
            right[np.flatnonzero(base == 0)[: more + own * (seed + 1)]] = 1
            answer(root, method, right, seed)
        answer(root, "full", base, seed)
    cells = {row.method: row.cells["nlvr2"] for row in build.build("vilt_mini", root.folder).rows}
    assert cells["adapter"].best
    assert (cells["full"].mark, cells["lora"].mark) == (ALIKE, ""), "by 2.3 points, of seeds 0.3 to 5; by a steady 0.2"


def test_an_accuracy_of_parts_of_examples_is_tested_by_the_bootstrap(root):
    """McNemar's test would round them: here every difference to 0."""
    for seed in range(2):
        answer(root, "full", answers(0.7), seed)
        answer(root, "lora", np.round(answers(0.7) * 0.6, 6), seed)
    table = build.build("vilt_mini", root.folder)
    cell = rows(table, "lora")[0].cells["nlvr2"]
    assert (cell.mark, cell.p_examples) == ("", pytest.approx(1 / 10_001))
    assert "NLVR2, %: examples of lora are not all right or wrong; the bootstrap takes McNemar's place." in table.notes


@pytest.mark.parametrize(("units", "tested"), [(9, False), (10, True)])
def test_few_images_test_nothing(root, units, tested):
    for method, share in (("full", 1.0), ("lora", 0.0)):
        for seed in range(2):
            file = root.add(100 * share, method=method, seed=seed)
            found = [("test", 1000 * image + question, "x", share) for image in range(units) for question in range(4)]
            predicted(file.with_suffix(".parquet"), found)
    table = build.build("vilt_mini", root.folder)
    cells = [row.cells["vqa"] for row in rows(table, "lora")]
    assert [(cell.p_examples is None, cell.p_seeds is None) for cell in cells] == [(not tested, not tested)]
    told = "VQA, % 1 of 1 (lora: few units (9), of which the bootstrap needs 10)"
    assert any(told in note for note in table.notes) is not tested


def test_a_harmonic_mean_is_of_the_seeds_that_have_both(root):
    folder = Root(root.folder / "clip_mini")
    where = {"backbone": "clip_mini", "task": "base_to_new_16", "dataset": "shapes_objects"}
    for seed, found in enumerate(({"base": 80.0, "new": 60.0}, {"base": 82.0, "new": 62.0}, {"base": 20.0})):
        folder.add(method="lora", seed=seed, metrics=scored(**found), **where)
    (row,) = rows(build.build("clip_mini_base_to_new", root.folder), "lora")
    cell = row.cells["known_h"]
    assert (cell.mean, cell.n) == (pytest.approx(2 / (1 / 81 + 1 / 61)), 2)
    assert sum(cell.interval) / 2 == pytest.approx(cell.mean)


def test_the_harmonic_mean_is_that_of_the_means(root):
    """As papers print it: the mean of the seeds' own is less."""
    folder = Root(root.folder / "clip_mini")
    where = {"backbone": "clip_mini", "task": "base_to_new_16", "dataset": "shapes_objects"}
    for seed, (base, new) in enumerate(((80.0, 50.0), (60.0, 70.0))):
        folder.add(method="lora", seed=seed, metrics=scored(base=base, new=new, h=1.0), **where)
    (row,) = rows(build.build("clip_mini_base_to_new", root.folder), "lora")
    cell = row.cells["known_h"]
    assert cell.mean == pytest.approx(2 / (1 / 70 + 1 / 60))
    own = [2 / (1 / 80 + 1 / 50), 2 / (1 / 60 + 1 / 70)]
    assert cell.std == pytest.approx(stdev(own))
    assert sum(cell.interval) / 2 == pytest.approx(cell.mean)


def test_one_seed_tells_models_apart_and_no_methods(root):
    answer(root, "full", answers(0.9))
    answer(root, "lora", answers(0.5))
    answer(root, "apt", answers(0.89, seed=1))
    table = build.build("vilt_mini", root.folder)
    assert marks(table) == {"full": "", "lora": ALIKE, "apt": SAME}
    (row,) = rows(table, "lora")
    assert row.cells["nlvr2"].p_examples < 1e-6
    assert row.cells["nlvr2"].p_seeds is None
    answer(root, "adapter", answers(0.9))
    (row,) = rows(build.build("vilt_mini", root.folder), "adapter")
    assert (row.cells["nlvr2"].p_examples, row.cells["nlvr2"].p_seeds) == (1.0, None), "right as often as the best"


def test_p_is_corrected_for_the_comparisons_of_the_column(root):
    best, other = answers(0.6, seed=1), answers(0.53, seed=2)
    answer(root, "full", best, task="snli_ve")
    answer(root, "lora", other, task="snli_ve")
    alone = rows(build.build("vilt_mini", root.folder), "lora")[0].cells["snli_ve"].p_examples
    units = (best - other).astype(int)
    units = np.bincount(np.arange(800) // 12, units).astype(int)
    assert alone == pytest.approx(significance.mcnemar(units)), "twelve examples share images and texts"
    for method in ("apt", "adapter"):
        answer(root, method, best, task="snli_ve")
    three = rows(build.build("vilt_mini", root.folder), "lora")[0].cells["snli_ve"].p_examples
    assert three == pytest.approx(3 * alone)


def test_a_score_without_its_predictions_is_not_tested(root):
    answer(root, "full", answers(0.9))
    answer(root, "lora", answers(0.5))
    answer(root, "apt", answers(0.5)).unlink()
    table = build.build("vilt_mini", root.folder)
    assert marks(table) == {"full": "", "lora": ALIKE, "apt": UNTESTED}
    (note,) = (note for note in table.notes if "not tested" in note)
    file = "records/vilt_mini/nlvr2-shapes/apt-0a1b2c3d-seed0.parquet"
    assert note == f"Rows not tested against their column's best: NLVR2, % 1 of 2 ({file}: no predictions there)."
    assert f"{UNTESTED}: not tested" in render.markdown(table)

    answer(root, "full", answers(0.9)).unlink()
    table = build.build("vilt_mini", root.folder)
    assert set(marks(table).values()) == {""}, "no best without a test against it"
    assert "**" not in render.markdown(table)
    assert any("NLVR2, % 2 of 2" in note for note in table.notes)


def test_predictions_of_something_else_are_no_test(root):
    answer(root, "full", answers(0.9))
    answer(root, "lora", answers(0.5, examples=400))
    table = build.build("vilt_mini", root.folder)
    assert set(marks(table).values()) == {""}
    (note,) = (note for note in table.notes if "not tested" in note)
    assert "1 of 1 (lora: seed 0 has other examples)" in note


ROWS = [("test", i, "True", float(i % 2)) for i in range(800)]
NONE = "no file of predictions"


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ([*ROWS[1:], ("test", 0, "True", math.nan)], f"{NONE} (1 of 800 scores are not from 0 to 1, such as nan)"),
        ([*ROWS[1:], ("test", 0, "True", 1.5)], f"{NONE} (1 of 800 scores are not from 0 to 1, such as 1.5)"),
        ([*ROWS[1:], ("test", 0, "True", -1.0)], f"{NONE} (1 of 800 scores are not from 0 to 1, such as -1)"),
        ([*ROWS[2:], *(("test", i, "True", None) for i in (0, 1))], "2 of 800 examples of test have no score"),
        ([*ROWS[1:], ("test", 2, "True", 0.0)], "1 examples of test stand there twice, such as 2"),
        ([*ROWS[1:], ("test", 0, None, 0.0)], f"{NONE} (1 of 800 rows have no prediction)"),
        ([*ROWS[1:], ("test", None, "True", 0.0)], f"{NONE} (1 of 800 rows have no id)"),
    ],
)
def test_a_score_whose_predictions_are_odd_is_not_tested_and_says_why(root, spoilt, why):
    """Such a score keeps its place, but no mark that its predictions would have decided."""
    answer(root, "full", answers(0.9))
    answer(root, "lora", answers(0.8))
    file = answer(root, "apt", np.arange(800) % 2)
    table = build.build("vilt_mini", root.folder)
    assert (marks(table)["apt"], table.broken) == (ALIKE, ())
    predicted(file, spoilt)
    table = build.build("vilt_mini", root.folder)
    assert marks(table)["apt"] == UNTESTED
    (note,) = (note for note in table.notes if "not tested" in note)
    place = "records/vilt_mini/nlvr2-shapes/apt-0a1b2c3d-seed0.parquet"
    assert f"1 of 2 ({place}: {why}" in note
    assert [line.startswith(f"{place}: {why}") for line in table.broken] == [True]
    assert rows(table, "apt")[0].cells["nlvr2"].mean == 50.0


def test_predictions_of_another_run_are_no_test(root):
    answer(root, "full", answers(0.9))
    answer(root, "lora", answers(0.8))
    file = answer(root, "apt", answers(0.8))
    said = [{"id": i, "prediction": "True", "score": float(right)} for i, right in enumerate(answers(0.8))]
    record = records.read(file.with_suffix(".json"))
    write_predictions(file, {"test": said}, record | {"identity": record["identity"] | {"seed": 7}})
    table = build.build("vilt_mini", root.folder)
    assert marks(table)["apt"] == UNTESTED
    assert [line.partition(": ")[2] for line in table.broken] == [
        "predictions of another run (seed 7): restore the record's own"
    ]


def test_a_score_that_its_predictions_contradict_is_left_out_and_named(root):
    answer(root, "lora", answers(0.8))
    for seed in (0, 1):
        file = answer(root, "apt", answers(0.5), seed=seed)
    root.add(method="apt", task="nlvr2", seed=1, metrics=scored(accuracy=95.5))
    table = build.build("vilt_mini", root.folder)
    cell = rows(table, "apt")[0].cells["nlvr2"]
    assert (cell.mean, cell.n) == (50.0, 1)
    place = file.with_suffix(".json").relative_to(root.folder)
    assert table.broken == (
        f"{place}: field 'metrics.test.accuracy' is 95.50, its predictions give 50.00: restore what was changed, or run"
        " again with force=true",
    )
    assert f"Files that cannot be used:\n\n- `{place}: field" in render.markdown(table)


def test_one_image_alone_tests_nothing(root):
    for seed in range(2):
        answer(root, "full", np.ones(8), seed)
        answer(root, "lora", np.arange(8) % 2, seed)
    (note,) = (note for note in build.build("vilt_mini", root.folder).notes if "not tested" in note)
    assert "1 of 1 (all examples share one image or text" in note


def test_a_mean_is_tested_by_the_examples_of_all_its_parts(root):
    for method, share in (("full", 0.9), ("lora", 0.4), ("apt", 0.9)):
        for seed in range(2):
            right = answers(share, 240, seed=(method == "apt") + seed)
            answer(root, method, right, seed)
            file = root.add(float(100 * right.mean()), method=method, seed=seed)
            predicted(file.with_suffix(".parquet"), [("test", 1000 * i, "two", r) for i, r in enumerate(right)])
            recalls = scored(ir_r1=float(100 * right.mean()), tr_r1=float(100 * right[:100].mean()))
            file = root.add(method=method, seed=seed, task="retrieval", metrics=recalls)
            ways = [("test", i, "image 1", r or 0.5) for i, r in enumerate(right)]
            ways += [("test", i, "caption 1", r or 0.5) for i, r in enumerate(right[:100])]
            predicted(file.with_suffix(".parquet"), ways)
    table = build.build("vilt_mini", root.folder)
    found = {row.label: row.cells["avg"] for row in table.rows}
    assert found["full"].best != found["apt"].best
    assert {found["full"].mark, found["apt"].mark} == {"", SAME}
    assert found["lora"].mark == ""
    assert found["lora"].p_seeds < 0.05
    assert found["lora"].p_examples < 0.001


def test_a_row_that_draws_nothing_reproduces_a_number_that_was_rounded(root):
    publish(root)
    for seed in range(3):
        root.add(66.7312, backbone="vilt", dataset="vqav2", seed=seed, method="lora")
    (cell,) = (row.cells["vqa_test_dev"] for row in build.build("vilt", root.folder).rows if row.label == "lora")
    assert [replace(cell, published=number).agrees for number in (66.73, 66.74, 66.72)] == [True, False, False]


def test_the_published_number_beside_our_interval(root):
    publish(root)
    for method, scores in (("apt", (70.0, 71.0)), ("lora", (60.0, 60.2, 60.4)), ("full", (71.0,))):
        for seed, score in enumerate(scores):
            root.add(score, backbone="vilt", dataset="vqav2", seed=seed, method=method)
    table = build.build("vilt", root.folder)
    found = {row.label: row.cells["vqa_test_dev"] for row in table.rows}
    assert found["lora"].interval == pytest.approx((59.703, 60.697), abs=1e-3)
    assert (found["apt"].agrees, found["lora"].agrees, found["full"].agrees) == (True, False, None)
    markdown = render.markdown(table)
    assert "/ -0.44 within |" in markdown
    assert "/ -8.24 outside |" in markdown
    assert "/ -0.26 |" in markdown, "one seed has no interval"
    assert "it is of one run" in markdown
    assert "verdict" in shown(table, 120)


def test_reasons_and_commands_of_missing_runs(root):
    for seed in range(3):
        root.add(60.0, seed=seed)
    root.add(60.0, method="apt", seed=1)
    root.fail("Traceback:\ntorch.OutOfMemoryError: CUDA out of memory. Tried", method="adapter")
    root.fail(None, "running", method="adapter", task="snli_ve")
    root.add(20.0, method="question_only")
    table = build.build("vilt_mini", root.folder)
    (row,) = rows(table, "adapter")
    assert (row.cells["vqa"].reason, row.cells["snli_ve"].reason) == ("failed: OutOfMemoryError", "running")
    assert row.cells["nlvr2"].reason == "not run"
    assert "| adapter | failed: OutOfMemoryError | not run |" in render.markdown(table)
    (control,) = rows(table, "question_only")
    assert control.cells["nlvr2"].reason == "", "it runs where it says something"
    run = "python run.py -m backbone=vilt_mini task"
    others = "full,classifier_only,shallow_prompt,deep_prompt"
    assert table.missing == (
        f"{run}=vqa dataset=shapes method={others},adapter,scaled_pa seed=0,1,2",
        f"{run}=vqa dataset=shapes method=apt seed=0,2",
        *(
            f"{run}={task} dataset=shapes method={others},lora,adapter,scaled_pa,apt seed=0,1,2"
            for task in ("nlvr2", "retrieval", "snli_ve")
        ),
    )
    assert f"- `{table.missing[1]}`" in render.markdown(table)


def test_commands_name_the_settings_of_a_configuration(root):
    for lr, hash_, seeds in ((1e-3, "0a1b2c3d", (0, 1, 2)), (1e-2, "ffffffff", (0, 1))):
        for seed in seeds:
            root.add(60.0, seed=seed, hash=hash_, config={"engine": {"lr": lr, "name": "a b"}})
    lines = [line for line in build.build("vilt_mini", root.folder).missing if "method=lora " in line]
    assert lines == ["python run.py backbone=vilt_mini task=vqa dataset=shapes method=lora seed=2 engine.lr=0.01"]
    root.add(60.0, hash="eeeeeeee", config={"engine": {"lr": 1, "name": None, "a": 1, "b": 2}})
    lines = [line for line in build.build("vilt_mini", root.folder).missing if "method=lora seed=1,2" in line]
    file = "records/vilt_mini/vqa-shapes/lora-eeeeeeee-seed0.json"
    assert lines[0].endswith(f"method=lora seed=1,2 # with the settings of {file}")


def test_a_run_whose_truth_is_not_published_is_not_scored(root):
    root.add(backbone="vilt", dataset="vqav2", metrics={"val": {"vqa_score": 70.0}, "test": None})
    (row,) = rows(build.build("vilt", root.folder), "lora")
    assert row.cells["vqa_test_dev"].reason == "not scored"
    assert row.cells["vqa_val"].mean == 70.0


def cautious(root, name="vilt_mini"):
    return [note for note in build.build(name, root.folder).notes if "care" in note or "Not comparable" in note]


def test_rows_that_trained_or_selected_otherwise_are_named(root):
    protocol = {"select": "last", "evaluate": ["val", "test"], "max_steps": 1000}
    for method, dataset in (("full", {}), ("lora", {"train_fraction": 1.0}), ("apt", {})):
        config = {"engine": protocol | {"eval_examples": None}, "dataset": dataset}
        root.add(60.0, method=method, config=config)
    assert cautious(root) == [], "what older records do not tell is what it was then"
    root.add(60.0, method="adapter", config={"engine": protocol | {"select": "best"}})
    (note,) = cautious(root)
    assert "Not comparable within VQA, %: the rows differ in engine.select" in note
    assert "(last: the others; best: adapter)" in note
    root.add(60.0, method="apt", config={"engine": protocol | {"eval_examples": 100}}, hash="ffffffff")
    assert any("engine.eval_examples" in note and "100: apt (" in note for note in cautious(root))


def test_rows_that_were_scored_on_other_splits_are_named(root):
    """But for controls, and for what an order of splits or a number of epochs that steps replace would tell."""
    read = {"train": ["train", "val"], "test": ["test"], "images": "true"}
    engine = {"evaluate": ["val", "test"], "max_steps": 1000, "epochs": 10}
    for method in ("full", "lora"):
        root.add(60.0, method=method, config={"dataset": read, "engine": engine})
    root.add(60.0, method="question_only", config={"dataset": read | {"images": "shuffled"}, "engine": engine})
    other = {"evaluate": ["test", "val"], "max_steps": 1000, "epochs": 5}
    root.add(60.0, method="apt", config={"dataset": read | {"train": ["val", "train"]}, "engine": other})
    assert cautious(root) == []
    root.add(60.0, method="adapter", config={"dataset": read | {"test": ["test_b"]}, "engine": engine})
    (note,) = cautious(root)
    assert "Not comparable within VQA, %: the rows differ in dataset.test" in note
    assert "(['test']: the others; ['test_b']: adapter)" in note


def test_examples_of_other_splits_are_not_paired(root):
    """They are told apart by their place in a split."""
    for method, split, share in (("full", "one", 0.9), ("lora", "one", 0.4), ("apt", "two", 0.4)):
        answer(root, method, answers(share), config={"dataset": {"test": [split]}})
    table = build.build("vilt_mini", root.folder)
    assert marks(table) == {"full": "", "lora": ALIKE, "apt": UNTESTED}
    assert any("1 of 2 (apt: scored on other splits)" in note for note in table.notes)


def test_rows_are_labelled_by_what_their_records_say(root):
    """Also where that is what all had before there was the setting, or content stands for it in the hash."""
    root.add(60.0, config={"engine": {"lr": 0.1}})
    root.add(50.0, seed=1, config={"engine": {"lr": 0.1}})
    changed = {"engine": {"lr": 0.1, "schedule": "cosine"}, "dataset": {"few_shot_list": "a/x.json"}}
    root.add(40.0, hash="ffffffff", config=changed)
    table = build.build("vilt_mini", root.folder)
    assert [row.label for row in rows(table, "lora")] == [
        "lora (dataset.few_shot_list=None, engine.schedule=linear)",
        "lora (dataset.few_shot_list=a/x.json, engine.schedule=cosine)",
    ]
    (line,) = [line for line in table.missing if "method=lora" in line and "cosine" in line]
    assert line.endswith("seed=1,2 dataset.few_shot_list=a/x.json engine.schedule=cosine")


def test_trials_are_named_even_where_all_rows_are_such(root):
    for method in ("full", "lora"):
        root.add(60.0, method=method, config={"engine": {"eval_examples": 100}})
    assert cautious(root) == [
        "Compare with care: trials, scored on the first examples of each split alone (100: full, lora)."
    ]


@pytest.mark.parametrize(
    ("what", "ours", "theirs"),
    [
        ("data", {"fingerprints": {"data": "one"}}, {"fingerprints": {"data": "two"}}),
        ("weights", {"fingerprints": {"weights": {"a": "1"}}}, {"fingerprints": {"weights": {"a": "2"}}}),
        ("tokenizer", {"fingerprints": {"tokenizer": {"a": "1"}}}, {"fingerprints": {"tokenizer": {"a": "2"}}}),
        (
            "settings of the backbone",
            {"config": {"backbone": {"image_size": 384}}},
            {"config": {"backbone": {"image_size": 288}}},
        ),
    ],
)
def test_rows_of_other_data_weights_or_backbones_are_named(root, what, ours, theirs):
    for method, read in (("full", ours), ("lora", ours), ("adapter", {"fingerprints": None})):
        root.add(60.0, method=method, **read)
    assert cautious(root) == [], "what a record of before does not say is nothing else"
    root.add(60.0, method="apt", **theirs)
    assert cautious(root) == [f"Compare with care: within VQA, %, other {what} were used by apt."]


def test_figures_of_several_judges_are_not_comparable(root):
    for method, judge in (("full", "one"), ("lora", None), ("apt", "one")):
        root.add(60.0, method=method, judges={"dino": judge})
    assert cautious(root) == []
    root.add(60.0, method="adapter", judges={"dino": "another"})
    assert cautious(root) == ["Not comparable within VQA, %: dino is several judges: another; one."]


def test_several_configurations_beside_one_published_number_are_named(root):
    publish(root)
    for lr, hash_ in ((1e-3, "00000001"), (1e-2, "00000002")):
        config = {"engine": {"lr": lr}}
        root.add(70.0, backbone="vilt", dataset="vqav2", method="apt", hash=hash_, config=config)
        told = f"published number stands beside several configurations: apt (engine.lr=0.001), apt (engine.lr={lr})."
        assert any(note.endswith(told) for note in cautious(root, "vilt")) == (lr == 1e-2)


def test_runs_that_warned_left_out_examples_or_ran_out_of_memory_are_named_by_what_they_say(root):
    start = "failed start: the loss ended at"
    for seed, loss in enumerate((2.31, 2.35, 2.31, 2.31)):
        root.add(60.0, seed=seed, warnings=[f"{start} {loss}"])
    root.add(60.0, method="apt", warnings=["another: it said", f"{start} 9"], bad_examples=["test.arrow row 3"])
    root.add(60.0, method="full", out_of_memory=[{"step": 3, "micro_batch": 8}])
    lora = [f"lora-0a1b2c3d-seed{seed}" for seed in (0, 2, 3)]
    assert cautious(root) == [
        f"Compare with care: failed start ({', '.join(lora)} and 2 more).",
        "Compare with care: another: it said (apt-0a1b2c3d-seed0).",
        "Compare with care: examples that could not be read were left out (apt-0a1b2c3d-seed0).",
        "Compare with care: memory ran out, and parts of a batch were made smaller (full-0a1b2c3d-seed0).",
    ]


def test_mixed_machines_precisions_and_code_are_named(root):
    def add(method, commit="a" * 40, dirty=False, precision="32-true", **hardware):
        provenance = {"commit": commit, "dirty": dirty, "packages": {}, "precision": precision}
        provenance |= {"started": "2025-01-01T00:00:00+00:00", "seconds": 1.0}
        root.add(60.0, method=method, provenance=provenance | {"hardware": {"cpu": "EPYC", "cores": 2} | hardware})

    add("full")
    add("lora")
    assert cautious(root) == []
    add("apt", "b" * 40, True, "bf16-mixed", gpus=["H100", "H100"])
    machines, precisions, commits, changed = cautious(root)
    assert machines.startswith("Compare with care: records of 2 machines; times and memory compare within one alone: ")
    assert machines.endswith("EPYC, 2 cores (2), EPYC, 2 cores, 2 x H100 (1).")
    assert precisions.endswith("32-true (2), bf16-mixed (1).")
    assert commits.endswith("aaaaaaaa (2), bbbbbbbb (1).")
    assert changed.endswith("1 of 3 records are of code that no commit holds: apt-0a1b2c3d-seed0.")
    add("adapter", None)
    assert any(note.endswith(": aaaaaaaa (2), bbbbbbbb (1), unknown (1).") for note in cautious(root))


def test_trials_behind_the_scores(root):
    for method in ("lora", "apt"):
        root.add(60.0, method=method, config={"engine": {"lr": 3e-3}})
    root.add(40.0, method="zero_shot", method_params=0, task_params=0)  # trains nothing, by no rate
    unknown = "How the learning rates were chosen is not on record here"
    assert any(note.startswith(unknown) for note in build.build("vilt_mini", root.folder).notes)
    (root.folder / "learning_rates").mkdir()
    search = Root(root.folder / "learning_rates")
    rates = {"11111111": 1e-3, "22222222": 3e-3, "33333333": 1e-2}
    for method in ("lora", "apt"):
        for hash_, lr in rates.items():
            search.add(50.0, method=method, hash=hash_, config={"engine": {"lr": lr}})
    search.add(50.0, backbone="meter_mini", hash="44444444")
    search.fail(method="lora", hash="55555555")
    table = build.build("vilt_mini", root.folder)
    told = "Each method's learning rate was chosen among 3, tried on vqa-shapes (learning_rates/), for all columns."
    assert told in table.notes
    assert rows(table, "lora")[0].trials == 3
    lines = csv.DictReader(io.StringIO(render.comma_separated(table)))
    assert {line["method"]: line["trials"] for line in lines}["apt"] == "3"

    search.add(50.0, method="apt", hash="66666666", config={"engine": {"lr": 1.0}})
    assert cautious(root) == [
        "Compare with care: not the same number of learning rates was tried on vqa-shapes: lora 3, apt 4."
    ]
    root.add(60.0, method="lora", config={"engine": {"lr": 0.5}})
    assert any(
        "lora ran with learning rate 0.5, which is none of those tried for it" in note for note in cautious(root)
    )


@pytest.mark.parametrize(
    ("percent", "millions", "published"),
    [
        (79.32, 0.0, 0.79),
        (88.48, 0.46, 0.87),
        (71.70, 2.38, 0.65),
        (53.36, 6.18, 0.43),
        (49.2, 12.6, 0.35),
        (85.4, 28.34, 0.48),
    ],
)
def test_ppt_is_v_petl_benchs(percent, millions, published):
    assert cells.ppt(percent / 100, 1e6 * millions) == pytest.approx(published, abs=0.006)


def test_ppt_of_a_row(root):
    root.add(60.0, method_params=10_000_000)
    root.add(70.0, method_params=10_000_000, seed=1)
    cell = rows(build.build("vilt_mini", root.folder), "lora")[0].cells["ppt"]
    assert cell.mean == pytest.approx(0.65 * 0.74006, abs=1e-5)
    assert (cell.n, cell.mark, cell.best) == (2, "", False)
    root.add(60.0, method="apt", method_params=None)
    assert rows(build.build("vilt_mini", root.folder), "apt")[0].cells["ppt"].mean is None


def test_no_ppt_of_parameters_that_differ(root):
    for seed, parameters in enumerate((5_000_000, 100_000_000)):
        root.add(60.0, seed=seed, method_params=parameters)
    table = build.build("vilt_mini", root.folder)
    cell = rows(table, "lora")[0].cells["ppt"]
    assert (cell.mean, cell.reason, render.ours(table.column("ppt"), cell)) == (None, "differs", "differs")


@pytest.mark.parametrize("order", [("lora", "apt"), ("apt", "lora")])
def test_a_score_that_does_not_say_its_unit_stands_beside_none_in_another(root, order):
    """Whichever is read first; nor does one of its row come back where a row's runs are looked for again."""
    folder = Root(root.folder / "subject_mini")
    cosine = [{"name": "likeness", "unit": "cosine"}]
    of = {"backbone": "sd_mini", "task": "subject", "dataset": "shapes_banded_square"}
    folder.add(metrics=scored(likeness=0.61), scores=cosine, method=order[0], **of)
    for seed, scores in enumerate(([], cosine)):
        likeness = scored(likeness=0.71 if scores else 61.0)
        folder.add(metrics=likeness, scores=scores, method=order[1], seed=seed, **of)
    table = build.build("subject_mini", root.folder)
    found = {row.label: row.cells["banded_square_likeness"] for row in table.rows}
    assert {name: (found[name].mean, found[name].n) for name in order} == {order[0]: (0.61, 1), order[1]: (0.71, 1)}
    (line,) = table.broken
    assert f"{order[1]}-0a1b2c3d-seed0.json: field 'scores' does not say what 'metrics.test.likeness' is" in line
    assert "in cosine: declare it, or run it again" in line
    assert len(table.records) == 2


def test_shares_of_the_data_are_columns_of_one_row(root):
    """In a folder of their own, whose records no other table takes for its own."""
    shares = {"one": 0.01, "ten": 0.1, "all": 1.0}
    within = Root(root.folder / "low_data")
    for number, share in enumerate(shares.values()):
        config = {"method": {"rank": 4}, "dataset": {"train_fraction": share}}
        within.add(50.0 + number, config=config, hash=f"0000000{number}")
    (row,) = rows(build.build("low_data_vilt_mini", root.folder), "lora")
    assert [row.cells[key].mean for key in shares] == [50.0, 51.0, 52.0]
    assert row.cells["five"].reason == "not run"
    (row,) = rows(build.build("vilt_mini", within.folder), "lora")
    assert row.cells["vqa"].mean == 52.0, "a share of the data is another experiment"


def test_rows_are_the_values_of_a_setting(root):
    within = Root(root.folder / "ablation_apt")
    for number, variant in enumerate(("rank_1", "published")):
        for seed in range(3):
            config = {"method": {"rank": number}, "variant": variant}
            metrics = {"val": {"vqa_score": 50.0 + number}, "test": None}
            within.add(method="apt", config=config, metrics=metrics, seed=seed, hash=f"0000000{number}")
    within.fail(method="apt", config={"method": {"rank": 16}, "variant": "rank_16"}, hash="00000016")
    table = build.build("ablation_apt_vilt_mini", root.folder)
    scores = {row.label: row.cells["vqa"] for row in table.rows}
    assert next(iter(scores)) == "published"
    assert {label: cell.mean for label, cell in scores.items() if cell.n} == {"published": 51.0, "rank_1": 50.0}
    assert (scores["rank_16"].reason, scores["rank_8"].reason) == ("failed: RuntimeError", "not run")
    command = "python run.py -m +sweep=ablation_apt results_dir=results/ablation_apt backbone=vilt_mini seed=0,1,2"
    assert table.missing == (command,)


def test_nothing_is_missing_once_the_sweep_is_whole(root):
    within = Root(root.folder / "ablation_apt")
    name = "ablation_apt_vilt_mini"
    for number, variant in enumerate(build.listed(name).values):
        for seed in range(3):
            config = {"method": {"rank": number}, "variant": variant}
            metrics = {"val": {"vqa_score": 50.0}, "test": None}
            within.add(method="apt", config=config, metrics=metrics, seed=seed, hash=f"{number:08x}")
    assert build.build(name, root.folder).missing == ()
    within.add(method="apt", config=config, metrics=metrics, seed=4, hash=f"{number:08x}")
    (command,) = build.build(name, root.folder).missing
    assert command.endswith(" seed=0,1,2,4"), "which one row has"


def test_a_number_from_several_machines_is_marked_where_it_depends_on_them(root):
    """Scores do not where kernels round alike; times always do; what a configuration decides never does."""
    other = {"cpu": "AMD EPYC", "cores": 2, "memory_bytes": 1, "platform": "Linux", "gpus": []}
    for method, kernels in (("lora", "portable"), ("apt", "AVX2")):
        for seed in range(2):
            file = root.add(50.0 + seed, method=method, seed=seed)
            record = json.loads(file.read_text())
            record["cost"] |= {"train_step_ms": {"median": 2.0, "p95": 3.0}, "method_params": 1000}
            record["provenance"] |= {"kernels": kernels} | ({"hardware": other} if seed else {})
            file.write_text(json.dumps(record))
    table = build.build("vilt_mini", root.folder)
    found = {row.label: row.cells for row in table.rows}
    keys = ("vqa", "train_step_ms", "method_params_k")
    assert [found["lora"][key].machines for key in keys] == [1, 2, 1]
    assert [found["apt"][key].machines for key in keys] == [2, 2, 1]
    assert {row.cells["avg"].machines for row in table.rows} == {1}, "of no number there is nothing to say"
    markdown = render.markdown(table)
    assert f"50.50{MIXED} ± 0.71 (2)" in markdown and "50.50 ± 0.71 (2)" in markdown
    assert f"{MIXED}: its runs were made on several machines" in markdown


def test_records_from_before_a_setting_stand_in_one_row_with_those_that_hold_what_it_was(root):
    """Under its old value, which their hashes leave out; under another they are another row."""
    older, newer = ({"rank": 4}, {"rank": 4, "always_trained": "paper", "label": "LoRA", "colour": 4})
    root.add(50.0, config={"method": older}, hash="00000001")
    for number, method in enumerate((newer, newer | {"always_trained": "head_only"}), 2):
        metrics = {"val": None, "test": {"accuracy": 60.0 + number}}
        root.add(metrics=metrics, task="nlvr2", config={"method": method}, hash=f"0000000{number}")
    table = build.build("vilt_mini", root.folder)
    one, other = rows(table, "lora")
    assert [one.cells[key].mean for key in ("vqa", "nlvr2")] == [50.0, 62.0]
    assert other.cells["nlvr2"].mean == 63.0 and "always_trained=head_only" in other.label


def test_a_configuration_that_was_tried_with_several_seeds_is_one_trial():
    tried = [{"identity": {"hash": digits, "seed": seed}} for digits, seed in (("a", 0), ("a", 1), ("b", 0))]
    assert cautions.trials(tried) == 2
    assert cautions.trials([]) is None
