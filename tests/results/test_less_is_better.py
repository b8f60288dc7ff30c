"""A made-up metric, in pixels, of which less is better: everything that reads scores follows its declaration."""

import numpy as np
import pytest
from fabricated import Root
from predicted import predicted
from test_html import needs_browser, tab  # noqa: F401 (a fixture)

from vltune.errors import UserError
from vltune.metrics.metric import Metric, declared, figures
from vltune.records import record as records
from vltune.records.verified import check
from vltune.results.compare.match import compare, failures
from vltune.results.compare.text import brief, markdown
from vltune.results.html import page
from vltune.results.render import text as render
from vltune.results.render.figures import draw
from vltune.results.tables import build
from vltune.results.tables.model import SAME
from vltune.sweep import choose

DISTANCE = Metric("distance", unit="px", better="less", primary=True)
GROUP = {
    "tables": {"made_up": {"title": "Made up", "backbone": "vilt_mini"}},
    "experiment": "boxes-own",
    "columns": [
        {"key": "distance", "title": "distance, px", "value": "metrics.test.distance"},
        {"key": "params", "title": "parameters", "value": "cost.method_params"},
    ],
    "figure": {"score": ["distance"], "against": ["params", "params"]},
    "notes": [],
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "groups", lambda: {"made_up": GROUP})
    return Root(tmp_path)


def add(root, method, distances, split="test", **fields):
    metrics = {"val": None, "test": None} | {split: {"distance": float(np.mean(distances))}}
    scores = [DISTANCE.declaration()]
    file = root.add(method=method, task="boxes", dataset="own", metrics=metrics, scores=scores, **fields)
    predicted(file.with_suffix(".parquet"), [(split, i, "a box", float(each)) for i, each in enumerate(distances)])
    return file


def fill(root):
    draw = np.random.default_rng(0).normal(0, 5, 200)
    add(root, "full", 240 + draw)
    add(root, "lora", 140 + draw)
    add(root, "apt", 140.1 + draw[::-1])


def test_a_tolerance_is_of_hundredths_whatever_the_unit(tmp_path):
    """0.5 of a cosine's is 0.005, as 0.5 points of a percentage are."""
    likeness = [Metric("likeness", unit="cosine", primary=True).declaration()]
    a, b = Root(tmp_path / "a"), Root(tmp_path / "b")
    for root, score in ((a, 0.85), (b, 0.856)):
        root.add(metrics={"val": None, "test": {"likeness": score}}, scores=likeness)
    found = compare(a.folder, b.folder)
    assert failures(found, 0.7) == []
    assert len(failures(found, 0.5)) == 1


def test_the_figure_is_the_mean_itself():
    rows = [{"id": i, "prediction": "a box", "score": score} for i, score in enumerate((100.0, 300.0, None))]
    assert figures([DISTANCE], rows) == {"distance": 200.0}
    assert DISTANCE.beats(1.0, 2.0)
    assert not DISTANCE.beats(2.0, 2.0)


def test_what_a_record_declares_is_what_the_task_declared(root):
    record = records.read(add(root, "lora", [140.0, 150.0]))
    assert record["scores"] == [{"name": "distance", "unit": "px", "better": "less", "primary": True}]
    assert declared(record) == {"distance": DISTANCE}


def test_the_lowest_is_the_best_and_the_others_are_tested_against_it(root):
    fill(root)
    table = build.build("made_up", root.folder)
    cells = {row.label: row.cells["distance"] for row in table.rows}
    assert [name for name, cell in cells.items() if cell.best] == ["lora"]
    assert (cells["apt"].mark, cells["full"].mark) == (SAME, "≈")
    assert cells["full"].p_examples < 0.001 < 0.05 < cells["apt"].p_examples
    assert "**140." in render.markdown(table)
    assert "Bold: the best of a column." in render.legend(table)
    assert "lowest of the column" in page("made_up", [table]).decode()


def test_better_is_up_in_a_figure(root, monkeypatch):
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *given, **more: drawn.append(figure) or save(figure, *given, **more)
    )
    fill(root)
    draw(build.build("made_up", root.folder), "svg")
    (axes, *_) = drawn[0].axes
    assert axes.yaxis_inverted()
    low, high = sorted(axes.get_ylim())
    assert low < 140 < 240 < high


def test_a_page_sorts_the_lowest_first(root):
    fill(root)
    assert 'title="distance, px" data-better="less"' in page("made_up", [build.build("made_up", root.folder)]).decode()


@needs_browser
def test_nothing_beats_the_front_of_a_page(root, tab):  # noqa: F811
    """lora is the lowest, and full costs least."""
    for method, distance, size in (("full", 240.0, 0), ("lora", 140.0, 200), ("apt", 150.0, 300)):
        add(root, method, distance + np.arange(4), method_params=size)
    file = root.folder / "page.html"
    file.write_bytes(page("made_up", [build.build("made_up", root.folder)]))
    tab.open(file, 1280)
    assert tab.run("document.querySelector('#trade-chart .front').dataset.methods").split() == ["full", "lora"]


def test_predictions_and_record_agree_in_the_metrics_unit(root):
    file = add(root, "lora", [140.0, 150.0])
    assert check(records.read(file), file) == ""
    predicted(file.with_suffix(".parquet"), [("test", 0, "a box", 140.0), ("test", 1, "a box", 151.0)])
    with pytest.raises(UserError, match=r"'metrics.test.distance' is 145.00, its predictions give 145.50"):
        check(records.read(file), file)


def test_two_folders_are_compared_in_its_unit(tmp_path):
    roots = Root(tmp_path / "a"), Root(tmp_path / "b")
    for root, shift in zip(roots, (0, 2), strict=True):
        add(root, "lora", 140 + np.arange(50) + shift)
    (row,) = (comparison := compare(*(root.folder for root in roots))).rows
    assert row.shown == "test.distance"
    assert row.chance.examples < 0.001
    assert "| distance (px) | 164.50 | 166.50 | +2.00 |" in markdown(comparison)
    assert "scores apart: up to 2.00 px\n" in brief(comparison)


@pytest.mark.parametrize("name", ["likeness", "balance"])
def test_two_folders_are_compared_with_as_many_decimals_as_tables_show(tmp_path, name):
    """Those of the metric's own column, or of what stands beside it."""
    roots = Root(tmp_path / "a"), Root(tmp_path / "b")
    declaration = [Metric(name, unit="cosine", primary=True).declaration()]
    for root, score in zip(roots, (0.8813, 0.8857), strict=True):
        metrics = {"val": None, "test": {name: score}}
        root.add(task="subject", dataset="shapes_banded_cross", metrics=metrics, scores=declaration)
    comparison = compare(*(root.folder for root in roots))
    assert f"| {name} (cosine) | 0.881 | 0.886 | +0.004 |" in markdown(comparison)
    assert "scores apart: up to 0.004 cosine\n" in brief(comparison)


def test_the_rate_with_the_lowest_is_chosen(root, tmp_path):
    for digest, rate, distance in (("0a1b2c3d", 1e-3, 140.0), ("1a1b2c3d", 1e-4, 130.0)):
        add(root, "lora", [distance, distance], "val", hash=digest, config={"engine": {"lr": rate}})
    (file,) = choose.write(root.folder, tmp_path / "rates")
    assert "lora: 1.0e-04 # 1e-04: 130.00, 1e-03: 140.00" in file.read_text()


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([{"name": "distance"}], "metrics.test.distance': 140.0 is greater than the maximum of 100"),
        ([{"name": "distance", "unit": "px"}] * 2, "a metric stands there twice"),
        (
            [{"name": "distance", "unit": "px", "mean_of": ["left"]}],
            "distance is the mean of left, which is not declared",
        ),
        ([{"name": "distance", "unit": "px", "worse": "more"}], "field 'scores.0'"),
    ],
)
def test_a_declaration_that_does_not_hold_is_refused(root, scores, told):
    with pytest.raises(UserError, match=r"scores|metrics") as error:
        root.add(metrics={"val": None, "test": {"distance": 140.0}}, scores=scores)
    assert told in str(error.value)


def test_a_figure_along_columns_is_in_their_unit_with_better_up(root, monkeypatch):
    from matplotlib.figure import Figure

    fill(root)
    monkeypatch.setitem(GROUP, "figure", {"score": ["distance"], "along": ["distance"]})
    drawn, keep = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *given, **more: (drawn.append(self), keep(self, *given, **more))
    )
    draw(build.build("made_up", root.folder), "png")
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == "score, px"
    assert axes.yaxis_inverted()
