"""What a new method costs: one Python file and one YAML; nothing that is there is touched.

Its numbers go to `METHODS`, `OF_TOWERS` or `OF_PAINTING` of test_combinations, the one parametrised test, which is held
here to name every method.
"""

import json
import shutil

import pytest
import test_combinations
from copied import ROOT, copied, run
from fabricated import Root
from omegaconf import OmegaConf
from presented import METHODS, PAPER

from vltune import catalogue
from vltune.results import report
from vltune.results.render import figures
from vltune.results.tables import build
from vltune.sweep import grid
from vltune.sweep.compose import configurations

CODE = '''"""A scale for each number of a sublayer's output, which starts at one."""

import torch
from torch import nn

from vltune.sites import Delta
from vltune.tuning import Method


class Scale(Method):
    def __init__(self, start: float = 1.0, roles=("attention_output",)):
        self.start, self.roles = start, roles

    def delta(self, site):
        return Scaled(site.width, self.start)


class Scaled(Delta):
    def __init__(self, width, start):
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), start))

    def forward(self, y, x):
        return y * self.scale

    def macs_as_published(self, site, tokens):
        return tokens * len(self.scale)
'''
SETTINGS = """name: scale
_target_: vltune.methods.scale.Scale
start: 1.0
roles: [attention_output]
label: Scale (ours)
order: 45
families: [of_tests]
colour: 3
rates: {low: 1.0e-3, middle: 4.0e-3, high: 1.0e-2}
"""
IDENTITY = {"method": "scale", "hash": "5ca1e000"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository with the two files."""
    files = {"src/vltune/methods/scale.py": CODE, "conf/method/scale.yaml": SETTINGS}
    return copied(tmp_path_factory.mktemp("copy"), files)


def test_it_is_built_and_counted_by_the_command_line(tree):
    run(tree, "run.py", "mode=cost", "method=scale", f"results_dir={tree / 'results'}")
    (file,) = (tree / "results" / "costs").rglob("*.json")
    record = json.loads(file.read_text())
    assert record["identity"]["method"] == "scale"
    assert record["config"]["method"]["label"] == "Scale (ours)"
    assert record["cost"]["method_params"] > 0


def test_sweeps_over_all_methods_and_over_its_family_have_it(tree):
    rows = [job[0] for job in grid.expand(tree, ["method=all"]).jobs]
    assert rows.index("method=scale") == rows.index("method=lora") - 1, "in its place"
    assert grid.expand(tree, ["method=of_tests"]).jobs == [["method=scale"]]
    assert ["method=scale"] not in grid.expand(tree, ["method=paper"]).jobs
    of_rates = grid.expand(tree, ["+sweep=learning_rates", "backbone=vilt_mini"]).jobs
    rates = [
        config["engine"]["lr"] for config in configurations(tree, [job for job in of_rates if "method=scale" in job])
    ]
    assert rates == [0.001, 0.004, 0.01]
    (usual,) = configurations(tree, [["method=scale"]])
    assert usual["engine"]["lr"] == 0.004


@pytest.mark.parametrize("handed_in", [True, False], ids=["by conf/method", "by its record alone"])
def test_a_table_shows_it_by_its_label_and_in_its_colour(tree, tmp_path, handed_in):
    root = Root(tmp_path)
    own = {"name": "scale", "label": "Scale (ours)", "order": 45, "families": ["of_tests"], "colour": 3}
    root.add(61.0, **IDENTITY, config={"method": {"name": "scale"} | ({} if handed_in else own)})
    root.add(60.0, method="lora", hash="10aa0000")
    methods = catalogue.methods(tree / "conf") if handed_in else METHODS
    table = build.build("vilt_mini", root.folder, methods)
    labels = [row.label for row in table.rows]
    assert labels.index("Scale (ours)") == labels.index("lora") - 1
    (row,) = (row for row in table.rows if row.method == "scale")
    assert (row.presentation.colour, figures._color(row)) == (3, "C3")
    report("vilt_mini", root.folder, formats=("md", "svg", "html"), methods=methods)
    assert "| Scale (ours) |" in (tmp_path / "tables" / "vilt_mini.md").read_text()
    assert '"label":"Scale (ours)","colour":3' in (tmp_path / "html" / "vilt_mini.html").read_text()


def test_records_that_present_a_method_otherwise_are_not_believed(tmp_path):
    root = Root(tmp_path)
    for seed, label in enumerate(("one", "another")):
        root.add(61.0, **IDENTITY, seed=seed, config={"method": {"name": "scale", "label": label}})
    root.add(50.0, method="lora", hash="10aa0000", config={"method": {"label": "full", "families": ["control"]}})
    root.add(40.0, method="odd", hash="0dd00000", config={"method": {"label": "apt", "colour": "red"}})
    table = build.build("vilt_mini", root.folder, METHODS)
    assert [row.label for row in table.rows] == [*PAPER, "odd", "scale"]
    assert not any(row.presentation.is_control for row in table.rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name: other", "name: 'other' must be the file's, scale"),
        ("label: lora", "lora and scale are both named lora"),
        ("order: first", "order: 'first' must be a whole number"),
        ("families: paper", "families: 'paper' must be a list of names"),
        ("families: [lora]", "families: lora means other methods; choose another name"),
        ("families: [all]", "families: all means other methods; choose another name"),
        ("colour: 8", "colour: 8 must be a whole number from 0 to 7, or null"),
        ("label: [", "cannot be read"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_one_line(tmp_path, line, message):
    shutil.copytree(ROOT / "conf" / "method", tmp_path / "method")
    key = line.partition(":")[0]
    lines = [line if each.startswith(f"{key}:") else each for each in SETTINGS.splitlines()]
    (tmp_path / "method" / "scale.yaml").write_text("\n".join(lines))
    with pytest.raises(catalogue.UserError) as caught:
        catalogue.methods(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_method_has_its_numbers_in_the_one_test():
    """But for those that are a classifier of image classification, and train none of a backbone's parameters."""
    held = test_combinations.METHODS | test_combinations.OF_TOWERS | test_combinations.OF_PAINTING
    without = {name for name, each in METHODS.items() if not each.is_control and name not in held}
    made = {name: OmegaConf.load(ROOT / "conf" / "method" / f"{name}.yaml").method._target_ for name in without}
    assert set(made.values()) == {"vltune.methods.classifier_only.ClassifierOnly"}
