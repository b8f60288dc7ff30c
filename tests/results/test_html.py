"""The page: what is in it, and, where there is a Chromium, how it looks and behaves."""

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import presented as tables
import pytest
from browser import CHROMIUM, browser
from fabricated import Root
from PIL import Image
from predicted import row_of
from presented import report
from typer.testing import CliRunner

from vltune.assemble.data import examples_of
from vltune.cli import app
from vltune.data.shapes import ensure
from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.results import PAGE
from vltune.results.html import curves, page
from vltune.results.html.disagreement import PER_SIDE
from vltune.results.html.pictures import SIDE, Pictures
from vltune.results.render import text as render
from vltune.tasks.retrieval import Retrieval

HOSTILE = """\u2028</script ><!--<script>hacked = 1</script><img src=x onerror="hacked = 1">&'"{{$}}"""
ENGINE = {"lr": 1e-3, "note": HOSTILE, "epochs": 10, "warmup": 0.1, "clip": None, "betas": [0.9, 0.98]}
METHODS = ("full", "lora", "apt")
QUESTIONS = range(0, 40_000, 1000)  # their ids: an image each


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def png(shade, side=24):
    content = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 40, 200 - shade)).save(content, "PNG")
    return content.getvalue()


@dataclass
class Shown:
    text: str = ""
    images: tuple = ()


@dataclass
class Asked:
    shown: Shown
    answers: dict


def truth(id, turned=False):
    return ("yes", "no")[QUESTIONS.index(id) % 2 ^ turned]


def mistakes(number, seed=0):
    """The questions that the method of this number gets wrong."""
    return set(QUESTIONS[number : 40 - 8 * seed : 3 + number])


class World:
    """Questions whose true answers are `yes` and `no` in turn; each with a picture of its own."""

    def asked(self, id, prediction):
        return Asked(Shown(f"{HOSTILE} {id}?", (png(QUESTIONS.index(id)),)), {truth(id): 1.0})

    def said(self, prediction):
        return Shown(prediction)


def predict(file, record, rows, split="test"):
    """rows: (id, prediction, score)"""
    found = [row_of(split, *row) for row in rows]
    write_predictions(file.with_suffix(".parquet"), {split: found}, json.loads(record), Retrieval.columns)


def answered(wrong):
    """Answers to all questions, those in `wrong` wrong."""
    return [(id, truth(id, id in wrong), float(id not in wrong)) for id in QUESTIONS]


def fill(root, methods=METHODS, seeds=(0, 1), predictions=True, **fields):
    for number, method in enumerate(methods):
        for seed in seeds:
            wrong = mistakes(number, seed)
            file = root.add(
                100 - 100 * len(wrong) / len(QUESTIONS),
                method=method,
                seed=seed,
                config={"method": {"name": method, "rank": number}, "engine": ENGINE},
                history=[{"step": 10 * step, "train/loss": 2 + number + 1 / step + seed} for step in range(1, 30)],
                additional_macs=int(1e5 * number**4),
                **fields,
            )
            if predictions:
                predict(file, file.read_text(), answered(wrong))
    return root


def build(root, name="vilt_mini", look=lambda config, split: World()):
    return page(name, [tables.build(table, root.folder) for table in tables.expand(name)], look).decode()


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.scripts, self.inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        self.scripts += [""] if tag == "script" else []

    def handle_data(self, data):
        self.texts.append(data)
        if self.inside == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.inside = None

    @property
    def data(self):
        return json.loads(self.scripts[0])


def part(root, **chosen):
    [table] = Parsed(build(root, **chosen)).data["tables"]
    [found] = table["disagreement"]
    return found


def test_one_file_that_asks_for_nothing(root):
    text = build(fill(root))
    parsed = Parsed(text)
    for tag, attributes in parsed.tags:
        assert not attributes.get("src", "").startswith(("http", "/")), tag
        assert tag != "link" or attributes["href"] == "data:,"
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_lets_this_one_script_run_and_nothing_load(root):
    parsed = Parsed(build(fill(root)))
    [policy] = [attributes["content"] for tag, attributes in parsed.tags if attributes.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"


def test_text_of_records_stays_text(root):
    plain = Parsed(build(fill(root)))
    hostile = {"method": {"name": "lora", "rank": HOSTILE}, "engine": ENGINE}
    root.add(50.0, method="lora", hash="bbbbbbbb", config=hostile)
    root.fail(error=f"Traceback\nRuntimeError: {HOSTILE}", method="adapter")
    (root.folder / "records" / "vilt_mini" / "<b>.json").write_text(HOSTILE)
    parsed = Parsed(build(root))
    assert len(parsed.scripts) == 2
    assert "<" not in parsed.scripts[0], "nothing in the data ends its element"
    assert {tag for tag, _ in parsed.tags} - {tag for tag, _ in plain.tags} <= {"details", "summary"}
    told = [text for text in parsed.texts if HOSTILE[1:40] in text]
    assert any("failed: adapter" in text for text in told), "in front of the table"
    assert any("lora (method.rank=" in text for text in told), "a row's label"
    runs = parsed.data["runs"]
    assert [run["error"] for run in runs["of"][0] if run["error"]] == [f"Traceback\nRuntimeError: {HOSTILE}"]
    assert json.dumps(HOSTILE, ensure_ascii=False) in {settings.get("engine.note") for settings in runs["settings"]}


def test_same_bytes_in_every_process(root):
    fill(root)
    out = root.folder / "out"
    command = [sys.executable, "-c", "from vltune.cli import app; app()", "report", "vilt_mini", "--format", "html"]
    command += ["--results-dir", str(root.folder), "--out", str(out)]
    found = set()
    for seed in "12":
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        found.add((out / "html" / "vilt_mini.html").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("name", ["mini", "paper", "vilt"])
def test_every_page_builds_without_records(root, name):
    data = Parsed(build(root, name)).data
    assert [table["name"] for table in data["tables"]] == tables.expand(name)


def test_what_the_numbers_are_stands_in_front(root):
    fill(root)
    root.fail(method="adapter")
    root.fail(method="apt", status="interrupted", error=None, seed=5)
    text = " ".join(" ".join(Parsed(build(root)).texts).split())
    front = text[: text.index("Score against cost")]
    assert "Shapes is a toy world" in front
    assert re.search(r"runs finished 6 .*failed 1 .*interrupted 1", front)
    assert "failed: adapter 0a1b2c3d on vqa-shapes, seed 0: RuntimeError: boom" in front


def test_machines_of_more_than_one_kind_are_told_in_front(root):
    fill(root)
    file = fill(root, methods=("adapter",), seeds=(0,)).add(method="adapter", metrics={"val": None, "test": None})
    record = json.loads(file.read_text())
    record["provenance"]["hardware"] = {"cpu": "Another", "cores": 64, "gpus": ["GPU", "GPU"]}
    file.write_text(json.dumps(record))
    text = " ".join(" ".join(Parsed(build(root)).texts).split())
    assert "kinds of machine" in text
    assert "Another, 64 cores, 2 x GPU" in text[: text.index("Score against cost")]


def test_numbers_of_the_table_are_the_tables(root):
    fill(root)
    [table] = Parsed(build(root)).data["tables"]
    built = tables.build("vilt_mini", root.folder)
    columns = {column.key: column for column in built.columns}
    for row, shown in zip(built.rows, table["rows"], strict=True):
        assert row.label == shown["label"]
        for key, cell in row.cells.items():
            digits, found = columns[key].digits, shown["cells"][key]
            for name in ("mean", "std"):
                value = getattr(cell, name)
                assert (name in found) == (value is not None)
                if value is not None:  # as the script prints it
                    assert f"{found[name]:.{digits}f}" == render.number(columns[key], value)


def test_the_best_is_bold_and_what_cannot_be_told_from_it_has_its_sign(root):
    text = build(fill(root))
    cells = {row.method: row.cells["vqa"] for row in tables.build("vilt_mini", root.folder).rows}
    marks = {method: cells[method].mark for method in METHODS}
    assert cells["apt"].best
    assert any(marks.values())
    for method in METHODS:
        row = re.search(rf"</span>{method}</th>(.*?)</td>", text)[1]
        assert ("<b>" in row.partition("<span")[0]) == cells[method].best
        assert f'<span class="sign">{marks[method]}</span>' in row


def test_a_cost_is_a_bar_from_zero_and_a_saving_one_on_the_other_side(root):
    for method, macs in (("full", 0), ("lora", 3 * 10**6), ("das", -(10**6))):
        root.add(50.0, method=method, additional_macs=macs)
    rows = re.findall(r"</span>(full|lora|das)</th>(.*?)</tr>", build(root))
    bars = {
        label: re.search(r'M?[-\d.]+<span class="range"><b style="(left[^"]*)"', row).group(1) for label, row in rows
    }
    assert bars == {
        "full": "left:25.0%;width:0.0%",
        "lora": "left:25.0%;width:75.0%",
        "das": "left:0.0%;width:25.0%",
    }


def test_pairs_are_counted_example_by_example(root):
    fill(root)
    found = part(root)
    wrong = list(map(mistakes, range(3)))
    rows = [row.method for row in tables.build("vilt_mini", root.folder).rows]
    assert len(found["pairs"]) == 3
    for pair in found["pairs"]:
        a, b = (wrong[METHODS.index(rows[found["runs"][pair[side]]["row"]])] for side in "ab")
        assert pair["counts"] == [len(QUESTIONS) - len(a | b), len(b - a), len(a - b), len(a & b)]
        assert found["runs"][pair["a"]]["seed"] == found["runs"][pair["b"]]["seed"] == 0
        one_sided = [0, 0]
        for example in found["examples"]:
            right = [example["given"][pair[side]][1] == 1 for side in "ab"]
            one_sided[0] += right == [True, False]
            one_sided[1] += right == [False, True]
        assert all(shown >= min(PER_SIDE, there) for shown, there in zip(one_sided, pair["counts"][1:3], strict=True))
    for example in found["examples"]:
        assert example["text"] == f"{HOSTILE} {example['id']}?"
        [true] = [found["said"][answer]["text"] for answer, _ in example["answers"]]
        assert true == truth(example["id"])
        for run, given in zip(found["runs"], example["given"], strict=True):
            method = METHODS.index(rows[run["row"]])
            assert given[1] == (example["id"] not in wrong[method])


def test_the_lowest_seed_that_both_have(root):
    fill(root, methods=("full",), seeds=(0, 1, 2))
    fill(root, methods=("lora",), seeds=(2, 1))
    assert {run["seed"] for run in part(root)["runs"]} == {1}


def test_questions_count_as_right_from_half_a_score(root):
    for method, score in (("full", 0.6), ("lora", 0.3)):
        file = root.add(100 * score, method=method)
        predict(file, file.read_text(), [(1, "red", score)])
    found = part(root, look=None)
    assert found["threshold"] == 0.5
    assert found["pairs"][0]["counts"] == [0, 1, 0, 0]
    assert found["examples"][0]["given"] == [[0, 0.6], [0, 0.3]]


def test_answers_to_other_splits_are_not_counted_against_each_other(root):
    """They are told apart by their place in a split."""
    for method, split, score in (
        ("full", "one", 1.0),
        ("lora", "one", 0.0),
        ("apt", "two", 0.0),
        ("adapter", "two", 1.0),
    ):
        file = root.add(100 * score, method=method, config={"dataset": {"test": [split]}})
        predict(file, file.read_text(), [(1, split, score)])
    [table] = Parsed(build(root, look=None)).data["tables"]
    found = {part["title"]: part for part in table["disagreement"]}
    assert found.keys() == {"vqa-shapes (one)", "vqa-shapes (two)"}
    assert [len(part["pairs"]) for part in found.values()] == [1, 1]
    assert found["vqa-shapes (one)"]["said"] == [{"text": "one"}]


def test_retrieval_has_two_parts_and_folds_are_not_counted_twice(root):
    for method, places in (("full", (1, 2)), ("lora", (2, 1))):
        file = root.add(method=method, task="retrieval", metrics={"val": None, "test": {"ir_r1": 50.0, "tr_r1": 100.0}})
        rows = [(number, f"image {number}", 1 / place) for number, place in enumerate(places)]
        rows += [(number, f"image {number}, fold 1", 1.0) for number in range(2)]
        rows += [(0, "caption 3", 1.0)]
        predict(file, file.read_text(), rows)
    [table] = Parsed(build(root, look=None)).data["tables"]
    by_image, by_caption = table["disagreement"]
    assert by_image["pairs"][0]["counts"] == [0, 1, 1, 0], "second place is wrong"
    assert by_caption["pairs"][0]["counts"] == [1, 0, 0, 0]


def test_val_stands_in_where_test_has_no_truth(root):
    for method in ("full", "lora"):
        file = root.add(method=method, metrics={"val": {"vqa_score": 100.0}, "test": None})
        rows = {
            "val": [{"id": 1, "prediction": "red", "score": 1.0}],
            "test": [{"id": 2, "prediction": "red", "score": None}],
        }
        write_predictions(file.with_suffix(".parquet"), rows, json.loads(file.read_text()))
    found = part(root, look=None)
    assert (found["split"], found["pairs"][0]["counts"]) == ("val", [1, 0, 0, 0])


def test_without_the_data_answers_stand_alone_and_the_page_says_why(root):
    def gone(config, split):
        raise UserError("data/shapes/vqav2 is not there")

    found = part(fill(root), look=gone)
    assert found["without"] == "data/shapes/vqav2 is not there"
    assert found["examples"]
    assert all(set(example) == {"id", "given"} for example in found["examples"])


@pytest.mark.parametrize("turned", ["answers", "ids"])
def test_other_data_than_the_runs_read_is_not_shown(root, turned):
    class Other(World):
        def asked(self, id, prediction):
            if turned == "ids":
                raise KeyError(id)
            return Asked(Shown("?"), {"maybe": 1.0})

    found = part(fill(root), look=lambda config, split: Other())
    assert "not what the runs read" in found["without"]
    assert "text" not in found["examples"][0]


def test_where_the_data_of_a_record_lies(tmp_path):
    dataset = {"data_dir": str(tmp_path), "subfolder": "vqav2", "test": ["vqav2_test"], "val": None, "generate": {}}
    config = {"dataset": dataset, "task": {"name": "vqa", "reader": "vqav2"}}
    with pytest.raises(UserError, match="any run on it makes it"):
        examples_of(config, "test")
    with pytest.raises(UserError, match="names no data for val"):
        examples_of(config, "val")
    with pytest.raises(UserError, match="names no data for test"):
        examples_of({}, "test")
    ensure(tmp_path, "vqav2", images={"train": 4, "val": 2, "test": 2})
    assert len(examples_of(config, "test").ids) == 8


def test_long_curves_are_thinned_to_means(root):
    values = np.random.default_rng(0).normal(size=1000)
    history = [{"step": step + 1, "train/loss": value} for step, value in enumerate(values.tolist())]
    root.add(60.0, history=[*history, {"step": 1000, "val/vqa_score": 61.0}])
    [table] = Parsed(build(root)).data["tables"]
    experiment = table["curves"]["vqa-shapes"]
    [curve] = experiment["metrics"]["train/loss"]
    assert len(curve["values"]) == curves.POINTS
    assert curve["values"] == pytest.approx(values.reshape(-1, 4).mean(1).tolist(), rel=1e-5)
    assert experiment["steps"][curve["steps"]][-1] == 1000
    assert experiment["metrics"]["val/vqa_score"][0]["values"] == [61]


def test_pictures_are_small_and_stand_there_once():
    pictures = Pictures(10**6)
    assert pictures.add(png(1)) == pictures.add(png(1)) == 0
    assert pictures.add(png(2, side=900)) == 1
    assert pictures.add(b"no picture") is None
    kept, small = (base64.b64decode(uri.partition(",")[2]) for uri in pictures.embedded)
    assert kept == png(1)
    assert Image.open(io.BytesIO(small)).size == (SIDE, SIDE)
    assert (len(pictures.embedded), pictures.left_out) == (2, 1)


def test_pictures_end_where_there_is_no_room():
    pictures = Pictures(200)
    found = [pictures.add(png(shade)) for shade in range(5)]
    assert found[0] == 0
    assert found[-1] is None
    assert sum(map(len, pictures.embedded)) <= 200
    assert pictures.left_out == 5 - len(pictures.embedded)
    pictures.limit = 10**6  # what others left
    assert pictures.add(png(4)) == len(pictures.embedded) - 1
    assert pictures.left_out == 6 - len(pictures.embedded) - 1


def test_the_command_writes_one_page_and_says_where(root):
    fill(root, predictions=False)
    out = root.folder / "out"
    done = CliRunner().invoke(
        app, ["report", "mini", "--results-dir", str(root.folder), "--out", str(out), "--format", "html"]
    )
    assert done.exit_code == 0, done.output
    [file] = [file for file in out.rglob("*") if file.is_file()]
    assert file == out / "html" / "mini.html"
    assert str(file) in done.output.replace("\n", "")


def test_the_page_beside_other_formats(root):
    report("vilt_mini", root.folder, formats=("md", PAGE))
    assert (root.folder / "html" / "vilt_mini.html").is_file()
    assert (root.folder / "tables" / "vilt_mini.md").is_file()


# What a reader sees.  A picture is not held against a stored one: fonts differ from machine to machine.

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt install chromium")
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A page of two tables, all tasks' kinds of cell among them."""
    root = Root(tmp_path_factory.mktemp("results"))
    fill(root)
    fill(root, methods=("adapter", "scaled_pa"), seeds=(0,))
    fill(root, backbone="meter_mini")
    root.add(30.0, method="question_only")
    root.fail(method="shallow_prompt", error=f"Traceback\nRuntimeError: {HOSTILE}")
    file = root.folder / "page.html"
    file.write_text(build(root, "mini"))
    return file


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


OVERFLOWING = """[...document.querySelectorAll('body *')].filter((node) => {
    const box = node.getBoundingClientRect();
    if (!box.width || !box.height || node.closest('.skip, .hidden-text')) return false;
    for (let parent = node.parentElement; parent; parent = parent.parentElement)
        if (getComputedStyle(parent).overflowX !== 'visible') return false;
    return box.right > innerWidth + 1 || box.left < -1;
}).map((node) => node.tagName + ' ' + node.className)"""

# Of every text, its contrast with the nearest opaque background behind it (WCAG 2).
FAINT = """(() => {
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (node) => {
        const layers = [];
        for (; node; node = node.parentElement) {
            const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
            if (a) layers.push([r, g, b, a]);
            if (a === 1) break;
        }
        const over = (under, [r, g, b, a]) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
        return layers.reverse().reduce(over, [255, 255, 255]);
    };
    const faint = new Set();
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        if (!walk.currentNode.textContent.trim() || !node.getClientRects().length) continue;
        if (node.closest('script, noscript, option')) continue;
        const style = getComputedStyle(node);
        const text = light(parse(node.closest('svg') ? style.fill : style.color)), ground = light(behind(node));
        const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        if (contrast < 4.5) faint.add(`${walk.currentNode.textContent.trim().slice(0, 30)} ${contrast.toFixed(2)}`);
    }
    return [...faint];
})()"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_is_readable_and_complains_of_nothing(seen, tab, width, dark):
    tab.open(seen, width, dark=dark)
    assert tab.complaints() == []
    assert tab.run("typeof hacked") == "undefined"
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(OVERFLOWING) == []
    assert tab.run(FAINT) == []
    assert tab.run("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert tab.run("document.images.length") > 0


def box(tab, selector):
    """left, top, right, bottom in the whole page"""
    found = tab.run(
        f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
        " return [b.left, b.top + scrollY, b.right, b.bottom + scrollY].map(Math.round) })()"
    )
    return tuple(found)


def colour(tab, name):
    """RGB of a custom property"""
    return tab.run(
        f"(() => {{ const node = document.createElement('i'); node.style.color = 'var({name})'; document.body.append(node);"
        " const found = getComputedStyle(node).color.match(/\\d+/g).map(Number); node.remove(); return found })()"
    )


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_shows_every_part(seen, tab, width, dark):
    tab.open(seen, width, dark=dark)
    image = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    assert image.width == width
    pixels = np.asarray(image).astype(int)
    assert (np.median(pixels) > 128) != dark
    parts = [".introduction", "#trade-chart", ".of-table.table", "#curves-chart", "#differ-matrix", ".example", ".run"]
    for selector in parts:
        left, top, right, bottom = box(tab, selector)
        shown = pixels[top:bottom, left : min(right, width)]
        assert shown.size, selector
        assert len(np.unique(shown @ [1, 256, 65536])) > 20, f"{selector} is as good as empty"
    for chart in ("#trade-chart", "#curves-chart"):
        left, top, right, bottom = box(tab, f"{chart} svg")
        shown = pixels[top:bottom, left:right]
        for method in METHODS:
            wanted = colour(tab, f"--c{tables.METHODS[method].colour}")
            assert (np.abs(shown - wanted).max(2) < 12).sum() > 20, f"{chart} lacks {method}"


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_points_and_their_labels(seen, tab, width):
    tab.open(seen, width)
    labels = "[...document.querySelectorAll('#trade-chart .label')]"
    points = tab.run("[...document.querySelectorAll('#trade-chart .point')].map((p) => p.dataset.label)")
    assert sorted(points) == ["adapter", "apt", "full", "lora", "scaled_pa"]
    names = tab.run(f"{labels}.map((label) => label.textContent)")
    assert set(points) <= set(names)
    assert any(name.startswith("question_only 30.00") for name in names), "a control is a line"
    boxes = tab.run(
        f"{labels}.map((label) => {{ const b = label.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height] }})"
    )
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + 4 or other[3] <= one[1] + 4
            assert apart, "labels lie on each other"
    middles = tab.run(
        "[...document.querySelectorAll('#trade-chart .point')]"
        ".map((point) => point.getAttribute('transform').match(/[\\d.]+/g).map(Number))"
    )
    for x, y in middles:
        assert not any(left < x < right and top < y < bottom for left, top, right, bottom in boxes), (
            "a label on a point"
        )
    assert tab.run("document.querySelectorAll('#trade-chart .bars').length") >= 3 * len(METHODS), "error bars"
    # More score for less cost: full costs nothing, and of the others only those that score more than all that cost less.
    front = set(tab.run("document.querySelector('#trade-chart .front').dataset.methods").split())
    table = tables.build("vilt_mini", seen.parent)
    found = {}
    for row in table.rows:
        cost, score = row.cells["additional_mmacs"].mean, row.cells["vqa"].mean
        if cost is not None and score is not None and row.method not in tables.CONTROLS:
            found[row.label] = (cost, score)
    wanted = {
        name
        for name, (cost, score) in found.items()
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in found.values())
    }
    assert front == wanted


def choose(tab, select, value):
    tab.run(
        f"(() => {{ const node = document.getElementById({select!r}); node.value = {value!r};"
        " node.dispatchEvent(new Event('change')) })()"
    )


@needs_browser
def test_any_two_columns_and_what_a_point_tells(seen, tab):
    tab.open(seen, 1280)
    choose(tab, "trade-x", "method_params_k")
    assert tab.run("document.querySelector('#trade-chart svg').getAttribute('aria-label')") == (
        "VQA, % against updated parameters, k"
    )
    choose(tab, "trade-x", "additional_mmacs")
    assert tab.run("document.getElementById('trade-log').checked"), "costs span decades"
    places = "[...document.querySelectorAll('#trade-chart .point')].map((p) => p.getBoundingClientRect().left)"
    logarithmic = tab.run(places)
    tab.run("document.getElementById('trade-log').click()")
    assert tab.run(places) != logarithmic
    tab.run("document.querySelector('#trade-chart [data-label=lora]').focus()")
    cell = next(row for row in tables.build("vilt_mini", seen.parent).rows if row.method == "lora").cells["vqa"]
    assert f"{cell.mean:.2f} ± {cell.std:.2f} (2)" in tab.run("document.querySelector('#trade-chart .tip').textContent")


def order(tab):
    return tab.run(
        "[...document.querySelectorAll('[data-table=vilt_mini] tbody tr')].map((row) => row.cells[0].textContent)"
    )


@needs_browser
def test_a_heading_sorts_by_mouse_and_keyboard(seen, tab):
    tab.open(seen, 1280)
    table = tables.build("vilt_mini", seen.parent)
    first = order(tab)
    assert first == [row.label for row in table.rows]
    means = {row.label: row.cells["vqa"].mean for row in table.rows if row.cells["vqa"].mean is not None}
    head = "document.querySelectorAll('[data-table=vilt_mini] thead th')[1]"
    tab.run(f"{head}.querySelector('button').click()")
    best_first = sorted(means, key=means.get, reverse=True)
    assert order(tab)[: len(means)] == best_first
    assert tab.run(f"{head}.ariaSort") == "descending"
    tab.run(f"{head}.querySelector('button').focus()")
    tab.press("Enter")
    assert order(tab)[: len(means)] == best_first[::-1], "what has no number stays last"
    assert tab.run(f"{head}.ariaSort") == "ascending"
    tab.press("Enter")
    assert order(tab) == first
    assert tab.run(f"{head}.ariaSort") == "none"


@needs_browser
def test_the_other_table_and_all_columns(seen, tab):
    tab.open(seen, 1280)
    visible = (
        "[...document.querySelectorAll('.of-table.table')].filter((t) => t.offsetHeight).map((t) => t.dataset.table)"
    )
    assert tab.run(visible) == ["vilt_mini"]
    tab.run("document.querySelectorAll('[data-show]')[1].click()")
    assert tab.run(visible) == ["meter_mini"]
    assert len(tab.run("[...document.querySelectorAll('#trade-chart .point')].map((p) => p.dataset.label)")) == 3
    heads = "[...document.querySelectorAll('[data-table=meter_mini] thead th')].filter((th) => th.offsetWidth).length"
    few = tab.run(heads)
    tab.run("document.getElementById('table-all').click()")
    assert tab.run(heads) == 1 + len(tables.build("meter_mini", seen.parent).columns) > few
    assert tab.run("document.documentElement.scrollWidth") <= 1280


@needs_browser
def test_families_are_chosen_and_stand_together(seen, tab):
    tab.open(seen, 1280)
    points = "[...document.querySelectorAll('#trade-chart .point')].map((p) => p.dataset.label)"
    shown = (
        "[...document.querySelectorAll('[data-table=vilt_mini] tbody tr:not([hidden])')]"
        ".map((row) => row.cells[0].textContent)"
    )
    options = tab.run("[...document.getElementById('family').options].map((option) => option.textContent)")
    assert options[:2] == ["all methods", "paper"]
    assert {"low rank", "adapters", "control"} < set(options)
    choose(tab, "family", "adapters")
    assert tab.run(shown) == tab.run(points) == ["adapter", "scaled_pa"]
    legend = "[...document.querySelectorAll('#curves-legend button')].map((button) => button.textContent)"
    assert tab.run(legend) == ["adapter", "scaled_pa"]
    assert tab.run("[...document.querySelectorAll('.matrix tbody th')].map((head) => head.textContent)") == [
        "adapter",
        "scaled_pa",
    ]
    choose(tab, "family", "")
    assert len(tab.run(shown)) == len(tables.build("vilt_mini", seen.parent).rows)
    tab.run("document.getElementById('table-grouped').click()")
    together = tab.run(shown)
    place = together.index("adapters")
    assert together[place + 1 : place + 3] == ["adapter", "scaled_pa"]
    assert together[0] == "beside the families"
    tab.run("document.querySelectorAll('[data-table=vilt_mini] thead th')[1].querySelector('button').click()")
    best_first = tab.run(shown)
    assert sorted(best_first) == sorted(together)
    assert set(best_first[best_first.index("adapters") + 1 :][:2]) == {"adapter", "scaled_pa"}
    tab.run("document.getElementById('table-grouped').click()")
    assert "adapters" not in tab.run(shown)


@needs_browser
def test_a_family_leaves_the_axes_and_two_methods_to_compare(seen, tab):
    tab.open(seen, 1280)
    rows = [row.label for row in tables.build("vilt_mini", seen.parent).rows]
    axis, label = "method_params_k", "document.querySelector('#trade-chart svg').getAttribute('aria-label')"
    choose(tab, "trade-x", axis)
    for select, method in (("differ-a", "lora"), ("differ-b", "apt")):
        choose(tab, select, str(rows.index(method)))
    told = tab.run(label)
    choose(tab, "family", "adapters")
    assert tab.run("document.getElementById('trade-x').value") == axis
    assert tab.run(label) == told
    pair = [tab.run(f"document.getElementById('differ-{side}').selectedOptions[0].textContent") for side in "ab"]
    assert pair == ["adapter", "scaled_pa"]
    assert tab.run("document.querySelectorAll('.counts tbody tr').length") == 4
    choose(tab, "family", "")


@needs_browser
def test_curves_are_means_over_seeds_and_can_be_hidden(seen, tab):
    tab.open(seen, 1280)
    lines = "document.querySelectorAll('#curves-chart .line').length"
    assert tab.run(lines) == 5
    assert tab.run("document.querySelectorAll('#curves-chart .faint').length") == 2 * len(METHODS), "runs behind a mean"
    tab.run("document.querySelector('#curves-legend button').click()")
    assert tab.run(lines) == 4
    assert tab.run("document.querySelector('#curves-legend button').ariaPressed") == "false"


@needs_browser
def test_two_methods_are_set_side_by_side(seen, tab):
    tab.open(seen, 400)
    rows = [row.label for row in tables.build("vilt_mini", seen.parent).rows]
    for select, method in (("differ-a", "lora"), ("differ-b", "apt")):
        choose(tab, select, str(rows.index(method)))
    wrong = {"lora": mistakes(1), "apt": mistakes(2)}
    counts = [
        len(QUESTIONS) - len(wrong["lora"] | wrong["apt"]),
        len(wrong["apt"] - wrong["lora"]),
        len(wrong["lora"] - wrong["apt"]),
        len(wrong["lora"] & wrong["apt"]),
    ]
    cells = tab.run("[...document.querySelectorAll('.counts tbody tr')].map((row) => Number(row.cells[1].textContent))")
    assert cells == counts
    tab.run("document.querySelectorAll('.more-button').forEach((button) => button.click())")
    shown = tab.run(
        "[...document.querySelectorAll('.sides > div')].map((side) =>"
        " [...side.querySelectorAll('.example')].map((card) => Number(card.dataset.id)))"
    )
    assert set(shown[0]) <= wrong["apt"] - wrong["lora"]
    assert set(shown[1]) <= wrong["lora"] - wrong["apt"]
    assert [len(ids) for ids in shown] == [min(PER_SIDE, len(ids)) for ids in map(set, shown)]
    told = tab.run("document.querySelector('.example').textContent")
    assert HOSTILE[1:] in told
    assert "✓" in told
    assert "✗" in told


@needs_browser
def test_runs_show_their_settings_and_how_they_failed(seen, tab):
    tab.open(seen, 400)
    summaries = tab.run("[...document.querySelectorAll('.run > summary')].map((summary) => summary.textContent)")
    assert any("lora" in text and "rank=1" in text and "seeds 0, 1" in text for text in summaries)
    tab.run("document.querySelectorAll('.run').forEach((run) => { run.open = true })")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    tab.run("document.querySelectorAll('.run details').forEach((inner) => { inner.open = true })")
    text = tab.run("document.getElementById('runs-list').textContent")
    assert HOSTILE[1:] in text
    assert "method.rank: 1" in text
    assert tab.run("typeof hacked") == "undefined"
    assert tab.run("document.documentElement.scrollWidth") <= 400
    choose(tab, "runs-status", "failed")
    assert tab.run("document.querySelectorAll('.run').length") == 1


@needs_browser
def test_what_seeds_of_a_configuration_do_not_share_stands_in_their_table(root, tab):
    for seed, threads in ((0, 1), (1, 2)):
        config = {"method": {"name": "lora", "rank": 4}, "engine": ENGINE | {"threads": threads}}
        root.add(50.0, method="lora", seed=seed, config=config)
    file = root.folder / "page.html"
    file.write_text(build(root))
    tab.open(file, 1280)
    tab.run("document.querySelector('.run').open = true")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    rows = tab.run(
        "[...document.querySelectorAll('.run tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert ["engine.threads", "1", "2"] in rows
    assert not any(name == "method.rank" for name, *_ in rows)
    assert "Whole configuration, seed 0" in tab.run("document.querySelector('.run').textContent")
