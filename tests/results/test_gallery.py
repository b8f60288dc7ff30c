"""Pictures that runs made, on the page: side by side, at the lowest seed, without those that are not here."""

import io
import json

import presented as tables
import pytest
from fabricated import Root
from PIL import Image

from vltune.engine.artifacts import write_predictions
from vltune.records import record as records
from vltune.results.html import gallery, page, runs
from vltune.results.html.gallery import MOST
from vltune.results.html.pictures import Pictures
from vltune.tasks.task import RowColumn

COLUMNS = [RowColumn("picture", "image"), RowColumn("beside", "image")]
TABLE = "vilt_mini"


def png(shade):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 90)).save(content, "PNG")
    return content.getvalue()


def paint(root, method, seed, shades):
    """A run that painted a picture of each shade, each beside a common one."""
    file = root.add(60.0, method=method, seed=seed)
    folder = file.with_suffix("") / "test"
    folder.mkdir(parents=True)
    (folder / "base.png").write_bytes(png(0))
    rows = []
    for id, shade in enumerate(shades):
        (folder / f"{id}.png").write_bytes(png(shade))
        row = {"id": id, "prediction": f"prompt {id}", "picture": f"test/{id}.png", "beside": "test/base.png"}
        rows += [row | {"score": 0.5}, row | {"score": 0.7}]  # of two measures
    write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), COLUMNS)
    return file


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def shown(root):
    table = tables.build(TABLE, root.folder)
    pictures = Pictures(10**6)
    return table, gallery.of(table, runs.of(table), pictures), pictures


def test_a_line_for_each_prompt_and_a_picture_of_each_method(root):
    paint(root, "full", 0, [10, 20])
    paint(root, "lora", 1, [30, 40])
    paint(root, "lora", 0, [50, 60])
    table, [found], pictures = shown(root)
    labels = {number: row.label for number, row in enumerate(table.rows)}
    assert [labels[row] for row in found["rows"]] == ["full", "lora"]
    assert [line["text"] for line in found["lines"]] == ["prompt 0", "prompt 1"]
    assert len(pictures.embedded) == 5  # base once, and of each method its lowest seed
    first = found["lines"][0]
    assert first["beside"] is not None and [row for row, _ in first["pictures"]] == found["rows"]


def test_pictures_that_are_not_here_are_left_out(root):
    file = paint(root, "full", 0, [10, 20])
    for image in (file.with_suffix("") / "test").iterdir():
        image.unlink()
    _, [found], pictures = shown(root)
    assert pictures.embedded == [] and found["lines"][0]["beside"] is None


def test_many_are_thinned_evenly(root):
    paint(root, "full", 0, range(60))
    _, [found], _ = shown(root)
    texts = [line["text"] for line in found["lines"]]
    assert len(texts) == MOST and texts[0] == "prompt 0" and texts[-1] == "prompt 59"


def test_runs_without_pictures_have_no_gallery(root):
    root.add(60.0, method="full")
    assert shown(root)[1] == []


def test_the_page_holds_it(root):
    paint(root, "full", 0, [10, 20])
    written = page("mini", [tables.build(TABLE, root.folder)]).decode()
    data = json.loads(written.split('id="data">')[1].split("</script>")[0])
    assert data["tables"][0]["gallery"][0]["lines"][0]["text"] == "prompt 0"
    assert 'id="gallery-pictures"' in written and "drawGallery" in written
