"""Scores that a person typed and official files of VQA, with anything in them: used, or refused in one line."""

import json

from fabricated import Root
from hypothesis import given
from hypothesis import strategies as st
from odd_values import fuzzed, hostile, leaves, mutated, ways
from predicted import predicted
from presented import report
from typer.testing import CliRunner

from vltune.cli import app
from vltune.errors import UserError

TYPED = """\
- run: lora-0a1b2c3d-seed0
  metric: vqa_test_dev
  value: 070
  source: EvalAI, 2026-11-20
  by: A. N. Other
"""
MARKS = ("\n", ": ", "- ", "&a ", "*a", "!!int ", "'", "[", "{", "#", "---")


@given(data=st.data())
@fuzzed
def test_odd_typed_scores(data, tmp_path_factory):
    root = Root(tmp_path_factory.mktemp("typed"))
    root.add(backbone="vilt", dataset="vqav2", metrics={"val": None, "test": None})
    file = root.folder / "external" / data.draw(st.sampled_from(["a.yaml", "a.YML", "a.txt", "a", ".yaml"]))
    file.parent.mkdir()
    text = TYPED
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(st.text(max_size=4) | st.sampled_from(MARKS))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 8)) :]
    file.write_bytes(text.encode("utf-8", "replace"))
    try:
        (table,) = report("vilt", root.folder, root.folder / "out", ("md", "csv"))
    except UserError as error:
        assert str(file) in str(error)
    else:
        score = next(row for row in table.rows if row.method == "lora").cells["vqa_test_dev"]
        hidden = file.name.startswith(".")
        assert hidden or score.typed == 1 or any(file.name in line for line in table.broken)
        assert score.mean is None or 0 <= score.mean <= 100


IDS = range(0, 6000, 1000)
ANNOTATIONS = {
    "annotations": [
        {
            "question_id": id,
            "answers": [{"answer": "red", "answer_id": number} for number in range(1, 11)],
            "answer_type": "other",
            "question_type": "what",
        }
        for id in IDS
    ]
}
QUESTIONS = {"questions": [{"question_id": id, "question": "what?"} for id in IDS]}


@given(data=st.data())
@fuzzed
def test_odd_official_files(data, tmp_path_factory):
    root = Root(tmp_path_factory.mktemp("official"))
    record = root.add(metrics={"val": None, "test": None})
    predicted(record.with_suffix(".parquet"), [(split, id, "red", None) for split in ("val", "test") for id in IDS])
    command, content = data.draw(st.sampled_from([("score", ANNOTATIONS), ("submission", QUESTIONS)]))
    content = json.loads(json.dumps(content))
    for _ in range(data.draw(st.integers(0, 2))):
        mutated(content, data.draw(st.sampled_from(leaves(content))), data.draw(ways), data.draw(hostile))
    file, out = root.folder / "official.json", root.folder / "out.json"
    whole = json.dumps(content).encode()
    cut = data.draw(st.sampled_from([None, None, None, len(whole) // 2, 3, 0]))
    file.write_bytes(data.draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\x1f\x8b", b"\xff"])) + whole[:cut])
    options = ["--annotations", str(file)] if command == "score" else ["--questions", str(file), "--out", str(out)]
    done = CliRunner().invoke(app, [command, str(record), *options])
    assert done.exit_code in (0, 2), done.exception
    if done.exit_code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert not out.exists()
    elif command == "score":
        assert "6 of 6 annotated" in done.stdout
    else:
        assert [entry["question_id"] for entry in json.loads(out.read_text())] == [*IDS]
