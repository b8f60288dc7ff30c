"""Predictions that are image files: they lie in a folder beside the record, and go where it goes."""

import pytest
from fabricated import Root

from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.records import folders, predictions
from vltune.records import record as records
from vltune.records.merge import merge
from vltune.tasks.task import RowColumn

MADE = RowColumn("made", "image")


def add(folder, content=b"\x89PNG", ids=(7,)):
    """A run that made one image, or several."""
    file = Root(folder).add(60.0)
    place = file.with_suffix("") / "test"
    place.mkdir(parents=True, exist_ok=True)
    rows = [{"id": id, "prediction": "a red box", "score": 0.6, "made": f"test/{id}.png"} for id in ids]
    for id in ids:
        (place / f"{id}.png").write_bytes(content)
    write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), [MADE])
    return file


def test_images_beside_the_record_are_read_with_its_predictions(tmp_path):
    file = add(tmp_path)
    assert predictions.read(file.with_suffix(".parquet"), records.read(file)).num_rows == 1


@pytest.mark.parametrize("gone", ["removed", "a link out of the folder"])
def test_an_image_that_is_not_there_is_told(tmp_path, gone):
    file = add(tmp_path, ids=(6, 7))
    image = file.with_suffix("") / "test" / "7.png"
    image.unlink()
    if gone != "removed":
        (tmp_path / "other.png").write_bytes(b"\x89PNG")
        image.symlink_to(tmp_path / "other.png")
    said = "which is not in" if gone == "removed" else "which does not lie in"
    with pytest.raises(UserError, match=rf"parquet: .*column made names 'test/7.png', {said} {file.stem}/"):
        predictions.read(file.with_suffix(".parquet"), records.read(file))


def test_images_that_were_all_left_where_the_run_was_are_no_fault(tmp_path):
    file = add(tmp_path, ids=(6, 7))
    for image in (file.with_suffix("") / "test").iterdir():
        image.unlink()
    assert predictions.read(file.with_suffix(".parquet"), records.read(file)).num_rows == 2


@pytest.mark.parametrize("path", ["../7.png", "/7.png", "test/8.png"])
def test_nothing_else_is_written_as_an_image(tmp_path, path):
    file = add(tmp_path)
    row = {"id": 7, "prediction": "a red box", "score": 0.6, "made": path}
    with pytest.raises(ValueError, match="column made names"):
        write_predictions(file.with_suffix(".parquet"), {"test": [row]}, records.read(file), [MADE])


def test_merging_carries_them_and_tells_others_apart(tmp_path):
    file = add(tmp_path / "there")
    ((merged,),) = merge([tmp_path / "there"], tmp_path / "here").values()
    assert merged.outcome == "added"
    carried = tmp_path / "here" / file.relative_to(tmp_path / "there")
    assert (carried.with_suffix("") / "test" / "7.png").read_bytes() == b"\x89PNG"
    ((again,),) = merge([tmp_path / "there"], tmp_path / "here").values()
    assert again.outcome == "same"
    add(tmp_path / "there", b"another")
    ((other,),) = merge([tmp_path / "there"], tmp_path / "here").values()
    assert "other files beside the same record" in other.why


def test_what_is_put_aside_keeps_them(tmp_path):
    file = add(tmp_path)
    kept = folders.put_aside(folders.RecordFile(file, "records", records.read(file)), tmp_path)
    assert (kept / file.stem / "test" / "7.png").is_file()
    assert not file.with_suffix("").exists()
