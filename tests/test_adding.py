"""Adding a backbone and a task costs what docs/ says: the files of its pages in a copy of the tree, and their commands."""

import json
import re
import shlex
from pathlib import Path

import pytest
from copied import ROOT, copied, run

CHECKPOINT = """
import sys
sys.path.append(sys.argv[1])
import torch
from layouts import written
from vltune.backbones.joint import Joint
from vltune.weights.maps.joint import AUTHORS
torch.manual_seed(0)
torch.save(written(Joint(), AUTHORS), "joint.pt")
"""


def files(page):
    """{path: content} of a page: blocks of code below a line that names their file."""
    text = (ROOT / "docs" / page).read_text()
    return dict(re.findall(r"^\*\*\d\. `([^`]+)`\*\*\n\n```\w+\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE))


def commands(page):
    (block,) = re.findall(r"^```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for line in block.splitlines()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository with all files of both pages."""
    return copied(tmp_path_factory.mktemp("copy"), files("adding-a-backbone.md") | files("adding-a-task.md"))


def record(shown):
    return json.loads(Path(shown.splitlines()[-1].removeprefix("record: ")).read_text())


def test_a_page_names_as_many_files_as_it_says():
    assert [*files("adding-a-backbone.md")] == [
        "src/vltune/backbones/joint.py",
        "conf/backbone/joint.yaml",
        "src/vltune/weights/maps/joint.py",
    ]
    assert [*files("adding-a-task.md")] == ["src/vltune/tasks/agreement.py", "conf/task/agreement.yaml"]


def test_a_backbone_is_loaded_trained_and_counted(tree):
    weights, train, cost = commands("adding-a-backbone.md")
    run(tree, "-c", CHECKPOINT, str(ROOT / "tests" / "weights"))
    told = run(tree, "-m", *weights)
    assert "the authors' Joint" in told
    assert "backbone=joint with task=" in told
    found = record(run(tree, *train[1:], f"results_dir={tree / 'results'}"))
    assert found["status"] == "finished"
    assert 0 <= found["metrics"]["test"]["vqa_score"] <= 100
    assert found["fingerprints"]["weights"]
    counted = record(run(tree, *cost[1:], f"results_dir={tree / 'results'}"))["cost"]
    tokens, width, prompts, layers = 16 + 16, 64, 16, 2
    in_sums = 2 * 2 * prompts * width * (tokens + tokens + prompts) / 2  # of scores and of values, each token with each
    linear = layers * 12 * prompts * width**2
    assert counted["additional_macs"] == pytest.approx(linear + layers * in_sums, rel=0.05)


def test_what_a_run_tuned_is_read_again(tree):
    """Of a backbone whose tensors have names that no other's have, by every command that reads weights."""
    settings = ["backbone=joint", "task=vqa", "engine.max_steps=2", f"results_dir={tree / 'results'}"]
    found = run(tree, "run.py", *settings, "method=full").splitlines()[-1].removeprefix("record: ")
    weights = Path(found).with_suffix(".safetensors")
    told = run(tree, "-m", "vltune", "weights", str(weights))
    assert re.search("^layout +what a run of vltune tuned", told, re.MULTILINE)
    assert "backbone=joint with task=" in told
    again = record(run(tree, "run.py", *settings, "method=lora", f"weights={weights}"))
    assert again["status"] == "finished"


def test_a_task_is_trained_and_its_scores_are_its_own(tree):
    train, cost = commands("adding-a-task.md")
    found = record(run(tree, *train[1:], f"results_dir={tree / 'results'}"))
    assert found["metrics"]["test"].keys() == {"absolute_error"}
    assert 0 < found["metrics"]["test"]["absolute_error"] < 1
    assert found["scores"][0]["better"] == "less"
    assert record(run(tree, *cost[1:], f"results_dir={tree / 'results'}"))["cost"]["task_params"] > 0
