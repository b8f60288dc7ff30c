"""What a new data set costs: the files of docs/adding-a-dataset.md, written into a copy, and the page's own commands."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from copied import ROOT, copied, run
from PIL import Image

PAGE = (ROOT / "docs" / "adding-a-dataset.md").read_text()
FILES = dict(re.findall(r"^\*\*\d\. `(.+?)`\*\*.*?^```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]
IMAGES = {"train": 12, "dev": 2, "test": 2}
LABELS = ("contradiction", "neutral", "entailment")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository with the page's files, and raw files: three hypotheses about every image."""
    copy = copied(tmp_path_factory.mktemp("copy"), FILES)
    (copy / "RAW" / "images").mkdir(parents=True)
    with (copy / "RAW" / "pictures.jsonl").open("w") as lines:
        for number, split in enumerate(split for split, count in IMAGES.items() for _ in range(count)):
            image = f"{number}.png"
            Image.new("RGB", (64, 64), (16 * number, 0, 0)).save(copy / "RAW" / "images" / image)
            for label in LABELS:
                entry = {"split": split, "image": image, "hypothesis": f"a red square, {label}", "label": label}
                lines.write(json.dumps(entry) + "\n")
    return copy


def done(tree, *arguments):
    """What a command printed to standard output; `vltune` and `python` are those of this process, on the copy's source."""
    program = {"vltune": ["-m", "vltune"], "python": []}[arguments[0]]
    return run(tree, *program, *arguments[1:])


def test_the_page_shows_four_files_and_three_commands():
    assert [Path(file).name for file in FILES] == ["__init__.py", "prepare.py", "reader.py", "pictures.yaml"]
    assert [line.split()[:2] for line in COMMANDS] == [["vltune", "prepare"], ["vltune", "check"], ["python", "run.py"]]


def test_help_names_it(tree):
    assert "pictures" in done(tree, "vltune", "prepare", "--help")


def test_it_is_prepared_checked_and_trained_on_by_the_commands_of_the_page(tree):
    for line in COMMANDS:
        on_cpu = ["engine.accelerator=cpu"] if line.startswith("python run.py") else []
        done(tree, *shlex.split(line), *on_cpu)
    manifest = json.loads((tree / "data" / "pictures" / "manifest.json").read_text())
    assert manifest["images"] == IMAGES
    assert manifest["hypotheses"] == {split: len(LABELS) * count for split, count in IMAGES.items()}
    (file,) = (tree / "results" / "records").rglob("*.json")
    record = json.loads(file.read_text())
    assert (record["status"], record["identity"]["dataset"]) == ("finished", "pictures")
    assert record["metrics"].keys() == {"val", "test"}
    assert all(math.isfinite(split["accuracy"]) for split in record["metrics"].values())
