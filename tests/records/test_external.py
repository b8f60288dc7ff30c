"""Scores that a person typed: where they are shown, that they are marked, and what is refused."""

import csv
import io

import pytest
import yaml
from fabricated import Root
from presented import build, report
from rich.console import Console

from vltune.errors import UserError
from vltune.results.render import figures
from vltune.results.render import text as render

SOURCE = "EvalAI submission 12345, 2026-11-20"
FOLDER = "records/vilt/vqa-vqav2"
FORM = "an entry holds run, metric, value, source, by and nothing else; this one holds"


@pytest.fixture
def root(tmp_path):
    """Three seeds on VQAv2, whose test split has no published answers."""
    root = Root(tmp_path)
    for seed in range(3):
        root.add(backbone="vilt", dataset="vqav2", seed=seed, metrics={"val": {"vqa_score": 65.0}, "test": None})
    return root


def entry(**fields):
    return {
        "run": "lora-0a1b2c3d-seed0",
        "metric": "vqa_test_dev",
        "value": 70.94,
        "source": SOURCE,
        "by": "A. N. Other",
    } | fields


def write(root, content, name="scores"):
    file = root.folder / "external" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def lora(table):
    return next(row for row in table.rows if row.method == "lora")


def test_a_typed_score_is_marked_everywhere(root):
    write(root, entry())
    write(
        root,
        [entry(run=f"{FOLDER}/lora-0a1b2c3d-seed1.json", value=71), entry(run="lora-0a1b2c3d-seed2", value=72.0)],
        "more",
    )
    table = build("vilt", root.folder)
    cell = lora(table).cells["vqa_test_dev"]
    assert (cell.mean, cell.n, cell.typed) == (pytest.approx(71.3133333), 3, 3)
    assert (
        "† typed by a person from the official server, not computed here: "
        f"lora-0a1b2c3d-seed0 70.94 ({SOURCE}; by A. N. Other); lora-0a1b2c3d-seed1 71.00 ({SOURCE}; by A. N. Other); "
        f"lora-0a1b2c3d-seed2 72.00 ({SOURCE}; by A. N. Other)." in table.notes
    )
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(render.terminal(table))
    for text in (render.markdown(table), console.file.getvalue()):
        assert "71.31† ± 0.60 (3)" in text
        assert "† typed by a person" in text
    assert r"71.31$^\dagger$ $\pm$ 0.60 (3)" in render.latex(table)
    assert r"$^\dagger$ typed by a person" in render.latex(table)
    line = next(line for line in csv.DictReader(io.StringIO(render.comma_separated(table))) if line["method"] == "lora")
    assert (line["vqa_test_dev_n"], line["vqa_test_dev_typed"]) == ("3", "3")
    assert "lora†" in figures.draw(table, "svg").decode()
    assert "†: typed by a person" in figures.draw(table, "svg").decode()


def test_a_mean_over_a_typed_score_is_marked(root):
    write(root, entry(run=str(root.folder / FOLDER / "lora-0a1b2c3d-seed0.json"), value=71.0))
    scores = {"nlvr2": {"accuracy": 76.0}, "retrieval": {"ir_r1": 64.0, "tr_r1": 83.0}}
    for task, dataset in (("nlvr2", "nlvr2"), ("retrieval", "f30k")):
        root.add(backbone="vilt", task=task, dataset=dataset, metrics={"val": None, "test": scores[task]})
    cells = lora(build("vilt", root.folder)).cells
    assert (cells["avg"].mean, cells["avg"].n, cells["avg"].typed) == (73.5, 1, 1)
    assert cells["nlvr2_test_p"].typed == cells["vqa_val"].typed == 0


def test_without_typed_scores_nothing_differs(root):
    for form in (render.markdown, render.latex, render.comma_separated):
        text = form(build("vilt", root.folder))
        assert "typed" not in text
        assert "dagger" not in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run": "apt"}, "run is 'apt', and no record under {root} has this name or path: correct it"),
        ({"run": 7}, "run is 7: write a text"),
        ({"source": " "}, "source is ' ': write a text"),
        ({"by": None}, "by is None: write a text"),
        ({"value": 7094}, "value is 7094: write a number of percent, from 0 to 100"),
        ({"value": -0.1}, "value is -0.1: write a number of percent, from 0 to 100"),
        ({"value": float("nan")}, "value is nan: write a number of percent, from 0 to 100"),
        ({"value": True}, "value is True: write a number of percent, from 0 to 100"),
        ({"value": "70.94"}, "value is '70.94': write a number of percent, from 0 to 100"),
        ({"metric": "vqa_score"}, "metric is 'vqa_score', which no table shows: use vqa_test_dev"),
        ({"date": 2026}, f"{FORM} by, date, metric, run, source, value"),
    ],
)
def test_a_wrong_entry_is_named(root, fields, said):
    file = write(root, entry(**fields))
    with pytest.raises(UserError) as error:
        report("vilt_mini", root.folder)
    assert str(error.value) == f"{file}: {said.format(root=root.folder)}"
    assert not (root.folder / "tables").exists()


def test_a_wrong_file_is_named(root):
    missing = write(root, {key: value for key, value in entry().items() if key != "source"})
    with pytest.raises(UserError, match=f"scores.yaml: {FORM} by, metric, run, value$"):
        build("vilt", root.folder)
    missing.write_text("70.94")
    with pytest.raises(UserError, match=f"scores.yaml: {FORM} 70.94$"):
        build("vilt", root.folder)


ENTRY = """
run: lora-0a1b2c3d-seed0
metric: vqa_test_dev
value: 70.94
source: 2026-11-20
by: A. N. Other
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run: [", "broken YAML ("),
        (ENTRY + "value: 80", "broken YAML ('value' stands twice, line 7"),
        (ENTRY + "---" + ENTRY, "broken YAML (expected a single document"),
        (ENTRY.replace("70.94", "1:10"), "value is '1:10': write a number of percent, from 0 to 100"),
        (ENTRY.replace("70.94", "1_0"), "value is '1_0': write a number of percent, from 0 to 100"),
        (ENTRY.replace("70.94", ".nan"), "value is nan: write a number of percent, from 0 to 100"),
        (ENTRY.replace("A. N. Other", "7"), "by is 7: write a text"),
        (ENTRY.replace("A. N. Other", '"\\ud800"'), "by is '\\ud800': write a text"),
        ("", "holds no entry: write one, or remove the file"),
        ("# nothing yet", "holds no entry: write one, or remove the file"),
        ("[]", "holds no entry: write one, or remove the file"),
        ("PK\x03\x04", "broken YAML ("),
        (b"\x1f\x8b\x08\x00", "a gzip archive, no YAML: unpack it"),
        (ENTRY.encode("utf-16"), "a text in UTF-16, no YAML: save it as UTF-8"),
        (ENTRY.replace("Other", "Öther").encode("latin-1"), "not in UTF-8: save it as that"),
    ],
)
def test_a_file_that_is_no_yaml_is_named(root, content, said):
    file = write(root, ENTRY)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        build("vilt", root.folder)
    assert str(error.value).removeprefix(f"{file}: ").startswith(said)


@pytest.mark.parametrize(
    ("written", "value"), [("070", 70.0), ("7e1", 70.0), ("70", 70.0), ("0x46", 70.0), ("+70.0", 70.0)]
)
def test_numbers_are_those_of_yaml_1_2(root, written, value):
    """070 is 56 to YAML 1.1, 7e1 a text; a day is a source as it stands."""
    file = write(root, ENTRY.replace("70.94", written))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    table = build("vilt", root.folder)
    assert lora(table).cells["vqa_test_dev"].mean == value
    assert any(f"{value:.2f} (2026-11-20; by A. N. Other)" in note for note in table.notes)


def test_whatever_lies_there_is_read_or_named(root):
    file = write(root, ENTRY)
    file.rename(file.with_name("scores.YAML"))
    for name in ("notes.txt", "scores.yaml.bak", "scores.json", ".hidden"):
        file.with_name(name).write_text(ENTRY)
    file.with_name("2026").mkdir()
    table = build("vilt", root.folder)
    assert lora(table).cells["vqa_test_dev"].mean == 70.94
    assert table.broken == tuple(
        f"external/{name}: not read, for its name does not end in .yaml: rename it, or move it away"
        for name in ("2026", "notes.txt", "scores.json", "scores.yaml.bak")
    )
    file.with_name("folder.yml").mkdir()
    with pytest.raises(UserError, match=r"folder.yml: is a folder, no YAML: move it away"):
        build("vilt", root.folder)


@pytest.mark.parametrize("spoilt", ["a file", "a link to nothing"])
def test_a_folder_of_them_that_is_none_is_named(root, spoilt):
    folder = root.folder / "external"
    folder.write_text("") if spoilt == "a file" else folder.symlink_to("nowhere")
    (told,) = build("vilt", root.folder).broken
    assert told.startswith("external: cannot be listed (")


def test_a_score_is_typed_once(root):
    first = write(root, [entry(), entry(run=f"{FOLDER}/lora-0a1b2c3d-seed0.json")])
    with pytest.raises(UserError) as error:
        build("vilt", root.folder)
    assert str(error.value) == (
        f"{first} entry 2: vqa_test_dev of {FOLDER}/lora-0a1b2c3d-seed0.json was typed before, in {first} entry 1: keep one"
    )


def test_a_run_that_takes_no_typed_score(root):
    file = write(root, entry(run="apt-0a1b2c3d-seed0"))

    def refused():
        with pytest.raises(UserError) as error:
            build("vilt", root.folder)
        return str(error.value).removeprefix(f"{file}: ")

    root.fail(backbone="vilt", dataset="vqav2", method="apt")
    assert refused() == "run 'apt-0a1b2c3d-seed0' is failed: only a finished run has a score"
    root.add(71.5, backbone="vilt", dataset="vqav2", method="apt")
    assert refused() == "the run's record holds a computed metrics.test.vqa_score, 71.50: remove this entry"
    root.add(backbone="vilt", dataset="nlvr2", task="nlvr2", method="apt")
    paths = f"{FOLDER.replace('vqa-vqav2', 'nlvr2-nlvr2')}/apt-0a1b2c3d-seed0.json, {FOLDER}/apt-0a1b2c3d-seed0.json"
    assert refused() == f"run is 'apt-0a1b2c3d-seed0', which several have: write one of {paths}"
    write(root, entry(run=paths.split(", ")[0]))
    assert refused() == "metric 'vqa_test_dev' is of vqa-vqav2, and the run is of nlvr2-nlvr2: correct one"
