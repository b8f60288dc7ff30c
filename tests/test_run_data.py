"""Every data set as its authors publish it: prepared, checked, trained on and scored; the same from ViLT's own files."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hydra import compose, initialize_config_dir
from pyarrow import parquet
from safetensors.torch import load_file
from typer.testing import CliRunner

from vltune import experiment
from vltune.cli import app
from vltune.data.arrow import open_table, write_table
from vltune.data.shapes import karpathy, nlvr2, snli_ve, vqav2
from vltune.data.vqav2 import prepare as prepare_vqav2
from vltune.evaluators import evaluate
from vltune.records import record as records

ROOT = Path(__file__).parents[1]
QUICK = ["engine.max_steps=3", "engine.batch_size=4", "engine.eval_batch_size=32"]
HELD_OUT = 8  # validation images that are kept out of training, where the real VQAv2 has 1,000


def load(file):
    return json.loads(file.read_text())


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_vqav2(raw):
    """The official test has no annotations."""
    vqav2.write_raw(raw, images={"train": 40, "val": 20, "test": 12})
    (raw / "v2_mscoco_test2015_annotations.json").unlink()


def write_nlvr2(raw):
    """With the sets that were published later: every third statement is in the balanced one, the others are unbalanced."""
    nlvr2.write_raw(raw, images={"train": 8, "val": 4, "test": 8})
    for split in ("dev", "test1"):
        statements = (raw / "data" / f"{split}.json").read_text().splitlines(keepends=True)
        for which, chosen in (
            ("balanced", statements[::-3]),
            ("unbalanced", statements[-2::-3] + statements[-3::-3]),
        ):
            (raw / "data" / which).mkdir(exist_ok=True)
            (raw / "data" / which / f"{which}_{split}.json").write_text("".join(chosen))


def write_f30k(raw):
    karpathy.write_raw(raw, images={"train": 8, "val": 4, "test": 6})


def write_coco(raw):
    """Images of train2014 for train, of val2014 for the three others; words that the small vocabulary lacks."""
    karpathy.write_raw(raw, images={"train": 8, "val": 5, "test": 10})
    described = load(raw / "dataset_flickr30k.json")["images"]
    for number, image in enumerate(described):
        image["split"] = "restval" if image["split"] == "train" and number % 2 else image["split"]
        image["filepath"] = "train2014" if image["split"] == "train" else "val2014"
        file = raw / "flickr30k-images" / image["filename"]
        image["filename"] = f"COCO_{image['filepath']}_{number:012d}.jpg"
        (raw / image["filepath"]).mkdir(exist_ok=True)
        file.rename(raw / image["filepath"] / image["filename"])
        for sentence in image["sentences"]:
            sentence["raw"] = f"A photograph of {sentence['raw']}."
    (raw / "dataset_coco.json").write_text(json.dumps({"images": described, "dataset": "coco"}))


def write_snli_ve(raw):
    snli_ve.write_raw(raw, images={"train": 8, "val": 4, "test": 4})


def released_vqav2(raw):
    """-> file -> its columns.  As `write_vqa.py`: answers by their place in a vocabulary that no file holds."""

    def answers_of(split):
        return {a["question_id"]: a for a in load(raw / f"v2_mscoco_{split}_annotations.json")["annotations"]}

    annotations = answers_of("train2014") | answers_of("val2014")
    counts = Counter(annotation["multiple_choice_answer"] for annotation in annotations.values())
    words = [word for word, count in counts.items() if count >= 9]
    tables = {}
    for split, folder in (("train", "train2014"), ("val", "val2014"), ("test", "test2015")):
        images = defaultdict(list)
        for question in load(raw / f"v2_OpenEnded_mscoco_{folder}_questions.json")["questions"]:
            humans = annotations.get(question["question_id"], {"answers": []})["answers"]
            given = Counter(human["answer"] for human in humans if human["answer"] in words)
            if given or split == "test":
                images[question["image_id"]].append((question["question_id"], question["question"], given))
        table = defaultdict(list)
        for image, asked in sorted(images.items()):
            ids, questions, given = zip(*asked, strict=True)
            given = () if split == "test" else given
            table["image"].append((raw / folder / f"COCO_{folder}_{image:012d}.jpg").read_bytes())
            table["questions"].append(list(questions))
            table["answers"].append([list(counts) for counts in given])
            table["answer_labels"].append([[words.index(word) for word in counts] for counts in given])
            table["answer_scores"].append([[[0.3, 0.6, 0.9, 1.0][min(n, 4) - 1] for n in c.values()] for c in given])
            table["image_id"].append(image)
            table["question_id"].append(list(ids))
            table["split"].append(split)
        tables[f"vqav2_{split}"] = table
    val = tables["vqav2_val"]
    tables["vqav2_trainable_val"] = {name: values[:-HELD_OUT] for name, values in val.items()}
    tables["vqav2_rest_val"] = {name: values[-HELD_OUT:] for name, values in val.items()}
    return tables


def released_nlvr2(raw):
    """As `write_nlvr2.py`."""
    tables = {}
    for split in ("train", "dev", "test1"):
        pairs = defaultdict(list)
        for entry in lines(raw / "data" / f"{split}.json"):
            pairs["-".join(entry["identifier"].split("-")[:-1])].append(entry)
        table = defaultdict(list)
        for pair, entries in pairs.items():
            folder = raw / f"images/train/{entries[0]['directory']}" if split == "train" else raw / split
            for side in range(2):
                table[f"image_{side}"].append((folder / f"{pair}-img{side}.png").read_bytes())
            table["questions"].append([entry["sentence"] for entry in entries])
            table["answers"].append([entry["label"] for entry in entries])
            table["identifier"].append(pair)
        tables[f"nlvr2_{split}"] = table
    return tables


def released_karpathy(raw, name, splits):
    """As `write_f30k_karpathy.py` and `write_coco_karpathy.py` of ViLT."""
    tables = {f"{name}_caption_karpathy_{split}": defaultdict(list) for split in splits}
    for image in load(next(raw.glob(f"dataset_{'coco' if name == 'coco' else 'flickr30k'}.json")))["images"]:
        table = tables[f"{name}_caption_karpathy_{image['split']}"]
        folder = image.get("filepath", "flickr30k-images")
        table["image"].append((raw / folder / image["filename"]).read_bytes())
        table["caption"].append([sentence["raw"] for sentence in image["sentences"]])
        table["image_id"].append(image["filename"])
        table["split"].append(image["split"])
    return tables


def released_f30k(raw):
    return released_karpathy(raw, "f30k", ("train", "val", "test"))


def released_coco(raw):
    return released_karpathy(raw, "coco", ("train", "restval", "val", "test"))


def released_snli_ve(raw):
    """As `write_snli.py` of METER."""
    tables = {}
    for split in ("train", "dev", "test"):
        table = tables[f"snli_{split}"] = defaultdict(list)
        place = {}
        for entry in lines(raw / f"snli_ve_{split}.jsonl"):
            image = entry["Flickr30K_ID"]
            if image not in place:
                place[image] = len(place)
                table["image"].append((raw / "flickr30k-images" / f"{image}.jpg").read_bytes())
                table["sentences"].append([])
                table["labels"].append([])
            label = ["contradiction", "neutral", "entailment"].index(entry["gold_label"])
            table["sentences"][place[image]].append([entry["sentence1"], entry["sentence2"]])
            table["labels"][place[image]].append(label)
    return tables


def write_as_pandas_does(file, columns):
    """`pa.Table.from_pandas(pd.DataFrame(columns))` in one `write_table`: the types that pyarrow infers, and metadata."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    rows = len(next(iter(arrays.values())))
    about = {
        "index_columns": [{"kind": "range", "name": None, "start": 0, "stop": rows, "step": 1}],
        "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}],
        "columns": [{"name": name, "field_name": name, "numpy_type": "object", "metadata": None} for name in arrays],
        "creator": {"library": "pyarrow", "version": "1.0.1"},
        "pandas_version": "1.1.5",
    }
    table = pa.table(arrays).replace_schema_metadata({"pandas": json.dumps(about)})
    with pa.OSFile(str(file), "wb") as sink, pa.RecordBatchFileWriter(sink, table.schema) as writer:
        writer.write_table(table)


# data set -> how it is written raw and as released, the task, the backbone, the metrics
RECALLS = {f"{way}_r{k}" for way in ("ir", "tr") for k in (1, 5, 10)} | {"r1"}
DATA = {
    "vqav2": (write_vqav2, released_vqav2, "vqa", "meter_mini", {"vqa_score"}),
    "nlvr2": (write_nlvr2, released_nlvr2, "nlvr2", "vilt_mini", {"accuracy", "consistency", "pair_consistency"}),
    "f30k": (write_f30k, released_f30k, "retrieval", "meter_mini", RECALLS),
    "coco": (write_coco, released_coco, "retrieval", "vilt_mini", RECALLS | {f"{name}_1k" for name in RECALLS}),
    "snli_ve": (write_snli_ve, released_snli_ve, "snli_ve", "meter_mini", {"accuracy"}),
}


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raws")
    for name, (write, *_) in DATA.items():
        (folder / name).mkdir()
        write(folder / name)
    return folder


def vltune(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def prepared(raws, name, out, monkeypatch):
    monkeypatch.setattr(prepare_vqav2, "_HELD_OUT", HELD_OUT)
    done = vltune("prepare", name, "--raw", raws / name, "--out", out)
    assert done.exit_code == 0, done.stderr
    checked = vltune("check", out)
    assert (checked.exit_code, checked.stdout.splitlines()[-1]) == (0, "all is well"), checked.stdout
    return out


def trained(name, data_dir, *more):
    """-> the record of a run as a user starts it, its predictions of the test split, and what it tuned."""
    *_, task, backbone, _ = DATA[name]
    choices = [f"dataset={name}", f"task={task}", f"backbone={backbone}", f"dataset.data_dir={data_dir}"]
    folders = [f"results_dir={data_dir}/results", f"engine.features_dir={data_dir}/features"]
    overrides = [*choices, *folders, *QUICK, *more]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("run", overrides)
    file = Path(experiment.run(config, overrides))
    rows = parquet.read_table(file.with_suffix(".parquet")).to_pylist()
    tuned = load_file(file.with_suffix(".safetensors"))
    return records.read(file), [row for row in rows if row.pop("split") == "test"], tuned


@pytest.mark.parametrize("name", DATA)
def test_raw_files_are_prepared_checked_and_trained_on_and_so_are_released_ones(name, raws, tmp_path, monkeypatch):
    """Training and predictions are the same: labels, texts and images are, and their order is."""
    _, released, *_, figures = DATA[name]
    ours = prepared(raws, name, tmp_path / "ours", monkeypatch)
    record, rows, tuned = trained(name, ours)
    assert record["status"] == "finished"
    assert set(record["metrics"]["val"]) == figures
    assert all(0 <= value <= 100 for value in record["metrics"]["val"].values())
    assert record["cost"]["train_step_ms"]["median"] > 0

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for stem, columns in released(raws / name).items():
        write_as_pandas_does(theirs / f"{stem}.arrow", columns)
    checked = vltune("check", theirs)
    assert (checked.exit_code, checked.stdout.splitlines()[-1]) == (0, "all is well"), checked.stdout
    answers = json.loads((ours / "manifest.json").read_text()).get("answers", [])
    again, same_rows, same_tuned = trained(name, theirs, *([f"dataset.answers={len(answers)}"] if answers else []))
    assert again["metrics"] == record["metrics"]
    for row in same_rows if answers else ():
        row["prediction"] = answers[int(row["prediction"])]
    assert same_rows == rows
    torch.testing.assert_close(same_tuned, tuned, rtol=0, atol=0)
    assert {row["id"] for row in rows} == TEST_IDS[name](raws / name)


def vqa_test_ids(raw):
    return {each["question_id"] for each in load(raw / "v2_OpenEnded_mscoco_test2015_questions.json")["questions"]}


TEST_IDS = {
    "vqav2": vqa_test_ids,
    "nlvr2": lambda raw: set(range(len(lines(raw / "data" / "test1.json")))),
    "f30k": lambda raw: set(range(6 * 5)),
    "coco": lambda raw: set(range(10 * 5)),
    "snli_ve": lambda raw: set(range(len(lines(raw / "snli_ve_test.jsonl")))),
}


def share_right(scores):
    """In percent, the groups of equal keys all of whose scores are true."""
    groups = defaultdict(list)
    for key, score in scores:
        groups[key].append(score)
    return 100 * sum(map(all, groups.values())) / len(groups)


def test_a_run_scores_the_balanced_statements_of_nlvr2_alone(raws, tmp_path, monkeypatch):
    data = prepared(raws, "nlvr2", tmp_path / "data", monkeypatch)
    _, whole, _ = trained("nlvr2", data)
    record, rows, _ = trained(
        "nlvr2", data, "dataset.test=[nlvr2_balanced_test1]", "dataset.val=[nlvr2_unbalanced_dev]"
    )

    raw = raws / "nlvr2" / "data"
    named = [(*each["identifier"].rpartition("-"), each["sentence"]) for each in lines(raw / "test1.json")]
    number = {(pair, sentence): number for pair, _, number, sentence in named}
    table = open_table(data / "nlvr2_test1-00000-of-00001.arrow", ["identifier", "questions"]).to_pylist()
    places = [(row["identifier"], text) for row in table for text in row["questions"]]
    identifiers = [f"{pair}-{number[pair, text]}" for pair, text in places]
    chosen = {each["identifier"] for each in lines(raw / "balanced" / "balanced_test1.json")}
    assert rows == [row for row in whole if identifiers[row["id"]] in chosen]
    assert len(rows) == len(chosen) < len(whole)

    right = [(*identifiers[row["id"]].split("-"), row["score"] == 1) for row in rows]
    assert record["metrics"]["test"] == pytest.approx(
        {
            "accuracy": 100 * sum(score for *_, score in right) / len(right),
            "consistency": share_right(((of, sentence), score) for _, of, _, sentence, score in right),
            "pair_consistency": share_right(((of, pair), score) for _, of, pair, _, score in right),
        }
    )


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        (
            "nlvr2",
            ["dataset.test=[nlvr2_balanced_test2]", "engine.cache_features=false"],
            "has no split nlvr2_balanced_test2; manifest.json lists nlvr2_train, nlvr2_dev, nlvr2_test1, "
            "nlvr2_balanced_dev, nlvr2_unbalanced_dev, nlvr2_balanced_test1, nlvr2_unbalanced_test1: choose of these",
        ),
        (
            "f30k",
            ["dataset.train=[coco_caption_karpathy_train]"],
            "has no split coco_caption_karpathy_train; manifest.json lists f30k_caption_karpathy_train, "
            "f30k_caption_karpathy_val, f30k_caption_karpathy_test: choose of these with dataset.train, dataset.val",
        ),
    ],
)
def test_a_split_that_a_prepared_folder_lacks(name, more, message, raws, tmp_path, monkeypatch, capsys):
    data = prepared(raws, name, tmp_path / "data", monkeypatch)
    with pytest.raises(SystemExit) as ended:
        trained(name, data, *more)
    assert ended.value.code == 2
    assert not (data / "results").exists()  # before any work
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"error: {data}: {message}" in line


def test_what_a_record_that_is_scored_again_has_no_score_of_is_told(raws, tmp_path, monkeypatch, capsys):
    """A test split whose answers are not published, of which nothing is computed, and images that cannot be read."""
    ours = prepared(raws, "vqav2", tmp_path / "ours", monkeypatch)
    record, *_ = trained("vqav2", ours)
    (file,) = ours.glob("results/records/**/*.json")
    (shard,) = ours.glob("vqav2_rest_val-*.arrow")
    table = pa.ipc.open_file(shard.read_bytes()).read_all()
    at = table.column_names.index("image")
    broken = pa.array([b"no image", *table["image"].to_pylist()[1:]], table.schema.field(at).type)
    write_table(shard, table.schema, table.set_column(at, table.schema.field(at), broken).to_batches())
    asked, told = [], evaluate.predictions
    monkeypatch.setattr(evaluate, "predictions", lambda of, split: asked.append(split) or told(of, split))
    overrides = ["mode=eval", f"from={file}", "dataset.max_bad_examples=100"]
    capsys.readouterr()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        experiment.run(compose("run", overrides), overrides)
    said = capsys.readouterr()
    assert asked == ["val"]
    assert f"now, {record['metrics']['val']['vqa_score']:.2f} recorded\n" in said.out
    assert (
        f"test has no score: its answers are not published; vltune submission {file} writes what the server" in said.out
    )
    assert re.search(r"\d examples could not be read, such as .*vqav2_rest_val.* row 0", said.err)
