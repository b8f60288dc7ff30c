"""From a run's predictions to the server's file and to the official score, through the commands."""

import gzip
import json
import shutil

import pytest
from fabricated import Root
from pyarrow import parquet
from typer.testing import CliRunner

from vltune import __version__
from vltune.cli import app
from vltune.data.shapes.vqav2 import write_raw
from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.experiment.outcome import missing_scores
from vltune.metrics.vqa import normalise
from vltune.records import record as records
from vltune.results.submission import answers
from vltune.tasks.vqa import VQA

TEST, DEV = "v2_OpenEnded_mscoco_test2015_questions.json", "v2_OpenEnded_mscoco_test-dev2015_questions.json"
HUGE = 2**40 + 1  # beyond int32


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw(folder, seed=5, images={"train": 2, "val": 6, "test": 8})
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Root(tmp_path / "results")


def listed(file, key):
    return json.loads(file.read_text())[key]


def predicted(root, test=(), val=(), **fields):
    """A record with predictions (id, answer) beside it, which were not scored."""
    fields = {"metrics": {"val": None, "test": None}} | fields
    file = root.add(**fields)
    splits = {
        split: [{"id": id, "prediction": answer, "score": None} for id, answer in rows]
        for split, rows in (("val", val), ("test", test))
    }
    write_predictions(file.with_suffix(".parquet"), splits, records.read(file))
    return file


def answered(raw, name=TEST):
    return [
        (question["question_id"], f"answer {number}") for number, question in enumerate(listed(raw / name, "questions"))
    ]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line of an error that a user can mend."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")


def test_predictions_say_whose_they_are(root):
    file = predicted(root, test=[(HUGE, "yes")], seed=3)
    table = parquet.read_table(file.with_suffix(".parquet"))
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == {
        "vltune": __version__,
        "run": "lora-0a1b2c3d-seed0",
        "backbone": "vilt_mini",
        "method": "lora",
        "task": "vqa",
        "dataset": "shapes",
        "seed": "3",
        "hash": "0a1b2c3d",
    }
    assert table.to_pylist() == [{"split": "test", "id": HUGE, "prediction": "yes", "score": None}]


def test_a_whole_test_split(root, raw, tmp_path):
    rows = answered(raw)
    record = predicted(root, test=[*rows[1:], rows[0]], val=[(HUGE, "no")])
    result = invoke("submission", record, "--questions", raw / TEST)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == f"submission-lora-0a1b2c3d-seed0.json: 32 answers, all questions of {TEST}"
    assert second.startswith("upload it to https://eval.ai/")
    written = json.loads((tmp_path / "submission-lora-0a1b2c3d-seed0.json").read_text())
    assert written == [{"question_id": id, "answer": answer} for id, answer in rows], "in the order of the file"


@pytest.mark.parametrize("place", ["the record", "its predictions", "another record", "the questions", "a link"])
def test_what_is_there_is_not_written_over(root, raw, tmp_path, place):
    record, other = (predicted(root, test=answered(raw), seed=seed) for seed in range(2))
    questions = shutil.copy(raw / TEST, tmp_path / "questions.json")
    (tmp_path / "link.json").symlink_to(record)
    places = {
        "the record": record,
        "another record": other,
        "the questions": questions,
        "a link": tmp_path / "link.json",
    }
    out = places.get(place, record.with_suffix(".parquet"))
    before = out.read_bytes()
    assert refused("submission", record, "--questions", questions, "--out", out).endswith("to write")
    assert out.read_bytes() == before


def test_test_dev_is_a_part_only_where_that_is_said(root, raw, tmp_path):
    record = predicted(root, test=answered(raw))
    assert refused("submission", record, "--questions", raw / DEV) == (
        f"{raw / DEV}: lacks 16 of the 32 questions that were predicted, such as 10000, 10001, 10002: "
        "give the file of that split, or --part where it is a part of it (test-dev of test)"
    )
    out = tmp_path / "deep" / "dev.json"
    assert invoke("submission", record, "--questions", raw / DEV, "--part", "--out", out).exit_code == 0
    wanted = [question["question_id"] for question in listed(raw / DEV, "questions")]
    assert [entry["question_id"] for entry in json.loads(out.read_text())] == wanted
    assert len(wanted) == 16


def test_without_the_question_file_it_is_said_what_was_not_checked(root, tmp_path):
    record = predicted(root, test=[(HUGE, "yes"), (7, "no")])
    result = invoke("submission", record)
    assert "2 answers, all questions that the run read\n--questions v2_OpenEnded_mscoco_test2015" in result.stdout
    written = json.loads((tmp_path / "submission-lora-0a1b2c3d-seed0.json").read_text())
    assert written == [{"question_id": HUGE, "answer": "yes"}, {"question_id": 7, "answer": "no"}]


def test_what_was_not_answered_is_named(root, raw):
    rows = answered(raw)
    record = predicted(root, test=rows[2:], bad_examples=["vqav2_test.arrow row 0 image_id 9: broken"])
    assert refused("submission", record, "--questions", raw / TEST) == (
        f"{raw / TEST}: 2 of its 32 questions were not predicted, such as {rows[0][0]}, {rows[1][0]}: "
        "run again on the whole split"
    )
    assert refused("submission", record) == (
        f"{record}: 1 examples could not be read, such as vqav2_test.arrow row 0 image_id 9: broken: "
        "say with --questions which must be answered"
    )
    trial = predicted(root, test=rows, seed=1, config={"engine": {"eval_examples": 32}})
    assert refused("submission", trial) == (
        f"{trial}: a trial with engine.eval_examples=32: say with --questions which must be answered"
    )


def test_a_question_twice_is_refused(root):
    record = predicted(root, test=[(7, "yes"), (8, "no"), (7, "no")])
    assert refused("submission", record) == (
        f"{record.with_suffix('.parquet')}: answers 1 questions of test twice, such as 7: "
        "run again with dataset.test of files that share none"
    )


def test_records_without_answers_are_refused(root):
    nlvr2 = predicted(root, task="nlvr2", test=[(0, "True")])
    assert refused("submission", nlvr2) == f"{nlvr2}: a record of nlvr2, which answers no questions"
    numbered = predicted(root, submission=VQA(4, 4, ["0", "1"]).submission, test=[(7, "1")], seed=9)
    assert refused("submission", numbered) == (
        f"{numbered}: its data knows answers by number alone, which no server does: run it on what `vltune prepare` "
        "makes of the official files"
    )
    failed = root.fail(seed=1)
    assert refused("submission", failed) == f"{failed}: the run is failed: only a finished one has predictions"
    bare = root.add(seed=2)
    beside = bare.with_suffix(".parquet")
    again = "run its command again with force=true"
    assert refused("submission", bare) == f"{beside}: the predictions of this record are not here: {again}"
    beside.write_text("a pointer, perhaps")
    assert refused("submission", bare).startswith(f"{beside}: no file of predictions (")
    val = predicted(root, val=[(7, "yes")], seed=3)
    assert refused("submission", val) == (
        f"{val.with_suffix('.parquet')}: holds no predictions of test: run again with engine.evaluate=[val,test]"
    )
    assert refused("submission", root.folder / "none.json").startswith(f"{root.folder}/none.json: cannot be read (")


FIRST = "number 1 of its questions is not as published"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"questions": [{"question_id": 7}, {"que', "broken JSON after 1 of its questions ("),
        ("", "an empty file, no JSON of questions: download or copy it again"),
        ('{"annotations": []}', 'holds no questions (it holds "annotations"): give the official file of them'),
        ('{"questions": [{"image_id": 7}]}', "number 1 of its questions is not as published (lacks 'question_id'): "),
        ('{"questions": [7]}', "number 1 of its questions is not as published ("),
        ('{"questions": []}', "holds no questions: give the official file of them"),
        ('{"questions": {}}', "holds no questions (its questions is no list): give the official file of them"),
        ("[]", "a text that begins with [], no JSON of questions: fetch it again"),
        ("questions", "a text that begins with questions, no JSON of questions: fetch it again"),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the data itself, no JSON of questions: ",
        ),
        ("<html>", "a web page, not the file itself, no JSON of questions: download it again"),
        ('{"questions": [{"question_id": 7}], "questions": []}', "broken JSON after 1 of its questions (it holds q"),
        ('{"questions": [{"question_id": 8, "question_id": 7}]}', f'{FIRST} (it holds "question_id" twice): '),
        ('{"questions": ' + "[" * 10**5, "broken JSON after 0 of its questions (it is nested too deeply): "),
        ('{"questions": [{"question_id": ' + "9" * 5000, "broken JSON after 0 of its questions (a number of too many"),
        ('{"questions": ["caf\xe9"]}'.encode("latin-1"), "broken JSON after 0 of its questions (it is not in UTF-8): "),
        ('{"questions": [{"question_id": 7}, {"question_id": 7}]}', "number 2 of its questions is not as published (7"),
        *(
            (
                f'{{"questions": [{{"question_id": {id}}}]}}',
                f"{FIRST} (question_id is {id.replace('1e3', '1000.0')}, no",
            )
            for id in ('"7"', "7.0", "true", "null", "-1", "9223372036854775808", "[7]", "1e3")
        ),
    ],
)
def test_a_wrong_question_file(root, tmp_path, content, said):
    (tmp_path / "questions.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    record = predicted(root, test=[(7, "yes")])
    assert refused("submission", record, "--questions", "questions.json").startswith(f"questions.json: {said}")
    assert not list(tmp_path.glob("submission*")), "nothing is written"


def test_a_byte_order_mark_is_no_part_of_an_official_file(root, raw, tmp_path):
    marked = tmp_path / TEST
    marked.write_bytes(b"\xef\xbb\xbf" + (raw / TEST).read_bytes())
    assert invoke("submission", predicted(root, test=answered(raw)), "--questions", marked).exit_code == 0


def test_an_official_file_that_was_not_unpacked_is_told(root, tmp_path):
    (tmp_path / "questions.json").write_bytes(gzip.compress(b"{}"))
    record = predicted(root, test=[(7, "yes")])
    assert refused("submission", record, "--questions", "questions.json") == (
        "questions.json: a gzip archive, no JSON of questions: unpack it (gunzip, or tar -xzf)"
    )


@pytest.mark.parametrize("command", ["submission", "score"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(7, None), (8, None)], "4 of 4 rows have no prediction"),
        ([(7, "yes"), (None, "no")], "2 of 4 rows have no id"),
    ],
)
def test_answers_that_are_none_are_refused(root, raw, tmp_path, command, rows, said):
    record = predicted(root, test=rows, val=rows)
    file = raw / ("v2_mscoco_val2014_annotations.json" if command == "score" else TEST)
    option = "--annotations" if command == "score" else "--questions"
    assert refused(command, record, option, file) == (
        f"{record.with_suffix('.parquet')}: no file of predictions ({said}): restore it or run again"
    )
    assert not list(tmp_path.glob("submission*"))


@pytest.mark.parametrize("command", [["submission"], ["score", "--annotations", "none.json"]])
def test_answers_of_a_run_whose_score_they_contradict_are_refused(root, command):
    record = root.add(metrics={"val": {"vqa_score": 60.0}, "test": None})
    rows = {split: [{"id": 7, "prediction": "yes", "score": 0.3}] for split in ("val", "test")}
    write_predictions(record.with_suffix(".parquet"), rows, records.read(record))
    name, *options = command
    assert "field 'metrics.val.vqa_score' is 60.00, its predictions give 30.00" in refused(name, record, *options)


ANNOTATION = {
    "question_id": 7,
    "answers": [{"answer": "yes", "answer_id": number} for number in range(1, 11)],
    "answer_type": "yes/no",
    "question_type": "is the",
}


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ([ANNOTATION | {"answers": []}], "no answers"),
        ([ANNOTATION | {"answers": None}], "answers is null, no list"),
        ([ANNOTATION | {"answers": ["yes"] * 10}], 'answer 1 is "yes", no object'),
        ([ANNOTATION | {"answers": [{"answer": "yes", "answer_id": None}]}], "answer 1 has answer_id null"),
        ([None], "null, no object"),
        ([ANNOTATION | {"answers": [{"answer": 7, "answer_id": 1}]}], "answer 1 is 7, no text"),
        ([ANNOTATION | {"answers": [{"answer": None, "answer_id": 1}]}], "answer 1 is null, no text"),
        ([ANNOTATION | {"answers": [{"answer": "yes"}] * 10}], "answer 1 lacks answer_id"),
        ([ANNOTATION | {"answers": [{"answer": "yes", "answer_id": 1}] * 2}], "answer_id 1 stands there twice"),
        ([ANNOTATION | {"answers": [{"answer_id": 1}]}], "lacks 'answer'"),
        ([ANNOTATION | {"answer_type": None}], "answer_type is null, no text"),
        ([ANNOTATION | {"question_type": 3}], "question_type is 3, no text"),
        ([ANNOTATION | {"question_id": "7"}], 'question_id is "7", no whole number from 0 to 9223372036854775807'),
        ([ANNOTATION | {"question_id": True}], "question_id is true, no whole number"),
        ([ANNOTATION | {"question_id": 2**63}], "question_id is 9223372036854775808, no whole number"),
        ([{key: value for key, value in ANNOTATION.items() if key != "answer_type"}], "lacks 'answer_type'"),
        ([ANNOTATION | {"question_id": 8}, ANNOTATION, ANNOTATION], "7 stands there twice"),
    ],
)
def test_an_annotation_that_is_not_as_published_is_named(root, tmp_path, annotations, said):
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    record = predicted(root, val=[(7, "yes")])
    told = refused("score", record, "--annotations", "annotations.json")
    assert told.startswith(
        f"annotations.json: number {len(annotations)} of its annotations is not as published ({said}"
    )


def test_another_split_than_there_is(root):
    record = predicted(root, val=[(7, "yes")])
    assert refused("score", record, "--annotations", "a.json", "--split", "dev") == "--split dev: use val or test"


def by_hand(answer, humans):
    """The official rule over the ten groups of nine."""
    if len(set(humans)) > 1:
        answer, humans = normalise(answer), [normalise(human) for human in humans]
    others = [humans[:left_out] + humans[left_out + 1 :] for left_out in range(10)]
    return sum(min(nine.count(answer) / 3, 1) for nine in others) / 10


def test_the_official_score_of_generated_questions(root, raw):
    """On the toy world's own annotations: every question gets its rarest answer, in capitals where humans differ."""
    file = raw / "v2_mscoco_val2014_annotations.json"
    accuracies, rows = {}, []
    for entry in listed(file, "annotations"):
        humans = [human["answer"] for human in entry["answers"]]
        rarest = min(humans, key=humans.count)
        answer = f"The {rarest.upper()}" if len(set(humans)) > 1 else rarest
        rows.append((entry["question_id"], answer))
        for kind in ("overall", f"answer type: {entry['answer_type']}", f"question type: {entry['question_type']}"):
            accuracies.setdefault(kind, []).append(by_hand(answer, humans))
    record = predicted(root, val=rows)
    result = invoke("score", record, "--annotations", file)
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == "lora-0a1b2c3d-seed0, val: 24 of 24 annotated questions were answered"
    shown = {name.strip(): float(value) for name, value in (line.rsplit(maxsplit=1) for line in lines)}
    assert shown == {kind: round(100 * sum(of) / len(of), 2) for kind, of in accuracies.items()}
    assert 0 < shown["overall"] < 100

    some = predicted(root, val=rows[:3], seed=1)
    assert "val: 3 of 24 annotated" in invoke("score", some, "--annotations", file).stdout
    other = predicted(root, val=[*rows, (HUGE, "yes")], seed=2)
    assert refused("score", other, "--annotations", file) == (
        f"{file}: lacks 1 of the 25 questions of val that were answered, such as {HUGE}: "
        "give the annotations of that split, or the other --split"
    )
    assert refused("score", record, "--annotations", raw / TEST).startswith(
        f'{raw / TEST}: holds no annotations (it holds "info", '
    )


def test_a_run_says_which_split_has_no_published_answers(tmp_path):
    config = {"engine": {"evaluate": ["val", "test"]}, "dataset": {"val": ["vqav2_rest_val"], "test": ["vqav2_test"]}}
    record = {"config": config, "metrics": {"val": {"vqa_score": 60.0}, "test": None}}
    file = tmp_path / "apt.json"
    assert missing_scores(record, file) == (
        f"\ntest has no score: its answers are not published; vltune submission {file} writes what the server scores"
    )
    assert missing_scores(record | {"submission": "numbered_answers"}, file) == (
        "\ntest has no score: its answers are not published; the data knows answers by number alone, which no server scores"
    )
    of_no_server = record | {"scores": [{"name": "absolute_error", "unit": "points"}]}
    assert missing_scores(of_no_server, file) == (
        f"\ntest has no score: its answers are not published; its predictions lie beside {file}, in no form of a server's"
    )
    assert missing_scores(of_no_server | {"submission": "answers"}, file) == missing_scores(record, file)
    config["dataset"]["test"] = []
    assert missing_scores(record, file) == ""


def test_a_folder_of_records_is_told_to_be_none(tmp_path):
    with pytest.raises(UserError, match="is a folder, no JSON: give a record in it"):
        answers(tmp_path, "test")
