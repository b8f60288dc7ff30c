"""What runs are built of is found once, and is the same when it is found again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from presented import PAPER

from vltune.sweep import verdicts

ROOT = Path(__file__).parents[2]
HEADER = (2).to_bytes(8, "little")  # of a safetensors file without tensors
# A process that has no torch yet, as a planning one.
PROGRAM = """
import json, sys
from pathlib import Path
from vltune.sweep import plan, verdicts
if sys.argv[1] == "nothing new":
    verdicts.copies = None
project = Path(sys.argv[2])
built = plan.built(project, sys.argv[3:])
print(json.dumps([built.configs, [run.places for run in built.runs], "torch" in sys.modules]))
"""


def planned(how, *arguments):
    command = [sys.executable, "-c", PROGRAM, how, str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return f"method={','.join([*PAPER, 'question_only'])}", "mode=cost", "results_dir=results"


def test_what_was_found_is_not_looked_for_again_and_is_the_same(asked):
    found = planned("all new", *asked)
    assert not found[-1]
    assert planned("nothing new", *asked) == found
    others, *_ = planned("nothing new", *asked, "seed=3")
    assert [config["seed"] for config in others] == [3] * len(found[0])
    assert [config | {"seed": 0} for config in others] == found[0]
    assert len(list(Path("outputs/plans").glob("checked-*.json"))) == 1


def test_other_settings_and_other_code_are_looked_at(asked, tmp_path, monkeypatch):
    planned("all new", "method=lora", "mode=cost")
    (kept,) = tmp_path.glob("outputs/plans/checked-*.json")
    (name,) = json.loads(kept.read_text())
    planned("all new", "method=lora", "mode=cost", "method.rank=7")
    assert [name] == list(json.loads(kept.read_text()))[:1] != list(json.loads(kept.read_text()))
    before = verdicts.stamp()
    package = tmp_path / "vltune"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(verdicts.vltune, "__file__", str(package / "__init__.py"))
    assert verdicts.stamp() != before


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_file_is_nothing_kept(tmp_path, content):
    (file := tmp_path / "checked-0.json").write_text(content)
    assert verdicts.read(file) == {}


def test_weights_that_sizes_are_taken_of_are_looked_at(tmp_path):
    file = tmp_path / "w.safetensors"
    config = {"seed": 0, "weights": str(file), "backbone": {"model": "checkpoint"}}
    names = [verdicts.sort([], config)]
    for content in (HEADER + b"{}", HEADER + b"{} "):
        file.write_bytes(content)
        names.append(verdicts.sort([], config))
    assert len({*names}) == 3
    named = config | {"backbone": {"model": "b16"}}
    assert verdicts.sort([], named) == verdicts.sort([], named | {"seed": 1}) != names[-1]
