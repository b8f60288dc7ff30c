"""The sample of predictions that a logging service shows, on the toy world."""

import pytest
from fabricated import fabricate

from vltune.data.dataset import open_examples
from vltune.data.shapes import ensure
from vltune.errors import UserError
from vltune.loggers.sample import sample, saved, split_shown, table
from vltune.tasks.retrieval import Retrieval

SPLITS = {
    "vqa": "vqav2_test",
    "nlvr2": "nlvr2_test1",
    "retrieval": "f30k_caption_karpathy_test",
    "snli_ve": "snli_test",
}
READERS = {"vqa": "vqav2", "nlvr2": "nlvr2", "retrieval": "karpathy", "snli_ve": "snli_ve"}
LAYOUTS = {"vqa": "vqav2", "nlvr2": "nlvr2", "retrieval": "f30k", "snli_ve": "snli_ve"}


def predicted(*ids, prediction="yes"):
    return [{"id": id, "prediction": prediction, "score": 1.0} for id in ids]


@pytest.fixture
def shown(tmp_path):
    """-> columns and rows of a table of a task's predictions."""

    def of(task, predictions):
        ensure(tmp_path, LAYOUTS[task], seed=1, images={"train": 8, "val": 4, "test": 8})
        examples = open_examples(READERS[task], tmp_path / LAYOUTS[task], [SPLITS[task]])
        if task == "vqa":
            predictions = [row | {"id": int(id)} for row, id in zip(predictions, examples.ids, strict=False)]
        columns, rows = table(predictions, 64, lambda: examples)
        return columns, [dict(zip(columns, row, strict=True)) for row in rows]

    return of


def test_a_sample_is_the_same_for_every_run_and_spread_over_the_split():
    everything = predicted(*range(1000))
    chosen = [row["id"] for row in sample(everything, 64)]
    assert len(chosen) == 64
    assert chosen == sorted(chosen)
    assert all(sum(low <= id < low + 250 for id in chosen) > 5 for low in (0, 250, 500, 750))
    assert [row["id"] for row in sample(predicted(*range(1000), prediction="no"), 64)] == chosen


def test_a_missing_example_changes_at_most_one_of_the_sample():
    chosen = {row["id"] for row in sample(predicted(*range(1000)), 64)}
    gone = min(chosen)
    without = {row["id"] for row in sample([row for row in predicted(*range(1000)) if row["id"] != gone], 64)}
    assert len(chosen - without) == 1


def test_a_small_split_is_shown_whole():
    assert sample(predicted(3, 1, 2), 64) == predicted(3, 1, 2)


def test_an_id_that_stands_for_a_caption_and_an_image_is_two_examples():
    rows = predicted(1, prediction="image 3") + predicted(1, prediction="caption 7")
    assert sample(rows, 64) == rows


def test_the_test_split_is_shown_where_it_was_scored():
    assert split_shown({"val": predicted(1), "test": predicted(2)}) == "test"
    assert split_shown({"val": predicted(1), "test": []}) == "val"
    assert split_shown({"val": predicted(1)}) == "val"


def test_questions(shown):
    columns, [row] = shown("vqa", predicted(0, prediction="red"))
    assert columns == ["id", "image", "text", "prediction", "truth", "score"]
    assert row["image"].startswith((b"\xff\xd8", b"\x89PNG"))
    assert row["text"].endswith("?")
    assert row["prediction"] == "red"
    assert row["truth"]


def test_statements_have_two_images(shown):
    columns, [row] = shown("nlvr2", predicted(0, prediction="True"))
    assert columns == ["id", "image", "image 2", "text", "prediction", "truth", "score"]
    assert row["image"] != row["image 2"]
    assert row["truth"] in ("True", "False")


def test_retrieval_shows_what_was_found_and_what_was_meant(shown):
    rows = predicted(0, prediction="image 3") + predicted(0, prediction="caption 7")
    columns, [of_caption, of_image] = shown("retrieval", rows)
    assert set(columns) == {"id", "image", "text", "prediction", "predicted image", "truth", "true image", "score"}
    assert of_caption["text"]
    assert of_caption["truth"] == "image 0"
    assert of_caption["true image"] == of_image["image"] != of_caption["predicted image"]
    assert (of_image["text"], of_image["predicted image"]) == ("", None)
    assert len(of_image["truth"].split(", ")) == 3


def absent():
    raise UserError("the data is not here")


class Other:
    """Data of another run: no id is known."""

    def asked(self, id, prediction):
        raise KeyError(id)


@pytest.mark.parametrize("look", [absent, Other], ids=["no data", "other data"])
def test_without_the_data_only_what_was_predicted_is_shown(look):
    columns, rows = table(predicted(1, 2), 64, look)
    assert columns == ["id", "prediction", "score"]
    assert rows == [[1, "yes", 1.0], [2, "yes", 1.0]]


def test_an_unscored_split_has_no_column_of_scores():
    columns, _ = table([{"id": 1, "prediction": "yes", "score": None}], 64, absent)
    assert columns == ["id", "prediction"]


def test_predictions_beside_a_record_are_read_by_split(tmp_path):
    from vltune.engine.artifacts import write_predictions

    record = fabricate(metrics={"val": {"ir_r1": 50.0}, "test": None})
    rows = [row | {"target": "image", "fold": None} for row in predicted(1, 2, 3, prediction="image 3")]
    written = {"val": rows[:1], "test": [*rows[1:], rows[1] | {"fold": 2}]}
    write_predictions(tmp_path / "run.parquet", written, record, Retrieval.columns)
    assert saved(tmp_path / "run.parquet", record) == {"val": rows[:1], "test": rows[1:]}, "folds repeat others"
    assert saved(tmp_path / "none.parquet", record) == {}
