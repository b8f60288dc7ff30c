import presented as build
import pytest
from fabricated import Root
from matplotlib.figure import Figure
from matplotlib.text import Text

from vltune.results.render import figures


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    found, savefig = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (found.append(self), savefig(self, *a, **k)))
    return found


def fill(root):
    for index, method in enumerate(build.PAPER):
        for seed in range(2):
            costs = {
                "method_params": 1000 * max(0, index - 1),
                "total_params": 255_000,
                "additional_macs": 100_000 * (index // 2),
            }
            root.add(60.0 + index / 10 + seed, method=method, seed=seed, **costs)
    root.add(35.0, method="question_only", additional_macs=None)


def test_figure_is_the_same_bytes_every_time(root):
    fill(root)
    for format, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        once, again = (figures.draw(build.build("vilt_mini", root.folder), format) for _ in range(2))
        assert once == again
        assert once.startswith(start)
    assert b"<dc:date>" not in once


def test_figure_names_every_method_without_overlap(root, drawn):
    fill(root)
    figures.draw(build.build("vilt_mini", root.folder), "png")
    renderer = drawn[0].canvas.get_renderer()
    for axes in drawn[0].axes:
        texts = [text for text in axes.texts if text.get_text()]
        assert {text.get_text() for text in texts} == {*build.PAPER, "question_only 35.00"}
        assert axes.get_xscale() == "symlog", "a method that costs nothing has its place"
        boxes = [Text.get_window_extent(text, renderer) for text in texts]
        assert not any(box.count_overlaps(boxes[index + 1 :]) for index, box in enumerate(boxes))
        assert len(axes.containers) == len(build.PAPER), "error bars"


def test_of_many_rows_the_frontier_and_the_papers_are_named(root, drawn):
    fill(root)
    others = [name for name in build.ALL if name not in (*build.PAPER, *build.CONTROLS)]
    assert len(build.ALL) > figures.MANY
    for number, method in enumerate(others):  # the last of these is the best of all
        root.add(50.0 + number, method=method, method_params=10**6, additional_macs=10**7)
    figures.draw(table := build.build("vilt_mini", root.folder), "png")
    shown = [{text.get_text() for text in axes.texts if text.get_text()} for axes in drawn[0].axes]
    assert shown == [{*build.PAPER, others[-1], "question_only 35.00 ↓"}] * 2
    assert all(axes.get_ylim()[0] > 40 for axes in drawn[0].axes), "a control far below leaves room for the others"
    kinds = [text.get_text() for text in drawn[0].axes[-1].get_legend().get_texts()]
    assert kinds == [
        family.replace("_", " ") for family in dict.fromkeys(r.presentation.family for r in table.rows) if family
    ]
    looks = [(row.presentation.colour, row.shape) for row in table.rows if not row.presentation.is_control]
    assert len(set(looks)) == len(looks), "no two look the same"


def test_the_frontier_is_what_nothing_matches_and_beats(root):
    for method, score, macs in (("lora", 60, 0), ("apt", 61, 10**6), ("adapter", 60.5, 10**7), ("full", 59, 0)):
        root.add(score, method=method, additional_macs=macs)
    table = build.build("vilt_mini", root.folder)
    columns = [table.column(key) for key in ("additional_mmacs", "vqa")]
    assert list(figures.frontier(table.rows, *columns)) == ["lora", "apt"]


def test_figure_shows_the_mean_once_all_have_one(root):
    fill(root)
    assert build.build("vilt_mini", root.folder).figure["score"] == "vqa"
    for method in build.PAPER:
        assert build.build("vilt_mini", root.folder).figure["score"] == "vqa"
        for task, scores in (("nlvr2", {"accuracy": 70.0}), ("retrieval", {"ir_r1": 40.0, "tr_r1": 50.0})):
            root.add(method=method, task=task, metrics={"val": None, "test": scores})
    table = build.build("vilt_mini", root.folder)
    assert table.figure["score"] == "avg"
    assert b"mean of VQA, NLVR2, IR and TR" in figures.draw(table, "svg")


def test_figure_without_a_run_says_so(root):
    empty = figures.draw(build.build("vilt_mini", root.folder), "svg")
    assert empty.count(b"<!-- no finished run -->") == 2
    root.add(60.0)
    assert b"no finished run" not in figures.draw(build.build("vilt_mini", root.folder), "svg")


def test_figure_by_row_names_each_on_the_axis(root, drawn):
    within = Root(root.folder / "ablation_apt")
    metrics = {"val": {"vqa_score": 50.0}, "test": None}
    within.add(method="apt", config={"method": {"rank": 1}, "variant": "rank_1"}, metrics=metrics)
    name = "ablation_apt_vilt_mini"
    figures.draw(build.build(name, root.folder), "png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(build.listed(name).values)
    (bar,) = axes.containers
    assert (bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) == (
        50.0,
        build.listed(name).values.index("rank_1"),
    )


def test_figure_along_columns_is_a_line_for_each_row(root, drawn):
    within = Root(root.folder / "low_data")
    for method in ("lora", "apt"):
        for number, share in enumerate((0.01, 1.0)):
            config = {"method": {"rank": 4}, "dataset": {"train_fraction": share}}
            within.add(50.0 + number, method=method, config=config, hash=f"0000000{number}")
    figures.draw(build.build("low_data_vilt_mini", root.folder), "png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["lora", "apt"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["VQA, 1 %", "VQA, 5 %", "VQA, 10 %", "VQA, 100 %"]
    places = axes.containers[0].lines[0].get_xdata()
    assert [round(place) for place in places] == [0, 3], "5 and 10 % were not run"
