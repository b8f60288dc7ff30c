"""What reads predictions says of packed ones, to the byte, what it says of each run's own file."""

import shutil
from itertools import product

import presented
import pytest
from fabricated import Root
from presented import METHODS, report
from test_html import QUESTIONS, World, answered, mistakes, predict
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.experiment.judge import wanted
from vltune.loggers import sample
from vltune.records import packed, predictions, store
from vltune.records import record as records
from vltune.records.pack import pack
from vltune.results import findings, submission
from vltune.results.compare import match, text
from vltune.results.html import page
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.task import RowColumn


def fill(root):
    """Runs of three methods and three seeds on questions, on statements and on captions."""
    for (number, method), seed in product(enumerate(("full", "lora", "apt")), range(3)):
        wrong = mistakes(number, seed)
        of = {"method": method, "seed": seed, "config": {"method": {"name": method}, "engine": {"lr": 1e-3}}}
        right = 100 - 100 * len(wrong) / len(QUESTIONS)
        file = root.add(right, **of)
        predict(file, file.read_text(), answered(wrong))
        file = root.add(metrics={"val": None, "test": {"accuracy": right}}, task="nlvr2", **of)
        rows = [
            {"id": id, "prediction": said, "score": score, "sentence": id // 4000, "pair": str(id % 7000)}
            for id, said, score in answered(wrong)
        ]
        write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), NLVR2.columns)
        rows = [
            {"id": id // 1000, "prediction": f"{of} {id % 3}", "score": score or 0.2, "target": of}
            for of in ("image", "caption")
            for id, _, score in answered(wrong)
        ]
        scores = Retrieval(4).figures(rows)
        file = root.add(metrics={"val": None, "test": scores}, task="retrieval", **of)
        write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), Retrieval.columns)
    root.fail(method="mona")


@pytest.fixture
def folders(tmp_path):
    """The same runs in a folder of the same name, as they were written and packed."""
    for place in ("own", "packed"):
        fill(Root(tmp_path / place / "results"))
    found = list(pack(tmp_path / "packed" / "results", pytest.fail))
    assert [each.runs for each in found] == [9, 9, 9]
    assert len(list((tmp_path / "packed").rglob("*.parquet"))) == 3
    return tmp_path / "own", tmp_path / "packed"


def tables(root):
    """What `vltune report` writes of them, but for figures, which show no more; and the notes below."""
    built = report("mini", root / "results", root / "out", ("md", "tex", "csv", "html"), lambda config, split: World())
    files = {file.relative_to(root): file.read_bytes() for file in (root / "out").rglob("*") if file.is_file()}
    return files, [table.notes for table in built]


def power(root):
    done = CliRunner().invoke(app, ["power", "mini", "--results-dir", str(root / "results")])
    assert done.exit_code == 0
    assert "NLVR2, %     40 x 3" in done.output
    return done.output


def compared(root):
    """With runs of which one answers otherwise."""
    other = Root(root / "other")
    shutil.copytree(root / "results", other.folder)
    wrong = mistakes(1, 4)
    file = other.add(100 - 100 * len(wrong) / len(QUESTIONS), method="full", seed=0)
    predict(file, file.read_text(), answered(wrong))
    found = match.compare(root / "results", other.folder, METHODS)
    assert any(row.chance for row in found.rows)
    assert len([row for row in found.rows if row.predictions and row.predictions.common]) == 9
    return text.TEXT["json"](found).replace(str(root), "")


def submitted(root):
    (file,) = (root / "results").rglob("vqa-shapes/lora*seed1.json")
    return submission.answers(file, "test")


def sampled(root):
    found = [sample.saved(file.with_suffix(".parquet"), records.read(file)) for file in sorted(root.rglob("*.json"))]
    assert len([each for each in found if each]) == 27
    return found


READERS = [tables, power, compared, submitted, sampled, lambda root: findings.written(root / "results", METHODS)]


@pytest.mark.parametrize("reader", READERS)
def test_what_reads_them_says_the_same(folders, reader):
    own, pack = map(reader, folders)
    assert own == pack


def test_rows_that_are_another_run_s_by_now_are_as_if_not_there(folders):
    """In tables, where they were tested before."""
    own, pack = folders
    for root in folders:
        (file,) = (root / "results").rglob("vqa-shapes/apt*seed2.json")
        file.with_suffix(".parquet").unlink(missing_ok=True)
        file.write_text(file.read_text().replace("2025-01-01T00", "2026-01-01T00"))
    assert tables(own) == tables(pack)
    assert "no predictions there" in str(tables(pack))


def test_a_damaged_pack_is_told_below_the_table_once(folders):
    _, root = folders
    (file,) = (root / "results").rglob(f"vqa-shapes/{packed.PACK}")
    file.write_bytes(file.read_bytes()[:-9])
    table = presented.build("vilt_mini", root / "results")
    (line,) = (line for line in table.broken if packed.PACK in line)
    assert f"vqa-shapes/{packed.PACK}: no file of predictions" in line
    (untested,) = (note for note in table.notes if note.startswith("Rows not tested"))
    assert "VQA, % 2 of 2 (records/vilt_mini/vqa-shapes/predictions.parquet: no file of predictions" in untested
    assert len(store.load(root / "results", lambda error: None)) == 28


def test_pictures_and_packs_in_one_folder(tmp_path):
    """Predictions that name pictures stay beside them, and are found there by what shows and judges them."""
    root = Root(tmp_path / "results")
    fill(root)
    file = root.add(60.0, method="adapter")
    (file.with_suffix("") / "test").mkdir(parents=True)
    (file.with_suffix("") / "test" / "7.png").write_bytes(b"\x89PNG")
    row = {"id": 7, "prediction": "a box", "score": 0.6, "picture": "test/7.png", "about": "subject", "seed": 0}
    columns = [RowColumn("picture", "image"), RowColumn("about", "text"), RowColumn("seed", "number")]
    write_predictions(file.with_suffix(".parquet"), {"test": [row]}, records.read(file), columns)
    assert sum(each.pictures for each in pack(root.folder, pytest.fail)) == 1
    assert [each["picture"] for each in predictions.pictures(file.with_suffix(".parquet"))] == ["test/7.png"]
    assert [each.id for each in wanted(file, records.read(file), "test")] == [7]
    assert b"a box" in page("vilt_mini", [presented.build("vilt_mini", root.folder)])
