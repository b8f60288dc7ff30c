"""Whether predictions give the scores of their record, for every metric that follows from them."""

from pathlib import Path

import pytest
from fabricated import Root
from predicted import predicted, row_of

from vltune.errors import UserError
from vltune.records import record as records
from vltune.records import store
from vltune.records.verified import check
from vltune.tasks.retrieval import Retrieval

RESULTS = Path(__file__).parents[2] / "results"
QUESTIONS = [("test", 1000 * i, "red", score) for i, score in enumerate((0.0, 0.3, 0.6, 0.9, 1.0))]
# 1 / the places of the true matches: captions 1, 2, 6 and 11, images 1 and 3; and the same within two folds.
CAPTIONS = [("val", i, "image 0", 1 / place) for i, place in enumerate((1, 2, 6, 11))]
IMAGES = [("val", i, "caption 0", 1 / place) for i, place in enumerate((1, 3))]
FOLDS = [("val", i, "image 0, fold 1", 1 / place) for i, place in enumerate((1, 1, 6))]
FOLDS += [
    ("val", 3, "image 0, fold 2", 1 / 2),
    ("val", 0, "caption 0, fold 1", 1.0),
    ("val", 1, "caption 0, fold 2", 0.5),
]
RETRIEVAL = {"ir_r1": 25.0, "ir_r5": 50.0, "ir_r10": 75.0, "tr_r1": 50.0, "tr_r5": 100.0, "tr_r10": 100.0, "r1": 37.5}
# Means over the folds: of captions 2 of 3 and 0 of 1, of images 1 of 1 and 0 of 1.
OF_FOLDS = {"ir_r1_1k": 100 / 3, "ir_r5_1k": 250 / 3, "tr_r1_1k": 50.0, "tr_r10_1k": 100.0, "r1_1k": 125 / 3}


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def checked(root, rows, **metrics):
    file = root.add(metrics={"val": None, "test": None} | metrics)
    predicted(file.with_suffix(".parquet"), rows)
    return check(records.read(file), file)


@pytest.mark.parametrize(
    ("rows", "metrics"),
    [
        (QUESTIONS, {"test": {"vqa_score": 56.0}}),
        (QUESTIONS, {"test": {"vqa_score": 56.005}}),  # float32, and a run's own rounding
        (QUESTIONS, {"test": {"accuracy": 56.0, "consistency": 1.0, "pair_consistency": 99.0}}),
        (CAPTIONS + IMAGES, {"val": RETRIEVAL}),
        (CAPTIONS + IMAGES + FOLDS, {"val": RETRIEVAL | OF_FOLDS}),
    ],
)
def test_scores_that_follow_from_the_predictions(root, rows, metrics):
    assert checked(root, rows, **metrics) == ""


@pytest.mark.parametrize(
    ("rows", "split", "scores", "name", "given"),
    [
        (QUESTIONS, "test", {"vqa_score": 0.56}, "vqa_score", 56.0),  # a fraction in the place of percent
        (QUESTIONS, "test", {"vqa_score": 56.02}, "vqa_score", 56.0),
        (QUESTIONS, "test", {"accuracy": 65.0}, "accuracy", 56.0),
        *(
            (CAPTIONS + IMAGES, "val", RETRIEVAL | {name: RETRIEVAL[name] - 1}, name, RETRIEVAL[name])
            for name in RETRIEVAL
        ),
        *((CAPTIONS + FOLDS, "val", {name: OF_FOLDS[name] - 1}, name, OF_FOLDS[name]) for name in OF_FOLDS),
    ],
)
def test_a_score_that_they_contradict_is_named(root, rows, split, scores, name, given):
    with pytest.raises(UserError, match=rf"field 'metrics.{split}.{name}' is .*, its predictions give {given:.2f}: "):
        checked(root, rows, **{split: scores})


def test_a_run_s_own_recalls_are_those_of_its_rows(root):
    """Against the task that made them: the folds' means as well."""
    rows = CAPTIONS + IMAGES + FOLDS
    expected = Retrieval(4, folds=2).figures([row_of(*row) for row in rows])
    assert {name: expected[name] for name in RETRIEVAL | OF_FOLDS} == pytest.approx(RETRIEVAL | OF_FOLDS)
    assert checked(root, rows, val=expected) == ""


def test_scores_that_a_record_does_not_declare_are_not_said_to_be_checked(root):
    file = root.add(56.0, scores=[])
    predicted(file.with_suffix(".parquet"), QUESTIONS)
    assert check(records.read(file), file).endswith("not checked, for the record does not say what vqa_score is")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("val", *row[1:]) for row in QUESTIONS], "no scored example of test"),
        ([*QUESTIONS[:4], ("test", 3000, "red", 1.0)], "1 examples of test stand there twice, such as 3000"),
        ([*QUESTIONS, ("test", 9, "red", None)], "1 of 6 examples of test have no score"),
        (
            [*QUESTIONS[:4], ("test", 9, "red", 2.0)],
            "(1 of 5 scores are not from 0 to 1, such as 2)",
        ),
    ],
)
def test_predictions_that_say_nothing_of_a_score_are_told(root, rows, why):
    told = checked(root, rows, test={"vqa_score": 56.0})
    assert why in told


def test_predictions_of_a_split_whose_truth_is_not_published_say_nothing(root):
    assert checked(root, [("test", 7, "red", None)], val=None, test=None) == ""


def test_without_predictions_there_is_nothing_to_tell(root):
    file = root.add(56.0)
    assert check(records.read(file), file) == ""
    file.with_suffix(".parquet").symlink_to(root.folder / "nowhere")
    assert "no file of predictions" in check(records.read(file), file)


def test_every_committed_record_has_the_scores_of_its_predictions():
    for part in ("", "low_data", "ablation_apt", "learning_rates"):
        broken = []
        assert store.load(RESULTS / part, broken.append)
        assert broken == []


def test_a_record_is_left_out_where_it_is_read(root):
    predicted(root.add(56.0).with_suffix(".parquet"), QUESTIONS)
    assert len(store.load(root.folder, pytest.fail)) == 1
    root.add(65.0)
    broken = []
    assert store.load(root.folder, broken.append) == []
    assert len(broken) == 1
    assert len(store.load(root.folder, pytest.fail, verified=lambda record: False)) == 1
